//! Helpers: clients, keys, services in several regions, errors as a log would show them.

use std::fmt::Debug;

use aws_sdk_kms::Client;
use aws_sdk_kms::config::{BehaviorVersion, Credentials, Region, SharedHttpClient};
use claviger::testing::call;
use claviger::{
    BackendError, Created, FailureClass, KeyId, KeyManagementService as _, KeyMeta, SecretKey, SystemRandom,
};
use claviger_kms::{AwsKms, AwsKmsBuilder};
use claviger_testkit::assert_says;
pub(crate) use claviger_testkit::chain;
use serde_json::Value;

pub(crate) const TRANSIENT: FailureClass = FailureClass::Transient;
pub(crate) const PERMANENT: FailureClass = FailureClass::Permanent;
pub(crate) const DAMAGED: FailureClass = FailureClass::Damaged;

pub(crate) const EAST: &str = "us-east-1";
pub(crate) const WEST: &str = "us-west-2";
pub(crate) const EUROPE: &str = "eu-west-1";
pub(crate) const REGIONS: [&str; 3] = [EAST, WEST, EUROPE];

/// Credentials that no server of the tests looks at.
pub(crate) fn credentials() -> Credentials {
    Credentials::new("AKIDEXAMPLE", "canary-secret", Some("canary-token".into()), None, "tests")
}

fn http_client() -> SharedHttpClient {
    aws_smithy_http_client::Builder::new().build_http()
}

pub(crate) fn client(endpoint: &str, region: &str) -> Client {
    Client::from_conf(client_config(endpoint, region).build())
}

pub(crate) fn client_config(endpoint: &str, region: &str) -> aws_sdk_kms::config::Builder {
    aws_sdk_kms::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(region.to_owned()))
        .endpoint_url(endpoint)
        .credentials_provider(credentials())
        .http_client(http_client())
}

/// Makes a master key, and returns its ARN.
pub(crate) async fn new_key(endpoint: &str, region: &str) -> String {
    let made = client(endpoint, region).create_key().send().await.unwrap();
    made.key_metadata.unwrap().arn.unwrap()
}

/// A region, with a key of its own on the server at the endpoint.
pub(crate) async fn with_region(builder: AwsKmsBuilder, endpoint: &str, region: &str) -> AwsKmsBuilder {
    let arn = new_key(endpoint, region).await;
    builder.region(region, arn).client(region, client(endpoint, region))
}

/// The regions, with new keys.
pub(crate) async fn builder(endpoint: &str, regions: &[&str]) -> AwsKmsBuilder {
    let mut builder = AwsKms::builder();
    for region in regions {
        builder = with_region(builder, endpoint, region).await;
    }
    builder
}

/// An ARN of a key that no server looks at.
pub(crate) fn arn(region: &str) -> String {
    format!("arn:aws:kms:{region}:111122223333:key/key-of-{region}")
}

pub(crate) fn meta() -> KeyMeta {
    meta_of("_SK_svc_prod")
}

pub(crate) fn meta_of(id: &str) -> KeyMeta {
    KeyMeta::new(KeyId::new(id), Created::new(1_700_000_000).unwrap())
}

pub(crate) fn new_secret() -> SecretKey {
    SecretKey::generate(&SystemRandom::new()).unwrap()
}

pub(crate) async fn wrap(kms: &AwsKms, key: &SecretKey) -> Vec<u8> {
    kms.wrap_key(key, &meta(), &call()).await.unwrap().bytes().to_vec()
}

#[track_caller]
pub(crate) fn assert_same(unwrapped: Result<SecretKey, BackendError>, key: &SecretKey) {
    // Not `assert_eq!`, which would print the keys.
    assert!(unwrapped.unwrap().expose_secret() == key.expose_secret(), "another key came back");
}

pub(crate) async fn assert_unwraps(kms: &AwsKms, wrapped: &[u8], key: &SecretKey) {
    assert_same(kms.unwrap_key(wrapped, &meta(), &call()).await, key);
}

/// An envelope, to look at and to forge.
pub(crate) fn envelope(wrapped: &[u8]) -> Value {
    serde_json::from_slice(wrapped).unwrap()
}

/// The names of an envelope's regions, in their order.
pub(crate) fn regions_of(wrapped: &[u8]) -> Vec<String> {
    let copies = envelope(wrapped)["kmsKeks"].as_array().unwrap().clone();
    copies.iter().map(|copy| copy["region"].as_str().unwrap().to_owned()).collect()
}

/// Fails unless the class is right, the text says what it should, and nothing shows credentials.
#[track_caller]
pub(crate) fn assert_failed<T: Debug>(answer: Result<T, BackendError>, class: FailureClass, says: &str) {
    let error = answer.unwrap_err();
    assert_eq!(error.class(), class, "{}", chain(&error));
    assert_says(&error, says);
}
