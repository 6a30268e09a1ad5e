//! What a failure of an SDK is, and what of it may be shown.

use std::error::Error;
use std::io;

use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use aws_types::request_id::RequestId as _;
use claviger::{FailureClass, FailureKind};

/// What a service, or the way to it, reported.
///
/// It never holds credentials: what a message quotes of a request or its signature is cut off.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Failure {
    /// The service's code, such as `ThrottlingException`, if it came from there.
    pub code: Option<String>,
    /// What it said.
    pub message: String,
    /// The id under which AWS support finds the request.
    pub request_id: Option<String>,
    /// Whether it may pass by itself.
    pub class: FailureClass,
    /// What it is about, where the code or the way that failed tells.
    pub kind: Option<FailureKind>,
}

impl Failure {
    /// Reads what a request to the service of this name came to. `class_of_code` knows the codes that
    /// are the service's own; those of all services are known here.
    pub fn new<E>(
        service: &str,
        class_of_code: impl FnOnce(&str) -> Option<FailureClass>,
        error: &SdkError<E, HttpResponse>,
    ) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let plain = |class, message: String| {
            let kind = kind_of_causes(error, class);
            Self { code: None, message, request_id: None, class, kind }
        };
        match error {
            SdkError::ServiceError(_) => {
                let status = status(error);
                let code = error.code().map(str::to_owned);
                let class = code.as_deref().and_then(class_of_code);
                let message = error.message().map(harmless_part).filter(|message| !message.is_empty());
                Self {
                    message: message
                        .map_or_else(|| format!("{service} answered HTTP {status}"), str::to_owned),
                    request_id: error.request_id().map(|id| harmless_part(id).to_owned()),
                    class: class.unwrap_or_else(|| class_of_answer(code.as_deref(), status)),
                    kind: kind_of_answer(code.as_deref(), status),
                    code,
                }
            }
            SdkError::DispatchFailure(failure) => {
                // The last but one is a connection that ended before the answer.
                let is_network = failure.is_io()
                    || failure.is_timeout()
                    || failure.as_other().is_some()
                    || failure.is_user() && lost_its_runtime(error);
                let unknown = if is_network { FailureClass::Transient } else { FailureClass::Permanent };
                plain(class_of_causes(error).unwrap_or(unknown), what_failed(error))
            }
            SdkError::TimeoutError(_) => plain(FailureClass::Transient, "the request timed out".into()),
            SdkError::ResponseError(_) => {
                let status = status(error);
                // A body that ends early is the network's doing, an answer that is not the service's is not.
                let is_refusal = (400..500).contains(&status);
                let class = if is_refusal { FailureClass::Permanent } else { FailureClass::Transient };
                plain(class, format!("the answer (HTTP {status}) cannot be read"))
            }
            _ => plain(class_of_causes(error).unwrap_or(FailureClass::Permanent), what_failed(error)),
        }
    }
}

/// Codes of what passes by itself, whatever the service and the HTTP status.
const TRANSIENT: &[&str] = &[
    // Too much at once.
    "ThrottlingException",
    "Throttling",
    "LimitExceededException",
    "RequestLimitExceeded",
    "TooManyRequestsException",
    "SlowDown",
    // The service's own troubles.
    "InternalFailure",
    "InternalServerError",
    "ServiceUnavailable",
    "ServiceUnavailableException",
    // The provider of temporary credentials replaces them without our doing. Those that were given by
    // hand stay expired: then the breaker keeps the retries few until somebody looks.
    "ExpiredTokenException",
    "ExpiredToken",
];

/// Classifies an answer. In doubt it is permanent: no right, no such thing, bad keys, a wrong signature.
fn class_of_answer(code: Option<&str>, status: u16) -> FailureClass {
    // A success that cannot be read was damaged on its way: whether a write was made, a second try tells.
    let is_broken = status < 300 || status == 429 || status >= 500;
    if is_broken || code.is_some_and(|code| TRANSIENT.contains(&code)) {
        FailureClass::Transient
    } else {
        FailureClass::Permanent
    }
}

/// Tells what an answer is about, whatever the service.
fn kind_of_answer(code: Option<&str>, status: u16) -> Option<FailureKind> {
    let of_code = code.and_then(kind_of_code);
    let of_status = || match status {
        429 => Some(FailureKind::Busy),
        500.. => Some(FailureKind::Unreachable),
        _ => None,
    };
    of_code.or_else(of_status)
}

fn kind_of_code(code: &str) -> Option<FailureKind> {
    Some(match code {
        "AccessDeniedException" | "AccessDenied" | "OptInRequired" => FailureKind::Denied,
        "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignatureException"
        | "IncompleteSignature"
        | "MissingAuthenticationTokenException"
        | "MissingAuthenticationToken"
        | "ExpiredTokenException"
        | "ExpiredToken" => FailureKind::Unauthenticated,
        // Of a table of DynamoDB; of a key of KMS, and of one that is not to be used now.
        "ResourceNotFoundException" => FailureKind::NoSuchTable,
        "NotFoundException" => FailureKind::NoSuchKey,
        "DisabledException" | "KMSInvalidStateException" => FailureKind::KeyDisabled,
        "ThrottlingException"
        | "Throttling"
        | "LimitExceededException"
        | "RequestLimitExceeded"
        | "TooManyRequestsException"
        | "SlowDown"
        | "ProvisionedThroughputExceededException"
        | "TransactionConflictException"
        | "TransactionInProgressException"
        | "ReplicatedWriteConflictException"
        | "ResourceInUseException" => FailureKind::Busy,
        "InternalFailure"
        | "InternalServerError"
        | "ServiceUnavailable"
        | "ServiceUnavailableException"
        | "KMSInternalException"
        | "DependencyTimeoutException"
        | "KeyUnavailableException"
        | "RequestTimeout"
        | "RequestTimeoutException" => FailureKind::Unreachable,
        _ => return None,
    })
}

/// Tells what a request that was not sent, or not answered, failed by.
fn kind_of_causes(error: &(dyn Error + 'static), class: FailureClass) -> Option<FailureKind> {
    if causes(error).any(|cause| cause.is::<CredentialsError>()) {
        return Some(FailureKind::Unauthenticated);
    }
    let is_tls = |cause: &(dyn Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::InvalidData)
    };
    if causes(error).any(is_tls) {
        return Some(FailureKind::Tls);
    }
    (class == FailureClass::Transient).then_some(FailureKind::Unreachable)
}

/// Classifies a request that was not sent, or not answered, by what is behind it.
fn class_of_causes(error: &(dyn Error + 'static)) -> Option<FailureClass> {
    let mut class = None;
    for cause in causes(error) {
        match cause.downcast_ref::<CredentialsError>() {
            // An error of a provider is an STS or a machine's metadata service that is down, much more
            // often than one that refuses.
            Some(CredentialsError::ProviderTimedOut(_) | CredentialsError::ProviderError(_)) => {
                return Some(FailureClass::Transient);
            }
            Some(_) => return Some(FailureClass::Permanent),
            None => {}
        }
        match cause.downcast_ref::<io::Error>().map(io::Error::kind) {
            // So rustls reports certificates and peers that it does not take.
            Some(io::ErrorKind::InvalidData) => return Some(FailureClass::Permanent),
            Some(_) => class = Some(FailureClass::Transient),
            None => {}
        }
    }
    class
}

/// Returns `true` if the connection belonged to another runtime, which ended before the answer. The client
/// says of it that its user is to blame, as of a request that can never be sent; but a second try opens
/// a connection in the runtime that it is made in.
fn lost_its_runtime(error: &(dyn Error + 'static)) -> bool {
    // No method of hyper's error tells it from its user's other faults.
    causes(error).any(|cause| cause.to_string() == "dispatch task is gone")
}

/// An error and what is behind it. The `source()` of an input or output error leaves out the error that
/// it was made of.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| match error.downcast_ref::<io::Error>() {
        Some(error) => error.get_ref().map(|inner| inner as &(dyn Error + 'static)),
        None => error.source(),
    })
}

/// Says what kept a request from its answer. Of credentials it says no details: a provider's may
/// quote a command line or a reply.
fn what_failed(error: &(dyn Error + 'static)) -> String {
    for cause in causes(error) {
        if let Some(error) = cause.downcast_ref::<CredentialsError>() {
            return match error {
                CredentialsError::CredentialsNotLoaded(_) => {
                    "no credentials: none in the environment, a profile or the machine's role".into()
                }
                error => format!("no credentials: {error}"),
            };
        }
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            return format!("the connection failed: {error}");
        }
    }
    causes(error).last().map_or_else(String::new, |cause| format!("the request failed: {cause}"))
}

fn status<E>(error: &SdkError<E, HttpResponse>) -> u16 {
    error.raw_response().map_or(0, |response| response.status().as_u16())
}

/// The first line, which says what is wrong. Those after it quote the request with its session
/// token when the signature is wrong, and one kind of message quotes the signature in the same line.
fn harmless_part(message: &str) -> &str {
    let line = message.lines().next().unwrap_or_default();
    let line = line.split("Authorization=").next().unwrap_or_default();
    line.char_indices().nth(MESSAGE_CHARS_MAX).map_or(line, |(end, _)| line.get(..end).unwrap_or_default())
}

/// Enough for every message of the service; what is longer is not one.
const MESSAGE_CHARS_MAX: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_their_kinds_and_what_a_service_says_itself_is_not_guessed() {
        use FailureKind as Kind;
        for (code, status, kind) in [
            ("AccessDeniedException", 400, Some(Kind::Denied)),
            ("UnrecognizedClientException", 400, Some(Kind::Unauthenticated)),
            ("ExpiredTokenException", 400, Some(Kind::Unauthenticated)),
            ("ResourceNotFoundException", 400, Some(Kind::NoSuchTable)),
            ("NotFoundException", 400, Some(Kind::NoSuchKey)),
            ("DisabledException", 400, Some(Kind::KeyDisabled)),
            ("ThrottlingException", 400, Some(Kind::Busy)),
            ("InternalServerError", 500, Some(Kind::Unreachable)),
            ("SomethingNew", 503, Some(Kind::Unreachable)),
            ("SomethingNew", 429, Some(Kind::Busy)),
            ("ValidationException", 400, None),
            ("SomethingNew", 400, None),
        ] {
            assert_eq!(kind_of_answer(Some(code), status), kind, "{code} {status}");
        }
    }
}
