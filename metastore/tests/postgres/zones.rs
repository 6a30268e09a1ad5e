//! The session's time zone, which has no part in anything.

use claviger::testing::{ReplaceOne as _, call};
use claviger::{Insert, KeyId, KeyMeta, Metastore as _, MetastoreAdmin as _};
use claviger_metastore::PostgresMetastore;

use crate::latest::LatestRecord as _;
use crate::support::{ASHERAH, Place, meta, record};

const ZONES: [&str; 4] = ["UTC", "America/Los_Angeles", "Asia/Kolkata", "Pacific/Chatham"];

/// Los Angeles's clocks go forward at 2023-03-12 10:00 UTC, and back at 2023-11-05 09:00 UTC: what is
/// half past one by the wall is twice, and what is half past two is not at all.
const TIMES: [i64; 8] = [
    1_678_613_400,
    1_678_615_200,
    1_678_617_000,
    1_699_171_200,
    1_699_173_000,
    1_699_176_600,
    1_699_178_400,
    1_700_000_000,
];

/// A store whose pooler has set a zone on every connection.
async fn in_zone(place: &Place, zone: &'static str) -> PostgresMetastore {
    let builder = PostgresMetastore::builder().on_connect(format!("SET TIME ZONE '{zone}'"));
    builder.open(&place.url).await.unwrap()
}

#[tokio::test]
async fn a_session_in_any_zone_reads_and_writes_the_same_times() {
    for table in ["", ASHERAH] {
        let place = match table {
            "" => Place::migrated().await,
            table => Place::holding(table).await,
        };
        for writer in ZONES {
            let store = in_zone(&place, writer).await;
            for time in TIMES {
                let record = record(&format!("_IK_{writer}_svc_prod"), time);
                assert_eq!(
                    store.insert(&record, &call()).await.unwrap(),
                    Insert::Inserted,
                    "{writer} {time}"
                );
                assert_eq!(
                    store.insert(&record, &call()).await.unwrap(),
                    Insert::AlreadyExists,
                    "{writer} {time}"
                );
            }
            store.close().await;
        }
        let stored = place
            .text(
                "SELECT string_agg(created::timestamp::text, ' ' ORDER BY created) \
                 FROM encryption_key WHERE id = '_IK_Asia/Kolkata_svc_prod'",
            )
            .await;
        assert!(
            stored.starts_with("2023-03-12 09:30:00 2023-03-12 10:00:00 2023-03-12 10:30:00"),
            "{stored}"
        );
        assert!(stored.ends_with("2023-11-05 09:30:00 2023-11-05 10:00:00 2023-11-14 22:13:20"), "{stored}");
        for reader in ZONES {
            assert_reads_all(&in_zone(&place, reader).await).await;
        }
        assert_reads_all(&place.open().await).await;
    }
}

async fn assert_reads_all(store: &PostgresMetastore) {
    let mut keys: Vec<KeyMeta> = Vec::new();
    for writer in ZONES {
        keys.extend(TIMES.map(|time| meta(&format!("_IK_{writer}_svc_prod"), time)));
    }
    let records: Vec<_> =
        keys.iter().map(|key| record(key.id().as_str(), key.created().unix_seconds())).collect();
    for (key, record) in keys.iter().zip(&records) {
        assert_eq!(store.load(key, &call()).await.unwrap().as_ref(), Some(record));
        if key.created().unix_seconds() == TIMES[7] {
            assert_eq!(store.latest(key.id()).await.unwrap().as_ref(), Some(record));
        }
    }
    let found = store.load_many(&keys, &call()).await.unwrap();
    assert_eq!(found.into_iter().flatten().collect::<Vec<_>>(), records);
    let ids = ZONES.map(|writer| KeyId::new(format!("_IK_{writer}_svc_prod")));
    let latest = store.latest_many(&ids).await.unwrap().into_iter().flatten();
    assert!(latest.map(|record| record.meta().created().unix_seconds()).eq([TIMES[7]; 4]));
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let page = store.list("", after.as_ref(), 5, &call()).await.unwrap();
        listed.extend(page.records);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let mut sorted = records;
    sorted.sort_by(|one, other| one.meta().cmp(other.meta()));
    listed.sort_by(|one, other| one.meta().cmp(other.meta()));
    assert_eq!(listed, sorted);
}

#[tokio::test]
async fn operators_calls_meet_their_row_in_any_zone() {
    for table in ["", ASHERAH] {
        let place = match table {
            "" => Place::migrated().await,
            table => Place::holding(table).await,
        };
        for time in TIMES {
            let store = in_zone(&place, "America/Los_Angeles").await;
            let record = record("_IK_a_svc_prod", time);
            assert_eq!(store.insert(&record, &call()).await.unwrap(), Insert::Inserted);
            assert!(store.revoke(record.meta(), &call()).await.unwrap());
            assert!(store.replace_one(record.meta(), record.wrapped_key(), b"new", &call()).await.unwrap());
            let read = place.open().await.load(record.meta(), &call()).await.unwrap().unwrap();
            assert!(read.is_revoked() && **read.wrapped_key() == *b"new");
            store.close().await;
        }
    }
}

#[tokio::test]
async fn a_database_whose_zone_is_set_shifts_nothing() {
    for table in ["", ASHERAH] {
        let place = match table {
            "" => Place::migrated().await,
            table => Place::holding(table).await,
        };
        place.execute(&format!("ALTER DATABASE {} SET timezone = 'America/Los_Angeles'", place.name)).await;
        let store = place.open().await;
        for time in TIMES {
            assert_eq!(
                store.insert(&record("_IK_a_svc_prod", time), &call()).await.unwrap(),
                Insert::Inserted
            );
        }
        let epochs = place
            .text(
                "SELECT string_agg(extract(epoch FROM created)::bigint::text, ' ' ORDER BY created) \
                 FROM encryption_key",
            )
            .await;
        assert_eq!(epochs, TIMES.map(|time| time.to_string()).join(" "));
    }
}
