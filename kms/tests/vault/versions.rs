//! Versions of the transit key, and ciphertexts that were changed.

use claviger::testing::call;
use claviger::{FailureClass, KeyManagementService as _, WrapHealth};
use claviger_kms::check;

use crate::support::{
    DECRYPT, ENCRYPT, KEY, assert_told, assert_unwraps_to, fresh_key, unwrap_error, vault, with_token, wrap,
    wrap_error,
};

#[tokio::test]
async fn old_versions_unwrap_after_rotations() {
    let vault = vault();
    let kms = with_token(&vault).await;
    let mut stored = Vec::new();
    for version in 1..=12 {
        let key = fresh_key();
        let wrapped = wrap(&kms, &key).await;
        assert!(wrapped.starts_with(format!("vault:v{version}:").as_bytes()));
        let health = kms.inspect(&wrapped).unwrap();
        assert_eq!(health, WrapHealth::new(vec![format!("transit/claviger v{version}")], Vec::new()));
        stored.push((wrapped, key));
        vault.rotate(KEY);
    }
    for (wrapped, key) in &stored {
        assert_unwraps_to(&kms, wrapped, key).await;
    }
}

#[tokio::test]
async fn rewrapping_brings_a_key_to_the_newest_version_and_does_not_show_it() {
    let vault = vault();
    let kms = with_token(&vault).await;
    let key = fresh_key();
    let old = wrap(&kms, &key).await;
    vault.rotate(KEY);
    vault.rotate(KEY);
    let new = kms.rewrap(&old, &call()).await.unwrap();
    assert!(new.bytes().starts_with(b"vault:v3:"));
    assert_eq!((vault.count("rewrap"), vault.count(DECRYPT), vault.count(ENCRYPT)), (1, 0, 1));
    vault.set_min_decryption_version(KEY, 3);
    assert_unwraps_to(&kms, new.bytes(), &key).await;
    assert_told(&unwrap_error(&kms, &old).await, FailureClass::Permanent, &["too old"]);
    assert_told(
        &kms.rewrap(&old, &call()).await.unwrap_err(),
        FailureClass::Permanent,
        &["rewrap", "too old"],
    );
    assert_told(&kms.rewrap(b"garbage", &call()).await.unwrap_err(), FailureClass::Damaged, &["vault:v"]);
}

#[tokio::test]
async fn a_version_that_is_forbidden_is_no_damage_and_opens_when_it_is_allowed_again() {
    let vault = vault();
    let kms = with_token(&vault).await;
    let key = fresh_key();
    let wrapped = wrap(&kms, &key).await;
    vault.rotate(KEY);
    vault.set_min_decryption_version(KEY, 2);
    let error = unwrap_error(&kms, &wrapped).await;
    assert_told(&error, FailureClass::Permanent, &["400", "too old", "min_decryption_version"]);
    vault.set_min_decryption_version(KEY, 1);
    assert_unwraps_to(&kms, &wrapped, &key).await;
}

#[tokio::test]
async fn another_versions_number_opens_nothing() {
    let vault = vault();
    vault.rotate(KEY);
    let kms = with_token(&vault).await;
    let wrapped = String::from_utf8(wrap(&kms, &fresh_key()).await).unwrap();
    let with = |version: &str| wrapped.replace("vault:v2:", &format!("vault:v{version}:")).into_bytes();
    let other = unwrap_error(&kms, &with("1")).await;
    assert_told(&other, FailureClass::Damaged, &["400", "message authentication failed"]);
    let unknown = unwrap_error(&kms, &with("3")).await;
    assert_told(&unknown, FailureClass::Permanent, &["400", "version is too new"]);
}

#[tokio::test]
async fn what_vault_would_take_for_the_same_ciphertext_is_not_sent() {
    let vault = vault();
    let kms = with_token(&vault).await;
    let key = fresh_key();
    let wrapped = String::from_utf8(wrap(&kms, &key).await).unwrap();
    let plaintext = vault.decrypt(KEY, &wrapped);
    let others = ["v0:", "v01:", "v+1:", "v-1:"].map(|version| wrapped.replace("v1:", version));
    let breaks = [format!("{wrapped}\n"), wrapped.replacen("v1:", "v1:\r\n", 1)];
    for other in others.iter().chain(&breaks) {
        // It would be opened.
        assert_eq!(vault.decrypt(KEY, other), plaintext, "{other:?}");
        vault.forget();
        assert_told(
            &unwrap_error(&kms, other.as_bytes()).await,
            FailureClass::Damaged,
            &["is no key wrapped by transit"],
        );
        assert_eq!(vault.requests(), [""; 0]);
    }
    assert_unwraps_to(&kms, wrapped.as_bytes(), &key).await;
}

#[tokio::test]
async fn what_was_changed_or_cut_is_damage() {
    let vault = vault();
    let kms = with_token(&vault).await;
    let wrapped = wrap(&kms, &fresh_key()).await;
    let start = "vault:v1:".len();
    for place in start..wrapped.len() {
        let mut changed = wrapped.clone();
        changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
        assert_told(&unwrap_error(&kms, &changed).await, FailureClass::Damaged, &[]);
    }
}

#[tokio::test]
async fn a_key_that_is_derived_is_refused_with_the_reason() {
    let vault = vault();
    let kms = with_token(&vault).await;
    let wrapped = wrap(&kms, &fresh_key()).await;
    vault.create_derived_key(KEY);
    for error in [wrap_error(&kms).await, unwrap_error(&kms, &wrapped).await] {
        let words = ["400", "missing 'context'", "derived, which is not supported"];
        assert_told(&error, FailureClass::Permanent, &words);
    }
}

#[tokio::test]
async fn a_check_wraps_and_unwraps() {
    let vault = vault();
    let kms = with_token(&vault).await;
    let good = check("vault", &kms, &call()).await;
    assert!(good.is_good() && good.name == "vault");
    vault.seal();
    assert!(!check("vault", &kms, &call()).await.is_good());
}
