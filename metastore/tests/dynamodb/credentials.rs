//! Credentials that are missing, late or refused, and a region that is missing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_credential_types::credential_fn::provide_credentials_fn;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, ProvideCredentials};
use claviger::{CallContext, Created, FailureClass, KeyId, Metastore as _};
use claviger_metastore::DynamoDbMetastore;
use claviger_testkit::{AwsStandIn, Reply, in_environment, told_by_parent};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::latest::LatestRecord as _;
use crate::support::{assert_failed, chain, client, client_config, credentials};

#[tokio::test]
async fn failures_of_credentials_have_their_class() {
    let cases: [(fn() -> CredentialsError, FailureClass); 5] = [
        (CredentialsError::not_loaded_no_source, FailureClass::Permanent),
        (|| CredentialsError::invalid_configuration("canary"), FailureClass::Permanent),
        (|| CredentialsError::unhandled("canary"), FailureClass::Permanent),
        (|| CredentialsError::provider_error("canary"), FailureClass::Transient),
        (|| CredentialsError::provider_timed_out(Duration::from_secs(1)), FailureClass::Transient),
    ];
    let server = AwsStandIn::start(|_| Reply::ok(json!({}))).await;
    for (failure, class) in cases {
        let failing = provide_credentials_fn(move || async move { Err(failure()) });
        let unchecked = DynamoDbMetastore::builder().danger_unchecked().region("us-west-2");
        let ours = unchecked.endpoint(server.endpoint()).credentials(failing).open().await.unwrap();
        let theirs = client_config(server.endpoint()).credentials_provider(failing).build();
        let theirs = DynamoDbMetastore::builder().danger_unchecked().open_with(Client::from_conf(theirs));
        for store in [ours, theirs.await.unwrap()] {
            assert_failed(store.latest(&KeyId::new("a")).await, class, "no credentials");
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

/// Credentials that come when they are let, however often they are asked for.
fn slow(let_go: Arc<Semaphore>, asked: Arc<AtomicUsize>) -> impl ProvideCredentials + 'static {
    provide_credentials_fn(move || {
        let (let_go, asked) = (Arc::clone(&let_go), Arc::clone(&asked));
        async move {
            asked.fetch_add(1, Ordering::SeqCst);
            let_go.acquire().await.unwrap().forget();
            Ok(credentials())
        }
    })
}

/// Credentials that take longer than a call waits are not asked for anew by each call: those that the
/// first call asked for serve the later ones.
#[tokio::test]
async fn credentials_that_come_late_do_come() {
    let server = AwsStandIn::start(|_| Reply::ok(json!({}))).await;
    let (let_go, asked) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let slow = slow(Arc::clone(&let_go), Arc::clone(&asked));
    let builder = DynamoDbMetastore::builder().danger_unchecked().region("us-west-2").credentials(slow);
    let store = builder.endpoint(server.endpoint()).open().await.unwrap();
    let id = KeyId::new("a");
    let soon = CallContext::within(Duration::from_millis(300));
    assert_failed(store.load_latest(&id, Created::MAX, &soon).await, FailureClass::Transient, "no answer");
    let_go.add_permits(1);
    assert_eq!(store.latest(&id).await.unwrap(), None);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

/// Nor are they when the call that asked for them is dropped, with its request.
#[tokio::test]
async fn credentials_that_a_dropped_call_asked_for_do_come() {
    let server = AwsStandIn::start(|_| Reply::ok(json!({}))).await;
    let (let_go, asked) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    for is_client_ours in [true, false] {
        asked.store(0, Ordering::SeqCst);
        let slow = slow(Arc::clone(&let_go), Arc::clone(&asked));
        let builder = DynamoDbMetastore::builder().danger_unchecked().region("us-west-2").credentials(slow);
        let store = match is_client_ours {
            true => builder.endpoint(server.endpoint()).open().await.unwrap(),
            false => builder.open_with(client(server.endpoint())).await.unwrap(),
        };
        let call = tokio::spawn({
            let store = store.clone();
            async move { store.latest(&KeyId::new("a")).await }
        });
        while asked.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled());
        let_go.add_permits(1);
        assert_eq!(store.latest(&KeyId::new("a")).await.unwrap(), None);
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }
}

/// Opens a table with nothing but its name, as a child does, and prints what comes of it.
fn open_as_child() -> bool {
    let is_child = told_by_parent().is_some();
    if is_child {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        match runtime.block_on(DynamoDbMetastore::open("keys")) {
            Ok(store) => println!("opened: {store:?}"),
            Err(error) => println!("failed: {:?} {}", error.class(), chain(&error)),
        }
    }
    is_child
}

#[test]
fn the_environment_gives_region_endpoint_and_credentials() {
    const NAME: &str = "credentials::the_environment_gives_region_endpoint_and_credentials";
    if open_as_child() {
        return;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let answer = |_: &_| Reply::error(400, "ResourceNotFoundException", "as told");
    let server = runtime.block_on(AwsStandIn::start(answer));
    let keys = [("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"), ("AWS_SECRET_ACCESS_KEY", "canary")];
    let place = [("AWS_REGION", "eu-central-1"), ("AWS_ENDPOINT_URL_DYNAMODB", server.endpoint())];
    let said = runtime.block_on(in_environment(NAME, "", &[keys, place].concat()));
    assert!(said.contains("failed: Permanent") && said.contains("table-missing"), "{said}");
    assert_eq!(server.seen().len(), 1);
    let said = runtime.block_on(in_environment(NAME, "", &place));
    assert!(said.contains("failed: Permanent") && said.contains("no credentials: none in the"), "{said}");
    let said = runtime.block_on(in_environment(NAME, "", &keys));
    assert!(said.contains("failed: Permanent") && said.contains("no region"), "{said}");
    assert_eq!(server.seen().len(), 1, "nothing more was sent");
}
