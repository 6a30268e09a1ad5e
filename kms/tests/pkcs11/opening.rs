//! What keeps a token from being opened, and what it says of that.

use std::sync::Arc;

use claviger::FailureClass;
use claviger_kms::{Pkcs11Kms, Pkcs11KmsBuilder, Pkcs11Mechanism};
use claviger_testkit::{HsmFault, HsmFunction, SoftHsm};
use secrecy::SecretString;
use tokio::task::JoinSet;

use crate::support::{
    KEY, MECHANISM_INVALID, assert_unwraps_to, builder, fresh_key, opened, says, token, unwrap, wrap,
};

async fn assert_refused(builder: Pkcs11KmsBuilder, class: FailureClass, because: &str) {
    let error = builder.open().await.unwrap_err();
    assert_eq!(error.class(), class, "{}", says(&error));
    assert!(says(&error).contains(because), "{}", says(&error));
}

fn named(hsm: &SoftHsm, key: &str) -> Pkcs11KmsBuilder {
    Pkcs11Kms::builder(hsm.module(), hsm.label(), key).pin(SecretString::from(hsm.pin()))
}

#[tokio::test]
async fn a_module_that_is_not_there_is_refused_for_good() {
    let builder = Pkcs11Kms::builder("/nonexistent/pkcs11.so", "t", "k").pin(SecretString::from("1234"));
    assert_refused(builder, FailureClass::Permanent, "/nonexistent/pkcs11.so").await;
}

#[tokio::test]
async fn a_library_that_is_no_module_is_refused_for_good() {
    let library = std::fs::read_to_string("/proc/self/maps").unwrap();
    let libc =
        library.lines().find_map(|line| line.split(' ').next_back().filter(|path| path.contains("libc.so")));
    let builder = Pkcs11Kms::builder(libc.unwrap(), "t", "k").pin(SecretString::from("1234"));
    assert_refused(builder, FailureClass::Permanent, "cannot be loaded").await;
}

#[tokio::test]
async fn a_token_that_is_not_there_may_come() {
    let hsm = token();
    let builder = Pkcs11Kms::builder(hsm.module(), "no such token", KEY).pin(SecretString::from("1234"));
    assert_refused(builder, FailureClass::Transient, "no such token").await;
}

#[tokio::test]
async fn two_tokens_of_one_label_are_refused_for_good() {
    let hsm = token();
    hsm.add_double();
    assert_refused(builder(&hsm), FailureClass::Permanent, "several tokens").await;
}

#[tokio::test]
async fn a_key_that_is_not_there_is_refused_for_good() {
    let hsm = token();
    assert_refused(named(&hsm, "no such key"), FailureClass::Permanent, "no such key").await;
    let previous = builder(&hsm).previous_key("no such key");
    assert_refused(previous, FailureClass::Permanent, "no such key").await;
}

#[tokio::test]
async fn two_keys_of_one_label_are_refused_for_good() {
    let hsm = token();
    hsm.add_key(KEY);
    assert_refused(builder(&hsm), FailureClass::Permanent, "several secret keys").await;
}

#[tokio::test]
async fn a_key_that_can_leave_the_token_is_refused_unless_that_is_asked_for() {
    let hsm = token();
    hsm.add_extractable_key("extractable", true);
    hsm.add_extractable_key("open", false);
    for label in ["extractable", "open"] {
        assert_refused(named(&hsm, label), FailureClass::Permanent, "CKA_EXTRACTABLE").await;
        assert_refused(builder(&hsm).previous_key(label), FailureClass::Permanent, "CKA_EXTRACTABLE").await;
        let kms = named(&hsm, label).danger_extractable_key(true).open().await.unwrap();
        let key = fresh_key();
        assert_unwraps_to(&kms, &wrap(&kms, &key).await, &key).await;
    }
}

#[tokio::test]
async fn a_key_of_another_length_is_refused_though_any_key_be_taken() {
    let hsm = token();
    hsm.add_key_of("short", &[1; 16]);
    assert_refused(named(&hsm, "short"), FailureClass::Permanent, "256 bits").await;
    let builder = named(&hsm, "short").danger_extractable_key(true);
    assert_refused(builder, FailureClass::Permanent, "256 bits").await;
}

#[tokio::test]
async fn a_configuration_that_cannot_serve_is_refused_before_the_module_is_loaded() {
    let builder = || Pkcs11Kms::builder("/nonexistent", "t", "k").pin(SecretString::from("1234"));
    for (builder, because) in [
        (Pkcs11Kms::builder("/nonexistent", "t", "k"), "PIN"),
        (builder().sessions(0), "sessions"),
        (builder().sessions(257), "sessions"),
        (builder().previous_key("k"), "named twice"),
        (builder().previous_key(""), "label"),
        (builder().previous_key("x".repeat(256)), "label"),
        (Pkcs11Kms::builder("/nonexistent", "x".repeat(33), "k"), "32 bytes"),
        (Pkcs11Kms::builder("/nonexistent", "a\0b", "k"), "32 bytes"),
    ] {
        assert_refused(builder, FailureClass::Permanent, because).await;
    }
}

#[tokio::test]
async fn a_wrong_pin_is_tried_once() {
    let hsm = token();
    let wrong = || builder(&hsm).pin(SecretString::from("wrong"));
    assert_refused(wrong(), FailureClass::Permanent, "refused the PIN").await;
    assert_eq!(hsm.calls(HsmFunction::Login), 1);
    assert!(hsm.info().user_pin_count_low());
    builder(&hsm).open().await.unwrap();
    assert!(!hsm.info().user_pin_count_low());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pin_that_was_changed_is_tried_once_by_all_sessions_together() {
    let (kms, hsm) = opened(Pkcs11Mechanism::Auto, |_| {}).await;
    let wrapped = wrap(&kms, &fresh_key()).await;
    hsm.change_pin();
    let logins = hsm.calls(HsmFunction::Login);
    let (kms, wrapped) = (Arc::new(kms), Arc::new(wrapped));
    let call = |_| {
        let (kms, wrapped) = (Arc::clone(&kms), Arc::clone(&wrapped));
        async move { unwrap(&kms, &wrapped).await }
    };
    for answer in (0..64).map(call).collect::<JoinSet<_>>().join_all().await {
        let error = answer.unwrap_err();
        assert_eq!(error.class(), FailureClass::Permanent, "{}", says(&error));
        assert!(says(&error).contains("refused the PIN"), "{}", says(&error));
    }
    assert_eq!(hsm.calls(HsmFunction::Login), logins + 1);
    // It was this one that was tried, and once: the token counts.
    let info = hsm.info();
    assert!(info.user_pin_count_low() && !info.user_pin_final_try() && !info.user_pin_locked());
}

#[tokio::test]
async fn auto_is_aes_kwp_where_the_token_has_it() {
    let (kms, _hsm) = opened(Pkcs11Mechanism::Auto, |_| {}).await;
    assert_eq!(kms.mechanism(), Pkcs11Mechanism::AesKwp);
}

#[tokio::test]
async fn auto_is_aes_gcm_where_aes_kwp_is_missing_or_not_allowed() {
    const KEY_FUNCTION_NOT_PERMITTED: u32 = 0x68;
    const GENERAL_ERROR: u32 = 5;
    for (function, code) in [
        (HsmFunction::CreateObject, 0x13),
        (HsmFunction::WrapKey, KEY_FUNCTION_NOT_PERMITTED),
        (HsmFunction::WrapKey, GENERAL_ERROR),
        (HsmFunction::UnwrapKey, MECHANISM_INVALID),
    ] {
        let refuse = |hsm: &SoftHsm| hsm.fault(function, HsmFault::Fail(code, u32::MAX));
        let (kms, hsm) = opened(Pkcs11Mechanism::Auto, refuse).await;
        assert_eq!(kms.mechanism(), Pkcs11Mechanism::AesGcm);
        let key = fresh_key();
        assert_unwraps_to(&kms, &wrap(&kms, &key).await, &key).await;
        let kwp = builder(&hsm).mechanism(Pkcs11Mechanism::AesKwp).open().await;
        assert!(kwp.is_err(), "{function:?}");
    }
}

#[tokio::test]
async fn a_token_without_a_mechanism_is_refused_for_good() {
    let hsm = token();
    hsm.fault(HsmFunction::GetMechanismInfo, HsmFault::Fail(MECHANISM_INVALID, u32::MAX));
    for mechanism in [Pkcs11Mechanism::Auto, Pkcs11Mechanism::AesKwp, Pkcs11Mechanism::AesGcm] {
        assert_refused(builder(&hsm).mechanism(mechanism), FailureClass::Permanent, "no mechanism").await;
    }
}

#[tokio::test]
async fn nothing_shows_the_pin() {
    let hsm = token();
    let mut printed = vec![format!("{:?}", builder(&hsm))];
    printed.push(format!("{:?} {0:#?}", builder(&hsm).open().await.unwrap()));
    let wrong = builder(&hsm).pin(SecretString::from(hsm.pin().to_uppercase()));
    let error = wrong.open().await.unwrap_err();
    printed.push(says(&error).to_lowercase());
    for text in printed {
        assert!(!text.contains(hsm.pin()), "{text}");
    }
}
