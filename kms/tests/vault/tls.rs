//! Whom we speak to.

use std::fs;
use std::path::Path;

use claviger::FailureClass;
use claviger_kms::{VaultAuth, VaultTransitKms};
use claviger_testkit::{Direction, FakeVault, Fault, Grant, Proxy, TestCa};

use crate::support::{KEY, assert_told, assert_works, clock, wrap_error};

const HERE: &str = "IP:127.0.0.1";

fn vault(ca: &TestCa) -> FakeVault {
    let vault = FakeVault::start_tls(&ca.issue(HERE));
    vault.create_key(KEY);
    vault
}

async fn open(url: &str, token: &str, ca: Option<&Path>) -> VaultTransitKms {
    let builder = VaultTransitKms::builder(url, "claviger").auth(VaultAuth::token(token)).clock(clock());
    let builder = match ca {
        Some(ca) => builder.ca_file(ca),
        None => builder,
    };
    builder.open().await.unwrap()
}

#[tokio::test]
async fn a_private_authority_is_trusted_when_told_and_then_alone() {
    let (ca, other) = (TestCa::new(), TestCa::new());
    let vault = vault(&ca);
    let token = vault.create_token(&Grant::new());
    let kms = open(&vault.url(), &token, Some(&ca.pem())).await;
    for _ in 0..10 {
        assert_works(&kms).await;
    }
    assert!(vault.connections() <= 3, "{}", vault.connections());
    vault.forget();
    for distrusted in [Some(other.pem()), None] {
        let kms = open(&vault.url(), &token, distrusted.as_deref()).await;
        let error = wrap_error(&kms).await;
        assert_told(&error, FailureClass::Permanent, &["TLS with Vault failed", "invalid peer certificate"]);
    }
    assert_eq!(vault.requests(), [""; 0]);
}

#[tokio::test]
async fn several_authorities_may_lie_in_one_file() {
    let (ca, other) = (TestCa::new(), TestCa::new());
    let vault = vault(&ca);
    let token = vault.create_token(&Grant::new());
    let folder = tempfile::tempdir().unwrap();
    let both = folder.path().join("both.pem");
    fs::write(&both, [fs::read(other.pem()).unwrap(), fs::read(ca.pem()).unwrap()].concat()).unwrap();
    assert_works(&open(&vault.url(), &token, Some(&both)).await).await;
}

#[tokio::test]
async fn another_name_is_refused_for_good() {
    let ca = TestCa::new();
    let vault = FakeVault::start_tls(&ca.issue("DNS:vault.internal"));
    let kms = open(&vault.url(), "token", Some(&ca.pem())).await;
    let error = wrap_error(&kms).await;
    assert_told(&error, FailureClass::Permanent, &["TLS with Vault failed", "not valid for name"]);
    assert_eq!(vault.requests(), [""; 0]);
}

#[tokio::test]
async fn http_and_https_are_not_confused() {
    let ca = TestCa::new();
    let (with_tls, without) = (vault(&ca), crate::support::vault());
    let url = with_tls.url().replace("https", "http");
    let error = wrap_error(&open(&url, "token", None).await).await;
    assert_told(&error, FailureClass::Permanent, &["400"]);
    let url = without.url().replace("http", "https");
    let error = wrap_error(&open(&url, "token", Some(&ca.pem())).await).await;
    assert_told(&error, FailureClass::Permanent, &["TLS with Vault failed"]);
    assert_eq!((with_tls.count(""), without.count("")), (0, 0));
}

#[tokio::test]
async fn a_handshake_that_is_cut_is_a_transient_failure() {
    let ca = TestCa::new();
    let vault = vault(&ca);
    let token = vault.create_token(&Grant::new());
    let proxy = Proxy::start(&vault.address()).await;
    let kms = open(&format!("https://{}", proxy.address()), &token, Some(&ca.pem())).await;
    for after in [0, 1, 50, 200] {
        proxy.set(Fault::Cut { direction: Direction::ToClient, after });
        assert_told(&wrap_error(&kms).await, FailureClass::Transient, &["out of reach"]);
    }
    proxy.set(Fault::None);
    assert_works(&kms).await;
}

#[tokio::test]
async fn a_standby_redirects_to_who_shows_a_certificate_and_nobody_else() {
    let (ca, other) = (TestCa::new(), TestCa::new());
    let active = vault(&ca);
    let token = active.create_token(&Grant::new());
    let standby = active.standby_tls(&ca.issue(HERE));
    let kms = open(&standby.url(), &token, Some(&ca.pem())).await;
    assert_works(&kms).await;
    assert_eq!((standby.count(""), active.count("")), (3, 3));

    let impostor = vault(&other);
    standby.redirect_to(&impostor.url());
    assert_told(&wrap_error(&kms).await, FailureClass::Permanent, &["TLS with Vault failed"]);
    let plain = crate::support::vault();
    standby.redirect_to(&plain.url());
    assert_told(&wrap_error(&kms).await, FailureClass::Permanent, &["from HTTPS to HTTP"]);
    assert_eq!((impostor.count(""), plain.connections()), (0, 0));
}

#[tokio::test]
async fn a_file_that_holds_no_authority_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    let opened = async || {
        let builder = VaultTransitKms::builder("https://vault:8200", "claviger");
        builder.auth(VaultAuth::token("token")).ca_file(&file).open().await
    };
    let name = file.display().to_string();
    assert_told(
        &opened().await.unwrap_err(),
        FailureClass::Permanent,
        &["cannot read", &name, "No such file"],
    );
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let broken = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
    for content in ["", "no certificate", garbage, broken] {
        fs::write(&file, content).unwrap();
        let error = opened().await.unwrap_err();
        assert_told(&error, FailureClass::Permanent, &[&name, "holds no certificates in PEM"]);
    }
}
