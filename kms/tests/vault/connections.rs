//! Connections: kept, counted, closed when nobody looks.

use std::sync::Arc;

use claviger::testing::call;
use claviger::{BoxedKms, FailureClass, FailureKind, KeyManagementService as _};
use claviger_kms::VaultAuth;
use claviger_testkit::{Grant, Trick, call_after_the_openers_end};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::deadlines::assert_ends_by_the_limits;
use crate::support::{
    DECRYPT, ENCRYPT, assert_told, assert_unwraps_to, assert_works, assert_works_in_the_end, builder,
    fresh_key, meta, until, vault, with_token, wrap, wrap_error, wrap_error_within,
};

#[tokio::test]
async fn calls_after_each_other_share_a_connection() {
    let vault = vault();
    let kms = with_token(&vault).await;
    for _ in 0..50 {
        assert_works(&kms).await;
    }
    assert_eq!(vault.count(""), 101);
    // One is enough, but a call may look for it a moment before the last one has given it back.
    assert!(vault.connections() <= 3, "{}", vault.connections());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_calls_at_once_succeed_and_leave_four_connections() {
    let vault = vault();
    let kms = Arc::new(with_token(&vault).await);
    assert_works(&*kms).await;
    vault.always(ENCRYPT, Trick::Hang);
    let mut tasks = JoinSet::new();
    for _ in 0..64 {
        let kms = kms.clone();
        tasks.spawn(async move { kms.wrap_key(&fresh_key(), &meta(), &call()).await });
    }
    until(|| vault.hanging() == 64).await;
    vault.heal();
    assert!(tasks.join_all().await.iter().all(Result::is_ok));
    until(|| vault.open_connections() == 4).await;
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_is_replaced() {
    let vault = vault();
    let kms = with_token(&vault).await;
    assert_works(&kms).await;
    for _ in 0..30 {
        vault.forget();
        vault.close_connections();
        assert_works(&kms).await;
        assert!(vault.connections() > 0);
    }
}

#[tokio::test]
async fn a_connection_that_is_closed_after_each_answer_is_no_error() {
    let vault = vault();
    let kms = with_token(&vault).await;
    vault.always("", Trick::CloseAfter);
    for _ in 0..50 {
        assert_works(&kms).await;
    }
}

#[tokio::test]
async fn a_call_is_repeated_once_when_its_connection_closes_before_the_answer() {
    let vault = vault();
    let kms = with_token(&vault).await;
    let key = fresh_key();
    let wrapped = wrap(&kms, &key).await;
    for trick in [Trick::Close, Trick::LoseAnswer] {
        vault.forget();
        vault.trick(DECRYPT, trick.clone());
        vault.trick(ENCRYPT, trick);
        assert_unwraps_to(&kms, &wrapped, &key).await;
        assert_works(&kms).await;
        assert_eq!((vault.count(ENCRYPT), vault.count(DECRYPT)), (2, 3));
    }
    vault.forget();
    vault.always(ENCRYPT, Trick::Close);
    assert_told(&wrap_error(&kms).await, FailureClass::Transient, &["out of reach"]);
    assert_eq!(vault.count(ENCRYPT), 2);
}

#[tokio::test]
async fn a_dropped_call_closes_its_connection() {
    let vault = vault();
    let kms = Arc::new(with_token(&vault).await);
    assert_works(&*kms).await;
    vault.trick(ENCRYPT, Trick::Hang);
    let other = kms.clone();
    let task = tokio::spawn(async move { other.wrap_key(&fresh_key(), &meta(), &call()).await });
    until(|| vault.hanging() == 1).await;
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    vault.release();
    until(|| vault.open_connections() == 0).await;
    assert_works(&*kms).await;
}

#[tokio::test]
async fn a_call_without_an_answer_ends_at_its_deadline() {
    let vault = vault();
    let token = vault.create_token(&Grant::new());
    let kms = builder(&vault).auth(VaultAuth::token(token));
    let kms = kms.open().await.unwrap();
    assert_works_in_the_end(&kms).await;
    vault.always(ENCRYPT, Trick::Hang);
    for _ in 0..3 {
        assert_told(
            &wrap_error_within(300, &kms).await,
            FailureClass::Transient,
            &["no answer within 300ms"],
        );
    }
    vault.heal();
    assert_works_in_the_end(&kms).await;
}

#[tokio::test]
async fn a_vault_that_hangs_has_the_deadline_of_the_limits_alone() {
    let vault = vault();
    let kms = with_token(&vault).await;
    vault.always(ENCRYPT, Trick::Hang);
    assert_ends_by_the_limits(BoxedKms::new(kms)).await;
    vault.heal();
}

#[tokio::test]
async fn the_deadline_covers_the_login() {
    let vault = vault();
    vault.create_app_role("approle", "role", "secret", &Grant::new());
    let kms = builder(&vault).auth(VaultAuth::app_role("role", "secret"));
    let kms = kms.open().await.unwrap();
    vault.trick("login", Trick::Hang);
    assert_told(&wrap_error_within(300, &kms).await, FailureClass::Transient, &["no answer within 300ms"]);
    vault.release();
    assert_works_in_the_end(&kms).await;
}

#[tokio::test]
async fn nobody_there_is_a_transient_failure() {
    let vault = vault();
    let kms = with_token(&vault).await;
    drop(vault);
    assert_told(&wrap_error(&kms).await, FailureClass::Transient, &["out of reach"]);
}

#[test]
fn a_runtime_that_ends_takes_no_kms_with_it() {
    let runtime =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let vault = vault();
    let kms = runtime().block_on(with_token(&vault));
    for _ in 0..5 {
        runtime().block_on(assert_works(&kms));
    }
}

/// A connection is driven by the runtime that it was opened in, and ends with it.
#[test]
fn a_call_whose_connection_ends_with_another_runtime_may_be_made_again() {
    let vault = vault();
    let kms = Arc::new(Runtime::new().unwrap().block_on(with_token(&vault)));
    vault.forget();
    let opens = async {
        assert_works(&*kms).await;
        vault.trick(ENCRYPT, Trick::Hang);
    };
    let call = |()| {
        let kms = kms.clone();
        async move { wrap_error(&*kms).await }
    };
    let (lost, caller) = call_after_the_openers_end(opens, call, || vault.hanging() > 0);
    assert_eq!(vault.connections(), 1, "all calls used one");
    assert_told(&lost, FailureClass::Transient, &["out of reach", "runtime dropped the dispatch task"]);
    assert_eq!(lost.kind(), Some(FailureKind::Unreachable));
    caller.block_on(assert_works(&*kms));
}
