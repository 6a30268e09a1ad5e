use super::*;
use crate::record::{Created, KeyId, KeyMeta};

fn known(folds: bool) -> Arc<Known> {
    Arc::new(Known::new(folds, Arc::new(ForkSentinel::new().unwrap())))
}

fn row(id: &str, created: i64, wrapped: &[u8]) -> EnvelopeKeyRecord {
    EnvelopeKeyRecord::new(KeyMeta::new(KeyId::new(id), Created::new(created).unwrap()), wrapped, None)
}

const FOREIGN: Finding = Finding::Copy(Copied { is_foreign: true, is_revoked: false });
const OTHER_VERSION: Finding = Finding::Copy(Copied { is_foreign: false, is_revoked: false });
const FOREIGN_REVOKED: Finding = Finding::Copy(Copied { is_foreign: true, is_revoked: true });
const OTHER_REVOKED_VERSION: Finding = Finding::Copy(Copied { is_foreign: false, is_revoked: true });

/// What becomes of a key that is made of a row: nothing, or whether it is another version's.
fn held_as_copy(known: &Arc<Known>, row: &EnvelopeKeyRecord, probe: Option<&[u8]>) -> Option<bool> {
    let state = Arc::<KeyState>::default();
    let hold = known.hold(row, probe, &state);
    hold.is_ok().then(|| state.is_copy())
}

#[test]
fn key_in_memory_is_found_under_another_id_or_time_as_long_as_it_is_there() {
    let known = known(false);
    let own = row("a", 1, b"key");
    let others = [
        (row("b", 1, b"key"), FOREIGN, None),
        (row("a", 2, b"key"), OTHER_VERSION, Some(true)),
        (row("A", 1, b"key"), FOREIGN, None),
        (row("a ", 1, b"key"), FOREIGN, None),
    ];
    let hold = known.hold(&own, None, &Arc::default()).unwrap();
    let again = known.hold(&own, None, &Arc::default()).unwrap();
    for held in [Some(hold), Some(again), None] {
        for (other, finding, held_as) in &others {
            assert_eq!(
                known.find(other),
                if held.is_some() { *finding } else { Finding::Unknown },
                "{other:?}"
            );
            let expected = if held.is_some() { *held_as } else { Some(false) };
            assert_eq!(held_as_copy(&known, other, None), expected, "{other:?}");
        }
        assert_eq!(known.find(&own), Finding::Unknown);
        assert_eq!(held_as_copy(&known, &own, None), Some(false));
        assert_eq!(known.find(&row("b", 1, b"other")), Finding::Unknown);
    }
    assert!(known.marks().held.is_empty());
}

#[test]
fn key_whose_wrapped_form_was_changed_is_found_by_the_key() {
    let known = known(false);
    let probe = Some(&b"probe"[..]);
    let hold = known.hold(&row("a", 1, b"{\"k\":1}"), probe, &Arc::default()).unwrap();
    assert_eq!(known.find(&row("a", 2, b"{ \"k\":1}")), Finding::Unknown);
    assert_eq!(held_as_copy(&known, &row("a", 2, b"{ \"k\":1}"), probe), Some(true));
    assert_eq!(held_as_copy(&known, &row("b", 1, b"{ \"k\":1}"), probe), None);
    assert_eq!(held_as_copy(&known, &row("a", 1, b"{ \"k\":1}"), probe), Some(false), "it was wrapped anew");
    assert_eq!(held_as_copy(&known, &row("a", 2, b"{ \"k\":1}"), Some(b"other")), Some(false));
    drop(hold);
    assert_eq!(held_as_copy(&known, &row("a", 2, b"{ \"k\":1}"), probe), Some(false));
    assert!(known.marks().held.is_empty());
}

/// Revoked before it was ever in memory, while it is, or known to be when it comes.
#[test]
fn revoked_key_is_found_for_ever_by_its_version_its_wrapped_form_and_itself() {
    for when in ["never", "held", "before"] {
        let known = known(false);
        let own = row("a", 1, b"key");
        let hold = (when == "held").then(|| known.hold(&own, Some(b"probe"), &Arc::default()).unwrap());
        assert!(!known.note_revoked(&own.clone().revoked(true), hold.as_ref(), 1));
        drop(hold);
        if when == "before" {
            drop(known.hold(&own, Some(b"probe"), &Arc::default()).unwrap());
        }
        assert_eq!(known.find(&own), Finding::Revoked { since: 1 }, "{when}");
        assert_eq!(known.find(&row("a", 1, b"wrapped anew")), Finding::Revoked { since: 1 }, "{when}");
        assert_eq!(known.find(&row("a", 2, b"key")), OTHER_REVOKED_VERSION, "{when}");
        assert_eq!(known.find(&row("b", 1, b"key")), FOREIGN_REVOKED, "{when}");
        assert_eq!(held_as_copy(&known, &row("b", 1, b"key"), None), None, "{when}");
        let changed = held_as_copy(&known, &row("a", 2, b"other form"), Some(b"probe"));
        assert_eq!(changed, Some(when != "never"), "{when}");
    }
}

#[test]
fn copy_that_is_revoked_bars_the_key_in_memory() {
    let (known, state) = (known(false), Arc::<KeyState>::default());
    let _hold = known.hold(&row("a", 1, b"key"), None, &state).unwrap();
    known.revoke_copied(&row("b", 1, b"key"));
    known.revoke_copied(&row("b", 1, b"other").revoked(true));
    assert!(!state.is_revoked());
    known.revoke_copied(&row("b", 1, b"key").revoked(true));
    assert!(state.is_revoked());
}

#[test]
fn copy_that_is_revoked_is_not_remembered() {
    let known = known(false);
    let own = row("a", 1, b"key");
    let hold = known.hold(&own, None, &Arc::default()).unwrap();
    known.note_revoked(&row("b", 1, b"key").revoked(true), None, 1);
    assert_eq!(known.find(&own), Finding::Unknown);
    known.note_revoked(&own, Some(&hold), 1);
    known.note_revoked(&row("b", 2, b"key").revoked(true), None, 1);
    assert_eq!(known.find(&row("b", 2, b"key")), FOREIGN_REVOKED);
    assert_eq!(known.find(&own), Finding::Revoked { since: 1 });
}

#[test]
fn ids_that_fold_alike_share_keys_of_one_time_where_that_is_allowed() {
    for (one, other, is_alike) in [
        ("_IK_alice", "_IK_ALICE", true),
        ("_IK_andr\u{e9}", "_IK_Andre", true),
        ("_IK_andr\u{e9}", "_IK_andre\u{301}", true),
        ("_IK_stra\u{df}e", "_IK_STRASSE", true),
        ("_IK_x", "_IK_x  ", true),
        ("_IK_alice", "_IK_bob", false),
        ("_IK_x", "_IK_ x", false),
        ("_IK_ab", "_IK_a", false),
    ] {
        for allowed in [false, true] {
            let known = known(allowed);
            let _hold = known.hold(&row(one, 1, b"key"), None, &Arc::default()).unwrap();
            let is_copy = known.hold(&row(other, 1, b"key"), None, &Arc::default()).is_err();
            assert_eq!(!is_copy, is_alike && allowed, "{one} {other} {allowed}");
            let later = held_as_copy(&known, &row(other, 2, b"key"), None);
            assert_eq!(later, (is_alike && allowed).then_some(true), "{one} {other} {allowed}");
        }
    }
}

#[test]
fn row_that_is_kept_under_another_id_is_that_ones() {
    let known = known(false);
    let folded = row("_IK_Alice", 1, b"key").folded(KeyId::new("_IK_alice"));
    let _hold = known.hold(&folded, None, &Arc::default()).unwrap();
    assert_eq!(known.find(&row("_IK_alice", 1, b"key")), Finding::Unknown);
    assert_eq!(known.find(&row("_IK_Alice", 1, b"key")), FOREIGN);
    known.note_revoked(&row("_IK_alice", 1, b"key"), None, 1);
    assert_eq!(known.find(&folded), Finding::Revoked { since: 1 });
}

#[test]
fn revocations_are_bounded_the_first_learned_go_first_and_that_is_told_once() {
    let known = known(false);
    let number_of = |number: usize| row(&number.to_string(), 1, &number.to_le_bytes());
    for number in 0..REVOKED_MAX {
        assert!(!known.note_revoked(&number_of(number), None, 1));
        // Said again it is no news.
        assert!(!known.note_revoked(&number_of(number), None, 1));
    }
    assert_eq!(known.find(&number_of(0)), Finding::Revoked { since: 1 });
    assert!(known.note_revoked(&number_of(REVOKED_MAX), None, 1));
    assert!(!known.note_revoked(&number_of(REVOKED_MAX + 1), None, 1));
    for (number, expected) in
        [(0, Finding::Unknown), (1, Finding::Unknown), (2, Finding::Revoked { since: 1 })]
    {
        assert_eq!(known.find(&number_of(number)), expected, "{number}");
    }
    assert_eq!(known.find(&number_of(REVOKED_MAX + 1)), Finding::Revoked { since: 1 });
    let marks = known.marks();
    let revoked = &marks.revoked;
    assert_eq!((revoked.versions.len(), revoked.keys.len()), (REVOKED_MAX, REVOKED_MAX));
    // An entry of a table takes a byte besides, and an eighth of it stays free.
    let table = |capacity: usize, entry: usize| capacity / 7 * 8 * (entry + 1);
    let bytes = table(revoked.versions.capacity(), size_of::<Digest>())
        + table(revoked.keys.capacity(), size_of::<(Digest, Version)>())
        + revoked.order.capacity() * size_of::<Digest>();
    assert!(bytes <= 64 * REVOKED_MAX, "{bytes}");
}
