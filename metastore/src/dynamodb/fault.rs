//! What can go wrong, and what of it may pass by itself.

use std::error::Error;
use std::time::Duration;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use claviger::{BackendError, FailureClass, FailureKind, KeyId, KeyMeta};
use claviger_aws::Failure;

/// What is wrong with a key, an item or a call, found by us and not by DynamoDB.
///
/// It is the `source()` of a [`BackendError`], whose kind says what it is about. Key ids are in fields,
/// and no part of what `Display` shows.
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
    #[error("key id is reserved")]
    IdReserved(KeyId),
    /// A record without a wrapped key could not be read again.
    #[error("wrapped key is empty")]
    WrappedKeyEmpty,
    /// The wrapped key is longer than any store takes.
    #[error("wrapped key of {bytes} bytes of base64 is over the limit of 64 KiB")]
    WrappedKeyTooLong {
        /// How long it is.
        bytes: usize,
    },
    /// An item's `Created` is no time in whole seconds.
    #[error("an item of the key has an unreadable creation time")]
    CreatedUnreadable(KeyId),
    /// An item's key record cannot be read, or contradicts the item.
    #[error("the item of the key cannot be read: {reason}")]
    ItemMalformed {
        /// The key version the item is of.
        key: KeyMeta,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An item came that was not asked for.
    #[error("the item of another key came, which was not asked for")]
    OtherItem(KeyMeta),
    /// Nothing says which region the table is in.
    #[error("no region: give one to the builder, or set AWS_REGION")]
    RegionMissing,
    /// Requests would go to another machine in the clear.
    #[error("{0}")]
    EndpointInTheClear(String),
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
        use FailureClass::{Damaged, Permanent, Transient};
        let (class, kind) = match &fault {
            DynamoDbFault::CreatedUnreadable(_)
            | DynamoDbFault::ItemMalformed { .. }
            | DynamoDbFault::OtherItem(_) => (Damaged, None),
            DynamoDbFault::NoAnswer(_) | DynamoDbFault::TableNotActive { .. } => {
                (Transient, Some(FailureKind::Unreachable))
            }
            DynamoDbFault::Unprocessed { .. } => (Transient, Some(FailureKind::Busy)),
            DynamoDbFault::IdEmpty | DynamoDbFault::IdHasNul | DynamoDbFault::IdReserved(_) => {
                (Permanent, Some(FailureKind::IdRefused))
            }
            DynamoDbFault::IdTooLong { .. } => (Permanent, Some(FailureKind::IdTooLong)),
            DynamoDbFault::WrappedKeyEmpty => (Permanent, None),
            DynamoDbFault::WrappedKeyTooLong { .. } => (Permanent, Some(FailureKind::RecordTooLong)),
            DynamoDbFault::RegionMissing | DynamoDbFault::EndpointInTheClear(_) => {
                (Permanent, Some(FailureKind::Settings))
            }
        };
        // All else that is permanent is refused before anybody was asked.
        let error = Self::new(class, fault).with_kind(kind);
        if class == Permanent { error.not_asked() } else { error }
    }
}

/// What DynamoDB, or the way to it, reported.
///
/// It holds the service's code and message, never credentials: what a message quotes of a request
/// or its signature is cut off. A message that may quote a key id, as one about a request's values may,
/// is in its field and no part of what `Display` shows. It is the `source()` of a [`BackendError`].
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}{}", self.shown(), in_brackets(.code.as_deref()))]
#[non_exhaustive]
pub struct DynamoDbError {
    /// The service's code, such as `ThrottlingException`, if it came from there.
    pub code: Option<String>,
    /// What it said.
    pub message: String,
    /// The id under which AWS support finds the request.
    pub request_id: Option<String>,
    class: FailureClass,
    kind: Option<FailureKind>,
}

impl DynamoDbError {
    pub(super) fn new<E>(error: &SdkError<E>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let failure = Failure::new("DynamoDB", class_of_code, error);
        let Failure { code, message, request_id, class, kind, .. } = failure;
        Self { code, message, request_id, class, kind }
    }

    /// What it said, if that is of the caller, the table, its load or the way, and so of no key.
    fn shown(&self) -> &str {
        let is_of_no_key = self.kind.is_some_and(|kind| {
            matches!(
                kind,
                FailureKind::Denied
                    | FailureKind::Unauthenticated
                    | FailureKind::NoSuchTable
                    | FailureKind::Busy
            )
        });
        if is_of_no_key || self.code.is_none() { &self.message } else { "DynamoDB answered with an error" }
    }

    pub(super) fn is(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }

    /// Returns `true` if the caller may not do what it asked for.
    pub(super) fn is_denial(&self) -> bool {
        self.is("AccessDeniedException")
    }

    /// Returns `true` if the server has no such operation, as local stand-ins of DynamoDB have not all.
    pub(super) fn is_unknown_operation(&self) -> bool {
        self.is("UnknownOperationException") || self.is("NotImplementedException")
    }
}

impl From<DynamoDbError> for BackendError {
    fn from(error: DynamoDbError) -> Self {
        let kind = error.kind;
        Self::new(error.class, error).with_kind(kind)
    }
}

/// The code of a conditional write whose condition did not hold.
pub(super) const CONDITION_FAILED: &str = "ConditionalCheckFailedException";
pub(super) const TABLE_NOT_FOUND: &str = "ResourceNotFoundException";

/// Classifies the codes that are DynamoDB's own, whatever the HTTP status.
fn class_of_code(code: &str) -> Option<FailureClass> {
    match code {
        // Too much for the table or a partition.
        "ProvisionedThroughputExceededException"
        // Another writer is at the item or the table this moment.
        | "TransactionConflictException"
        | "TransactionInProgressException"
        | "ReplicatedWriteConflictException"
        | "ResourceInUseException" => Some(FailureClass::Transient),
        _ => None,
    }
}

fn in_brackets(code: Option<&str>) -> String {
    code.map(|code| format!(" ({code})")).unwrap_or_default()
}
