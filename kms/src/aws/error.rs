//! What can go wrong, and what of it may pass by itself.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use claviger::{BackendError, FailureClass, FailureKind};
use claviger_aws::Failure;

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
        use FailureClass::{Damaged, Permanent, Transient};
        let (class, kind) = match &fault {
            AwsKmsFault::EnvelopeTooLong { .. }
            | AwsKmsFault::EnvelopeMalformed(_)
            | AwsKmsFault::CopyMalformed
            | AwsKmsFault::NotADataKey => (Damaged, None),
            // More likely a region was taken out of the configuration than all of them forged.
            AwsKmsFault::ConfigInvalid(_) | AwsKmsFault::RegionsUnknown { .. } => {
                (Permanent, Some(FailureKind::Settings))
            }
            AwsKmsFault::ConfigLate | AwsKmsFault::AnswerIncomplete { .. } => {
                (Transient, Some(FailureKind::Unreachable))
            }
            AwsKmsFault::TooFewRegions { source, .. } => (source.class(), source.kind()),
        };
        Self::new(class, fault).with_kind(kind)
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
    kind: Option<FailureKind>,
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
        let kind = error.kind;
        Self::new(error.class, error).with_kind(kind)
    }
}

impl AwsKmsError {
    pub(super) fn new<E>(region: &Arc<str>, operation: &'static str, error: &SdkError<E>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let failure = Failure::new("KMS", class_of_code, error);
        let Failure { code, message, request_id, class, kind, .. } = failure;
        Self { region: Arc::clone(region), operation, code, message, request_id, class, kind }
    }

    pub(super) fn is(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }
}

/// Decrypt was asked with another key than the data key was wrapped under.
pub(super) const INCORRECT_KEY: &str = "IncorrectKeyException";
/// Decrypt does not take the ciphertext, or not with this encryption context.
pub(super) const INVALID_CIPHERTEXT: &str = "InvalidCiphertextException";

/// Classifies the codes that are KMS's own, whatever the HTTP status.
fn class_of_code(code: &str) -> Option<FailureClass> {
    match code {
        INCORRECT_KEY | INVALID_CIPHERTEXT => Some(FailureClass::Damaged),
        "KMSInternalException"
        | "DependencyTimeoutException"
        | "KeyUnavailableException"
        | "RequestTimeout"
        | "RequestTimeoutException" => Some(FailureClass::Transient),
        _ => None,
    }
}
