//! The contract of [`KeyManagementService`], clause by clause.

#![expect(clippy::missing_panics_doc, reason = "a clause that does not hold panics: that is what it is for")]

mod outage;

use crate::testing::call;
use std::fmt::Debug;

use crate::error::BackendError;
use crate::kms::KeyManagementService;
use crate::record::{KeyId, KeyMeta};
use crate::secret::SecretKey;
use crate::testing::support::{NOW, abandon, created, ok, race, random_bytes};

pub use outage::*;

/// Makes a test of each clause of [`KeyManagementService`]'s contract:
/// `kms_contract!(async { MyKms::connect().await })`.
///
/// For services that keep one copy of a key and wrap it by random means. What holds several copies
/// is for [`kms_copies_contract!`](crate::kms_copies_contract), and what wraps without randomness
/// for [`kms_key_wrap_contract!`](crate::kms_key_wrap_contract).
#[macro_export]
macro_rules! kms_contract {
    ($($open:tt)*) => {
        $crate::__kms_contract_of_all! { $($open)* }
        $crate::__kms_contract_of_one_copy! { $($open)* }
        $crate::__kms_contract_of_random_wraps! { $($open)* }
    };
}

/// As [`kms_contract!`](crate::kms_contract), for services that keep several copies of a key: one
/// that is damaged need not keep the others from serving.
#[macro_export]
macro_rules! kms_copies_contract {
    ($($open:tt)*) => {
        $crate::__kms_contract_of_all! { $($open)* }
        $crate::__kms_contract_of_copies! { $($open)* }
        $crate::__kms_contract_of_random_wraps! { $($open)* }
    };
}

/// As [`kms_contract!`](crate::kms_contract), for services that wrap a key the same way each time,
/// as AES key wrap does: keys are random, so that no two are equal.
#[macro_export]
macro_rules! kms_key_wrap_contract {
    ($($open:tt)*) => {
        $crate::__kms_contract_of_all! { $($open)* }
        $crate::__kms_contract_of_one_copy! { $($open)* }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __kms_contract_of_all {
    ($($open:tt)*) => { $crate::__contract_tests! { kms, $($open)*,
        a_wrapped_key_unwraps_to_itself
        keys_of_any_bytes_unwrap_to_themselves
        every_wrapped_key_unwraps_to_its_own_key
        a_wrapped_key_does_not_show_the_key
        every_copy_is_made_when_nothing_fails
        inspect_accepts_what_wrap_made
        a_truncated_wrapped_key_is_refused_for_good
        an_extended_wrapped_key_is_refused_for_good
        garbage_is_refused_for_good
        a_huge_wrapped_key_is_refused_for_good
        inspect_of_garbage_answers_or_refuses_for_good
        concurrent_calls_do_not_mix
        dropped_calls_leave_the_kms_usable
        debug_shows_no_key
        errors_show_no_key
    } };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __kms_contract_of_one_copy {
    ($($open:tt)*) => { $crate::__contract_tests! { kms, $($open)*,
        a_flipped_bit_in_any_byte_is_refused_for_good
    } };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __kms_contract_of_copies {
    ($($open:tt)*) => { $crate::__contract_tests! { kms, $($open)*,
        a_flipped_bit_in_any_byte_is_refused_for_good_or_does_no_harm
    } };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __kms_contract_of_random_wraps {
    ($($open:tt)*) => { $crate::__contract_tests! { kms, $($open)*,
        two_wraps_of_one_key_differ
    } };
}

/// Makes a test of what [`KeyManagementService`]'s contract says of other master keys: opened is a
/// pair of services alike in everything but that, `async { (kms, other_kms) }`.
#[macro_export]
macro_rules! kms_wrong_key_contract {
    ($($open:tt)*) => { $crate::__contract_tests! { kms, $($open)*,
        what_another_master_key_wrapped_is_refused_for_good
    } };
}

/// Makes a test of each clause of [`KeyManagementService`]'s contract for a service that is far
/// away: `kms_outage_contract!(async { (kms, outage) })`, the latter an [`Outage`].
#[macro_export]
macro_rules! kms_outage_contract {
    ($($open:tt)*) => { $crate::__contract_tests! { kms, $($open)*,
        a_service_out_of_reach_is_a_transient_failure
        a_service_that_hangs_is_a_transient_failure
        a_slow_service_is_waited_for
        an_outage_loses_nothing
        calls_dropped_in_an_outage_leave_the_kms_usable
        errors_of_an_outage_show_no_key
    } };
}

/// What `wrap_key` made, `unwrap_key` turns back into the same key, as often as asked.
pub async fn a_wrapped_key_unwraps_to_itself(kms: &impl KeyManagementService) {
    let key = fresh_key();
    let wrapped = wrap(kms, &key).await;
    for _ in 0..3 {
        assert_unwraps_to(kms, &wrapped, &key).await;
    }
}

/// A key is 32 bytes of anything: zeros, newlines and bytes that are no text among them.
pub async fn keys_of_any_bytes_unwrap_to_themselves(kms: &impl KeyManagementService) {
    for byte in [0, b'\n', b'"', 0x7f, 0xff] {
        let key = key_of([byte; 32]);
        assert_unwraps_to(kms, &wrap(kms, &key).await, &key).await;
    }
}

/// Wrapped keys are not confused with each other, in whatever order they are unwrapped.
pub async fn every_wrapped_key_unwraps_to_its_own_key(kms: &impl KeyManagementService) {
    let mut wrapped = Vec::new();
    for _ in 0..5 {
        let key = fresh_key();
        wrapped.push((wrap(kms, &key).await, key));
    }
    for (wrapped, key) in wrapped.iter().rev() {
        assert_unwraps_to(kms, wrapped, key).await;
    }
}

/// Wrapping is randomised: equal keys cannot be told from their wrapped forms.
pub async fn two_wraps_of_one_key_differ(kms: &impl KeyManagementService) {
    let key = fresh_key();
    assert_ne!(wrap(kms, &key).await, wrap(kms, &key).await);
}

/// The wrapped form does not hold the key in the clear.
pub async fn a_wrapped_key_does_not_show_the_key(kms: &impl KeyManagementService) {
    let key = fresh_key();
    let wrapped = wrap(kms, &key).await;
    assert!(!wrapped.windows(8).any(|window| key.expose_secret().starts_with(window)));
}

/// No copy is missing when nothing fails.
pub async fn every_copy_is_made_when_nothing_fails(kms: &impl KeyManagementService) {
    let wrapped = ok(kms.wrap_key(&fresh_key(), &meta(), &call()).await);
    assert_eq!(wrapped.missing_copies(), [""; 0]);
}

/// `inspect` finds every copy in what `wrap_key` made.
pub async fn inspect_accepts_what_wrap_made(kms: &impl KeyManagementService) {
    let health = ok(kms.inspect(&wrap(kms, &fresh_key()).await));
    assert!(!health.present.is_empty());
    assert_eq!(health.missing, [""; 0]);
}

/// A wrapped key in which one bit differs is a permanent error, whichever bit.
pub async fn a_flipped_bit_in_any_byte_is_refused_for_good(kms: &impl KeyManagementService) {
    let wrapped = wrap(kms, &fresh_key()).await;
    for (place, bit) in (0..wrapped.len()).zip((0..8).cycle()) {
        let mut forged = wrapped.clone();
        if let Some(byte) = forged.get_mut(place) {
            *byte ^= 1 << bit;
        }
        assert_refused(kms, &forged, &format!("bit {bit} of byte {place}")).await;
    }
}

/// A wrapped key in which one bit differs is a permanent error, or unwraps to the very same key by
/// another copy or since nothing hangs on that bit: never to another key.
pub async fn a_flipped_bit_in_any_byte_is_refused_for_good_or_does_no_harm(kms: &impl KeyManagementService) {
    let key = fresh_key();
    let wrapped = wrap(kms, &key).await;
    for (place, bit) in (0..wrapped.len()).zip((0..8).cycle()) {
        let mut forged = wrapped.clone();
        if let Some(byte) = forged.get_mut(place) {
            *byte ^= 1 << bit;
        }
        match kms.unwrap_key(&forged, &meta(), &call()).await {
            Ok(unwrapped) => assert_same(&unwrapped, &key),
            Err(error) => assert!(!error.is_transient(), "bit {bit} of byte {place}: {error:?}"),
        }
    }
}

/// A wrapped key that was cut is a permanent error, wherever it was cut.
pub async fn a_truncated_wrapped_key_is_refused_for_good(kms: &impl KeyManagementService) {
    let mut wrapped = wrap(kms, &fresh_key()).await;
    while wrapped.pop().is_some() {
        assert_refused(kms, &wrapped, &format!("the first {} bytes", wrapped.len())).await;
    }
}

/// A wrapped key with something before or after it is a permanent error.
pub async fn an_extended_wrapped_key_is_refused_for_good(kms: &impl KeyManagementService) {
    let wrapped = wrap(kms, &fresh_key()).await;
    for more in [&[0][..], b"}", &wrapped] {
        assert_refused(kms, &[&wrapped, more].concat(), "an appendix").await;
        assert_refused(kms, &[more, &wrapped].concat(), "a prefix").await;
    }
}

/// What was never a wrapped key is a permanent error, however long.
pub async fn garbage_is_refused_for_good(kms: &impl KeyManagementService) {
    for garbage in garbage() {
        assert_refused(kms, &garbage, &format!("{} bytes of garbage", garbage.len())).await;
    }
}

/// What is far too long for a wrapped key is a permanent error, whatever it begins like, and brings
/// nobody down.
pub async fn a_huge_wrapped_key_is_refused_for_good(kms: &impl KeyManagementService) {
    const BYTES: usize = 8 * 1024 * 1024;
    let wrapped = wrap(kms, &fresh_key()).await;
    let copy = br#"{"region":"us-east-1","arn":"","encryptedKek":"AAAA"},"#;
    let copies =
        [br#"{"encryptedKey":"AAAA","kmsKeks":["#, copy.repeat(BYTES / copy.len()).as_slice()].concat();
    for start in [&copies, b"vault:v1:".as_slice(), b"CLV1", b"CLV1{\"", b"[", b"", &wrapped] {
        for filling in [b"A", b"[", b" "] {
            let mut huge = start.to_vec();
            huge.resize(start.len() + BYTES, filling[0]);
            assert_refused(kms, &huge, &format!("{} bytes that begin like {start:.8?}", huge.len())).await;
        }
    }
}

/// `inspect` of what was never a wrapped key is an answer or a permanent error.
pub async fn inspect_of_garbage_answers_or_refuses_for_good(kms: &impl KeyManagementService) {
    for garbage in garbage() {
        let refused = kms.inspect(&garbage).err();
        assert!(refused.is_none_or(|error| !error.is_transient()));
    }
}

/// Calls made at once each get their own answer.
pub async fn concurrent_calls_do_not_mix(kms: &impl KeyManagementService) {
    race(8, |_| async {
        for _ in 0..5 {
            let key = fresh_key();
            assert_unwraps_to(kms, &wrap(kms, &key).await, &key).await;
        }
    });
}

/// A future dropped at any await leaves the KMS usable.
pub async fn dropped_calls_leave_the_kms_usable(kms: &impl KeyManagementService) {
    let key = fresh_key();
    let wrapped = wrap(kms, &key).await;
    for round in 0..50 {
        let polls = round % 10 + 1;
        abandon(kms.wrap_key(&key, &meta(), &call()), polls).await;
        abandon(kms.unwrap_key(&wrapped, &meta(), &call()), polls).await;
    }
    assert_unwraps_to(kms, &wrapped, &key).await;
    assert_unwraps_to(kms, &wrap(kms, &key).await, &key).await;
}

/// Neither the KMS nor what it returns shows a key when printed.
pub async fn debug_shows_no_key(kms: &impl KeyManagementService) {
    let key = fresh_key();
    let wrapped = ok(kms.wrap_key(&key, &meta(), &call()).await);
    let unwrapped = ok(kms.unwrap_key(wrapped.bytes(), &meta(), &call()).await);
    for printed in [print(kms), print(&wrapped), print(&unwrapped), print(&key)] {
        assert_shows_no_key(&printed, &key);
    }
}

/// An error shows nothing of the key, nor of what was to be unwrapped.
pub async fn errors_show_no_key(kms: &impl KeyManagementService) {
    let key = fresh_key();
    // The key itself, put where a wrapped one belongs.
    let error = kms.unwrap_key(key.expose_secret(), &meta(), &call()).await.err();
    assert!(error.is_some(), "a key in the clear was unwrapped");
    assert_error_shows_no_key(error.as_ref(), &key);
}

/// What was wrapped under another master key is a permanent error, never a key.
pub async fn what_another_master_key_wrapped_is_refused_for_good<K, O>((kms, other): &(K, O))
where
    K: KeyManagementService,
    O: KeyManagementService,
{
    let key = fresh_key();
    assert_refused(kms, &wrap(other, &key).await, "another master key").await;
    assert_refused(other, &wrap(kms, &key).await, "another master key").await;
    assert_unwraps_to(kms, &wrap(kms, &key).await, &key).await;
}

fn meta() -> KeyMeta {
    KeyMeta::new(KeyId::new("_SK_contract_suite"), created(NOW))
}

fn fresh_key() -> SecretKey {
    key_of(random_bytes())
}

fn key_of(bytes: [u8; 32]) -> SecretKey {
    let Ok(key) = SecretKey::try_init(|key| {
        *key = bytes;
        Ok::<(), std::convert::Infallible>(())
    });
    key
}

async fn wrap(kms: &impl KeyManagementService, key: &SecretKey) -> Vec<u8> {
    ok(kms.wrap_key(key, &meta(), &call()).await).bytes().to_vec()
}

async fn assert_unwraps_to(kms: &impl KeyManagementService, wrapped: &[u8], key: &SecretKey) {
    assert_same(&ok(kms.unwrap_key(wrapped, &meta(), &call()).await), key);
}

#[track_caller]
fn assert_same(unwrapped: &SecretKey, key: &SecretKey) {
    // Not `assert_eq!`, which would print the keys.
    assert!(unwrapped.expose_secret() == key.expose_secret(), "another key came back");
}

async fn assert_refused(kms: &impl KeyManagementService, wrapped: &[u8], what: &str) {
    match kms.unwrap_key(wrapped, &meta(), &call()).await {
        Ok(_) => assert!(what.is_empty(), "{what}: was unwrapped"),
        Err(error) => assert!(!error.is_transient(), "{what}: will not unwrap later either"),
    }
}

fn garbage() -> Vec<Vec<u8>> {
    let noise = random_bytes::<32>();
    let mut garbage =
        vec![Vec::new(), vec![0], vec![0; 28], vec![0; 60], noise.to_vec(), noise.repeat(32 * 1024)];
    garbage.extend(
        ["{}", "null", "[]", "vault:v1:", "vault:v1:AAAA", "{\"encryptedKey\":\"\",\"kmsKeks\":[]}"]
            .map(Vec::from),
    );
    garbage
}

fn print(value: &(impl Debug + ?Sized)) -> String {
    format!("{value:?} {value:#?}")
}

fn assert_error_shows_no_key(error: Option<&BackendError>, key: &SecretKey) {
    let mut cause = error.map(|error| error as &dyn std::error::Error);
    while let Some(error) = cause {
        assert_shows_no_key(&error.to_string(), key);
        assert_shows_no_key(&print(error), key);
        cause = error.source();
    }
}

/// Looks for the key's first bytes as hexadecimal digits, as a list of numbers and as text.
fn assert_shows_no_key(text: &str, key: &SecretKey) {
    let start = key.expose_secret().first_chunk::<6>().copied().unwrap_or_default();
    let lower: String = start.iter().map(|byte| format!("{byte:02x}")).collect();
    let list = start.map(|byte| byte.to_string()).join(", ");
    for needle in [lower.to_uppercase(), lower, list.replace(' ', ""), list, start.escape_ascii().to_string()]
    {
        assert!(!text.contains(&needle), "a key is shown");
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_macro_names_every_clause() {
        crate::testing::support::assert_macro_names_every_clause(&[
            include_str!("kms.rs"),
            include_str!("kms/outage.rs"),
        ]);
    }
}
