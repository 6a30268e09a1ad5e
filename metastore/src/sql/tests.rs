use std::error::Error as _;
use std::sync::Arc;

use claviger::{BackendError, Created, EnvelopeKeyRecord, ErrorChain, FailureKind, KeyId, KeyMeta};

use super::*;
use crate::sql::driver::Doing;

/// What a driver's error says: all of it may quote what was sent.
#[derive(Debug)]
struct Said;

const MESSAGE: &str = "Duplicate entry '_IK_alice@example.com_checkout_payments-2026' for key 'PRIMARY'";

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(MESSAGE)
    }
}

impl std::error::Error for Said {}

impl sqlx::error::DatabaseError for Said {
    fn message(&self) -> &str {
        MESSAGE
    }

    fn code(&self) -> Option<std::borrow::Cow<'_, str>> {
        Some("23000".into())
    }

    fn as_error(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        self
    }

    fn as_error_mut(&mut self) -> &mut (dyn std::error::Error + Send + Sync + 'static) {
        self
    }

    fn into_error(self: Box<Self>) -> Box<dyn std::error::Error + Send + Sync + 'static> {
        self
    }

    fn kind(&self) -> sqlx::error::ErrorKind {
        sqlx::error::ErrorKind::UniqueViolation
    }
}

#[test]
fn no_fault_of_a_store_shows_a_key_id() {
    let id = || KeyId::new("_IK_alice@example.com_checkout_payments");
    let key = || KeyMeta::new(id(), Created::MIN);
    let said = || sqlx::Error::Database(Box::new(Said));
    let malformed = EnvelopeKeyRecord::from_json(key(), b"{\"Key\":\"alice@example.com\"").unwrap_err();
    let faults = [
        SqlFault::IdReserved(id()),
        SqlFault::CharactersNotHeld { column: "id", key: id() },
        SqlFault::Indistinct(key()),
        SqlFault::NotKept(key()),
        SqlFault::CreatedUnreadable(id()),
        SqlFault::RowMalformed { key: key(), source: malformed },
        SqlFault::InsertSwallowed(key()),
        SqlFault::Contended(key()),
        SqlFault::CrossedBy(DriverFault::new(said(), Doing::Asking, None)),
        SqlFault::FolderNotWritable(Arc::new(DriverFault::new(said(), Doing::Asking, None))),
    ];
    for fault in faults {
        assert!(format!("{fault:?}").contains("alice"), "it is in a field: {fault:?}");
        let error = BackendError::from(fault);
        let text = ErrorChain::new(&error).to_string();
        assert!(!text.contains('@') && !text.contains("_IK_"), "{text}");
    }
}

#[test]
fn what_a_server_says_of_a_statement_is_in_a_field_and_of_a_connection_is_shown() {
    let said =
        |doing| DriverFault::new(sqlx::Error::Database(Box::new(Said)), doing, Some(FailureKind::Busy));
    let asked = said(Doing::Asking);
    assert_eq!(asked.to_string(), "the database refused the statement: it is busy (23000)");
    assert_eq!((asked.message.as_str(), asked.source().is_none()), (MESSAGE, true));
    assert!(said(Doing::Connecting).to_string().starts_with(MESSAGE));
}
