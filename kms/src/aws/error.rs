//! What can go wrong, and what of it may pass by itself.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::operation::RequestId as _;
use claviger::{BackendError, FailureClass};

/// What is wrong with a configuration, an envelope or an answer, found by us and not by AWS.
///
/// It is the `source()` of a [`BackendError`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AwsKmsFault {
    /// The builder was told what cannot be.
    #[error("the configuration of AWS KMS is invalid: {0}")]
    ConfigInvalid(String),
    /// The machine's configuration did not come in time.
    #[error("the configuration for AWS was not found in time")]
    ConfigLate,
    /// What is stored is far too long for an envelope.
    #[error("an envelope of {bytes} bytes is over the limit of 64 KiB")]
    EnvelopeTooLong {
        /// How long it is.
        bytes: usize,
    },
    /// What is stored is no envelope.
    #[error("what is stored is no envelope of AWS KMS: {0}")]
    EnvelopeMalformed(&'static str),
    /// A region's copy of the data key is no base64, empty, or too long.
    #[error("the copy is not base64 of a ciphertext of AWS KMS")]
    CopyMalformed,
    /// What KMS unwrapped is no data key: it was wrapped for something else.
    #[error("what was unwrapped is not a data key")]
    NotADataKey,
    /// None of the envelope's regions is configured.
    #[error("none of the envelope's regions is configured; it has {}", .regions.join(", "))]
    RegionsUnknown {
        /// The first of the regions the envelope has, printable.
        regions: Vec<String>,
    },
    /// KMS answered, and left out what it was asked for.
    #[error("{operation} in {region}: the answer is incomplete")]
    AnswerIncomplete {
        /// Which region was asked.
        region: Arc<str>,
        /// What it was asked for.
        operation: &'static str,
    },
    /// Fewer regions than configured have a copy of the key.
    #[error("only {made} of the {wanted} regions that are asked for could wrap the key")]
    TooFewRegions {
        /// How many regions wrapped it.
        made: usize,
        /// How many should have.
        wanted: usize,
        /// What went wrong in the others.
        source: BackendError,
    },
}

impl From<AwsKmsFault> for BackendError {
    fn from(fault: AwsKmsFault) -> Self {
        match &fault {
            AwsKmsFault::EnvelopeTooLong { .. }
            | AwsKmsFault::EnvelopeMalformed(_)
            | AwsKmsFault::CopyMalformed
            | AwsKmsFault::NotADataKey => Self::damaged(fault),
            // More likely a region was taken out of the configuration than all of them forged.
            AwsKmsFault::ConfigInvalid(_) | AwsKmsFault::RegionsUnknown { .. } => Self::permanent(fault),
            AwsKmsFault::ConfigLate | AwsKmsFault::AnswerIncomplete { .. } => Self::transient(fault),
            AwsKmsFault::TooFewRegions { source, .. } => of_class(source.class(), fault),
        }
    }
}

/// What AWS KMS, or the way to it, reported.
///
/// It holds the service's code and message, never credentials or keys: what a message quotes of a
/// request or its signature is cut off. It is the `source()` of a [`BackendError`], whose class is
///
/// | class | codes |
/// |---|---|
/// | transient | `ThrottlingException`, `LimitExceededException` and their kin; `KMSInternalException`, `DependencyTimeoutException`, `KeyUnavailableException`, `ExpiredTokenException`; HTTP 429 and 5xx; no connection, no answer, half an answer; credentials whose provider failed |
/// | damaged | `InvalidCiphertextException`, `IncorrectKeyException` |
/// | permanent | all else: `DisabledException`, `KMSInvalidStateException` (pending deletion or import), `NotFoundException`, `AccessDeniedException`, `UnrecognizedClientException`, bad signatures; no credentials; a peer whose certificate is not taken |
///
/// Expired tokens are transient since the provider of temporary credentials replaces them without our
/// doing; those that were given by hand stay expired, and the breaker keeps the retries few.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AwsKmsError {
    /// Which region was asked.
    pub region: Arc<str>,
    /// What it was asked for: `GenerateDataKey`, `Encrypt` or `Decrypt`.
    pub operation: &'static str,
    /// The service's code, such as `ThrottlingException`, if it came from there.
    pub code: Option<String>,
    /// What it said.
    pub message: String,
    /// The id under which AWS support finds the request.
    pub request_id: Option<String>,
    class: FailureClass,
}

impl fmt::Display for AwsKmsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}: {}", self.operation, self.region, self.message)?;
        let about = [self.code.as_deref(), self.request_id.as_deref()];
        match about.iter().flatten().copied().collect::<Vec<_>>().as_slice() {
            [] => Ok(()),
            about => write!(f, " ({})", about.join(", request ")),
        }
    }
}

impl Error for AwsKmsError {}

impl From<AwsKmsError> for BackendError {
    fn from(error: AwsKmsError) -> Self {
        of_class(error.class, error)
    }
}

fn of_class(class: FailureClass, source: impl Error + Send + Sync + 'static) -> BackendError {
    match class {
        FailureClass::Transient => BackendError::transient(source),
        FailureClass::Damaged => BackendError::damaged(source),
        _ => BackendError::permanent(source),
    }
}

impl AwsKmsError {
    pub(super) fn new<E>(region: &Arc<str>, operation: &'static str, error: &SdkError<E>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let plain = |class, message: String| Self {
            region: Arc::clone(region),
            operation,
            code: None,
            message,
            request_id: None,
            class,
        };
        match error {
            SdkError::ServiceError(_) => {
                let status = status(error);
                let code = error.code().map(str::to_owned);
                let message = error.message().map(harmless_part).filter(|message| !message.is_empty());
                let message = message.map_or_else(|| format!("KMS answered HTTP {status}"), str::to_owned);
                let class = class_of_answer(code.as_deref(), status);
                let request_id = error.request_id().map(|id| harmless_part(id).to_owned());
                Self { code, request_id, ..plain(class, message) }
            }
            SdkError::DispatchFailure(failure) => {
                // The last of them is a connection that ended before the answer.
                let is_network = failure.is_io() || failure.is_timeout() || failure.as_other().is_some();
                let unknown = if is_network { FailureClass::Transient } else { FailureClass::Permanent };
                plain(class_of_causes(error).unwrap_or(unknown), what_failed(error))
            }
            SdkError::TimeoutError(_) => plain(FailureClass::Transient, "the request timed out".into()),
            SdkError::ResponseError(_) => {
                let status = status(error);
                // A body that ends early is the network's doing, an answer that is not KMS's is not.
                let is_refusal = (400..500).contains(&status);
                let class = if is_refusal { FailureClass::Permanent } else { FailureClass::Transient };
                plain(class, format!("the answer (HTTP {status}) cannot be read"))
            }
            _ => plain(class_of_causes(error).unwrap_or(FailureClass::Permanent), what_failed(error)),
        }
    }

    pub(super) fn is(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }
}

/// Decrypt was asked with another key than the data key was wrapped under.
pub(super) const INCORRECT_KEY: &str = "IncorrectKeyException";
/// Decrypt does not take the ciphertext, or not with this encryption context.
pub(super) const INVALID_CIPHERTEXT: &str = "InvalidCiphertextException";

/// Codes of what passes by itself, whatever the HTTP status.
const TRANSIENT: &[&str] = &[
    // Too much at once.
    "ThrottlingException",
    "Throttling",
    "LimitExceededException",
    "RequestLimitExceeded",
    "TooManyRequestsException",
    "SlowDown",
    // The service's own troubles.
    "KMSInternalException",
    "DependencyTimeoutException",
    "KeyUnavailableException",
    "InternalFailure",
    "InternalServerError",
    "ServiceUnavailable",
    "ServiceUnavailableException",
    "RequestTimeout",
    "RequestTimeoutException",
    // See the table of `AwsKmsError`.
    "ExpiredTokenException",
    "ExpiredToken",
];

/// Classifies an answer. In doubt it is permanent.
fn class_of_answer(code: Option<&str>, status: u16) -> FailureClass {
    if matches!(code, Some(INCORRECT_KEY | INVALID_CIPHERTEXT)) {
        return FailureClass::Damaged;
    }
    // A success that cannot be read was damaged on its way.
    let is_broken = status < 300 || status == 429 || status >= 500;
    if is_broken || code.is_some_and(|code| TRANSIENT.contains(&code)) {
        FailureClass::Transient
    } else {
        FailureClass::Permanent
    }
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

fn status<E>(error: &SdkError<E>) -> u16 {
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
