//! The stored form, held against other implementations, and the rotation of keys.

use claviger::testing::call;
use claviger::{FailureClass, KeyManagementService as _, SecretKey, WrapHealth};
use claviger_kms::{Pkcs11Kms, Pkcs11Mechanism};
use claviger_testkit::{HsmFault, HsmFunction, SoftHsm};
use secrecy::SecretString;

use crate::support::{KEY, assert_unwraps_to, builder, fresh_key, meta, opened, says, token, unwrap, wrap};

/// What Python's `cryptography` 46 makes of the key below under the bytes 0 to 31.
const KWP_VECTOR: &str = "909d73cc29f34358f1af8e8ab1c3569792144fd82344607214de175a93b287a9f62d1edf2c4ca4f9";
const GCM_VECTOR: &str = "5031310102056b6e6f776e303132333435363738393a3b4ccbcc3c1295b3fbddc57b18e16bcf98\
                          73c9a2bb28d4adedc058b4a80b519fdea10ed40ca1a8fa3f62009776458055e3";

fn known_key() -> SecretKey {
    SecretKey::try_init(|key| {
        key.iter_mut().zip((0xe0..=0xff).rev()).for_each(|(to, from)| *to = from);
        Ok::<_, ()>(())
    })
    .unwrap()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap()).collect()
}

async fn on_known_key(mechanism: Pkcs11Mechanism, prepare: impl FnOnce(&SoftHsm)) -> (Pkcs11Kms, SoftHsm) {
    let hsm = SoftHsm::token("kms");
    prepare(&hsm);
    hsm.add_key_of("known", &std::array::from_fn::<u8, 32, _>(|n| u8::try_from(n).unwrap()));
    let builder = Pkcs11Kms::builder(hsm.module(), hsm.label(), "known").pin(SecretString::from(hsm.pin()));
    (builder.mechanism(mechanism).open().await.unwrap(), hsm)
}

#[tokio::test]
async fn aes_kwp_is_what_others_make_of_it_by_wrapping_and_by_encrypting() {
    let expected = [&b"P11\x01\x01\x05known"[..], &bytes(KWP_VECTOR)].concat();
    for prepare in [|_: &SoftHsm| {}, SoftHsm::encrypt_with_kwp] {
        let (kms, hsm) = on_known_key(Pkcs11Mechanism::AesKwp, prepare).await;
        assert_eq!(wrap(&kms, &known_key()).await, expected);
        assert_unwraps_to(&kms, &expected, &known_key()).await;
        let is_wrapping = hsm.calls(HsmFunction::WrapKey) > 0;
        assert_ne!(is_wrapping, hsm.calls(HsmFunction::Encrypt) > 0);
    }
}

#[tokio::test]
async fn aes_gcm_is_what_others_make_of_it_with_the_header_as_associated_data() {
    let (kms, _hsm) = on_known_key(Pkcs11Mechanism::AesGcm, |_| {}).await;
    assert_unwraps_to(&kms, &bytes(GCM_VECTOR), &known_key()).await;
    let wrapped = wrap(&kms, &known_key()).await;
    assert_eq!((wrapped.len(), &wrapped[..11]), (71, &b"P11\x01\x02\x05known"[..]));
}

#[tokio::test]
async fn each_mechanism_unwraps_what_the_other_wrapped() {
    let (kwp, hsm) = opened(Pkcs11Mechanism::AesKwp, |_| {}).await;
    let gcm = builder(&hsm).mechanism(Pkcs11Mechanism::AesGcm).open().await.unwrap();
    let key = fresh_key();
    assert_unwraps_to(&gcm, &wrap(&kwp, &key).await, &key).await;
    assert_unwraps_to(&kwp, &wrap(&gcm, &key).await, &key).await;
}

#[tokio::test]
async fn a_tokens_own_iv_is_the_one_that_is_stored() {
    let (kms, hsm) = opened(Pkcs11Mechanism::AesGcm, |_| {}).await;
    hsm.insist_on_own_iv(0x41);
    let wrapped = wrap(&kms, &fresh_key()).await;
    assert_eq!(wrapped[wrapped.len() - 60..][..12], [0x41; 12]);
}

#[tokio::test]
async fn what_the_token_damages_or_others_forge_is_damaged_and_costs_no_session() {
    for mechanism in [Pkcs11Mechanism::AesKwp, Pkcs11Mechanism::AesGcm] {
        let (kms, hsm) = opened(mechanism, |_| {}).await;
        let key = fresh_key();
        let mut wrapped = wrap(&kms, &key).await;
        *wrapped.last_mut().unwrap() ^= 1;
        for _ in 0..8 {
            let error = unwrap(&kms, &wrapped).await.unwrap_err();
            assert_eq!(error.class(), FailureClass::Damaged, "{}", says(&error));
        }
        *wrapped.last_mut().unwrap() ^= 1;
        assert_unwraps_to(&kms, &wrapped, &key).await;
        // Each refusal had one session more, for a moment.
        assert!(hsm.calls(HsmFunction::Login) <= 4, "sessions were lost");
    }
}

#[tokio::test]
async fn a_previous_key_unwraps_and_never_wraps() {
    let hsm = token();
    hsm.add_key("system-keys-2");
    let old = builder(&hsm).open().await.unwrap();
    let new = |hsm: &SoftHsm| {
        Pkcs11Kms::builder(hsm.module(), hsm.label(), "system-keys-2").pin(SecretString::from(hsm.pin()))
    };
    let key = fresh_key();
    let wrapped = wrap(&old, &key).await;

    let alone = new(&hsm).open().await.unwrap();
    let error = unwrap(&alone, &wrapped).await.unwrap_err();
    assert_eq!(error.class(), FailureClass::Permanent);
    assert!(says(&error).contains("\"system-keys-1\", which is not configured"), "{}", says(&error));
    let health = alone.inspect(&wrapped).unwrap();
    assert_eq!(health, WrapHealth::new(vec![], vec!["system-keys-2".to_owned()]));

    let rotated = new(&hsm).previous_key(KEY).open().await.unwrap();
    assert_unwraps_to(&rotated, &wrapped, &key).await;
    assert_eq!(rotated.inspect(&wrapped).unwrap(), WrapHealth::new(vec![KEY.to_owned()], vec![]));
    let again = wrap(&rotated, &key).await;
    assert_unwraps_to(&alone, &again, &key).await;
    assert!(unwrap(&old, &again).await.is_err());

    // Whoever writes the store may name the other key, and gets nothing by it.
    let mut swapped = again;
    swapped[6 + "system-keys-".len()] = b'1';
    let error = unwrap(&rotated, &swapped).await.unwrap_err();
    assert_eq!(error.class(), FailureClass::Damaged, "{}", says(&error));
}

#[tokio::test]
async fn no_key_stays_in_the_token_whatever_fails() {
    let (kms, hsm) = opened(Pkcs11Mechanism::AesKwp, |_| {}).await;
    let key = fresh_key();
    let wrapped = wrap(&kms, &key).await;
    const DEVICE_ERROR: u32 = 0x30;
    for function in [HsmFunction::WrapKey, HsmFunction::GetAttributeValue, HsmFunction::UnwrapKey] {
        hsm.fault(function, HsmFault::Fail(DEVICE_ERROR, 1));
        let failed = if function == HsmFunction::WrapKey {
            kms.wrap_key(&key, &meta(), &call()).await.err()
        } else {
            unwrap(&kms, &wrapped).await.err()
        };
        assert!(failed.unwrap().is_transient());
        assert_eq!(hsm.objects_in_sessions(), 0, "{function:?}");
    }
    hsm.fault(HsmFunction::DestroyObject, HsmFault::Fail(DEVICE_ERROR, 1));
    assert!(kms.wrap_key(&key, &meta(), &call()).await.unwrap_err().is_transient());
    assert_eq!(hsm.objects_in_sessions(), 0);
    assert_unwraps_to(&kms, &wrapped, &key).await;
    assert_eq!(hsm.objects_in_sessions(), 0);
}

#[tokio::test]
async fn what_is_refused_before_the_token_is_asked_says_so() {
    let (kms, hsm) = opened(Pkcs11Mechanism::AesGcm, |_| {}).await;
    let wrapped = wrap(&kms, &fresh_key()).await;
    let mut of_another_key = wrapped.clone();
    let label = of_another_key.windows(KEY.len()).position(|bytes| bytes == KEY.as_bytes()).unwrap();
    of_another_key[label] ^= 1;
    let asked = || [HsmFunction::DecryptInit, HsmFunction::UnwrapKey].map(|function| hsm.calls(function));
    let before = asked();
    for stored in [&b"no key"[..], b"", &wrapped[1..], &of_another_key] {
        let error = unwrap(&kms, stored).await.unwrap_err();
        assert!(!error.was_asked() && !error.is_transient(), "{}", says(&error));
    }
    assert_eq!(asked(), before);
    let mut forged = wrapped;
    *forged.last_mut().unwrap() ^= 1;
    assert!(unwrap(&kms, &forged).await.unwrap_err().was_asked());
}
