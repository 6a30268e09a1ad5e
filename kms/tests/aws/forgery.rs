//! What somebody who can write the store can do, and cannot.

use claviger::KeyManagementService as _;
use claviger::testing::call;
use claviger_kms::AwsKms;
use claviger_testkit::{AwsStandIn, Reply, shared_moto};
use serde_json::json;

use crate::stand_in::{base64, honest, regions};
use crate::support::{
    DAMAGED, EAST, PERMANENT, WEST, arn, assert_failed, assert_unwraps, builder, client, envelope, meta,
    new_key, new_secret, wrap,
};

/// The ARN in an envelope is not looked at.
#[tokio::test]
async fn a_copy_is_unwrapped_with_the_configured_key_whatever_its_arn_says() {
    let servers = [AwsStandIn::start(honest).await, AwsStandIn::start(honest).await];
    let named = [EAST, WEST].into_iter().zip(&servers);
    let kms = regions(named).open().await.unwrap();
    let key = new_secret();
    let mut forged = envelope(&wrap(&kms, &key).await);
    for copy in forged["kmsKeks"].as_array_mut().unwrap() {
        copy["arn"] = json!("arn:aws:kms:us-east-1:666666666666:key/mine");
    }
    assert_unwraps(&kms, forged.to_string().as_bytes(), &key).await;
    // Two regions' ARNs in each other's place do no harm either.
    forged["kmsKeks"][0]["arn"] = json!(arn(WEST));
    forged["kmsKeks"][1]["arn"] = json!(arn(EAST));
    assert_unwraps(&kms, forged.to_string().as_bytes(), &key).await;
    for (region, server) in [EAST, WEST].into_iter().zip(&servers) {
        for request in server.seen() {
            assert_eq!(request.body["KeyId"], arn(region), "{request:?}");
        }
    }
}

/// A whole envelope of the forger's own, made with a master key of the same account and region.
#[tokio::test]
async fn an_envelope_under_another_key_of_the_same_account_is_refused() {
    let kms = builder(shared_moto(), &[EAST, WEST]).await.open().await.unwrap();
    let forger = builder(shared_moto(), &[EAST, WEST]).await.open().await.unwrap();
    let chosen = new_secret();
    let mut forged = envelope(&wrap(&forger, &chosen).await);
    let own = envelope(&wrap(&kms, &new_secret()).await);
    let refused = kms.unwrap_key(forged.to_string().as_bytes(), &meta(), &call()).await;
    assert_ne!(refused.unwrap_err().class(), claviger::FailureClass::Transient);
    // With the right ARNs, and with true copies around the forged sealed key.
    for place in 0..2 {
        forged["kmsKeks"][place]["arn"] = own["kmsKeks"][place]["arn"].clone();
    }
    let refused = kms.unwrap_key(forged.to_string().as_bytes(), &meta(), &call()).await;
    assert_ne!(refused.unwrap_err().class(), claviger::FailureClass::Transient);
    forged["kmsKeks"] = own["kmsKeks"].clone();
    let refused = kms.unwrap_key(forged.to_string().as_bytes(), &meta(), &call()).await;
    assert_failed(refused, DAMAGED, "authentication failed");
}

/// Copies of two keys in each other's place, in all regions.
#[tokio::test]
async fn copies_of_another_key_open_nothing() {
    let kms = builder(shared_moto(), &[EAST, WEST]).await.open().await.unwrap();
    let (mut one, other) =
        (envelope(&wrap(&kms, &new_secret()).await), envelope(&wrap(&kms, &new_secret()).await));
    one["kmsKeks"] = other["kmsKeks"].clone();
    let refused = kms.unwrap_key(one.to_string().as_bytes(), &meta(), &call()).await;
    assert_failed(refused, DAMAGED, "us-west-2: stored key record is damaged: authentication failed");
}

/// A region's copy under another region's name.
#[tokio::test]
async fn copies_of_two_regions_in_each_others_place_are_refused() {
    let kms = builder(shared_moto(), &[EAST, WEST]).await.open().await.unwrap();
    let mut forged = envelope(&wrap(&kms, &new_secret()).await);
    forged["kmsKeks"][0]["region"] = json!(WEST);
    forged["kmsKeks"][1]["region"] = json!(EAST);
    let error = kms.unwrap_key(forged.to_string().as_bytes(), &meta(), &call()).await.unwrap_err();
    assert_ne!(error.class(), claviger::FailureClass::Transient);
}

/// Names in an envelope reach an operator's terminal as text.
#[tokio::test]
async fn names_in_an_envelope_are_shown_without_control_characters() {
    let kms = regions([(EAST, &AwsStandIn::start(honest).await)]).open().await.unwrap();
    let copy = json!({ "region": "\u{1b}[2Jboo".repeat(100), "arn": "", "encryptedKek": base64(b"x") });
    let forged = json!({ "encryptedKey": "", "kmsKeks": vec![copy; 50] }).to_string();
    let error = kms.unwrap_key(forged.as_bytes(), &meta(), &call()).await.unwrap_err();
    let text = crate::support::chain(&error);
    assert!(text.contains("boo") && !text.contains('\u{1b}') && text.len() < 4_000, "{text}");
    assert_eq!(error.class(), PERMANENT);
}

/// The key that wrapped before unwraps in its region; it is asked only when KMS says that another key
/// is needed, and never wraps.
#[tokio::test]
async fn previous_keys_are_asked_only_when_another_key_wrapped_the_copy() {
    let server = AwsStandIn::start(honest).await;
    let old_key = format!("{}-old", arn(EAST));
    let endpoint = server.endpoint();
    let before = AwsKms::builder().region(EAST, &old_key).client(EAST, client(endpoint, EAST));
    let before = before.open().await.unwrap();
    let key = new_secret();
    let wrapped = wrap(&before, &key).await;
    let now = || AwsKms::builder().region(EAST, arn(EAST)).client(EAST, client(endpoint, EAST));
    assert_failed(
        now().open().await.unwrap().unwrap_key(&wrapped, &meta(), &call()).await,
        DAMAGED,
        "IncorrectKeyException",
    );
    let older = format!("{}-older", arn(EAST));
    let kms = now().previous_arn(EAST, &older).previous_arn(EAST, &old_key).open().await.unwrap();
    let asked = |server: &AwsStandIn| {
        let keys =
            server.seen().into_iter().map(|request| request.body["KeyId"].as_str().unwrap().to_owned());
        keys.collect::<Vec<_>>()
    };
    server.forget();
    assert_unwraps(&kms, &wrapped, &key).await;
    assert_eq!(asked(&server), [arn(EAST), older.clone(), old_key.clone()]);
    server.forget();
    let again = wrap(&kms, &key).await;
    assert_unwraps(&kms, &again, &key).await;
    assert_eq!(asked(&server), [arn(EAST), arn(EAST)], "it wraps with the new key alone");
    // Another refusal is not taken for it.
    for code in
        ["AccessDeniedException", "NotFoundException", "DisabledException", "InvalidCiphertextException"]
    {
        let server = AwsStandIn::start(move |_| Reply::error(400, code, "as told")).await;
        let kms = regions([(EAST, &server)]).previous_arn(EAST, &old_key).open().await.unwrap();
        assert!(kms.unwrap_key(&wrapped, &meta(), &call()).await.is_err());
        assert_eq!(server.operations().len(), 1, "{code}");
    }
}

/// So it is on a server that looks keys up: two keys, one region.
#[tokio::test]
async fn a_key_that_is_neither_configured_nor_previous_does_not_unwrap() {
    let other = new_key(shared_moto(), EAST).await;
    let wrapped = {
        let client = client(shared_moto(), EAST);
        let kms = AwsKms::builder().region(EAST, &other).client(EAST, client).open().await.unwrap();
        wrap(&kms, &new_secret()).await
    };
    let kms = builder(shared_moto(), &[EAST]).await.open().await.unwrap();
    let error = kms.unwrap_key(&wrapped, &meta(), &call()).await.unwrap_err();
    assert_ne!(error.class(), claviger::FailureClass::Transient);
}

#[tokio::test]
async fn what_is_refused_before_any_region_is_asked_says_so() {
    let server = AwsStandIn::start(honest).await;
    let kms = regions([(EAST, &server)]).open().await.unwrap();
    let own = envelope(&wrap(&kms, &new_secret()).await);
    server.forget();
    let changed = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut changed = own.clone();
        change(&mut changed);
        changed.to_string().into_bytes()
    };
    let refused = [
        b"no envelope".to_vec(),
        vec![b' '; 65 * 1024],
        changed(&|envelope| envelope["kmsKeks"] = json!([])),
        changed(&|envelope| envelope["encryptedKey"] = json!("no base64")),
        changed(&|envelope| envelope["kmsKeks"][0]["encryptedKek"] = json!("no base64")),
        changed(&|envelope| envelope["kmsKeks"][0]["encryptedKek"] = json!("")),
        changed(&|envelope| envelope["kmsKeks"][0]["region"] = json!(WEST)),
    ];
    for stored in refused {
        let error = kms.unwrap_key(&stored, &meta(), &call()).await.unwrap_err();
        assert!(!error.was_asked() && !error.is_transient(), "{error:?}");
    }
    assert!(server.seen().is_empty(), "{:?}", server.operations());
    // One copy that is none, and one that the region refuses.
    let two = changed(&|envelope| {
        let mut other = envelope["kmsKeks"][0].clone();
        other["encryptedKek"] = json!(base64(b"of another"));
        envelope["kmsKeks"][0]["encryptedKek"] = json!("no base64");
        envelope["kmsKeks"].as_array_mut().unwrap().push(other);
    });
    assert!(kms.unwrap_key(&two, &meta(), &call()).await.unwrap_err().was_asked());
    assert_eq!(server.operations(), ["Decrypt"]);
    // What was sealed under a data key that the region gave out is the region's answer.
    let sealed = changed(&|envelope| envelope["encryptedKey"] = json!(base64(&[7; 60])));
    assert!(kms.unwrap_key(&sealed, &meta(), &call()).await.unwrap_err().was_asked());
}
