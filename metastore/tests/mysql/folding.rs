//! Ids that Asherah's table takes for one another, and ids and records that it cannot hold.

use std::error::Error as _;
use std::sync::Arc;

use claviger::testing::{ReplaceOne as _, call};
use claviger::{
    BackendError, Consistency, EnvelopeKeyRecord, ErrorChain, FailureClass, Insert, KeyId, Metastore as _,
    MetastoreAdmin as _,
};
use claviger_metastore::{FindingId, MysqlMetastore, SqlFault};

use crate::latest::LatestRecord as _;
use crate::support::{ASHERAH, LATIN1, NOW, Place, UTF8, assert_permanent, builder, meta, record};

const CHARSETS: [&str; 2] = [LATIN1, UTF8];

/// What the collations of both character sets take for one.
const TWINS: [[&str; 2]; 4] = [
    ["_IK_alice_svc_prod", "_IK_ALICE_svc_prod"],
    ["_IK_x_svc_prod", "_IK_x_svc_prod "],
    ["_IK_\u{e9}_svc_prod", "_IK_\u{c9}_svc_prod"],
    ["_SK_svc_prod", "_sk_SVC_prod  "],
];

fn fault(error: &BackendError) -> &SqlFault {
    error.source().and_then(|source| source.downcast_ref()).unwrap()
}

#[tokio::test]
async fn the_second_of_two_that_the_table_takes_for_one_is_refused_and_neither_reads_the_others() {
    for charset in CHARSETS {
        let place = Place::holding(ASHERAH, charset).await;
        let store = place.open().await;
        for [one, other] in TWINS {
            let (one, other) = (record(one, NOW), record(other, NOW));
            assert_eq!(store.insert(&one, &call()).await.unwrap(), Insert::Inserted);
            let error = store.insert(&other, &call()).await.unwrap_err();
            assert!(!error.is_transient());
            assert!(matches!(fault(&error), SqlFault::Indistinct(key) if key == other.meta()));
            assert_eq!(store.insert(&one, &call()).await.unwrap(), Insert::AlreadyExists);
            for consistency in [Consistency::Strong, Consistency::Eventual] {
                assert_eq!(
                    store.load(one.meta(), &call().consistency(consistency)).await.unwrap().as_ref(),
                    Some(&one)
                );
                let error = store.load(other.meta(), &call().consistency(consistency)).await.unwrap_err();
                assert_is_kept_under(&error, &other, &one);
            }
            assert_eq!(store.latest(other.meta().id()).await.unwrap(), None);
            assert!(!store.revoke(other.meta(), &call()).await.unwrap());
            assert_eq!(store.delete(other.meta().id(), &call()).await.unwrap(), 0);
            assert_eq!(store.latest(one.meta().id()).await.unwrap(), Some(one));
        }
        assert_eq!(store.count(&call()).await.unwrap(), TWINS.len() as u64);
    }
}

#[track_caller]
fn assert_is_kept_under(error: &BackendError, asked: &EnvelopeKeyRecord, row: &EnvelopeKeyRecord) {
    assert_eq!(error.class(), FailureClass::Folded);
    let SqlFault::FoldedId { key, kept_under } = fault(error) else { panic!("{error:?}") };
    assert_eq!((key, kept_under), (asked.meta(), row.meta().id()));
    let message = ErrorChain::new(error).to_string();
    assert!(!message.contains(key.id().as_str()) && !message.contains(kept_under.as_str()), "{message}");
}

/// By its exact version it is given out and says whose row it is; it is never the latest, and nothing
/// is done to the row by this name.
#[tokio::test]
async fn a_folded_row_is_given_out_for_an_exact_version_alone_where_that_is_wanted() {
    for charset in CHARSETS {
        let place = Place::holding(ASHERAH, charset).await;
        let store = builder().folded_ids(true).open(&place.url).await.unwrap();
        for [one, other] in TWINS {
            let (row, asked) = (record(one, NOW), meta(other, NOW));
            assert_eq!(store.insert(&row, &call()).await.unwrap(), Insert::Inserted);
            let folded =
                EnvelopeKeyRecord::new(asked.clone(), Arc::clone(row.wrapped_key()), row.parent().cloned())
                    .folded(row.meta().id().clone());
            for consistency in [Consistency::Strong, Consistency::Eventual] {
                assert_eq!(
                    store.load(&asked, &call().consistency(consistency)).await.unwrap().as_ref(),
                    Some(&folded)
                );
                let keys = [asked.clone(), row.meta().clone(), meta(other, NOW + 1), asked.clone()];
                let expected = [Some(folded.clone()), Some(row.clone()), None, Some(folded.clone())];
                assert_eq!(store.load_many(&keys, &call().consistency(consistency)).await.unwrap(), expected);
            }
            assert_eq!(store.latest(asked.id()).await.unwrap(), None);
            let latest = store.latest_many(&[asked.id().clone(), row.meta().id().clone()]).await.unwrap();
            assert_eq!(latest, [None, Some(row.clone())]);
            let error = store.insert(&folded, &call()).await.unwrap_err();
            assert!(matches!(fault(&error), SqlFault::Indistinct(key) if *key == asked));
            assert!(!store.revoke(&asked, &call()).await.unwrap());
            assert!(!store.replace_one(&asked, row.wrapped_key(), b"other", &call()).await.unwrap());
            assert_eq!(store.delete(asked.id(), &call()).await.unwrap(), 0);
            assert!(store.revoke(row.meta(), &call()).await.unwrap());
            assert!(store.load(&asked, &call()).await.unwrap().unwrap().is_revoked());
        }
    }
}

/// A call for many says what the first of them says.
#[tokio::test]
async fn a_folded_row_among_many_is_refused_as_alone() {
    let place = Place::holding(ASHERAH, UTF8).await;
    let store = place.open().await;
    let [one, other] = TWINS[0].map(|id| record(id, NOW));
    assert_eq!(store.insert(&one, &call()).await.unwrap(), Insert::Inserted);
    let keys = [one.meta().clone(), other.meta().clone()];
    assert_is_kept_under(&store.load_many(&keys, &call()).await.unwrap_err(), &other, &one);
}

/// What Asherah keeps beside the keys is none, by whichever name.
#[tokio::test]
async fn a_note_that_is_no_key_is_not_given_out_for_a_folded_id() {
    let place = Place::holding(ASHERAH, UTF8).await;
    place.write_row("+00:00", "__asherah_internal_x", "2023-11-14 22:13:20", "{}").await;
    for served in [true, false] {
        let store = builder().folded_ids(served).open(&place.url).await.unwrap();
        let asked = meta("__ASHERAH_internal_x", NOW);
        assert_eq!(store.load(&asked, &call()).await.unwrap(), None);
    }
}

/// Of different times both are kept; then what is the latest of one is not that of the other.
#[tokio::test]
async fn two_that_the_table_takes_for_one_have_versions_of_their_own() {
    for charset in CHARSETS {
        let place = Place::holding(ASHERAH, charset).await;
        let store = place.open().await;
        let mut ids = Vec::new();
        let mut latest = Vec::new();
        for [one, other] in TWINS {
            for second in 0..6 {
                let id = if second % 2 == 0 { one } else { other };
                assert_eq!(store.insert(&record(id, NOW + second), &call()).await.unwrap(), Insert::Inserted);
            }
            ids.extend([one, other].map(KeyId::new));
            latest.extend([record(one, NOW + 4), record(other, NOW + 5)]);
        }
        for (id, latest) in ids.iter().zip(&latest) {
            assert_eq!(store.latest(id).await.unwrap().as_ref(), Some(latest));
        }
        let all = store.latest_many(&ids).await.unwrap();
        assert!(all.iter().flatten().eq(&latest), "{all:?}");
        let keys: Vec<_> =
            ids.iter().flat_map(|id| (0..6).map(|second| meta(id.as_str(), NOW + second))).collect();
        // Each time is one of the two's, and to the other what the table has of it is folded.
        let mut found = Vec::new();
        for key in &keys {
            match store.load(key, &call()).await {
                Ok(row) => found.push(row),
                Err(error) => assert_eq!(error.class(), FailureClass::Folded),
            }
        }
        assert_eq!(found.iter().flatten().count(), 6 * TWINS.len());
        let kept: Vec<_> = found.iter().flatten().map(|row| row.meta().clone()).collect();
        assert_eq!(store.load_many(&kept, &call()).await.unwrap(), found);
        for limit in [1, 2, 5, 100] {
            let mut listed = listed(&store, limit).await;
            let mut kept: Vec<_> = found.iter().flatten().cloned().collect();
            for records in [&mut listed, &mut kept] {
                records.sort_by(|one, other| one.meta().cmp(other.meta()));
            }
            assert_eq!(listed, kept, "pages of {limit}");
        }
        let [one, other] = TWINS[0].map(KeyId::new);
        assert_eq!(store.delete(&one, &call()).await.unwrap(), 3);
        assert_eq!(store.latest(&one).await.unwrap(), None);
        assert_eq!(store.delete(&other, &call()).await.unwrap(), 3);
    }
}

async fn listed(store: &MysqlMetastore, limit: usize) -> Vec<EnvelopeKeyRecord> {
    let (mut records, mut after) = (Vec::new(), None);
    loop {
        let page = store.list("", after.as_ref(), limit, &call()).await.unwrap();
        records.extend(page.records);
        after = page.next;
        if after.is_none() {
            return records;
        }
    }
}

/// Many at once, of all letters that collations take for others or for two, are answered as one by one.
#[tokio::test]
async fn many_asked_for_at_once_are_answered_as_one_by_one() {
    let letters = ('A'..='Z').chain('a'..='z').chain('\u{c0}'..='\u{ff}').chain([' ', '_', '%', '\\', '\'']);
    let mut tails: Vec<String> = letters.map(String::from).collect();
    tails.extend(["ss", "SS", "sz", "ae", "AE", "oe", "th", "s ", "e  ", "\t", ""].map(str::to_owned));
    for (table, charset) in [(ASHERAH, LATIN1), (ASHERAH, UTF8), ("", LATIN1), ("", UTF8)] {
        let place = if table.is_empty() {
            Place::migrated(charset).await
        } else {
            Place::holding(table, charset).await
        };
        let store = place.open().await;
        let mut keys = Vec::new();
        for (second, tail) in (0..).zip(&tails) {
            let record = record(&format!("_IK_{tail}"), NOW + second);
            assert_eq!(store.insert(&record, &call()).await.unwrap(), Insert::Inserted);
            keys.push(record.meta().clone());
        }
        let ids: Vec<_> = keys.iter().map(|key| key.id().clone()).collect();
        let at_once = store.latest_many(&ids).await.unwrap();
        for (key, found) in keys.iter().zip(&at_once) {
            assert_eq!(found.as_ref().map(EnvelopeKeyRecord::meta), Some(key), "{charset}");
        }
        assert_eq!(store.load_many(&keys, &call()).await.unwrap(), at_once);
        keys.reverse();
        assert!(store.load_many(&keys, &call()).await.unwrap().iter().rev().eq(&at_once));
    }
}

/// Every character of a few blocks: kept as it is, or refused before the server is asked.
#[tokio::test]
async fn characters_are_kept_exactly_or_refused() {
    let characters: Vec<char> = ('\u{80}'..='\u{17f}')
        .chain("\u{2c6}\u{2dc}\u{3042}\u{e000}\u{fffd}\u{ffff}\u{10000}\u{1f600}\u{10ffff}".chars())
        .chain('\u{2010}'..='\u{203a}')
        .chain(['\u{192}', '\u{20ac}', '\u{2122}'])
        .collect();
    for (charset, kept) in
        [(LATIN1, 128), ("utf8mb3", 308), (UTF8, 311), ("latin2", 0), ("ascii", 0), ("sjis", 0)]
    {
        let place = Place::holding(ASHERAH, charset).await;
        let store = place.open().await;
        let mut held = 0;
        for (second, &character) in (0..).zip(&characters) {
            let record = record(&format!("_IK_{character}_svc_prod"), NOW + second);
            match store.insert(&record, &call()).await {
                Ok(inserted) => {
                    assert_eq!(inserted, Insert::Inserted);
                    let found = store.load(record.meta(), &call()).await.unwrap();
                    assert_eq!(found, Some(record), "{charset} {character:?}");
                    held += 1;
                }
                Err(error) => {
                    let is_ours = matches!(fault(&error), SqlFault::CharactersNotHeld { column: "id", .. });
                    assert!(is_ours && !error.is_transient(), "{charset} {character:?} {error:?}");
                    let answer = store.load(record.meta(), &call()).await;
                    assert_permanent(answer, "CharactersNotHeld");
                }
            }
        }
        assert_eq!(held, kept, "{charset}");
        assert_eq!(store.count(&call()).await.unwrap(), held);
    }
}

#[tokio::test]
async fn a_parents_characters_are_kept_exactly_or_refused() {
    let of_parent = |parent: &str| {
        EnvelopeKeyRecord::new(meta("_IK_a_svc_prod", NOW), *b"wrapped", Some(meta(parent, NOW)))
    };
    let store = Place::holding(ASHERAH, LATIN1).await.open().await;
    assert_permanent(store.insert(&of_parent("_SK_\u{1f600}_prod"), &call()).await, "key_record");
    let record = of_parent("_SK_caf\u{e9}_prod");
    assert_eq!(store.insert(&record, &call()).await.unwrap(), Insert::Inserted);
    assert_eq!(store.latest(record.meta().id()).await.unwrap().as_ref(), Some(&record));
    // The row is compared with what was read of it.
    assert!(store.revoke(record.meta(), &call()).await.unwrap());
    assert!(store.replace_one(record.meta(), b"wrapped", b"other", &call()).await.unwrap());
    let found = store.latest(record.meta().id()).await.unwrap().unwrap();
    assert_eq!(
        (found.is_revoked(), &**found.wrapped_key(), found.parent()),
        (true, &b"other"[..], record.parent())
    );
}

#[tokio::test]
async fn records_over_the_columns_limit_are_refused() {
    for charset in CHARSETS {
        let store = Place::holding(ASHERAH, charset).await.open().await;
        let of = |bytes: usize| EnvelopeKeyRecord::new(meta("_SK_svc_prod", NOW), vec![7; bytes], None);
        // 65 535 bytes with its `{"Created":1700000000,"Key":""}`; one more with a time of a digit more.
        let fits = of(49_128);
        let over = EnvelopeKeyRecord::new(meta("_SK_svc_prod", 10_000_000_000), vec![7; 49_128], None);
        assert_eq!((fits.to_json().len(), over.to_json().len()), (65_535, 65_536));
        let error = store.insert(&over, &call()).await.unwrap_err();
        assert!(!error.is_transient() && !error.was_asked());
        assert!(matches!(fault(&error), SqlFault::RecordTooLong { length: 65_536, limit: 65_535 }));
        assert_eq!(store.insert(&fits, &call()).await.unwrap(), Insert::Inserted);
        assert_eq!(store.latest(fits.meta().id()).await.unwrap().as_ref(), Some(&fits));
        let longer = store.replace_one(fits.meta(), fits.wrapped_key(), &[7; 49_131], &call()).await;
        assert_permanent(longer, "RecordTooLong");
        let ours = Place::migrated(charset).await.open().await;
        assert_eq!(ours.insert(&over, &call()).await.unwrap(), Insert::Inserted);
        assert_permanent(ours.insert(&of(49_131), &call()).await, "RecordTooLong");
    }
}

#[tokio::test]
async fn lengths_follow_the_columns_that_are_there() {
    let place = Place::migrated(UTF8).await;
    place.execute("ALTER TABLE encryption_key MODIFY id VARCHAR(40) CHARACTER SET utf8mb4 NOT NULL").await;
    let store = place.open().await;
    let of = |length: usize| record(&"\u{e9}".repeat(length), NOW);
    assert_eq!(store.insert(&of(40), &call()).await.unwrap(), Insert::Inserted);
    assert_permanent(store.insert(&of(41), &call()).await, "IdOverColumn");
    place.execute("ALTER TABLE encryption_key MODIFY id VARBINARY(80) NOT NULL").await;
    // Who looked before still finds every row, and who looks now has the new limit.
    assert_eq!(store.latest(of(40).meta().id()).await.unwrap(), Some(of(40)));
    let store = place.open().await;
    assert_eq!(store.latest(of(40).meta().id()).await.unwrap(), Some(of(40)));
    assert_permanent(store.insert(&of(41), &call()).await, "IdOverColumn");
}

/// Started in spite of `not-strict`: what the server changes is taken back.
#[tokio::test]
async fn a_server_that_is_not_strict_changes_nothing() {
    let place = Place::holding(ASHERAH, UTF8).await;
    place.execute("ALTER TABLE encryption_key MODIFY key_record VARCHAR(250) NOT NULL").await;
    let lax = builder().on_connect("SET sql_mode = ''");
    let accepted = lax.accept(FindingId::NotStrict).accept(FindingId::ColumnType);
    let store = accepted.open(&place.url).await.unwrap();
    assert_eq!(store.insert(&record("_IK_a_svc_prod", NOW), &call()).await.unwrap(), Insert::Inserted);
    assert_eq!(store.insert(&record("_IK_a_svc_prod", NOW), &call()).await.unwrap(), Insert::AlreadyExists);
    // After 2038 it is 0000-00-00.
    assert_permanent(store.insert(&record("_IK_a_svc_prod", 2_147_483_648), &call()).await, "NotKept");
    // The store has looked at the column before it became shorter.
    place.execute("ALTER TABLE encryption_key MODIFY id VARCHAR(20) NOT NULL").await;
    let long = record("_IK_aaaaaaaaaaaaaaaaaaaa_svc_prod", NOW);
    assert_permanent(store.insert(&long, &call()).await, "NotKept");
    assert_eq!(store.count(&call()).await.unwrap(), 1);
    // In a strict session the server refuses.
    assert_permanent(
        place_strict(&place).await.insert(&record("_IK_b_svc_prod", 2_147_483_648), &call()).await,
        "CreatedNotHeld",
    );
}

async fn place_strict(place: &Place) -> MysqlMetastore {
    builder().accept(FindingId::ColumnType).open(&place.url).await.unwrap()
}
