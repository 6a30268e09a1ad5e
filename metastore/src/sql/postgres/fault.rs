//! What Postgres' failures mean.

use std::io;

use claviger::{BackendError, FailureClass, FailureKind};
use sqlx::postgres::{PgDatabaseError, PgSeverity};

use crate::sql::DriverFault;
use crate::sql::driver::{Doing, kind_of_way};

pub(super) fn backend_error(error: sqlx::Error, doing: Doing) -> BackendError {
    let class = if is_transient(&error) { FailureClass::Transient } else { FailureClass::Permanent };
    let kind = kind(&error);
    BackendError::new(class, DriverFault::new(error, doing, kind)).with_kind(kind)
}

fn kind(error: &sqlx::Error) -> Option<FailureKind> {
    match error {
        sqlx::Error::Database(error) => error.code().and_then(|state| kind_of_state(&state)),
        error => kind_of_way(error),
    }
}

/// What an SQLSTATE is about.
fn kind_of_state(state: &str) -> Option<FailureKind> {
    Some(match state {
        "42501" => FailureKind::Denied,
        "3D000" => FailureKind::NoSuchDatabase,
        "3F000" | "42P01" | "42703" => FailureKind::NoSuchTable,
        "25006" => FailureKind::ReadOnly,
        "53100" => FailureKind::StorageFull,
        "58030" | "58P01" | "58P02" => FailureKind::Device,
        "XX001" | "XX002" => FailureKind::Corrupt,
        // Of the characters of a text, which are the one thing of ours that a table may lack.
        "22021" | "22P05" => FailureKind::Encoding,
        "22001" => FailureKind::RecordTooLong,
        "22008" | "22007" => FailureKind::TimeNotHeld,
        "55P03" | "57014" | "53000" | "53200" | "53300" | "53400" => FailureKind::Busy,
        _ => match state.get(..2)? {
            "28" => FailureKind::Unauthenticated,
            "40" => FailureKind::Busy,
            "08" | "57" => FailureKind::Unreachable,
            _ => return None,
        },
    })
}

pub(super) fn leaves_session_good(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else { return false };
    let is_fatal = error.try_downcast_ref::<PgDatabaseError>().is_none_or(|error| {
        // The server closes the connection after it.
        matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic)
    });
    !is_fatal && error.code().is_some_and(|state| !state_taints_session(&state))
}

/// Returns `true` if the server took what was sent for another statement: it has none of the name, or
/// one already, or the parameters are not those of the one it has.
///
/// `PgBouncer` gives one of these codes to all it has to say itself, and then hangs up.
pub(super) fn is_crossed(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else { return false };
    let is_fatal = error
        .try_downcast_ref::<PgDatabaseError>()
        .is_some_and(|error| matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic));
    !is_fatal && error.code().is_some_and(|state| CROSSED.contains(&&*state))
}

/// Statement of that name unknown, or known already; parameters of another format, or number.
const CROSSED: [&str; 4] = ["26000", "42P05", "22P03", "08P01"];

fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => error.code().is_some_and(|state| is_transient_state(&state)),
        // TLS says so when a certificate is not good, or what was decrypted is not.
        sqlx::Error::Io(error) => error.kind() != io::ErrorKind::InvalidData,
        // The driver reads the end of a connection that is cut during its first bytes as an answer.
        // After it comes where in the driver that was.
        sqlx::Error::Protocol(message) => {
            message.starts_with("unexpected response from SSLRequest: 0x00 (")
                // A pooler gave us the connection of a client that listens.
                || message.contains("NotificationResponse")
        }
        sqlx::Error::PoolTimedOut | sqlx::Error::WorkerCrashed => true,
        _ => false,
    }
}

/// Returns `true` if an SQLSTATE stands for something that passes.
fn is_transient_state(state: &str) -> bool {
    match state {
        // A transaction that violates a constraint when it commits.
        "40002" => false,
        // The server takes no writes: it was demoted. On a new connection its successor answers.
        "25006"
        // The server's patience with a transaction ended.
        | "25P03" | "25P04"
        // A transaction begun on this connection failed. None of ours goes on after that.
        | "25P02"
        // Somebody holds a lock, or the answer came too late for what it was read from.
        | "55P03" | "72000"
        // Statement timeouts, shutdown, crash and start-up of the server, idle sessions.
        | "57014" | "57P01" | "57P02" | "57P03" | "57P04" | "57P05" => true,
        _ => match state.get(..2) {
            // Connections; conflicts with other transactions; memory, disk space and connections
            // that come back; the server's disk and files.
            Some("08" | "40" | "53" | "58") => true,
            // The rest needs somebody: rights (28, 42501), names (3D, 3F, 42), data (22, 23), a
            // server that is broken (XX).
            _ => false,
        },
    }
}

/// Returns `true` if the session would answer other calls in the same way.
fn state_taints_session(state: &str) -> bool {
    matches!(state, "25006" | "25P02" | "25P03" | "25P04")
        || CROSSED.contains(&state)
        || matches!(state.get(..2), Some("08"))
        || matches!(state.get(..3), Some("57P"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sqlstate_has_its_class() {
        let transient = [
            "08000", "08001", "08003", "08004", "08006", "08007", "08P01", "25006", "25P02", "25P03",
            "25P04", "40000", "40001", "40003", "40P01", "53000", "53100", "53200", "53300", "53400",
            "55P03", "57014", "57P01", "57P02", "57P03", "57P04", "57P05", "58000", "58030", "58P01",
            "58P02", "72000",
        ];
        let permanent = [
            "0A000", "22001", "22003", "22008", "22021", "22P02", "22P05", "23502", "23503", "23505",
            "23514", "23P01", "25000", "28000", "28P01", "3D000", "3F000", "40002", "42501", "42601",
            "42703", "42804", "42883", "42P01", "54000", "55000", "55006", "57000", "P0001", "XX000",
            "XX001", "XX002", "", "5", "é000",
        ];
        transient.iter().for_each(|state| assert!(is_transient_state(state), "{state}"));
        permanent.iter().for_each(|state| assert!(!is_transient_state(state), "{state}"));
    }

    #[test]
    fn each_sqlstate_has_its_kind() {
        use FailureKind as Kind;
        let kinds = [
            ("28000", Some(Kind::Unauthenticated)),
            ("28P01", Some(Kind::Unauthenticated)),
            ("42501", Some(Kind::Denied)),
            ("3D000", Some(Kind::NoSuchDatabase)),
            ("3F000", Some(Kind::NoSuchTable)),
            ("42P01", Some(Kind::NoSuchTable)),
            ("42703", Some(Kind::NoSuchTable)),
            ("25006", Some(Kind::ReadOnly)),
            ("53100", Some(Kind::StorageFull)),
            ("53300", Some(Kind::Busy)),
            ("55P03", Some(Kind::Busy)),
            ("57014", Some(Kind::Busy)),
            ("40001", Some(Kind::Busy)),
            ("58030", Some(Kind::Device)),
            ("XX001", Some(Kind::Corrupt)),
            ("08006", Some(Kind::Unreachable)),
            ("57P01", Some(Kind::Unreachable)),
            ("22021", Some(Kind::Encoding)),
            ("22P05", Some(Kind::Encoding)),
            ("22001", Some(Kind::RecordTooLong)),
            ("22008", Some(Kind::TimeNotHeld)),
            ("P0001", None),
            ("23505", None),
            ("", None),
            ("é000", None),
        ];
        for (state, kind) in kinds {
            assert_eq!(kind_of_state(state), kind, "{state}");
            let is_of_one_key = kind.is_some_and(Kind::is_of_one_key);
            assert!(!(is_of_one_key && is_transient_state(state)), "{state} is one key's and no outage");
        }
    }

    #[test]
    fn a_connection_whose_server_goes_or_is_demoted_is_not_used_again() {
        for state in ["25006", "25P02", "26000", "08006", "08P01", "57P01", "57P02", "57P03"] {
            assert!(state_taints_session(state), "{state}");
        }
        for state in ["23505", "40001", "40P01", "42501", "42P01", "53100", "55P03", "57014", ""] {
            assert!(!state_taints_session(state), "{state}");
        }
    }

    #[test]
    fn failures_on_the_way_are_transient_and_those_of_tls_are_not() {
        let io = |kind: io::ErrorKind| sqlx::Error::Io(kind.into());
        for kind in [io::ErrorKind::ConnectionRefused, io::ErrorKind::UnexpectedEof, io::ErrorKind::Other] {
            assert!(is_transient(&io(kind)), "{kind}");
            assert!(!leaves_session_good(&io(kind)), "{kind}");
        }
        assert!(!is_transient(&io(io::ErrorKind::InvalidData)));
        assert!(!is_transient(&sqlx::Error::Tls("server does not support TLS".into())));
        assert!(is_transient(&sqlx::Error::PoolTimedOut));
        assert!(!is_transient(&sqlx::Error::PoolClosed));
        let protocol = |byte: &str| {
            let message = format!("unexpected response from SSLRequest: {byte} (sqlx_postgres::tls:1)");
            sqlx::Error::Protocol(message)
        };
        assert!(is_transient(&protocol("0x00")));
        assert!(!is_transient(&protocol("0x48")));
    }
}
