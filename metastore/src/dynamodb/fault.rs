//! What can go wrong, and what of it may pass by itself.

use std::error::Error;
use std::time::Duration;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use claviger::{BackendError, FailureClass, KeyId, KeyMeta};
use claviger_aws::Failure;

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
        let Failure { code, message, request_id, class, .. } = Failure::new("DynamoDB", class_of_code, error);
        Self { code, message, request_id, class }
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
