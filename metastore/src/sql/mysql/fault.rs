//! What the failures of MySQL and MariaDB mean.

use claviger::{BackendError, FailureClass, FailureKind};
use sqlx::mysql::MySqlDatabaseError;

use crate::sql::DriverFault;
use crate::sql::driver::{Doing, kind_of_way};

pub(super) fn backend_error(error: sqlx::Error, doing: Doing) -> BackendError {
    let class = if is_transient(&error) { FailureClass::Transient } else { FailureClass::Permanent };
    let kind = kind(&error);
    BackendError::new(class, driver_fault(error, doing)).with_kind(kind)
}

pub(super) fn driver_fault(error: sqlx::Error, doing: Doing) -> DriverFault {
    let (kind, number) = (kind(&error), number(&error));
    DriverFault::new(error, doing, kind).numbered(number)
}

fn kind(error: &sqlx::Error) -> Option<FailureKind> {
    match number_and_state(error) {
        Some(_) if is_disk_full(error) => Some(FailureKind::StorageFull),
        Some((number, state)) => kind_of_number(number, state),
        None => kind_of_way(error),
    }
}

/// What an error is about.
fn kind_of_number(number: u16, state: &str) -> Option<FailureKind> {
    Some(match number {
        1044 | 1142 | 1143 | 1227 | 1370 | 1410 => FailureKind::Denied,
        // A password that is wrong or has to be changed; a host that is not let in.
        1045 | 1129 | 1130 | 1698 | 1820 | 1862 => FailureKind::Unauthenticated,
        1046 | 1049 => FailureKind::NoSuchDatabase,
        1054 | 1146 => FailureKind::NoSuchTable,
        1298 => FailureKind::TimeZone,
        1290 | 1792 | 1836 => FailureKind::ReadOnly,
        3 | 1021 | 1026 | 1114 => FailureKind::StorageFull,
        1194 | 1195 | 1034 | 1035 => FailureKind::Corrupt,
        3159 => FailureKind::Tls,
        // Too much for this user or all; locks.
        1040 | 1203 | 1226 | 1205 | 1206 | 1213 | 1613 | 1614 | 1317 | 1969 | 3024 => FailureKind::Busy,
        1053 | 1927 | 2002 | 2003 | 2006 | 2013 | 4031 | 8022 | 9001..=9005 => FailureKind::Unreachable,
        // Of characters that the column, or the comparison with it, lacks.
        1267 | 1300 | 1366 | 3854 | 3988 => FailureKind::Encoding,
        1264 | 1292 => FailureKind::TimeNotHeld,
        1406 => FailureKind::RecordTooLong,
        _ => match state.get(..2)? {
            "28" => FailureKind::Unauthenticated,
            "08" => FailureKind::Unreachable,
            "40" => FailureKind::Busy,
            _ => return None,
        },
    })
}

pub(super) fn leaves_session_good(error: &sqlx::Error) -> bool {
    number_and_state(error).is_some_and(|(number, state)| !taints_session(number, state))
}

fn number_and_state(error: &sqlx::Error) -> Option<(u16, &str)> {
    let sqlx::Error::Database(error) = error else { return None };
    let error = error.try_downcast_ref::<MySqlDatabaseError>()?;
    Some((error.number(), error.code().unwrap_or_default()))
}

pub(super) fn number(error: &sqlx::Error) -> Option<u16> {
    number_and_state(error).map(|(number, _)| number)
}

fn is_transient(error: &sqlx::Error) -> bool {
    if let Some((number, state)) = number_and_state(error) {
        return is_disk_full(error) || is_transient_number(number, state);
    }
    match error {
        // TLS says so when a certificate is not good, or what was decrypted is not.
        sqlx::Error::Io(error) => error.kind() != std::io::ErrorKind::InvalidData,
        sqlx::Error::PoolTimedOut | sqlx::Error::WorkerCrashed => true,
        _ => false,
    }
}

/// The engine's own error 28 is the operating system's: no space left on the device. It stands in the
/// message alone.
fn is_disk_full(error: &sqlx::Error) -> bool {
    number(error) == Some(1030)
        && matches!(error, sqlx::Error::Database(error) if error.message().contains("error 28 "))
}

/// Returns `true` if an error stands for something that passes.
fn is_transient_number(number: u16, state: &str) -> bool {
    match number {
        // Too many connections, of all or of this user; a user's quota of the hour.
        1040 | 1203 | 1226
        // The server starts, stops, or killed the statement or the connection.
        | 1053 | 1317 | 1927 | 1969 | 3024 | 4031
        // Locks and conflicts with other transactions.
        | 1020 | 1205 | 1206 | 1213 | 1412 | 1613 | 1614 | 3101
        // Memory, disk space, files.
        | 3 | 1021 | 1026 | 1037 | 1038 | 1041 | 1114
        // The cluster has not decided yet: the storage engine's, the commit's, a plug-in's.
        | 1180 | 1297 | 3100
        // The server takes no writes: it was demoted. On a new connection its successor answers.
        | 1290 | 1792 | 1836
        // A prepared statement that the server, or a proxy that changed servers, does not know (any
        // more): prepared anew on a new connection.
        | 1243 | 1461 | 1615
        // A proxy lost the server behind it.
        | 2002 | 2003 | 2006 | 2013
        // TiDB: its parts do not answer, or were changed meanwhile.
        | 8022 | 8028 | 9001..=9005 | 9007 => true,
        // Connections, Galera's "not yet prepared" among them; transactions rolled back. The rest needs
        // somebody: rights (42000), names (42S02, 42S22), data (22), an account (28000), TLS (3159).
        _ => matches!(state.get(..2), Some("08" | "40")),
    }
}

/// Returns `true` if the connection would answer other calls in the same way.
fn taints_session(number: u16, state: &str) -> bool {
    matches!(number, 1053 | 1243 | 1290 | 1461 | 1615 | 1792 | 1836 | 1927 | 2002 | 2003 | 2006 | 2013 | 4031)
        || matches!(state.get(..2), Some("08"))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn each_error_has_its_class() {
        let transient: &[(&str, &[u16])] = &[
            ("HY000", &[3, 1020, 1021, 1026, 1041, 1114, 1180, 1205, 1206, 1243, 1290, 1297, 1412, 1615]),
            ("HY000", &[1836, 2002, 2003, 2006, 2013, 3024, 3100, 4031, 8022, 8028, 9001, 9005, 9007]),
            ("HY001", &[1037, 1038]),
            ("08S01", &[1047, 1053, 1152, 1158, 1159, 1160, 1161]),
            ("08004", &[1040]),
            ("25006", &[1792]),
            ("40001", &[1213]),
            ("40000", &[3101]),
            ("42000", &[1203, 1226, 1461]),
            ("70100", &[1317, 1927, 1969]),
            ("XA102", &[1614]),
            ("XA106", &[1613]),
        ];
        let permanent: &[(&str, &[u16])] = &[
            ("HY000", &[1030, 1105, 1129, 1194, 1298, 1364, 1820, 1862, 3159, 9006]),
            ("22001", &[1406]),
            ("22003", &[1264]),
            ("22007", &[1292, 1366]),
            ("23000", &[1062]),
            ("28000", &[1045, 1698]),
            ("3D000", &[1046]),
            ("42000", &[1044, 1047, 1049, 1064, 1142, 1143, 1227]),
            ("42S02", &[1146]),
            ("42S22", &[1054]),
            ("", &[0]),
            ("\u{e9}", &[60_000]),
        ];
        for (table, expected) in [(transient, true), (permanent, false)] {
            for (state, numbers) in table {
                for &number in *numbers {
                    assert_eq!(is_transient_number(number, state), expected, "{number} {state}");
                }
            }
        }
    }

    #[test]
    fn each_error_has_its_kind() {
        use FailureKind as Kind;
        let kinds = [
            (1044, "42000", Some(Kind::Denied)),
            (1142, "42000", Some(Kind::Denied)),
            (1143, "42000", Some(Kind::Denied)),
            (1045, "28000", Some(Kind::Unauthenticated)),
            (1698, "28000", Some(Kind::Unauthenticated)),
            (3118, "28000", Some(Kind::Unauthenticated)),
            (1049, "42000", Some(Kind::NoSuchDatabase)),
            (1046, "3D000", Some(Kind::NoSuchDatabase)),
            (1146, "42S02", Some(Kind::NoSuchTable)),
            (1054, "42S22", Some(Kind::NoSuchTable)),
            (1298, "HY000", Some(Kind::TimeZone)),
            (1290, "HY000", Some(Kind::ReadOnly)),
            (1792, "25006", Some(Kind::ReadOnly)),
            (1114, "HY000", Some(Kind::StorageFull)),
            (1205, "HY000", Some(Kind::Busy)),
            (1213, "40001", Some(Kind::Busy)),
            (3101, "40000", Some(Kind::Busy)),
            (2013, "HY000", Some(Kind::Unreachable)),
            (1047, "08S01", Some(Kind::Unreachable)),
            (1366, "22007", Some(Kind::Encoding)),
            (1267, "HY000", Some(Kind::Encoding)),
            (1292, "22007", Some(Kind::TimeNotHeld)),
            (1406, "22001", Some(Kind::RecordTooLong)),
            (3159, "HY000", Some(Kind::Tls)),
            (1062, "23000", None),
            (1064, "42000", None),
            (1644, "45000", None),
            (0, "", None),
        ];
        for (number, state, kind) in kinds {
            assert_eq!(kind_of_number(number, state), kind, "{number} {state}");
            let is_of_one_key = kind.is_some_and(Kind::is_of_one_key);
            assert!(
                !(is_of_one_key && is_transient_number(number, state)),
                "{number} is one key's and no outage"
            );
        }
    }

    #[test]
    fn a_connection_whose_server_goes_or_is_demoted_is_not_used_again() {
        let tainted = [
            (1290, "HY000"),
            (1792, "25006"),
            (1836, "HY000"),
            (1053, "08S01"),
            (1243, "HY000"),
            (1047, "08S01"),
            (2013, "HY000"),
            (1158, "08S01"),
            (1040, "08004"),
            (4031, "HY000"),
        ];
        for (number, state) in tainted {
            assert!(taints_session(number, state), "{number} {state}");
        }
        let good = [
            (1062, "23000"),
            (1205, "HY000"),
            (1213, "40001"),
            (1142, "42000"),
            (1146, "42S02"),
            (1366, "22007"),
            (1114, "HY000"),
            (1317, "70100"),
            (3024, "HY000"),
        ];
        for (number, state) in good {
            assert!(!taints_session(number, state), "{number} {state}");
        }
    }

    #[test]
    fn failures_on_the_way_are_transient_and_those_of_tls_are_not() {
        let io = |kind: io::ErrorKind| sqlx::Error::Io(kind.into());
        assert!(is_transient(&io(io::ErrorKind::ConnectionRefused)));
        assert!(is_transient(&io(io::ErrorKind::UnexpectedEof)));
        assert!(!is_transient(&io(io::ErrorKind::InvalidData)));
        assert!(!is_transient(&sqlx::Error::Tls("no certificate".into())));
        assert!(is_transient(&sqlx::Error::PoolTimedOut));
        assert!(!is_transient(&sqlx::Error::PoolClosed));
    }

    #[test]
    fn only_a_whole_answer_leaves_the_connection_good() {
        assert!(!leaves_session_good(&sqlx::Error::Protocol("half".into())));
        assert!(!leaves_session_good(&sqlx::Error::Io(io::ErrorKind::UnexpectedEof.into())));
    }
}
