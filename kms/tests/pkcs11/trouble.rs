//! Tokens that are reset, taken out, slow, hung or full of work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use claviger::testing::call;
use claviger::{BoxedKms, CallContext, FailureClass, KeyManagementService as _};
use claviger_kms::{Pkcs11Kms, Pkcs11Mechanism};
use claviger_testkit::{HsmFault, HsmFunction, SoftHsm};
use tokio::task::JoinSet;

use crate::deadlines::assert_ends_by_the_limits;
use crate::support::{
    GENERAL_ERROR, assert_unwraps_to, builder, fresh_key, meta, opened, says, threads_of, token, until,
    unwrap, wrap,
};

/// Tasks that wrap and unwrap without end, and bear nothing but transient failures.
struct Load {
    done: Arc<[AtomicU64]>,
    failed: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Load {
    fn start(tasks: usize, kms: &Arc<Pkcs11Kms>) -> Self {
        let mut load = Self {
            done: (0..tasks).map(|_| AtomicU64::new(0)).collect(),
            failed: Arc::default(),
            is_over: Arc::default(),
            tasks: JoinSet::new(),
        };
        for n in 0..tasks {
            let (kms, done) = (Arc::clone(kms), Arc::clone(&load.done));
            let (failed, is_over) = (Arc::clone(&load.failed), Arc::clone(&load.is_over));
            load.tasks.spawn(async move {
                while !is_over.load(Ordering::SeqCst) {
                    let key = fresh_key();
                    let round_trip = async {
                        let wrapped = kms.wrap_key(&key, &meta(), &call()).await?;
                        kms.unwrap_key(wrapped.bytes(), &meta(), &call()).await
                    };
                    match round_trip.await {
                        Ok(unwrapped) => {
                            assert!(unwrapped.expose_secret() == key.expose_secret());
                            done[n].fetch_add(1, Ordering::SeqCst);
                        }
                        Err(error) => {
                            assert!(error.is_transient(), "{}", says(&error));
                            failed.fetch_add(1, Ordering::SeqCst);
                            tokio::task::yield_now().await;
                        }
                    }
                }
            });
        }
        load
    }

    /// Waits until each task has done something that it began after this.
    async fn goes_on(&self) {
        let before: Vec<u64> = self.done.iter().map(|done| done.load(Ordering::SeqCst)).collect();
        let goes_on = || {
            self.tasks.len() == self.done.len()
                && self
                    .done
                    .iter()
                    .zip(&before)
                    .all(|(done, before)| done.load(Ordering::SeqCst) > before + 1)
        };
        until("all tasks go on", goes_on).await;
    }

    async fn end(self) {
        self.is_over.store(true, Ordering::SeqCst);
        self.tasks.join_all().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_reset_under_load_is_found_again_and_nothing_is_lost() {
    for mechanism in [Pkcs11Mechanism::AesKwp, Pkcs11Mechanism::AesGcm] {
        let (kms, hsm) = opened(mechanism, |_| {}).await;
        let kms = Arc::new(kms);
        let key = fresh_key();
        let wrapped = wrap(&kms, &key).await;
        let load = Load::start(8, &kms);
        for _ in 0..5 {
            load.goes_on().await;
            let failed = load.failed.load(Ordering::SeqCst);
            hsm.reset();
            until("the tasks notice", || load.failed.load(Ordering::SeqCst) > failed).await;
            hsm.restore_keys();
            load.goes_on().await;
        }
        load.end().await;
        assert_unwraps_to(&kms, &wrapped, &key).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_removed_under_load_is_found_again_in_another_slot() {
    for mechanism in [Pkcs11Mechanism::AesKwp, Pkcs11Mechanism::AesGcm] {
        let (kms, hsm) = opened(mechanism, |_| {}).await;
        let kms = Arc::new(kms);
        let key = fresh_key();
        let wrapped = wrap(&kms, &key).await;
        let load = Load::start(8, &kms);
        load.goes_on().await;
        let failed = load.failed.load(Ordering::SeqCst);
        hsm.remove();
        until("the tasks notice", || load.failed.load(Ordering::SeqCst) > failed).await;
        hsm.replace();
        load.goes_on().await;
        load.end().await;
        assert_unwraps_to(&kms, &wrapped, &key).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_end_under_load_fail_no_call() {
    let (kms, hsm) = opened(Pkcs11Mechanism::Auto, |_| {}).await;
    let kms = Arc::new(kms);
    let load = Load::start(8, &kms);
    let logins = hsm.calls(HsmFunction::Login);
    for _ in 0..20 {
        load.goes_on().await;
        hsm.end_sessions();
    }
    load.goes_on().await;
    load.end().await;
    assert!(hsm.calls(HsmFunction::Login) >= logins + 20);
}

/// All codes that say that a session, a login or a token is gone.
const DISCONNECTED: [u32; 15] =
    [0x03, 0x32, 0x60, 0x65, 0x82, 0x90, 0x91, 0xb0, 0xb3, 0xe0, 0xe1, 0x101, 0xf0, 0x113, 0x190];

#[tokio::test]
async fn a_lost_session_is_replaced_once_for_a_call() {
    let hsm = token();
    let kms = builder(&hsm).sessions(1).mechanism(Pkcs11Mechanism::AesGcm).open().await.unwrap();
    let key = fresh_key();
    let wrapped = wrap(&kms, &key).await;
    for code in DISCONNECTED {
        let sessions = hsm.calls(HsmFunction::OpenSession);
        hsm.fault(HsmFunction::DecryptInit, HsmFault::Fail(code, 1));
        assert_unwraps_to(&kms, &wrapped, &key).await;
        assert_eq!(hsm.calls(HsmFunction::OpenSession), sessions + 1, "{code:#x}");

        let tries = hsm.calls(HsmFunction::DecryptInit);
        hsm.fault(HsmFunction::DecryptInit, HsmFault::Fail(code, u32::MAX));
        let error = unwrap(&kms, &wrapped).await.unwrap_err();
        assert!(error.is_transient(), "{code:#x}: {}", says(&error));
        assert_eq!(hsm.calls(HsmFunction::DecryptInit), tries + 2, "{code:#x}");
        hsm.fault(HsmFunction::DecryptInit, HsmFault::None);
        assert_unwraps_to(&kms, &wrapped, &key).await;
    }
}

#[tokio::test]
async fn a_module_that_was_finalised_by_others_is_initialised_again() {
    const CRYPTOKI_NOT_INITIALIZED: u32 = 0x190;
    let hsm = token();
    let kms = builder(&hsm).sessions(1).open().await.unwrap();
    let key = fresh_key();
    let wrapped = wrap(&kms, &key).await;
    assert_eq!(hsm.calls(HsmFunction::Initialize), 1);
    hsm.fault(HsmFunction::UnwrapKey, HsmFault::Fail(CRYPTOKI_NOT_INITIALIZED, 1));
    hsm.fault(HsmFunction::GetInfo, HsmFault::Fail(CRYPTOKI_NOT_INITIALIZED, 1));
    assert_unwraps_to(&kms, &wrapped, &key).await;
    assert_eq!(hsm.calls(HsmFunction::Initialize), 2);
    // And else once, however many services there are on a module.
    drop(builder(&hsm).open().await.unwrap());
    assert_eq!(hsm.calls(HsmFunction::Initialize), 2);
}

#[tokio::test]
async fn a_device_in_trouble_is_told_from_a_forged_key() {
    let hsm = token();
    let kms = builder(&hsm).sessions(1).mechanism(Pkcs11Mechanism::AesGcm).open().await.unwrap();
    let key = fresh_key();
    let wrapped = wrap(&kms, &key).await;
    // For a moment: the key is good, and comes out.
    hsm.fault(HsmFunction::Decrypt, HsmFault::Fail(GENERAL_ERROR, 1));
    assert_unwraps_to(&kms, &wrapped, &key).await;
    // For long: that it cannot do what it always could is no fault of the key.
    for code in [GENERAL_ERROR, 0x06, 0x8000_0001] {
        hsm.fault(HsmFunction::Decrypt, HsmFault::Fail(code, u32::MAX));
        let error = unwrap(&kms, &wrapped).await.unwrap_err();
        assert!(error.is_transient(), "{code:#x}: {}", says(&error));
    }
    hsm.fault(HsmFunction::Decrypt, HsmFault::None);
    assert_unwraps_to(&kms, &wrapped, &key).await;
}

#[tokio::test]
async fn return_codes_are_classified() {
    let hsm = token();
    let kms = builder(&hsm).sessions(1).mechanism(Pkcs11Mechanism::AesGcm).open().await.unwrap();
    let wrapped = wrap(&kms, &fresh_key()).await;
    for (class, codes) in [
        // CKR_HOST_MEMORY, DEVICE_ERROR, DEVICE_MEMORY, FUNCTION_CANCELED, SESSION_COUNT.
        (FailureClass::Transient, &[0x02, 0x30, 0x31, 0x50, 0xb1][..]),
        // CKR_KEY_TYPE_INCONSISTENT, KEY_FUNCTION_NOT_PERMITTED, MECHANISM_INVALID,
        // MECHANISM_PARAM_INVALID, FUNCTION_NOT_SUPPORTED.
        (FailureClass::Permanent, &[0x63, 0x68, 0x70, 0x71, 0x54]),
        // CKR_AEAD_DECRYPT_FAILED, ENCRYPTED_DATA_INVALID, ENCRYPTED_DATA_LEN_RANGE,
        // WRAPPED_KEY_INVALID, WRAPPED_KEY_LEN_RANGE.
        (FailureClass::Damaged, &[0x35, 0x40, 0x41, 0x110, 0x112]),
    ] {
        for code in codes {
            hsm.fault(HsmFunction::Decrypt, HsmFault::Fail(*code, 1));
            let error = unwrap(&kms, &wrapped).await.unwrap_err();
            assert_eq!(error.class(), class, "{code:#x}: {}", says(&error));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_hangs_ends_at_its_deadline_and_holds_up_no_other() {
    let hsm = token();
    let builder = builder(&hsm).sessions(2);
    let kms = builder.mechanism(Pkcs11Mechanism::AesGcm).open().await.unwrap();
    let key = fresh_key();
    let wrapped = wrap(&kms, &key).await;
    hsm.fault(HsmFunction::Encrypt, HsmFault::Hang);
    let error = kms.wrap_key(&key, &meta(), &CallContext::within(Duration::from_secs(1))).await.unwrap_err();
    assert!(error.is_transient() && says(&error).contains("no answer within 1s"), "{}", says(&error));
    assert_eq!(hsm.hanging(), 1);
    for _ in 0..20 {
        assert_unwraps_to(&kms, &wrapped, &key).await;
    }
    hsm.fault(HsmFunction::Encrypt, HsmFault::None);
    assert_unwraps_to(&kms, &wrap(&kms, &key).await, &key).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_hangs_has_the_deadline_of_the_limits_alone() {
    let hsm = token();
    let kms = builder(&hsm).sessions(1).mechanism(Pkcs11Mechanism::AesGcm).open().await.unwrap();
    hsm.fault(HsmFunction::Encrypt, HsmFault::Hang);
    assert_ends_by_the_limits(BoxedKms::new(kms)).await;
    hsm.fault(HsmFunction::Encrypt, HsmFault::None);
}

/// How many calls may wait for each session.
const WAITING: usize = 16;

/// Opens a service with one session, which hangs in a call.
async fn hung() -> (Arc<Pkcs11Kms>, SoftHsm, JoinSet<()>) {
    let hsm = token();
    let builder = builder(&hsm).sessions(1);
    let kms = Arc::new(builder.mechanism(Pkcs11Mechanism::AesGcm).open().await.unwrap());
    hsm.fault(HsmFunction::EncryptInit, HsmFault::Hang);
    let mut calls = JoinSet::new();
    spawn_wrap(&mut calls, &kms);
    until("a call hangs", || hsm.hanging() == 1).await;
    (kms, hsm, calls)
}

fn spawn_wrap(calls: &mut JoinSet<()>, kms: &Arc<Pkcs11Kms>) {
    let kms = Arc::clone(kms);
    calls.spawn(async move {
        kms.wrap_key(&fresh_key(), &meta(), &call()).await.unwrap();
    });
}

/// Fills the queue: the current-thread runtime runs each call to where it waits.
async fn fill(calls: &mut JoinSet<()>, kms: &Arc<Pkcs11Kms>) {
    for _ in 0..WAITING {
        spawn_wrap(calls, kms);
    }
    tokio::task::yield_now().await;
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let (kms, hsm, mut calls) = hung().await;
    fill(&mut calls, &kms).await;
    let error = kms.wrap_key(&fresh_key(), &meta(), &call()).await.unwrap_err();
    assert!(error.is_transient() && says(&error).contains("too many calls"), "{}", says(&error));
    hsm.fault(HsmFunction::EncryptInit, HsmFault::None);
    calls.join_all().await;
}

#[tokio::test]
async fn a_dropped_call_that_has_not_begun_is_not_made_and_holds_no_place() {
    let (kms, hsm, mut calls) = hung().await;
    let made = hsm.calls(HsmFunction::EncryptInit);
    let mut dropped = JoinSet::new();
    for _ in 0..3 {
        fill(&mut dropped, &kms).await;
        dropped.shutdown().await;
    }
    // A queue that is not full is not searched for them before it is their turn.
    spawn_wrap(&mut calls, &kms);
    spawn_wrap(&mut dropped, &kms);
    tokio::task::yield_now().await;
    dropped.shutdown().await;
    spawn_wrap(&mut calls, &kms);
    tokio::task::yield_now().await;
    hsm.fault(HsmFunction::EncryptInit, HsmFault::None);
    calls.join_all().await;
    assert_eq!(hsm.calls(HsmFunction::EncryptInit), made + 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threads_and_sessions_end_with_the_service() {
    let (kms, hsm) = opened(Pkcs11Mechanism::Auto, |_| {}).await;
    let kms = Arc::new(kms);
    let load = Load::start(8, &kms);
    load.goes_on().await;
    assert_eq!(threads_of(&hsm), 4);
    load.end().await;
    drop(kms);
    // The system lists a thread for a moment after it was joined.
    until("the threads end", || threads_of(&hsm) == 0).await;
    assert_eq!(hsm.calls(HsmFunction::OpenSession), hsm.calls(HsmFunction::CloseSession));
    assert_eq!(hsm.info().session_count().unwrap_or(0), 0);
}

#[tokio::test]
async fn nothing_is_left_of_a_service_that_cannot_be_opened() {
    let hsm = token();
    hsm.fault(HsmFunction::FindObjectsInit, HsmFault::Fail(GENERAL_ERROR, u32::MAX));
    builder(&hsm).open().await.unwrap_err();
    until("the threads end", || threads_of(&hsm) == 0).await;
    assert_eq!(hsm.calls(HsmFunction::OpenSession), hsm.calls(HsmFunction::CloseSession));
}

#[tokio::test]
async fn dropping_a_service_does_not_wait_for_a_module_that_hangs_and_its_thread_ends_with_the_call() {
    let (kms, hsm, mut calls) = hung().await;
    calls.shutdown().await;
    drop(kms);
    assert_eq!((threads_of(&hsm), hsm.hanging()), (1, 1));
    hsm.fault(HsmFunction::EncryptInit, HsmFault::None);
    until("the thread ends", || threads_of(&hsm) == 0).await;
    assert_eq!(hsm.calls(HsmFunction::OpenSession), hsm.calls(HsmFunction::CloseSession));
}
