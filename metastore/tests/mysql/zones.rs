//! Time zones: of the server, of sessions, of rows that others wrote, and the days on which clocks
//! change.
//!
//! In 2026 clocks in Los Angeles are put forward at 10:00 UTC on the 8th of March, and back at 09:00
//! UTC on the 1st of November: there the hour from 08:00 to 09:00 UTC has the same local times as the
//! next. All programs send UTC as if it were local, so what they send skips from 02:00 to 03:00 in
//! March, and in November what reads 01:30 is one of two times.

use std::num::NonZeroU32;

use claviger::testing::call;
use claviger::{Consistency, Created, EnvelopeKeyRecord, Insert, Latest, Metastore, MetastoreAdmin as _};
use claviger_metastore::{FindingId, MysqlMetastore, Severity};
use claviger_testkit::MariaDb;
use sqlx::mysql::MySqlConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};

use crate::latest::LatestRecord as _;
use crate::support::{
    ASHERAH, LATIN1, Place, UTF8, assert_permanent, builder, chain, dangers, ids, meta, record,
};

const ID: &str = "_IK_a_svc_prod";
const LOS_ANGELES: &str = "America/Los_Angeles";
/// 2026-11-01 00:00:00 and 2026-03-08 00:00:00.
const BACK: i64 = 1_793_491_200;
const FORWARD: i64 = 1_772_928_000;
const HOUR: i64 = 3_600;

/// Every half hour of the first twelve of a day, and the seconds next to them.
fn times(midnight: i64) -> impl Iterator<Item = i64> {
    (0..24).flat_map(move |half| [-1, 0, 1].map(|second| midnight + half * HOUR / 2 + second))
}

/// The records of [`ID`], as text sent by others.
async fn write_all(place: &Place, zone: &str, times: impl Iterator<Item = i64>) -> Vec<EnvelopeKeyRecord> {
    let mut written = Vec::new();
    for created in times {
        let record = record(ID, created);
        place.write_row(zone, ID, &utc(created), &record.to_json()).await;
        written.push(record);
    }
    written
}

/// The text that others send, of the two days of these tests.
fn utc(created: i64) -> String {
    let days = [
        (FORWARD, "2026-03-08"),
        (BACK, "2026-11-01"),
        (FORWARD - 24 * HOUR, "2026-03-07"),
        (BACK - 24 * HOUR, "2026-10-31"),
    ];
    let (midnight, day) =
        days.into_iter().find(|(midnight, _)| (0..24 * HOUR).contains(&(created - midnight))).unwrap();
    let second = created - midnight;
    format!("{day} {:02}:{:02}:{:02}", second / HOUR, second / 60 % 60, second % 60)
}

async fn assert_all_found(store: &MysqlMetastore, records: &[EnvelopeKeyRecord]) {
    let keys: Vec<_> = records.iter().map(|record| record.meta().clone()).collect();
    let found = store.load_many(&keys, &call()).await.unwrap();
    assert!(found.iter().flatten().eq(records), "{found:?}");
    for record in records {
        assert_eq!(store.load(record.meta(), &call()).await.unwrap().as_ref(), Some(record));
        assert_eq!(store.insert(record, &call()).await.unwrap(), Insert::AlreadyExists);
    }
    let latest = records.iter().max_by_key(|record| record.meta().created());
    assert_eq!(store.latest(record(ID, 1).meta().id()).await.unwrap().as_ref(), latest);
    let page = store.list("", None, 1_000, &call()).await.unwrap();
    let mut sorted = records.to_vec();
    sorted.sort_by_key(|record| record.meta().created());
    assert_eq!(page.records, sorted);
    assert_found_up_to_each(store, &sorted).await;
}

/// Whatever the hours that the session's zone skips or has twice.
async fn assert_found_up_to_each(store: &MysqlMetastore, sorted: &[EnvelopeKeyRecord]) {
    let mut before = None;
    for record in sorted {
        let expected = Some(Latest::new(record.clone(), before.replace(record.clone())));
        let (id, created) = (record.meta().id(), record.meta().created());
        assert_eq!(store.load_latest(id, created, &call()).await.unwrap(), expected);
        assert_eq!(
            store.load_latest_many(std::slice::from_ref(id), created, &call()).await.unwrap(),
            [expected]
        );
    }
    // In March no text from 02:00 to 03:00 is a time in Los Angeles.
    for minute in (0..60).step_by(10) {
        let gap = Created::new(FORWARD + 2 * HOUR + 60 * minute).unwrap();
        let expected = sorted.iter().rfind(|record| record.meta().created() <= gap);
        let found = store.load_latest(record(ID, 1).meta().id(), gap, &call()).await.unwrap();
        assert_eq!(found.map(|latest| latest.record).as_ref(), expected);
    }
}

fn in_zone(place: &Place, zone: &str) -> MySqlConnectOptions {
    let options: MySqlConnectOptions = place.url.parse().unwrap();
    options.timezone(Some(zone.to_owned()))
}

#[tokio::test]
async fn on_our_own_table_the_zone_of_no_session_matters() {
    for server in [MariaDb::start_in(LOS_ANGELES, &[]), MariaDb::start_with(&["--default-time-zone=+09:30"])]
    {
        let place = Place::at(&server, UTF8).await;
        place.migrate().await;
        let [march, november] = [FORWARD, BACK].map(|midnight| times(midnight).collect::<Vec<_>>());
        // Half of the rows by others, with sessions that choose no zone.
        let mut records = write_all(&place, "SYSTEM", march.into_iter()).await;
        let sessions = [in_zone(&place, LOS_ANGELES), in_zone(&place, "-11:00")];
        for (number, &created) in november.iter().enumerate() {
            let record = record(ID, created);
            let store = builder().open_with(sessions[number % 2].clone()).await.unwrap();
            assert_eq!(store.insert(&record, &call()).await.unwrap(), Insert::Inserted);
            records.push(record);
        }
        for zone in ["+00:00", "SYSTEM", LOS_ANGELES, "-08:00", "Asia/Kathmandu"] {
            let store = builder().session_time_zone(zone).open(&place.url).await.unwrap();
            assert_eq!(store.check_schema(&call()).await.unwrap().findings(), [], "{zone}");
            assert_all_found(&store, &records).await;
        }
    }
}

/// Asherah's `TIMESTAMP`, in sessions of UTC, whatever the server's zone.
#[tokio::test]
async fn in_sessions_of_utc_every_time_is_kept_on_both_sides_of_a_change() {
    for charset in [LATIN1, UTF8] {
        let server = MariaDb::start_in(LOS_ANGELES, &[]);
        let place = Place::at(&server, charset).await;
        place.execute(ASHERAH).await;
        let mut records = write_all(&place, "+00:00", times(FORWARD)).await;
        let store = place.open().await;
        for created in times(BACK) {
            let record = record(ID, created);
            assert_eq!(store.insert(&record, &call()).await.unwrap(), Insert::Inserted);
            records.push(record);
        }
        assert_all_found(&store, &records).await;
    }
}

/// Beside Asherah on a server in Los Angeles: its sessions are in the server's zone.
#[tokio::test]
async fn beside_asherah_in_los_angeles_rows_of_both_are_found_on_both_sides_of_the_repeated_hour() {
    for (server, zone) in [
        (MariaDb::start_in(LOS_ANGELES, &[]), "SYSTEM"),
        (MariaDb::start_with(&["--default-time-zone=America/Los_Angeles"]), LOS_ANGELES),
    ] {
        for charset in [LATIN1, UTF8] {
            let place = Place::at(&server, charset).await;
            place.execute(ASHERAH).await;
            // By turns: even ones by others, in the server's zone.
            let (theirs, ours): (Vec<_>, Vec<_>) =
                times(BACK).enumerate().partition(|(number, _)| number % 2 == 0);
            let mut records =
                write_all(&place, &default_zone(&place).await, theirs.iter().map(|(_, time)| *time)).await;
            let store = builder().session_time_zone(zone).open(&place.url).await.unwrap();
            for (_, created) in ours {
                let record = record(ID, created);
                assert_eq!(store.insert(&record, &call()).await.unwrap(), Insert::Inserted);
                records.push(record);
            }
            assert_all_found(&store, &records).await;
            // They find all of them by the text they send.
            for record in &records {
                let sql = format!(
                    "SELECT CAST(COUNT(*) AS CHAR) FROM encryption_key WHERE id = '{ID}' AND created = '{}'",
                    utc(record.meta().created().unix_seconds())
                );
                assert_eq!(texts_in(&place, zone, &sql).await, ["1"]);
            }
            // A revocation moves no row, in the repeated hour neither.
            for record in &records {
                assert!(store.revoke(record.meta(), &call()).await.unwrap());
            }
            let revoked: Vec<_> = records.into_iter().map(|record| record.revoked(true)).collect();
            assert_all_found(&store, &revoked).await;
            assert_eq!(store.count(&call()).await.unwrap(), 72);
        }
    }
}

async fn default_zone(place: &Place) -> String {
    place.texts("SELECT @@GLOBAL.time_zone").await.remove(0)
}

async fn texts_in(place: &Place, zone: &str, sql: &str) -> Vec<String> {
    let mut connection = in_zone(place, zone).connect().await.unwrap();
    let texts = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_all(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    texts
}

#[tokio::test]
async fn the_hour_that_clocks_skip_is_refused_and_never_moved() {
    let server = MariaDb::start_in(LOS_ANGELES, &[]);
    let place = Place::at(&server, UTF8).await;
    place.execute(ASHERAH).await;
    let store = builder().session_time_zone("SYSTEM").open(&place.url).await.unwrap();
    let skipped = FORWARD + 2 * HOUR;
    let mut kept = Vec::new();
    for created in times(FORWARD) {
        let record = record(ID, created);
        if (skipped..skipped + HOUR).contains(&created) {
            assert_permanent(store.insert(&record, &call()).await, "CreatedNotHeld");
        } else {
            assert_eq!(store.insert(&record, &call()).await.unwrap(), Insert::Inserted);
            kept.push(record);
        }
    }
    assert_eq!(kept.len(), 66);
    assert_all_found(&store, &kept).await;
    for minute in 0..60 {
        let key = meta(ID, skipped + minute * 60);
        assert_eq!(store.load(&key, &call()).await.unwrap(), None);
        assert!(!store.revoke(&key, &call()).await.unwrap());
    }
    // Where clocks do not skip it, it is there.
    let place = Place::at(&server, UTF8).await;
    place.migrate().await;
    let store = builder().session_time_zone("SYSTEM").open(&place.url).await.unwrap();
    for created in times(FORWARD) {
        assert_eq!(store.insert(&record(ID, created), &call()).await.unwrap(), Insert::Inserted);
    }
}

#[tokio::test]
async fn rows_of_another_zone_are_found_and_the_zone_that_fits_is_named() {
    let in_los_angeles = MariaDb::start_in(LOS_ANGELES, &[]);
    let in_utc = MariaDb::start();
    // Where the rows were written and what they are to be read in.
    for (server, written, read, fits) in [
        (&in_los_angeles, "SYSTEM", "+00:00", "to SYSTEM:"),
        (&in_los_angeles, "+00:00", "SYSTEM", "to +00:00:"),
        (&in_utc, "-07:00", "+00:00", "to -07:00:"),
        (&in_utc, "+05:45", "SYSTEM", "to +05:45:"),
        (&in_utc, "+00:00", "-08:00", "to +00:00:"),
        (&in_utc, "+00:00", LOS_ANGELES, "to +00:00:"),
        (&in_utc, LOS_ANGELES, "+00:00", "sessions at -08:00, -07:00."),
    ] {
        let place = Place::at(server, UTF8).await;
        place.execute(ASHERAH).await;
        // Of both sides of a change; the skipped hour is in another.
        let times = [BACK - HOUR, BACK + HOUR, BACK + 4 * HOUR, FORWARD - HOUR, FORWARD + 4 * HOUR];
        let records = write_all(&place, written, times.into_iter()).await;
        let told = builder().session_time_zone(read);
        let error = told.open(&place.url).await.unwrap_err();
        assert_eq!(dangers(&error), [FindingId::ZoneMismatch]);
        let text = chain(&error);
        assert!(text.contains(fits), "{written} {read}: {text}");
        let error = builder().open_with(in_zone(&place, read)).await.unwrap_err();
        assert_eq!(dangers(&error), [FindingId::ZoneMismatch]);

        // Who starts all the same finds none, and who follows the remedy all.
        let accepted = builder().session_time_zone(read).accept(FindingId::ZoneMismatch);
        let accepted = accepted.open(&place.url).await.unwrap();
        // No statement is offered that would take them for times of this zone, for good.
        let report = accepted.check_schema(&call()).await.unwrap();
        assert!(ids(&report).contains(&FindingId::EndsIn2038));
        assert!(!format!("{report:?}").contains("SET time_zone"), "{report:?}");
        assert_eq!(accepted.load(records[0].meta(), &call()).await.unwrap(), None);
        let Some(zone) = fits.strip_prefix("to ").map(|zone| zone.trim_end_matches(':')) else { continue };
        let store = builder().session_time_zone(zone).open(&place.url).await.unwrap();
        assert_all_found(&store, &records).await;
    }
}

#[tokio::test]
async fn rows_of_two_zones_are_found() {
    let server = MariaDb::start();
    let place = Place::at(&server, UTF8).await;
    place.execute(ASHERAH).await;
    write_all(&place, "+00:00", [BACK, BACK + HOUR].into_iter()).await;
    write_all(&place, "+02:00", [BACK + 5 * HOUR].into_iter()).await;
    let error = MysqlMetastore::open(&place.url).await.unwrap_err();
    assert_eq!(dangers(&error), [FindingId::ZoneMismatch]);
    let text = chain(&error);
    assert!(text.contains("1 of 3 rows looked at") && text.contains("+00:00, +02:00"), "{text}");
}

/// A mistake of the last writer is seen in a table of any size, by the index that Asherah's table has.
#[tokio::test]
async fn one_late_row_of_another_zone_is_found_among_thousands() {
    let server = MariaDb::start();
    let place = Place::at(&server, UTF8).await;
    place.execute(ASHERAH).await;
    place.execute(
        "INSERT INTO encryption_key SELECT CONCAT('_IK_', seq, '_svc_prod'), '2020-01-01 00:00:00' + INTERVAL seq MINUTE, \
         CONCAT('{\"Created\":', 1577836800 + seq * 60, ',\"Key\":\"AAAA\"}') FROM seq_1_to_5000",
    ).await;
    MysqlMetastore::open(&place.url).await.unwrap().close().await;
    let late = record("_IK_333_svc_prod", BACK);
    place.write_row("-08:00", "_IK_333_svc_prod", &utc(BACK), &late.to_json()).await;
    let error = MysqlMetastore::open(&place.url).await.unwrap_err();
    assert_eq!(dangers(&error), [FindingId::ZoneMismatch]);
}

#[tokio::test]
async fn local_times_in_a_column_without_a_zone_are_found() {
    let place = Place::migrated(UTF8).await;
    let json = record(ID, BACK + 8 * HOUR).to_json();
    place.write_row("+00:00", ID, &utc(BACK), &json).await;
    let error = MysqlMetastore::open(&place.url).await.unwrap_err();
    assert_eq!(dangers(&error), [FindingId::ZoneMismatch]);
    let text = chain(&error);
    assert!(text.contains("at -08:00") && text.contains("send UTC"), "{text}");
}

/// No row tells yet, but an Asherah that comes would write in the server's zone.
#[tokio::test]
async fn a_zone_that_others_would_not_share_is_a_warning() {
    let server = MariaDb::start_in("Europe/London", &[]);
    let place = Place::at(&server, UTF8).await;
    place.execute(ASHERAH).await;
    let findings = |store: MysqlMetastore| async move {
        let report = store.check_schema(&call()).await.unwrap();
        assert!(report.findings().iter().all(|finding| finding.severity == Severity::Warning), "{report:?}");
        ids(&report).contains(&FindingId::ZoneMismatch)
    };
    // The same in winter, another in summer.
    assert!(findings(place.open().await).await);
    assert!(!findings(builder().session_time_zone("SYSTEM").open(&place.url).await.unwrap()).await);
    assert!(!findings(builder().session_time_zone("Europe/London").open(&place.url).await.unwrap()).await);
}

#[tokio::test]
async fn every_connection_of_ours_is_in_the_zone_that_was_chosen() {
    let server = MariaDb::start_with(&["--general-log=1", "--log-output=TABLE"]);
    let place = Place::at(&server, UTF8).await;
    place.migrate().await;
    for (url, zone) in [
        (place.url.clone(), "+00:00"),
        (format!("{}?timezone=-03:30", place.url), "-03:30"),
        (format!("{}?ssl-mode=PREFERRED&timezone=America%2FLos_Angeles", place.url), LOS_ANGELES),
    ] {
        let set = || async {
            let sql = format!(
                "SELECT argument FROM mysql.general_log WHERE argument LIKE 'SET sql_mode=%time_zone=''{zone}''%'"
            );
            place.texts(&sql).await.len()
        };
        let before = set().await;
        let two = NonZeroU32::new(2).unwrap();
        let store = builder().max_connections(two).replica_url(&url).open(&url).await.unwrap();
        store.load(&meta(ID, 1), &call()).await.unwrap();
        store.load(&meta(ID, 1), &call().consistency(Consistency::Eventual)).await.unwrap();
        // This text itself is in the log too, and its own session.
        let opened = set().await - before;
        assert!(opened >= 3, "{zone}: {opened}");
        store.close().await;
    }
    assert_permanent(builder().session_time_zone("Middle/Earth").open(&place.url).await, "1298");
}
