//! Logins, renewals and new logins, counted.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use claviger::testing::{FixedClock, call};
use claviger::{BackendError, CallContext, FailureClass, KeyManagementService as _, WrappedKey};
use claviger_kms::{VaultAuth, VaultTransitKms};
use claviger_testkit::{FakeVault, Grant, Trick};
use tokio::task::JoinSet;

use crate::support::{
    DECRYPT, ENCRYPT, LOGIN, LOOK_UP, RENEW, ROLE, SECRET, assert_told, assert_works, builder, clock,
    fresh_key, meta, until, vault, vault_with_role, with_role, wrap_error,
};

const MINUTE: Duration = Duration::from_secs(60);

/// Lets time pass here and there.
fn advance(vault: &FakeVault, clock: &FixedClock, seconds: u64) {
    clock.advance(Duration::from_secs(seconds));
    vault.advance(Duration::from_secs(seconds));
}

/// Makes this many calls at once.
async fn calls(kms: &Arc<VaultTransitKms>, calls: usize) -> JoinSet<Result<WrappedKey, BackendError>> {
    let mut tasks = JoinSet::new();
    for _ in 0..calls {
        let kms = kms.clone();
        tasks.spawn(async move { kms.wrap_key(&fresh_key(), &meta(), &call()).await });
    }
    tasks
}

#[tokio::test]
async fn the_first_call_logs_in_and_no_other_does() {
    let vault = vault_with_role(&Grant::new());
    let kms = with_role(&vault, &clock()).await;
    assert_eq!(vault.requests(), [""; 0]);
    for _ in 0..5 {
        assert_works(&kms).await;
    }
    assert_eq!((vault.count(LOGIN), vault.count(ENCRYPT), vault.count(DECRYPT)), (1, 5, 5));
    assert_eq!(vault.count(""), 11);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_calls_on_an_expired_token_make_one_login() {
    let (vault, clock) = (vault_with_role(&Grant::new().ttl(MINUTE)), clock());
    let kms = Arc::new(with_role(&vault, &clock).await);
    assert_works(&*kms).await;
    for round in 2..=4 {
        advance(&vault, &clock, 61);
        vault.forget();
        let answers = calls(&kms, 64).await.join_all().await;
        assert!(answers.iter().all(Result::is_ok), "{round}");
        assert_eq!((vault.count(LOGIN), vault.count(ENCRYPT)), (1, 64), "{round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_calls_on_a_revoked_token_make_one_login() {
    let (vault, clock) = (vault_with_role(&Grant::new()), clock());
    let kms = Arc::new(with_role(&vault, &clock).await);
    assert_works(&*kms).await;
    vault.revoke_tokens();
    let answers = calls(&kms, 64).await.join_all().await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(vault.count(LOGIN), 2);
}

#[tokio::test]
async fn a_login_that_is_dropped_half_way_is_made_by_the_next() {
    let vault = vault_with_role(&Grant::new());
    let kms = Arc::new(with_role(&vault, &clock()).await);
    vault.trick(LOGIN, Trick::Hang);
    let mut first = calls(&kms, 1).await;
    until(|| vault.hanging() == 1).await;
    let waiting = calls(&kms, 16).await;
    tokio::task::yield_now().await;
    first.abort_all();
    assert!(first.join_next().await.unwrap().unwrap_err().is_cancelled());
    assert!(waiting.join_all().await.iter().all(Result::is_ok));
    assert_eq!(vault.count(LOGIN), 2);
}

#[tokio::test]
async fn those_who_wait_for_a_login_share_its_failure() {
    let vault = vault_with_role(&Grant::new());
    let kms = Arc::new(with_role(&vault, &clock()).await);
    vault.trick(LOGIN, Trick::Hang);
    let tasks = calls(&kms, 64).await;
    until(|| vault.hanging() == 1).await;
    vault.delete_roles();
    vault.release();
    for answer in tasks.join_all().await {
        assert_told(&answer.unwrap_err(), FailureClass::Permanent, &["login", "403"]);
    }
    assert_eq!(vault.count(LOGIN), 1);
    // It is no verdict on those who come later.
    vault.create_app_role("approle", ROLE, SECRET, &Grant::new());
    assert_works(&*kms).await;
}

#[tokio::test]
async fn a_token_is_renewed_two_thirds_into_its_lease() {
    let (vault, clock) = (vault_with_role(&Grant::new().ttl(MINUTE)), clock());
    let kms = with_role(&vault, &clock).await;
    assert_works(&kms).await;
    advance(&vault, &clock, 39);
    assert_works(&kms).await;
    assert_eq!(vault.count(RENEW), 0);
    for renewals in 1..=20 {
        advance(&vault, &clock, if renewals == 1 { 2 } else { 41 });
        assert_works(&kms).await;
        assert_eq!((vault.count(RENEW), vault.count(LOGIN)), (renewals, 1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_call_renews_and_the_others_go_on() {
    let (vault, clock) = (vault_with_role(&Grant::new().ttl(MINUTE)), clock());
    let kms = Arc::new(with_role(&vault, &clock).await);
    assert_works(&*kms).await;
    advance(&vault, &clock, 41);
    vault.trick(RENEW, Trick::Hang);
    let renewing = calls(&kms, 1).await;
    until(|| vault.hanging() == 1).await;
    let others = calls(&kms, 32).await.join_all().await;
    assert!(others.iter().all(Result::is_ok));
    vault.release();
    assert!(renewing.join_all().await.iter().all(Result::is_ok));
    assert_eq!((vault.count(RENEW), vault.count(LOGIN)), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_calls_on_a_token_that_is_due_make_one_renewal() {
    let (vault, clock) = (vault_with_role(&Grant::new().ttl(MINUTE)), clock());
    let kms = Arc::new(with_role(&vault, &clock).await);
    assert_works(&*kms).await;
    for round in 1..=20 {
        advance(&vault, &clock, 41);
        let answers = calls(&kms, 64).await.join_all().await;
        assert!(answers.iter().all(Result::is_ok), "{round}");
        assert_eq!((vault.count(RENEW), vault.count(LOGIN)), (round, 1));
    }
}

#[tokio::test]
async fn a_renewal_that_fails_is_not_the_calls_failure_and_is_tried_again_later() {
    let (vault, clock) = (vault_with_role(&Grant::new().ttl(MINUTE)), clock());
    let kms = with_role(&vault, &clock).await;
    assert_works(&kms).await;
    for trick in [Trick::Fail(503, "sealed".into()), Trick::Close, Trick::Bytes(b"no".to_vec())] {
        advance(&vault, &clock, 41);
        vault.forget();
        vault.always(RENEW, trick);
        assert_works(&kms).await;
        assert_works(&kms).await;
        let tried = vault.count(RENEW);
        assert!(tried == 1 || tried == 2, "a closed connection is tried twice: {tried}");
        vault.heal();
        advance(&vault, &clock, 6);
        assert_works(&kms).await;
        assert_eq!((vault.count(RENEW), vault.count(LOGIN)), (tried + 1, 0));
    }
}

#[tokio::test]
async fn a_renewal_that_hangs_leaves_time_for_the_call() {
    let (vault, clock) = (vault_with_role(&Grant::new().ttl(MINUTE)), clock());
    let kms = builder(&vault).auth(VaultAuth::app_role(ROLE, SECRET)).clock(clock.clone());
    let kms = kms.open().await.unwrap();
    assert_works(&kms).await;
    advance(&vault, &clock, 41);
    vault.trick(RENEW, Trick::Hang);
    kms.wrap_key(&fresh_key(), &meta(), &CallContext::within(Duration::from_secs(4))).await.unwrap();
    assert_eq!(vault.count(RENEW), 1);
}

#[tokio::test]
async fn a_token_at_the_end_of_its_longest_time_is_replaced_before() {
    let grant = Grant::new().ttl(MINUTE).max_ttl(Duration::from_secs(200));
    let (vault, clock) = (vault_with_role(&grant), clock());
    let kms = with_role(&vault, &clock).await;
    for _ in 0..800 {
        assert_works(&kms).await;
        advance(&vault, &clock, 1);
    }
    // No call was denied and made twice.
    assert_eq!((vault.count(ENCRYPT), vault.count(DECRYPT)), (800, 800));
    // Four renewals of a token, then another token: not renewals ever faster.
    assert_eq!((vault.count(LOGIN), vault.count(RENEW)), (5, 20));
}

#[tokio::test]
async fn a_token_that_cannot_be_renewed_is_replaced_before_its_end() {
    let (vault, clock) = (vault_with_role(&Grant::new().ttl(MINUTE).not_renewable()), clock());
    let kms = with_role(&vault, &clock).await;
    for logins in 1..=5 {
        assert_works(&kms).await;
        assert_eq!((vault.count(LOGIN), vault.count(RENEW)), (logins, 0));
        advance(&vault, &clock, 41);
    }
    // When that fails, the old one serves until its end.
    vault.always(LOGIN, Trick::Fail(500, "no".into()));
    assert_works(&kms).await;
    advance(&vault, &clock, 20);
    assert_told(&wrap_error(&kms).await, FailureClass::Transient, &["login", "500"]);
}

#[tokio::test]
async fn a_renewal_that_is_refused_becomes_a_login() {
    let (vault, clock) = (vault_with_role(&Grant::new().ttl(MINUTE).denied("renew-self")), clock());
    let kms = with_role(&vault, &clock).await;
    assert_works(&kms).await;
    advance(&vault, &clock, 41);
    assert_works(&kms).await;
    assert_eq!((vault.count(RENEW), vault.count(LOGIN)), (1, 2));
}

#[tokio::test]
async fn a_denied_call_logs_in_anew_and_is_made_once_more() {
    let (vault, clock) = (vault_with_role(&Grant::new()), clock());
    let kms = with_role(&vault, &clock).await;
    for logins in 1..=5 {
        vault.forget();
        assert_works(&kms).await;
        assert_eq!((vault.count(LOGIN), vault.count(ENCRYPT)), (1, if logins == 1 { 1 } else { 2 }));
        vault.revoke_tokens();
    }
}

#[tokio::test]
async fn tokens_of_few_uses_are_replaced_when_they_are_used_up() {
    let (vault, clock) = (vault_with_role(&Grant::new().uses(3)), clock());
    let kms = with_role(&vault, &clock).await;
    for _ in 0..20 {
        assert_works(&kms).await;
    }
    assert_eq!(vault.count(LOGIN), 14);
}

#[tokio::test]
async fn a_policy_that_denies_is_told_and_not_answered_with_a_storm_of_logins() {
    let (vault, clock) = (vault_with_role(&Grant::new().denied("encrypt")), clock());
    let kms = with_role(&vault, &clock).await;
    assert_told(&wrap_error(&kms).await, FailureClass::Permanent, &["encrypt", "403", "permission denied"]);
    assert_eq!((vault.count(LOGIN), vault.count(ENCRYPT)), (2, 2));
    for _ in 0..10 {
        assert_eq!(wrap_error(&kms).await.class(), FailureClass::Permanent);
    }
    assert_eq!((vault.count(LOGIN), vault.count(ENCRYPT)), (2, 12));
    // The operator has mended the role: it shows in new tokens alone.
    vault.delete_roles();
    vault.create_app_role("approle", ROLE, SECRET, &Grant::new());
    advance(&vault, &clock, 10);
    assert_works(&kms).await;
    assert_eq!(vault.count(LOGIN), 3);
}

#[tokio::test]
async fn wrong_credentials_are_refused_for_good_and_not_tried_again() {
    let vault = vault_with_role(&Grant::new());
    for (role, secret) in [(ROLE, "wrong"), ("wrong", SECRET), (ROLE, "")] {
        vault.forget();
        let kms = builder(&vault).auth(VaultAuth::app_role(role, secret)).open().await.unwrap();
        let words = ["login", "400", "invalid role or secret ID"];
        assert_told(&wrap_error(&kms).await, FailureClass::Permanent, &words);
        assert_eq!((vault.count(LOGIN), vault.count("")), (1, 1));
    }
}

#[tokio::test]
async fn a_login_is_not_repeated_when_its_answer_is_lost() {
    let vault = vault_with_role(&Grant::new());
    let kms = with_role(&vault, &clock()).await;
    vault.trick(LOGIN, Trick::LoseAnswer);
    assert_eq!(wrap_error(&kms).await.class(), FailureClass::Transient);
    assert_eq!(vault.count(LOGIN), 1);
    assert_works(&kms).await;
}

#[tokio::test]
async fn a_login_without_a_token_is_refused_for_good() {
    let vault = vault_with_role(&Grant::new());
    let kms = with_role(&vault, &clock()).await;
    for body in [
        r#"{"auth":null,"data":{}}"#,
        // A second factor is to be given.
        r#"{"auth":{"client_token":"","lease_duration":0,"renewable":false,"mfa_requirement":{}}}"#,
        r#"{"auth":{"client_token":"a\nb","lease_duration":0,"renewable":false}}"#,
        r#"{"auth":null,"wrap_info":{"token":"hvs.wrapped"}}"#,
    ] {
        vault.trick(LOGIN, Trick::Answer(200, Vec::new(), body.into()));
        assert_told(&wrap_error(&kms).await, FailureClass::Permanent, &["login"]);
    }
}

#[tokio::test]
async fn a_given_token_is_looked_up_once_and_renewed() {
    let (vault, clock) = (vault(), clock());
    let token = vault.create_token(&Grant::new().ttl(MINUTE));
    let kms = builder(&vault).auth(VaultAuth::token(token)).clock(clock.clone()).open().await.unwrap();
    for renewals in 0..10 {
        assert_works(&kms).await;
        assert_eq!((vault.count(LOOK_UP), vault.count(RENEW)), (1, renewals));
        advance(&vault, &clock, 41);
    }
    assert_eq!(vault.count("login"), 0);
}

#[tokio::test]
async fn a_given_token_at_its_end_is_refused_for_good() {
    for grant in [
        Grant::new().ttl(MINUTE).not_renewable(),
        Grant::new().ttl(MINUTE).max_ttl(Duration::from_secs(100)),
        Grant::new().ttl(MINUTE).denied("renew-self"),
        Grant::new().ttl(MINUTE).denied("lookup-self"),
    ] {
        let (vault, clock) = (vault(), clock());
        let token = vault.create_token(&grant);
        let kms = builder(&vault).auth(VaultAuth::token(token)).clock(clock.clone()).open().await.unwrap();
        assert_works(&kms).await;
        advance(&vault, &clock, 50);
        assert_works(&kms).await;
        assert_eq!(vault.count(LOOK_UP), 1, "{grant:?}");
        advance(&vault, &clock, 60);
        vault.forget();
        assert_told(&wrap_error(&kms).await, FailureClass::Permanent, &["403", "the token is gone"]);
        assert_eq!((vault.count(ENCRYPT), vault.count("")), (1, 1), "{grant:?}");
    }
}

#[tokio::test]
async fn a_given_token_is_looked_up_again_when_that_failed() {
    let vault = vault();
    let token = vault.create_token(&Grant::new());
    let kms = builder(&vault).auth(VaultAuth::token(token)).open().await.unwrap();
    vault.trick(LOOK_UP, Trick::Fail(503, "Vault is sealed".into()));
    assert_told(&wrap_error(&kms).await, FailureClass::Transient, &["lookup-self", "503", "sealed"]);
    assert_works(&kms).await;
}

#[tokio::test]
async fn a_service_accounts_token_is_read_at_each_login() {
    let (vault, clock) = (vault(), clock());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let grant = Grant::new().ttl(MINUTE).not_renewable();
    vault.create_kubernetes_role("kubernetes", "checkout", "eyJ.first", &grant);
    fs::write(&file, "eyJ.first\n").unwrap();
    let auth = VaultAuth::kubernetes("checkout").token_file(&file);
    let kms = builder(&vault).auth(auth).clock(clock.clone()).open().await.unwrap();
    assert_works(&kms).await;
    // Kubernetes has replaced it.
    vault.delete_roles();
    vault.create_kubernetes_role("kubernetes", "checkout", "eyJ.second", &grant);
    advance(&vault, &clock, 61);
    assert_told(&wrap_error(&kms).await, FailureClass::Permanent, &["login", "403"]);
    fs::write(&file, "eyJ.second").unwrap();
    assert_works(&kms).await;
    assert_eq!(vault.count("POST /v1/auth/kubernetes/login"), 3);
}

#[tokio::test]
async fn a_service_accounts_token_that_is_not_there_is_named() {
    let vault = vault();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let failed = async |file: &Path| {
        let auth = VaultAuth::kubernetes("checkout").token_file(file);
        wrap_error(&builder(&vault).auth(auth).open().await.unwrap()).await
    };
    let name = file.display().to_string();
    assert_told(&failed(&file).await, FailureClass::Permanent, &[&name, "No such file"]);
    fs::write(&file, " \n").unwrap();
    assert_told(&failed(&file).await, FailureClass::Permanent, &[&name, "service account"]);
    fs::write(&file, "x".repeat(64 * 1024 + 1)).unwrap();
    assert_told(&failed(&file).await, FailureClass::Permanent, &[&name, "too long"]);
    assert_told(&failed(folder.path()).await, FailureClass::Permanent, &["cannot read"]);
    assert_eq!(vault.count(""), 0);
}

#[tokio::test]
async fn methods_are_found_at_other_mounts() {
    let vault = vault();
    vault.create_app_role("teams-approle", "role", "secret", &Grant::new());
    let auth = VaultAuth::app_role("role", "secret").at("teams-approle/");
    assert_works(&builder(&vault).auth(auth).open().await.unwrap()).await;
    assert_eq!(vault.count("POST /v1/auth/teams-approle/login"), 1);
    let nowhere = builder(&vault).auth(VaultAuth::app_role("role", "secret")).open().await.unwrap();
    assert_told(&wrap_error(&nowhere).await, FailureClass::Permanent, &["login", "403"]);
}
