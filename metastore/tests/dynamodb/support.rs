//! Helpers: a table of its own for each test, a client beside the metastore, records.

use std::collections::HashMap;
use std::fmt::Debug;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_dynamodb::types::AttributeValue;
use claviger::{BackendError, Created, EnvelopeKeyRecord, FailureClass, KeyId, KeyMeta};
use claviger_metastore::{DynamoDbBuilder, DynamoDbMetastore};
use claviger_testkit::assert_says;
pub(crate) use claviger_testkit::chain;

/// 2023-11-14 22:13:20.
pub(crate) const NOW: i64 = 1_700_000_000;

pub(crate) type Item = HashMap<String, AttributeValue>;

/// Credentials that no server of the tests looks at.
pub(crate) fn credentials() -> Credentials {
    Credentials::new("AKIDEXAMPLE", "canary-secret", Some("canary-token".into()), None, "tests")
}

pub(crate) fn builder(endpoint: &str, table: &str) -> DynamoDbBuilder {
    let builder = DynamoDbMetastore::builder().table(table).region("us-west-2").endpoint(endpoint);
    builder.credentials(credentials())
}

/// A name that no other test and no earlier run uses.
pub(crate) fn fresh_name() -> String {
    use std::hash::BuildHasher as _;
    format!("test-{:016x}", std::hash::RandomState::new().hash_one(std::process::id()))
}

/// Makes a table and opens it.
pub(crate) async fn new_table(endpoint: &str) -> DynamoDbMetastore {
    new_named_table(endpoint).await.0
}

pub(crate) async fn new_named_table(endpoint: &str) -> (DynamoDbMetastore, String) {
    let table = fresh_name();
    builder(endpoint, &table).danger_unchecked().migrate().open().await.unwrap();
    (builder(endpoint, &table).open().await.unwrap(), table)
}

/// A client such as another program has.
pub(crate) fn client(endpoint: &str) -> Client {
    Client::from_conf(client_config(endpoint).build())
}

pub(crate) fn client_config(endpoint: &str) -> aws_sdk_dynamodb::config::Builder {
    aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-west-2"))
        .endpoint_url(endpoint)
        .credentials_provider(credentials())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
}

/// A table, and a client to do with it what others do.
pub(crate) struct Beside {
    pub(crate) store: DynamoDbMetastore,
    pub(crate) client: Client,
    pub(crate) table: String,
}

impl Beside {
    pub(crate) async fn on(endpoint: &str) -> Self {
        let (store, table) = new_named_table(endpoint).await;
        Self { store, client: client(endpoint), table }
    }

    pub(crate) async fn put(&self, item: Item) {
        self.client.put_item().table_name(&self.table).set_item(Some(item)).send().await.unwrap();
    }

    pub(crate) async fn get(&self, meta: &KeyMeta) -> Option<Item> {
        let get = self.client.get_item().table_name(&self.table).consistent_read(true);
        get.set_key(Some(key(meta))).send().await.unwrap().item
    }
}

pub(crate) fn s(text: &str) -> AttributeValue {
    AttributeValue::S(text.into())
}

pub(crate) fn n(number: impl ToString) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

pub(crate) fn m<const N: usize>(fields: [(&str, AttributeValue); N]) -> AttributeValue {
    AttributeValue::M(item(fields))
}

pub(crate) fn item<const N: usize>(fields: [(&str, AttributeValue); N]) -> Item {
    fields.map(|(name, value)| (name.to_owned(), value)).into()
}

pub(crate) fn key(meta: &KeyMeta) -> Item {
    item([("Id", s(meta.id().as_str())), ("Created", n(meta.created()))])
}

pub(crate) fn meta(id: &str, created: i64) -> KeyMeta {
    KeyMeta::new(KeyId::new(id), Created::new(created).unwrap())
}

pub(crate) fn record(id: &str, created: i64) -> EnvelopeKeyRecord {
    let parent = meta("_SK_svc_prod", NOW - 60);
    EnvelopeKeyRecord::new(meta(id, created), format!("{id}@{created}").into_bytes(), Some(parent))
}

/// Fails unless the class is right, the text says what it should, and nothing shows credentials.
#[track_caller]
pub(crate) fn assert_failed<T: Debug>(answer: Result<T, BackendError>, class: FailureClass, says: &str) {
    let error = answer.unwrap_err();
    assert_eq!(error.class(), class, "{}", chain(&error));
    assert_says(&error, says);
}
