//! What can go wrong, and what of it may pass by itself.

use std::error::Error;
use std::io;
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::RequestId as _;
use claviger::{BackendError, FailureClass, KeyId, KeyMeta};

/// What is wrong with a key, an item or a call, found by us and not by DynamoDB.
///
/// It is the `source()` of a [`BackendError`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DynamoDbFault {
    /// The key id has no characters.
    #[error("key id is empty")]
    IdEmpty,
    /// The key id does not fit.
    #[error("key id of {bytes} bytes is over the limit of 2048")]
    IdTooLong {
        /// How long it is.
        bytes: usize,
    },
    /// The key id holds a NUL character, which other stores cannot hold.
    #[error("key id contains NUL")]
    IdHasNul,
    /// The key id is one of those under which Asherah keeps what is not a key.
    #[error("key id {0} is reserved")]
    IdReserved(KeyId),
    /// A record without a wrapped key could not be read again.
    #[error("wrapped key is empty")]
    WrappedKeyEmpty,
    /// The record does not fit into an item.
    #[error("item of {bytes} bytes is over the limit of 400 KiB")]
    ItemTooLarge {
        /// How long it would be, at most.
        bytes: usize,
    },
    /// An item's `Created` is no time in whole seconds.
    #[error("an item of key {0} has an unreadable creation time")]
    CreatedUnreadable(KeyId),
    /// An item's key record cannot be read, or contradicts the item.
    #[error("the item of key {key} cannot be read: {reason}")]
    ItemMalformed {
        /// The key version the item is of.
        key: KeyMeta,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An item came that was not asked for.
    #[error("the item of key {0} came and was not asked for")]
    OtherItem(KeyMeta),
    /// Nothing says which region the table is in.
    #[error("no region: give one to the builder, or set AWS_REGION")]
    RegionMissing,
    /// DynamoDB did not answer in time.
    #[error("no answer from DynamoDB within {0:?}")]
    NoAnswer(Duration),
    /// DynamoDB kept leaving a part of a batch undone.
    #[error("DynamoDB did not get to {keys} keys of a batch")]
    Unprocessed {
        /// How many were left.
        keys: usize,
    },
    /// The table cannot be used yet.
    #[error("the table is {status}")]
    TableNotActive {
        /// What it is instead.
        status: String,
    },
}

impl From<DynamoDbFault> for BackendError {
    fn from(fault: DynamoDbFault) -> Self {
        match fault {
            DynamoDbFault::CreatedUnreadable(_)
            | DynamoDbFault::ItemMalformed { .. }
            | DynamoDbFault::OtherItem(_) => Self::damaged(fault),
            DynamoDbFault::NoAnswer(_)
            | DynamoDbFault::Unprocessed { .. }
            | DynamoDbFault::TableNotActive { .. } => Self::transient(fault),
            DynamoDbFault::IdEmpty
            | DynamoDbFault::IdTooLong { .. }
            | DynamoDbFault::IdHasNul
            | DynamoDbFault::IdReserved(_)
            | DynamoDbFault::WrappedKeyEmpty
            | DynamoDbFault::ItemTooLarge { .. }
            | DynamoDbFault::RegionMissing => Self::permanent(fault),
        }
    }
}

/// What DynamoDB, or the way to it, reported.
///
/// It holds the service's code and message, never credentials: what a message quotes of a request
/// or its signature is cut off. It is the `source()` of a [`BackendError`].
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}{}", in_brackets(.code.as_deref()))]
#[non_exhaustive]
pub struct DynamoDbError {
    /// The service's code, such as `ThrottlingException`, if it came from there.
    pub code: Option<String>,
    /// What it said.
    pub message: String,
    /// The id under which AWS support finds the request.
    pub request_id: Option<String>,
    class: FailureClass,
}

impl DynamoDbError {
    pub(super) fn new<E>(error: &SdkError<E>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let plain = |class, message: String| Self { code: None, message, request_id: None, class };
        match error {
            SdkError::ServiceError(_) => Self::of_service(error),
            SdkError::DispatchFailure(failure) => {
                // The last of them is a connection that ended before the answer.
                let is_network = failure.is_io() || failure.is_timeout() || failure.as_other().is_some();
                let unknown = if is_network { FailureClass::Transient } else { FailureClass::Permanent };
                plain(class_of_causes(error).unwrap_or(unknown), what_failed(error))
            }
            SdkError::TimeoutError(_) => plain(FailureClass::Transient, "the request timed out".into()),
            SdkError::ResponseError(_) => {
                let status = status(error);
                // A body that ends early is the network's doing, an answer that is not DynamoDB's is not.
                let class = if (400..500).contains(&status) {
                    FailureClass::Permanent
                } else {
                    FailureClass::Transient
                };
                plain(class, format!("the answer (HTTP {status}) cannot be read"))
            }
            _ => plain(class_of_causes(error).unwrap_or(FailureClass::Permanent), what_failed(error)),
        }
    }

    fn of_service<E>(error: &SdkError<E>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let status = status(error);
        let code = error.code().map(str::to_owned);
        let class = class_of_answer(code.as_deref(), status);
        let message = error.message().map(harmless_part).filter(|message| !message.is_empty());
        Self {
            message: message.map_or_else(|| format!("DynamoDB answered HTTP {status}"), str::to_owned),
            request_id: error.request_id().map(str::to_owned),
            code,
            class,
        }
    }

    pub(super) fn is(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }

    /// Tells whether the caller may not do what it asked for.
    pub(super) fn is_denial(&self) -> bool {
        self.is("AccessDeniedException")
    }

    /// Tells whether the server has no such operation, as local stand-ins of DynamoDB have not all.
    pub(super) fn is_unknown_operation(&self) -> bool {
        self.is("UnknownOperationException") || self.is("NotImplementedException")
    }
}

impl From<DynamoDbError> for BackendError {
    fn from(error: DynamoDbError) -> Self {
        match error.class {
            FailureClass::Transient => Self::transient(error),
            _ => Self::permanent(error),
        }
    }
}

/// The code of a conditional write whose condition did not hold.
pub(super) const CONDITION_FAILED: &str = "ConditionalCheckFailedException";
pub(super) const TABLE_NOT_FOUND: &str = "ResourceNotFoundException";

/// Codes of what passes by itself, whatever the HTTP status.
const TRANSIENT: &[&str] = &[
    // Too much at once: for the table, the account, a partition, or changes of tables.
    "ProvisionedThroughputExceededException",
    "ThrottlingException",
    "Throttling",
    "RequestLimitExceeded",
    "LimitExceededException",
    "TooManyRequestsException",
    "SlowDown",
    // Another writer is at the item or the table this moment.
    "TransactionConflictException",
    "TransactionInProgressException",
    "ReplicatedWriteConflictException",
    "ResourceInUseException",
    // The service's own troubles.
    "InternalServerError",
    "InternalFailure",
    "ServiceUnavailable",
    "ServiceUnavailableException",
    // The provider of temporary credentials replaces them without our doing. Those that were given by
    // hand stay expired: then the breaker keeps the retries few until somebody looks.
    "ExpiredTokenException",
    "ExpiredToken",
];

/// Classifies an answer. In doubt it is permanent: no right, no table, bad keys, a wrong signature.
fn class_of_answer(code: Option<&str>, status: u16) -> FailureClass {
    // A success that cannot be read was damaged on its way: whether a write was made, a second try tells.
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

fn in_brackets(code: Option<&str>) -> String {
    code.map(|code| format!(" ({code})")).unwrap_or_default()
}
