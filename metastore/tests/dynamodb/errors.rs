//! What DynamoDB, or the way to it, answers instead, and its class.

use std::slice::from_ref;

use claviger::testing::{ReplaceOne as _, call};
use claviger::{FailureClass, KeyId, Metastore as _, MetastoreAdmin as _};
use claviger_metastore::{DynamoDbError, DynamoDbMetastore};
use claviger_testkit::{AwsStandIn, NoTls, Reply};
use tokio::net::TcpListener;

use crate::latest::LatestRecord as _;
use crate::support::{NOW, assert_failed, builder, chain, meta, record};

const TRANSIENT: FailureClass = FailureClass::Transient;
const PERMANENT: FailureClass = FailureClass::Permanent;

async fn unchecked(endpoint: &str) -> DynamoDbMetastore {
    builder(endpoint, "keys").danger_unchecked().open().await.unwrap()
}

/// A store whose every request is answered so.
async fn answering(reply: impl Fn() -> Reply + Send + Sync + 'static) -> (DynamoDbMetastore, AwsStandIn) {
    let server = AwsStandIn::start(move |_| reply()).await;
    (unchecked(server.endpoint()).await, server)
}

/// The errors of the API's reference, with their HTTP status.
const DOCUMENTED: &[(u16, &str, FailureClass)] = &[
    (400, "ProvisionedThroughputExceededException", TRANSIENT),
    (400, "ThrottlingException", TRANSIENT),
    (400, "RequestLimitExceeded", TRANSIENT),
    (400, "LimitExceededException", TRANSIENT),
    (400, "TransactionConflictException", TRANSIENT),
    (400, "TransactionInProgressException", TRANSIENT),
    (400, "ReplicatedWriteConflictException", TRANSIENT),
    (400, "ResourceInUseException", TRANSIENT),
    (400, "ExpiredTokenException", TRANSIENT),
    (500, "InternalServerError", TRANSIENT),
    (503, "ServiceUnavailable", TRANSIENT),
    (500, "SomethingNew", TRANSIENT),
    (429, "SomethingNew", TRANSIENT),
    (400, "AccessDeniedException", PERMANENT),
    (400, "UnrecognizedClientException", PERMANENT),
    (400, "InvalidSignatureException", PERMANENT),
    (400, "MissingAuthenticationTokenException", PERMANENT),
    (400, "IncompleteSignatureException", PERMANENT),
    (400, "ResourceNotFoundException", PERMANENT),
    (400, "ValidationException", PERMANENT),
    (400, "ItemCollectionSizeLimitExceededException", PERMANENT),
    (400, "SomethingNew", PERMANENT),
];

/// Whose messages may be about the values of a request.
const UNSHOWN: [(u16, &str); 3] =
    [(400, "ValidationException"), (400, "ItemCollectionSizeLimitExceededException"), (400, "SomethingNew")];

#[tokio::test]
async fn documented_errors_have_their_class_in_every_call() {
    for (status, code, class) in DOCUMENTED {
        let (store, _server) = answering(|| Reply::error(*status, code, "as told")).await;
        let key = meta("_IK_a_svc_prod", NOW);
        // What it says of a request's values may hold a key id.
        let is_shown = *status != 500 && *status != 503 && !UNSHOWN.contains(&(*status, *code));
        let says = if is_shown { "as told" } else { "DynamoDB answered with an error" };
        let says = format!("{says} ({code})");
        assert_failed(store.load(&key, &call()).await, *class, &says);
        assert_failed(store.latest(key.id()).await, *class, &says);
        assert_failed(store.load_many(from_ref(&key), &call()).await, *class, &says);
        assert_failed(store.latest_many(&[key.id().clone()]).await, *class, &says);
        // Never taken for a duplicate.
        assert_failed(store.insert(&record("_IK_a_svc_prod", NOW), &call()).await, *class, &says);
        assert_failed(store.revoke(&key, &call()).await, *class, &says);
        assert_failed(store.replace_one(&key, b"old", b"new", &call()).await, *class, &says);
        assert_failed(store.delete(key.id(), &call()).await, *class, &says);
        assert_failed(store.list("", None, 10, &call()).await, *class, &says);
        assert_failed(store.count(&call()).await, *class, &says);
    }
}

#[tokio::test]
async fn an_error_carries_code_message_and_request_id() {
    let (store, _server) = answering(|| Reply::error(400, "ThrottlingException", "Rate exceeded")).await;
    let error = store.latest(&KeyId::new("a")).await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().downcast_ref::<DynamoDbError>().unwrap();
    assert_eq!(source.code.as_deref(), Some("ThrottlingException"));
    assert_eq!(source.message, "Rate exceeded");
    assert_eq!(source.request_id.as_deref(), Some("REQUEST-ID"));
}

#[tokio::test]
async fn what_a_message_quotes_of_the_request_is_not_shown() {
    for (reply, says) in Reply::quoting_the_request() {
        let (store, _server) = answering(move || reply.clone()).await;
        assert_failed(store.latest(&KeyId::new("a")).await, PERMANENT, says);
    }
    let endless = "x".repeat(100_000);
    let (store, _server) = answering(move || Reply::error(400, "ValidationException", &endless)).await;
    assert!(chain(&store.latest(&KeyId::new("a")).await.unwrap_err()).len() < 1_000);
}

#[tokio::test]
async fn what_is_no_answer_of_dynamodb_has_its_class() {
    let page = || "<html>Bad Gateway</html>".to_owned();
    for (status, class) in
        [(502, TRANSIENT), (503, TRANSIENT), (200, TRANSIENT), (404, PERMANENT), (403, PERMANENT)]
    {
        let (store, _server) = answering(move || Reply::Http(status, page())).await;
        let says = format!("HTTP {status}");
        assert_failed(store.latest(&KeyId::new("a")).await, class, &says);
        assert_failed(store.insert(&record("a", NOW), &call()).await, class, &says);
    }
}

/// Wherever the answer ends, it is an outage: neither "not found" nor "inserted".
#[tokio::test]
async fn an_answer_that_ends_early_is_transient() {
    for after in (0..300).step_by(7) {
        let (store, _server) = answering(move || Reply::Cut(after)).await;
        assert_failed(store.load(&meta("a", NOW), &call()).await, TRANSIENT, "");
        assert_failed(store.insert(&record("a", NOW), &call()).await, TRANSIENT, "");
    }
}

#[tokio::test]
async fn silence_is_transient() {
    let (store, _server) = answering(|| Reply::Silence).await;
    let (latest, inserted) = (
        tokio::spawn({
            let store = store.clone();
            async move { store.latest(&KeyId::new("a")).await }
        }),
        tokio::spawn(async move { store.insert(&record("a", NOW), &call()).await }),
    );
    assert_failed(latest.await.unwrap(), TRANSIENT, "");
    assert_failed(inserted.await.unwrap(), TRANSIENT, "");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_transient() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let store = unchecked(&format!("http://127.0.0.1:{port}")).await;
    assert_failed(store.latest(&KeyId::new("a")).await, TRANSIENT, "refused");
    // Also at the start-up check.
    let opened = builder(&format!("http://127.0.0.1:{port}"), "keys").open().await;
    assert_failed(opened, TRANSIENT, "refused");
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_transient() {
    let store = unchecked("https://no-such-host.invalid").await;
    assert_failed(store.latest(&KeyId::new("a")).await, TRANSIENT, "");
}

/// A peer whose TLS is not taken will not be taken later: here it does not speak TLS at all.
#[tokio::test]
async fn a_peer_without_tls_is_permanent() {
    let server = NoTls::start().await;
    let store = unchecked(server.endpoint()).await;
    assert_failed(store.latest(&KeyId::new("a")).await, PERMANENT, "the connection failed");
}

#[tokio::test]
async fn a_condition_that_does_not_hold_is_no_error() {
    let (store, _server) =
        answering(|| Reply::error(400, "ConditionalCheckFailedException", "The conditional request failed"))
            .await;
    let record = record("_IK_a_svc_prod", NOW);
    assert_eq!(store.insert(&record, &call()).await.unwrap(), claviger::Insert::AlreadyExists);
    assert!(!store.revoke(record.meta(), &call()).await.unwrap());
    assert!(!store.replace_one(record.meta(), b"old", b"new", &call()).await.unwrap());
    // A read has no condition.
    assert_failed(store.latest(record.meta().id()).await, PERMANENT, "");
}

/// A write that was made and whose answer was lost is found to be there by the next try.
#[tokio::test]
async fn an_insert_whose_answer_was_lost_is_there() {
    let upstream = claviger_testkit::shared_dynalite();
    let beside = crate::support::Beside::on(upstream).await;
    let proxy = claviger_testkit::Proxy::start(upstream.trim_start_matches("http://")).await;
    let through = builder(&format!("http://{}", proxy.address()), &beside.table).danger_unchecked();
    let through = through.open().await.unwrap();
    let record = record("_IK_a_svc_prod", NOW);
    let direction = claviger_testkit::Direction::ToClient;
    proxy.set(claviger_testkit::Fault::Cut { direction, after: 1 });
    assert_failed(through.insert(&record, &call()).await, TRANSIENT, "");
    proxy.set(claviger_testkit::Fault::None);
    assert_eq!(through.insert(&record, &call()).await.unwrap(), claviger::Insert::AlreadyExists);
    assert_eq!(through.latest(record.meta().id()).await.unwrap(), Some(record));
}
