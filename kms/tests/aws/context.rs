//! Envelopes that are bound to the key they are of.

use claviger::KeyManagementService as _;
use claviger::testing::call;
use claviger_kms::{AwsKms, AwsKmsBuilder};
use claviger_testkit::{AwsStandIn, shared_moto};
use serde_json::json;

use crate::stand_in::{honest, regions};
use crate::support::{
    DAMAGED, EAST, REGIONS, WEST, arn, assert_failed, assert_same, assert_unwraps, builder, client, meta,
    meta_of, new_secret, wrap,
};

async fn on_moto(configure: impl Fn(AwsKmsBuilder) -> AwsKmsBuilder) -> (AwsKms, AwsKms) {
    // The same master keys, without a context and as configured.
    let endpoint = shared_moto();
    let (east, west) =
        (crate::support::new_key(endpoint, EAST).await, crate::support::new_key(endpoint, WEST).await);
    let plain = || {
        let builder = AwsKms::builder().region(EAST, &east).region(WEST, &west);
        builder.client(EAST, client(endpoint, EAST)).client(WEST, client(endpoint, WEST))
    };
    (plain().open().await.unwrap(), configure(plain()).open().await.unwrap())
}

#[tokio::test]
async fn every_request_carries_the_id_and_creation_of_the_key() {
    let servers = [AwsStandIn::start(honest).await, AwsStandIn::start(honest).await];
    let named = || REGIONS.into_iter().zip(&servers);
    let kms = regions(named()).encryption_context(true).open().await.unwrap();
    let key = new_secret();
    assert_unwraps(&kms, &wrap(&kms, &key).await, &key).await;
    let seen: Vec<_> = servers.iter().flat_map(AwsStandIn::seen).collect();
    assert_eq!(seen.len(), 3);
    let context = json!({ "claviger-key-id": "_SK_svc_prod", "claviger-created": "1700000000" });
    for request in seen {
        assert_eq!(request.body["EncryptionContext"], context, "{}", request.operation);
    }
    // Asherah's requests have none.
    let kms = regions(named()).open().await.unwrap();
    servers.iter().for_each(AwsStandIn::forget);
    assert_unwraps(&kms, &wrap(&kms, &key).await, &key).await;
    for request in servers.iter().flat_map(AwsStandIn::seen) {
        assert_eq!(request.body.get("EncryptionContext"), None, "{}", request.operation);
    }
}

#[tokio::test]
async fn a_bound_envelope_in_another_keys_place_is_refused() {
    let (plain, bound) = on_moto(|builder| builder.encryption_context(true)).await;
    let key = new_secret();
    let wrapped = wrap(&bound, &key).await;
    assert_unwraps(&bound, &wrapped, &key).await;
    let elsewhere = meta_of("_SK_other_prod");
    assert_failed(
        bound.unwrap_key(&wrapped, &elsewhere, &call()).await,
        DAMAGED,
        "InvalidCiphertextException",
    );
    // Without a context nobody notices, as in every Asherah.
    assert_same(plain.unwrap_key(&wrap(&plain, &key).await, &elsewhere, &call()).await, &key);
    // And one that is bound is nothing to who asks without.
    assert_failed(plain.unwrap_key(&wrapped, &meta(), &call()).await, DAMAGED, "InvalidCiphertextException");
}

#[tokio::test]
async fn envelopes_that_are_not_bound_are_refused_unless_they_are_accepted() {
    let key = new_secret();
    let (plain, strict) = on_moto(|builder| builder.encryption_context(true)).await;
    let refused = strict.unwrap_key(&wrap(&plain, &key).await, &meta(), &call()).await;
    assert_failed(refused, DAMAGED, "InvalidCiphertextException");
    let both = |builder: AwsKmsBuilder| builder.encryption_context(true).accept_no_context(true);
    let (plain, moving) = on_moto(both).await;
    assert_unwraps(&moving, &wrap(&plain, &key).await, &key).await;
    let wrapped = wrap(&moving, &key).await;
    assert_unwraps(&moving, &wrapped, &key).await;
    // What is bound stays bound: the other way out is for what never was.
    let elsewhere = moving.unwrap_key(&wrapped, &meta_of("_SK_other_prod"), &call()).await;
    assert_failed(elsewhere, DAMAGED, "InvalidCiphertextException");
}

/// A copy of the previous key, with no context: what is oldest of all.
#[tokio::test]
async fn what_a_previous_key_wrapped_without_a_context_is_accepted_too() {
    let server = AwsStandIn::start(honest).await;
    let old_key = format!("{}-old", arn(EAST));
    let through = || client(server.endpoint(), EAST);
    let before = AwsKms::builder().region(EAST, &old_key).client(EAST, through()).open().await.unwrap();
    let key = new_secret();
    let wrapped = wrap(&before, &key).await;
    let now = regions([(EAST, &server)]).previous_arn(EAST, &old_key).encryption_context(true);
    let now = now.accept_no_context(true).open().await.unwrap();
    server.forget();
    assert_unwraps(&now, &wrapped, &key).await;
    assert_eq!(server.operations().len(), 3, "the key, the previous key, and that without a context");
}

#[tokio::test]
async fn a_bound_wrap_keeps_what_the_contract_says() {
    let kms = builder(shared_moto(), &REGIONS).await.encryption_context(true).open().await.unwrap();
    claviger::testing::kms::a_wrapped_key_unwraps_to_itself(&kms).await;
    claviger::testing::kms::a_truncated_wrapped_key_is_refused_for_good(&kms).await;
    claviger::testing::kms::every_wrapped_key_unwraps_to_its_own_key(&kms).await;
}
