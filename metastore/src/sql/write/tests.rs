use std::collections::VecDeque;

use claviger::{BackendError, Created, FailureClass};

use super::*;
use crate::sql::driver::Doing;
use crate::sql::rows::Row;
use crate::sql::statements::Found;

/// A table on which others are at work: what each statement meets stands in a script.
#[derive(Default)]
struct Session {
    placed: VecDeque<Placed>,
    holders: VecDeque<Option<Row>>,
    forms: VecDeque<Vec<Row>>,
    updated: VecDeque<u64>,
    inserts: usize,
    updates: Vec<(Vec<u8>, String)>,
}

struct Scripted;

/// The next answer of a script, whose last one stays.
fn next<T: Clone>(script: &mut VecDeque<T>) -> T {
    if script.len() > 1 { script.pop_front() } else { script.front().cloned() }.unwrap()
}

impl Statements for Scripted {
    const STORE: &'static str = "Scripted";
    const ASKED_MAX: usize = 1;

    type Session = Session;
    type Table = ();

    fn backend_error(error: sqlx::Error, _doing: Doing) -> BackendError {
        BackendError::permanent(error)
    }

    async fn find(_: &mut On<'_, Self>, _: &KeyMeta) -> Result<Found, SqlError> {
        unreachable!()
    }

    async fn find_many(_: &mut On<'_, Self>, _: &[KeyMeta]) -> Result<Vec<Found>, SqlError> {
        unreachable!()
    }

    async fn find_holder(on: &mut On<'_, Self>, _: &KeyMeta) -> Result<Option<Row>, SqlError> {
        Ok(next(&mut on.session.holders))
    }

    async fn find_latest(_: &mut On<'_, Self>, _: &KeyId, _: Created) -> Result<Vec<Row>, SqlError> {
        unreachable!()
    }

    async fn find_latest_many(
        _: &mut On<'_, Self>,
        _: &[KeyId],
        _: Created,
    ) -> Result<Vec<Vec<Row>>, SqlError> {
        unreachable!()
    }

    async fn find_forms(on: &mut On<'_, Self>, _: &KeyMeta) -> Result<Vec<Row>, SqlError> {
        Ok(next(&mut on.session.forms))
    }

    async fn insert(on: &mut On<'_, Self>, _: &KeyMeta, _: &str) -> Result<Placed, SqlError> {
        on.session.inserts += 1;
        Ok(next(&mut on.session.placed))
    }

    async fn update(on: &mut On<'_, Self>, _: &KeyMeta, old: &[u8], new: &str) -> Result<u64, SqlError> {
        on.session.updates.push((old.to_vec(), new.to_owned()));
        Ok(next(&mut on.session.updated))
    }

    async fn list(
        _: &mut On<'_, Self>,
        _: &str,
        _: Option<&KeyMeta>,
        _: usize,
    ) -> Result<Vec<Row>, SqlError> {
        unreachable!()
    }

    async fn delete_version(_: &mut On<'_, Self>, _: &KeyMeta) -> Result<u64, SqlError> {
        unreachable!()
    }

    async fn delete(_: &mut On<'_, Self>, _: &KeyId) -> Result<u64, SqlError> {
        unreachable!()
    }

    async fn count(_: &mut On<'_, Self>) -> Result<u64, SqlError> {
        unreachable!()
    }
}

fn record(wrapped: &'static [u8]) -> EnvelopeKeyRecord {
    EnvelopeKeyRecord::new(KeyMeta::new(KeyId::new("_IK_a_svc_prod"), Created::MIN), wrapped, None)
}

fn row(record: &EnvelopeKeyRecord) -> Row {
    let meta = record.meta();
    Row {
        id: meta.id().as_str().into(),
        created: Some(meta.created().unix_seconds()),
        json: Some(record.to_json().into_bytes()),
    }
}

fn class(error: SqlError) -> FailureClass {
    error.classified::<Scripted>().class()
}

async fn inserted(placed: &[Placed], holders: &[Option<Row>]) -> (Result<Insert, SqlError>, usize) {
    let (placed, holders) = (placed.iter().copied().collect(), holders.iter().cloned().collect());
    let mut session = Session { placed, holders, ..Session::default() };
    let answer = insert::<Scripted>(&mut On { session: &mut session, table: () }, &record(b"ours")).await;
    (answer, session.inserts)
}

#[tokio::test]
async fn a_duplicate_is_one_only_if_its_row_is_there() {
    let theirs = row(&record(b"theirs"));
    for placed in [Placed::Refused, Placed::Nowhere] {
        let (answer, inserts) = inserted(&[placed], &[Some(theirs.clone())]).await;
        assert_eq!((answer.unwrap(), inserts), (Insert::AlreadyExists, 1), "{placed:?}");
        for other in [
            Row { id: b"_IK_A_svc_prod".into(), ..theirs.clone() },
            Row { created: Some(2), ..theirs.clone() },
            Row { created: None, ..theirs.clone() },
        ] {
            let (answer, inserts) = inserted(&[placed], &[Some(other)]).await;
            assert!(matches!(answer, Err(SqlError::Fault(SqlFault::Indistinct(_)))), "{answer:?}");
            assert_eq!(inserts, 1);
        }
    }
}

#[tokio::test]
async fn an_insert_whose_duplicate_was_deleted_is_made_again() {
    let refused = [Placed::Refused, Placed::Refused, Placed::Inserted];
    let (answer, inserts) = inserted(&refused, &[None]).await;
    assert_eq!((answer.unwrap(), inserts), (Insert::Inserted, 3));
    let (answer, inserts) = inserted(&[Placed::Refused], &[None, Some(row(&record(b"theirs")))]).await;
    assert_eq!((answer.unwrap(), inserts), (Insert::AlreadyExists, 2));
}

#[tokio::test]
async fn a_duplicate_that_is_never_seen_is_a_permanent_error_after_three_looks() {
    let (answer, inserts) = inserted(&[Placed::Refused], &[None]).await;
    assert!(matches!(answer, Err(SqlError::Fault(SqlFault::Indistinct(_)))), "{answer:?}");
    assert_eq!((class(answer.unwrap_err()), inserts), (FailureClass::Permanent, 3));
    let (answer, inserts) = inserted(&[Placed::Nowhere], &[None]).await;
    assert!(matches!(answer, Err(SqlError::Fault(SqlFault::InsertSwallowed(_)))), "{answer:?}");
    assert_eq!((class(answer.unwrap_err()), inserts), (FailureClass::Permanent, 3));
}

#[tokio::test]
async fn a_rewrite_that_others_keep_undoing_is_a_transient_error_after_twenty() {
    for write in [
        Write::Revoke(record(b"x").meta().clone()),
        Write::Replace(Replacement::new(record(b"x").meta().clone(), *b"old", *b"new")),
    ] {
        let mut session =
            Session { forms: [vec![row(&record(b"old"))]].into(), updated: [0].into(), ..Session::default() };
        let error =
            carry_out::<Scripted>(&mut On { session: &mut session, table: () }, &write).await.unwrap_err();
        assert!(matches!(error, SqlError::Fault(SqlFault::Contended(_))), "{error:?}");
        assert_eq!((class(error), session.updates.len()), (FailureClass::Transient, 20));
    }
}

#[tokio::test]
async fn a_rewrite_is_made_on_top_of_what_others_wrote_meanwhile() {
    let (before, after) = (record(b"old"), record(b"new"));
    let mut session = Session {
        forms: [vec![row(&before)], vec![row(&after)]].into(),
        updated: [0, 1].into(),
        ..Session::default()
    };
    let revoke = Write::Revoke(before.meta().clone());
    assert_eq!(
        carry_out::<Scripted>(&mut On { session: &mut session, table: () }, &revoke).await.unwrap(),
        1
    );
    let expected = [before, after].map(|record| {
        let json = record.to_json();
        (json.into_bytes(), record.revoked(true).to_json())
    });
    assert_eq!(session.updates, expected);
}

#[tokio::test]
async fn a_rewrite_of_several_forms_is_of_all_of_them_or_of_none() {
    let sound = row(&record(b"old"));
    let key = record(b"old").meta().clone();
    let revoke = Write::Revoke(key.clone());
    let mut session = Session {
        forms: [vec![sound.clone(), Row { json: Some(b"{".into()), ..sound.clone() }]].into(),
        updated: [1].into(),
        ..Session::default()
    };
    let error =
        carry_out::<Scripted>(&mut On { session: &mut session, table: () }, &revoke).await.unwrap_err();
    assert_eq!((class(error), session.updates.len()), (FailureClass::Damaged, 0));
    // One of two forms was changed by another program.
    session.forms = [vec![sound.clone(), sound]].into();
    session.updated = [1, 0, 1].into();
    assert_eq!(
        carry_out::<Scripted>(&mut On { session: &mut session, table: () }, &revoke).await.unwrap(),
        1
    );
    assert_eq!(session.updates.len(), 4);
}
