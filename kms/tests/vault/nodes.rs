//! Sealed nodes, standbys, namespaces.

use claviger::FailureClass;
use claviger_kms::{VaultAuth, VaultTransitKms};
use claviger_testkit::{FakeVault, Grant, Trick};

use crate::support::{
    ENCRYPT, LOGIN, ROLE, SECRET, assert_told, assert_works, builder, clock, vault, vault_with_role,
    with_role, with_token, wrap_error,
};

#[tokio::test]
async fn a_sealed_vault_is_a_transient_failure() {
    let vault = vault();
    let kms = with_token(&vault).await;
    for _ in 0..3 {
        assert_works(&kms).await;
        vault.seal();
        assert_told(&wrap_error(&kms).await, FailureClass::Transient, &["503", "Vault is sealed"]);
        vault.unseal();
    }
}

#[tokio::test]
async fn a_vault_that_was_sealed_at_the_login_is_a_transient_failure() {
    let vault = vault_with_role(&Grant::new());
    let kms = with_role(&vault, &clock()).await;
    vault.seal();
    assert_told(&wrap_error(&kms).await, FailureClass::Transient, &["login", "503"]);
    vault.unseal();
    assert_works(&kms).await;
}

#[tokio::test]
async fn standbys_are_followed_to_the_active_node() {
    let active = vault_with_role(&Grant::new());
    let near = active.standby();
    let far = near.standby();
    for (standby, hops) in [(&near, 1), (&far, 2)] {
        active.forget();
        near.forget();
        let kms = with_role(standby, &clock()).await;
        for _ in 0..3 {
            assert_works(&kms).await;
        }
        // The login, three wraps, three unwraps.
        assert_eq!((active.count(""), near.count("")), (7, 7), "{hops}");
        assert_eq!((active.count(LOGIN), active.count(ENCRYPT)), (1, 3), "{hops}");
    }
}

#[tokio::test]
async fn redirects_without_end_are_not_followed() {
    let (one, other) = (FakeVault::start(), FakeVault::start());
    one.redirect_to(&other.url());
    other.redirect_to(&one.url());
    let kms = with_token(&one).await;
    assert_told(&wrap_error(&kms).await, FailureClass::Permanent, &["redirect", "leads to another"]);
    assert_eq!((one.count(""), other.count("")), (2, 1));
}

#[tokio::test]
async fn redirects_elsewhere_are_refused_and_nothing_is_sent_there() {
    let (vault, elsewhere) = (vault(), FakeVault::start());
    let kms = with_token(&vault).await;
    assert_works(&kms).await;
    let url = elsewhere.url();
    let path = "/v1/transit/encrypt/claviger";
    for (location, words) in [
        (format!("{url}/v1/transit/encrypt/other"), "another path"),
        (format!("{url}/evil"), "another path"),
        (format!("{url}/evil{path}"), "another path"),
        (format!("{}{path}", url.replace("http", "https")), "from HTTPS to HTTP or back"),
        (format!("{}{path}", url.replace("http://", "http://user@")), "user or password"),
        (format!("http://192.0.2.1:8200{path}"), "plain HTTP"),
        (format!("{url}{path}?a=b"), "query"),
        (path.to_owned(), "names no host"),
        (String::new(), "redirect"),
    ] {
        let headers = vec![format!("Location: {location}")];
        vault.trick(ENCRYPT, Trick::Answer(307, headers, Vec::new()));
        assert_told(&wrap_error(&kms).await, FailureClass::Permanent, &["redirect", words]);
    }
    vault.trick(ENCRYPT, Trick::Answer(307, Vec::new(), Vec::new()));
    assert_told(&wrap_error(&kms).await, FailureClass::Permanent, &["redirect"]);
    // Others change the method, or are no standby's.
    for status in [301, 302, 303, 308] {
        let headers = vec![format!("Location: {url}{path}")];
        vault.trick(ENCRYPT, Trick::Answer(status, headers, Vec::new()));
        assert_told(&wrap_error(&kms).await, FailureClass::Permanent, &[&status.to_string()]);
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn a_cluster_without_an_active_node_is_a_transient_failure() {
    let vault = vault();
    let standby = vault.standby();
    let kms = with_token(&standby).await;
    assert_works(&kms).await;
    standby.lose_leader();
    assert_told(&wrap_error(&kms).await, FailureClass::Transient, &["500", "active cluster node not found"]);
    standby.redirect_to(&vault.url());
    assert_works(&kms).await;
}

#[tokio::test]
async fn an_active_node_that_is_gone_is_a_transient_failure() {
    let vault = vault();
    let standby = vault.standby();
    let kms = with_token(&standby).await;
    assert_works(&kms).await;
    drop(vault);
    assert_told(&wrap_error(&kms).await, FailureClass::Transient, &["out of reach"]);
}

#[tokio::test]
async fn namespaces_are_told_apart() {
    let vault = FakeVault::start();
    vault.create_key("team-a/transit/claviger");
    vault.create_key("team-b/transit/other");
    for namespace in ["team-a", "team-b"] {
        vault.create_app_role(&format!("{namespace}/approle"), ROLE, SECRET, &Grant::new());
    }
    let open = async |namespace: Option<&str>| {
        let builder = builder(&vault).auth(VaultAuth::app_role(ROLE, SECRET));
        let builder = match namespace {
            Some(namespace) => builder.namespace(namespace),
            None => builder,
        };
        builder.open().await.unwrap()
    };
    assert_works(&open(Some("team-a")).await).await;
    assert_eq!(vault.count("POST team-a:/v1/auth/approle/login"), 1);
    let other = wrap_error(&open(Some("team-b")).await).await;
    assert_told(&other, FailureClass::Permanent, &["400", "encryption key not found", "no transit key"]);
    for namespace in [None, Some("team-c")] {
        let nowhere = wrap_error(&open(namespace).await).await;
        assert_told(&nowhere, FailureClass::Permanent, &["login", "403"]);
    }
}

#[tokio::test]
async fn a_mount_or_a_key_that_is_not_there_is_refused_for_good() {
    let vault = vault();
    let token = vault.create_token(&Grant::new());
    let at = async |mount: &str, key: &str| {
        let kms = VaultTransitKms::builder(vault.url(), key).mount(mount);
        kms.auth(VaultAuth::token(token.clone())).open().await.unwrap()
    };
    assert_works(&at("/transit/", "claviger").await).await;
    let no_mount = wrap_error(&at("elsewhere", "claviger").await).await;
    assert_told(&no_mount, FailureClass::Permanent, &["404", "no handler for route", "nothing is mounted"]);
    let no_key = wrap_error(&at("transit", "clavigre").await).await;
    assert_told(&no_key, FailureClass::Permanent, &["400", "encryption key not found"]);
}
