//! Credentials that are missing, late or refused, and a region that is missing.

use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::future;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, ProvideCredentials};
use claviger::{FailureClass, KeyId, Metastore as _};
use claviger_metastore::DynamoDbMetastore;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;

use crate::stand_in::{Reply, StandIn};
use crate::support::{assert_failed, client_config, credentials};

/// Fails as it is told.
#[derive(Debug)]
struct Failing(fn() -> CredentialsError);

impl ProvideCredentials for Failing {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::ready(Err(self.0()))
    }
}

#[tokio::test]
async fn failures_of_credentials_have_their_class() {
    let cases: [(fn() -> CredentialsError, FailureClass); 5] = [
        (CredentialsError::not_loaded_no_source, FailureClass::Permanent),
        (|| CredentialsError::invalid_configuration("canary"), FailureClass::Permanent),
        (|| CredentialsError::unhandled("canary"), FailureClass::Permanent),
        (|| CredentialsError::provider_error("canary"), FailureClass::Transient),
        (|| CredentialsError::provider_timed_out(Duration::from_secs(1)), FailureClass::Transient),
    ];
    let server = StandIn::start(|_| Reply::ok(json!({}))).await;
    for (failure, class) in cases {
        let unchecked = DynamoDbMetastore::builder().danger_unchecked().region("us-west-2");
        let ours = unchecked.endpoint(&server.endpoint).credentials(Failing(failure)).open().await.unwrap();
        let theirs = client_config(&server.endpoint).credentials_provider(Failing(failure)).build();
        let theirs = DynamoDbMetastore::builder().danger_unchecked().client(Client::from_conf(theirs));
        for store in [ours, theirs.await.unwrap()] {
            assert_failed(store.load_latest(&KeyId::new("a")).await, class, "no credentials");
        }
    }
    assert!(server.seen().is_empty(), "nothing was sent");
}

#[tokio::test]
async fn no_region_is_a_permanent_error() {
    let config = aws_sdk_dynamodb::Config::builder().behavior_version(BehaviorVersion::latest());
    let client = Client::from_conf(config.credentials_provider(credentials()).build());
    let opened = DynamoDbMetastore::new(client, "keys").await;
    assert_failed(opened, FailureClass::Permanent, "no region");
}

/// Comes when it is let, however often it is asked.
#[derive(Debug)]
struct Slow {
    let_go: Arc<Semaphore>,
    asked: Arc<AtomicUsize>,
}

impl ProvideCredentials for Slow {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async move {
            self.asked.fetch_add(1, Ordering::SeqCst);
            self.let_go.acquire().await.unwrap().forget();
            Ok(credentials())
        })
    }
}

/// Credentials that take longer than a call waits are not asked for anew by each call: those that the
/// first call asked for serve the later ones.
#[tokio::test]
async fn credentials_that_come_late_do_come() {
    let server = StandIn::start(|_| Reply::ok(json!({}))).await;
    let (let_go, asked) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let slow = Slow { let_go: Arc::clone(&let_go), asked: Arc::clone(&asked) };
    let builder = DynamoDbMetastore::builder().danger_unchecked().region("us-west-2").credentials(slow);
    let store = builder.endpoint(&server.endpoint).open().await.unwrap();
    let id = KeyId::new("a");
    assert_failed(store.load_latest(&id).await, FailureClass::Transient, "no answer");
    let_go.add_permits(1);
    assert_eq!(store.load_latest(&id).await.unwrap(), None);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}
