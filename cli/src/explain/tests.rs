use claviger::testing::{every_error, kms_error, metastore_error};
use claviger::{Created, KeyMeta};

use super::*;

const PARTITION: &str = "eve@example.com\u{1b}[2J";

fn intermediate() -> KeyId {
    KeyId::new(format!("_IK_{PARTITION}_claviger_default"))
}

fn of_metastore(operation: &'static str, key: KeyId, source: BackendError) -> Error {
    metastore_error(operation, &KeyMeta::new(key, Created::MIN), &source)
}

fn refused(kind: FailureKind) -> BackendError {
    BackendError::permanent("refused").with_kind(kind)
}

#[test]
fn a_key_is_named_by_its_digest_and_a_system_key_by_its_id() {
    let label = label(&KeyId::new("_IK_alice_claviger_default"));
    assert_eq!(label, "_IK_#3cf0a773");
    assert_eq!(super::label(&KeyId::new("_SK_claviger_default")), "_SK_claviger_default");
    assert_eq!(super::label(&KeyId::new("alice")), "#2bd806c9");
}

#[test]
fn what_is_of_one_key_is_of_its_row_and_an_outage_is_of_all() {
    for &kind in FailureKind::ALL {
        let row = of_metastore("load", intermediate(), refused(kind));
        assert_eq!(is_of_one_row(&row), kind.is_of_one_key(), "{kind}");
        let exit = failure(&row).exit();
        assert_eq!(exit == Exit::BadInput, kind.is_of_one_key(), "{kind}: {exit:?}");
        let transient = BackendError::transient("down").with_kind(kind);
        assert!(!is_of_one_row(&of_metastore("load", intermediate(), transient)), "{kind}");
        let of_all = of_metastore("load", KeyId::new("_SK_claviger_default"), refused(kind));
        assert!(!is_of_one_row(&of_all), "{kind}: all rows need the system key");
        let system_key = KeyMeta::new(KeyId::new("_SK_claviger_default"), Created::MIN);
        let kms = kms_error("unwrap_key", &system_key, &refused(kind));
        assert!(!is_of_one_row(&kms), "{kind}");
    }
    let damaged = of_metastore("load", intermediate(), BackendError::damaged("cut"));
    assert!(is_of_one_row(&damaged) && failure(&damaged).exit() == Exit::NotFound);
    let no_new_keys = of_metastore("insert", intermediate(), refused(FailureKind::TimeNotHeld));
    assert!(!is_of_one_row(&no_new_keys) && failure(&no_new_keys).exit() == Exit::Unavailable);
}

/// All that is told of an error that holds a partition, without `--verbose`.
#[test]
fn no_sentence_holds_a_partition_or_steers_a_terminal_and_details_hold_the_whole_id() {
    let key = || KeyMeta::new(intermediate(), Created::MIN);
    let mut errors = vec![
        Error::KeyNotFound(key()),
        Error::KeyRevoked(key()),
        Error::IndistinctKey(key()),
        Error::CreationRace(intermediate()),
        Error::ClockSkew(key()),
        of_metastore(
            "load",
            intermediate(),
            BackendError::damaged(SqlFault::CreatedUnreadable(intermediate())),
        ),
        of_metastore("load", intermediate(), SqlFault::IdReserved(intermediate()).into()),
        of_metastore("insert", intermediate(), SqlFault::Indistinct(key()).into()),
        of_metastore("insert", intermediate(), SqlFault::NotKept(key()).into()),
        of_metastore("insert", intermediate(), SqlFault::InsertSwallowed(key()).into()),
        of_metastore("load", intermediate(), SqlFault::Contended(key()).into()),
    ];
    let every = every_error(&key(), &BackendError::transient("down"));
    errors.extend(every.into_iter().filter(|error| error.key_id().is_some()));
    errors.extend(FailureKind::ALL.iter().map(|&kind| of_metastore("load", intermediate(), refused(kind))));
    for error in errors {
        let failure = failure(&error);
        let message = failure.message();
        assert!(!message.contains("eve") && !message.contains('@'), "{message}");
        assert!(!message.contains(char::is_control), "{message:?}");
        assert!(message.contains("; "), "what to do: {message}");
        assert!(
            failure.details().is_some_and(|details| details.contains("eve@example.com\\u{1b}[2J")),
            "{message}"
        );
    }
}
