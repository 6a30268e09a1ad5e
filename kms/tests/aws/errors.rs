//! What KMS, or the way to it, answers instead, and its class.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use claviger::testing::call;
use claviger::{BackendError, BoxedKms, CallContext, FailureClass, FailureKind, KeyManagementService as _};
use claviger_kms::{AwsKms, AwsKmsError, CopyFailures};
use claviger_testkit::{AwsStandIn, NoTls, Reply, call_after_the_openers_end};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::deadlines::assert_ends_by_the_limits;
use crate::stand_in::{honest, regions};
use crate::support::{
    DAMAGED, EAST, PERMANENT, TRANSIENT, arn, assert_failed, chain, client, meta, new_secret, wrap,
};

/// A service whose every request is answered so, and a key that was wrapped in better times.
async fn answering(reply: impl Fn() -> Reply + Send + Sync + 'static) -> (AwsKms, Vec<u8>, AwsStandIn) {
    let server = AwsStandIn::start(move |_| reply()).await;
    let kms = regions([(EAST, &server)]).open().await.unwrap();
    (kms, wrapped().await, server)
}

async fn wrapped() -> Vec<u8> {
    let server = AwsStandIn::start(honest).await;
    wrap(&regions([(EAST, &server)]).open().await.unwrap(), &new_secret()).await
}

/// The errors of the API's reference, with their HTTP status.
const DOCUMENTED: &[(u16, &str, FailureClass)] = &[
    (400, "ThrottlingException", TRANSIENT),
    (400, "LimitExceededException", TRANSIENT),
    (400, "RequestLimitExceeded", TRANSIENT),
    (500, "KMSInternalException", TRANSIENT),
    (503, "DependencyTimeoutException", TRANSIENT),
    (500, "KeyUnavailableException", TRANSIENT),
    // Were their status another one.
    (400, "KMSInternalException", TRANSIENT),
    (400, "DependencyTimeoutException", TRANSIENT),
    (400, "KeyUnavailableException", TRANSIENT),
    (500, "InternalFailure", TRANSIENT),
    (503, "ServiceUnavailable", TRANSIENT),
    (400, "ExpiredTokenException", TRANSIENT),
    (500, "SomethingNew", TRANSIENT),
    (429, "SomethingNew", TRANSIENT),
    (400, "DisabledException", PERMANENT),
    (400, "KMSInvalidStateException", PERMANENT),
    (400, "NotFoundException", PERMANENT),
    (400, "InvalidArnException", PERMANENT),
    (400, "InvalidKeyUsageException", PERMANENT),
    (400, "InvalidGrantTokenException", PERMANENT),
    (400, "AccessDeniedException", PERMANENT),
    (400, "UnrecognizedClientException", PERMANENT),
    (400, "InvalidSignatureException", PERMANENT),
    (400, "MissingAuthenticationToken", PERMANENT),
    (400, "IncompleteSignature", PERMANENT),
    (400, "OptInRequired", PERMANENT),
    (400, "ValidationException", PERMANENT),
    (400, "SomethingNew", PERMANENT),
    (400, "InvalidCiphertextException", DAMAGED),
    (400, "IncorrectKeyException", DAMAGED),
];

#[tokio::test]
async fn documented_errors_have_their_class_in_every_call() {
    for (status, code, class) in DOCUMENTED {
        let (kms, wrapped, server) = answering(|| Reply::error(*status, code, "as told")).await;
        let says = |operation| format!("{operation} in us-east-1: as told ({code}, request REQUEST-ID)");
        assert_failed(kms.unwrap_key(&wrapped, &meta(), &call()).await, *class, &says("Decrypt"));
        assert_failed(kms.wrap_key(&new_secret(), &meta(), &call()).await, *class, &says("GenerateDataKey"));
        assert_eq!(server.operations(), ["Decrypt", "GenerateDataKey"], "the SDK does not try again");
    }
}

#[tokio::test]
async fn an_error_carries_region_operation_code_message_and_request_id() {
    let (kms, wrapped, _server) = answering(|| Reply::error(400, "DisabledException", "it is")).await;
    let error = kms.unwrap_key(&wrapped, &meta(), &call()).await.unwrap_err();
    let failures = std::error::Error::source(&error).unwrap().downcast_ref::<CopyFailures>().unwrap();
    let source = std::error::Error::source(&failures.failures()[0].error).unwrap();
    let source = source.downcast_ref::<AwsKmsError>().unwrap();
    assert_eq!((&*source.region, source.operation), (EAST, "Decrypt"));
    assert_eq!(source.code.as_deref(), Some("DisabledException"));
    assert_eq!(source.message, "it is");
    assert_eq!(source.request_id.as_deref(), Some("REQUEST-ID"));
}

#[tokio::test]
async fn what_a_message_quotes_of_the_request_is_not_shown() {
    for (reply, says) in Reply::quoting_the_request() {
        let (kms, wrapped, _server) = answering(move || reply.clone()).await;
        assert_failed(kms.unwrap_key(&wrapped, &meta(), &call()).await, PERMANENT, says);
    }
    let endless = "x".repeat(100_000);
    let (kms, wrapped, _server) = answering(move || Reply::error(400, "ValidationException", &endless)).await;
    assert!(chain(&kms.unwrap_key(&wrapped, &meta(), &call()).await.unwrap_err()).len() < 1_000);
}

#[tokio::test]
async fn what_is_no_answer_of_kms_has_its_class() {
    let page = || "<html>Bad Gateway</html>".to_owned();
    for (status, class) in
        [(502, TRANSIENT), (503, TRANSIENT), (200, TRANSIENT), (404, PERMANENT), (403, PERMANENT)]
    {
        let (kms, wrapped, _server) = answering(move || Reply::Http(status, page())).await;
        let says = format!("HTTP {status}");
        assert_failed(kms.unwrap_key(&wrapped, &meta(), &call()).await, class, &says);
        assert_failed(kms.wrap_key(&new_secret(), &meta(), &call()).await, class, &says);
    }
}

/// An answer whose plaintext is no base64 is broken, and what there is of it is not shown.
#[tokio::test]
async fn an_answer_whose_plaintext_cannot_be_read_is_transient() {
    let reply = || Reply::ok(serde_json::json!({ "Plaintext": "canary*", "CiphertextBlob": "AAAA" }));
    let (kms, wrapped, _server) = answering(reply).await;
    assert_failed(kms.unwrap_key(&wrapped, &meta(), &call()).await, TRANSIENT, "");
    assert_failed(kms.wrap_key(&new_secret(), &meta(), &call()).await, TRANSIENT, "");
}

#[tokio::test]
async fn an_answer_that_ends_early_is_transient() {
    for after in (0..300).step_by(7) {
        let (kms, wrapped, _server) = answering(move || Reply::Cut(after)).await;
        assert_failed(kms.unwrap_key(&wrapped, &meta(), &call()).await, TRANSIENT, "");
        assert_failed(kms.wrap_key(&new_secret(), &meta(), &call()).await, TRANSIENT, "");
    }
}

#[tokio::test]
async fn silence_is_transient() {
    let server = AwsStandIn::start(|_| Reply::Silence).await;
    let kms = regions([(EAST, &server)]).open().await.unwrap();
    let soon = || CallContext::within(Duration::from_millis(50));
    let wrapped = wrapped().await;
    assert_failed(kms.unwrap_key(&wrapped, &meta(), &soon()).await, TRANSIENT, "no answer within 50ms");
    assert_failed(kms.wrap_key(&new_secret(), &meta(), &soon()).await, TRANSIENT, "no answer within 50ms");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_transient() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    for (endpoint, says) in
        [(format!("http://127.0.0.1:{port}"), "refused"), ("http://no-such-host.invalid".into(), "")]
    {
        let kms = AwsKms::builder().region(EAST, arn(EAST)).client(EAST, client(&endpoint, EAST));
        let kms = kms.open().await.unwrap();
        assert_failed(kms.unwrap_key(&wrapped().await, &meta(), &call()).await, TRANSIENT, says);
        assert_failed(kms.wrap_key(&new_secret(), &meta(), &call()).await, TRANSIENT, says);
    }
}

/// A peer whose TLS is not taken will not be taken later: here it does not speak TLS at all.
#[tokio::test]
async fn a_peer_without_tls_is_permanent() {
    let server = NoTls::start().await;
    let ring = aws_smithy_http_client::tls::rustls_provider::CryptoMode::Ring;
    let https = aws_smithy_http_client::Builder::new()
        .tls_provider(aws_smithy_http_client::tls::Provider::Rustls(ring))
        .build_https();
    let config = crate::support::client_config(server.endpoint(), EAST).http_client(https).build();
    let kms = AwsKms::builder().region(EAST, arn(EAST)).client(EAST, aws_sdk_kms::Client::from_conf(config));
    let kms = kms.open().await.unwrap();
    let answer = kms.unwrap_key(&wrapped().await, &meta(), &call()).await;
    assert_failed(answer, PERMANENT, "the connection failed");
}

/// What is never sent says why.
#[tokio::test]
async fn an_endpoint_that_is_no_url_is_permanent() {
    let server = AwsStandIn::start(honest).await;
    let kms = regions([(EAST, &server)]).endpoint(EAST, "no url").danger_http(true).open().await.unwrap();
    assert_failed(
        kms.unwrap_key(&wrapped().await, &meta(), &call()).await,
        PERMANENT,
        "the request failed: ",
    );
    assert_failed(kms.wrap_key(&new_secret(), &meta(), &call()).await, PERMANENT, "the request failed: ");
    assert!(server.seen().is_empty());
}

/// A connection is driven by the runtime that it was opened in, and ends with it.
#[test]
fn a_call_whose_connection_ends_with_another_runtime_may_be_made_again() {
    let servers = Runtime::new().unwrap();
    let held = Arc::new(AtomicBool::new(false));
    let is_held = Arc::clone(&held);
    let server = servers.block_on(AwsStandIn::start(move |request| match is_held.load(Ordering::SeqCst) {
        true => Reply::Silence,
        false => honest(request),
    }));
    let kms = Arc::new(servers.block_on(regions([(EAST, &server)]).open()).unwrap());
    let opens = async {
        wrap(&kms, &new_secret()).await;
        held.store(true, Ordering::SeqCst);
    };
    let wraps = |()| {
        let kms = Arc::clone(&kms);
        async move { kms.wrap_key(&new_secret(), &meta(), &call()).await }
    };
    let (lost, caller) = call_after_the_openers_end(opens, wraps, || server.kept_waiting() > 0);
    assert_eq!(server.connections(), 1, "both calls used one");
    let kind = lost.as_ref().err().and_then(BackendError::kind);
    assert_failed(lost, TRANSIENT, "runtime dropped the dispatch task");
    assert_eq!(kind, Some(FailureKind::Unreachable));
    held.store(false, Ordering::SeqCst);
    assert!(caller.block_on(wraps(())).is_ok());
}

#[tokio::test]
async fn a_region_that_hangs_has_the_deadline_of_the_limits_alone() {
    let server = AwsStandIn::start(|_| Reply::Silence).await;
    let kms = regions([(EAST, &server)]).open().await.unwrap();
    assert_ends_by_the_limits(BoxedKms::new(kms)).await;
}
