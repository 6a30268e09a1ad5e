//! The plans of what is really run: by the primary key, whatever the size of the table.

use claviger::testing::call;
use claviger::{Insert, KeyId, Metastore as _, MetastoreAdmin as _};
use claviger_metastore::MysqlMetastore;
use claviger_testkit::MariaDb;
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{AssertSqlSafe, Connection as _, Row as _, raw_sql};

use crate::latest::LatestRecord as _;
use crate::support::{ASHERAH, LATIN1, NOW, Place, UTF8, meta, record};

/// Four versions of each of 10 000 ids, and of other ids as many at each of these times.
const ROWS: &str = "INSERT INTO encryption_key SELECT CONCAT('_IK_', seq DIV 4, '_svc_prod'), \
     '2020-01-01' + INTERVAL seq % 4 DAY, CONCAT('{\"Created\":', 1577836800 + seq % 4 * 86400, ',\"Key\":\"AAAA\"}') \
     FROM seq_4_to_40003; ANALYZE TABLE encryption_key";

const FIRST: i64 = 1_577_836_800;

#[tokio::test]
async fn every_statement_finds_its_rows_by_the_primary_key() {
    let server = MariaDb::start_with(&["--log-output=TABLE"]);
    for (table, charset) in [("", UTF8), (ASHERAH, UTF8), (ASHERAH, LATIN1)] {
        let place = Place::at(&server, charset).await;
        if table.is_empty() {
            place.migrate().await;
        } else {
            place.execute(table).await;
        }
        place.execute(ROWS).await;
        let store = place.open().await;
        let ids: Vec<_> = (1..=600).map(|number| KeyId::new(format!("_IK_{number}_svc_prod"))).collect();
        let keys: Vec<_> = ids.iter().map(|id| meta(id.as_str(), FIRST)).collect();

        server.sql("", "TRUNCATE mysql.general_log; SET GLOBAL general_log = 1");
        store.load(&keys[0], &call()).await.unwrap().unwrap();
        store.load(&meta("_IK_caf\u{e9}_svc_prod", NOW), &call()).await.unwrap();
        store.latest(&ids[7]).await.unwrap().unwrap();
        let found = store.load_many(&keys, &call()).await.unwrap();
        assert_eq!(found.iter().flatten().count(), 600);
        assert_eq!(store.load_many(&keys[..3], &call()).await.unwrap().len(), 3);
        let found = store.latest_many(&ids).await.unwrap();
        assert_eq!(
            found
                .iter()
                .flatten()
                .filter(|r| r.meta().created().unix_seconds() == FIRST + 3 * 86_400)
                .count(),
            600
        );
        assert!(store.latest_many(&ids[..1]).await.unwrap()[0].is_some());
        let new = record("_IK_new_svc_prod", NOW);
        assert_eq!(store.insert(&new, &call()).await.unwrap(), Insert::Inserted);
        assert_eq!(store.insert(&new, &call()).await.unwrap(), Insert::AlreadyExists);
        assert!(store.revoke(new.meta(), &call()).await.unwrap());
        assert!(store.delete_version(new.meta(), &call()).await.unwrap());
        assert_eq!(store.delete(new.meta().id(), &call()).await.unwrap(), 0);
        let page = store.list("", None, 50, &call()).await.unwrap();
        store.list("", page.next.as_ref(), 50, &call()).await.unwrap();
        let page = store.list("_IK_77", None, 5, &call()).await.unwrap();
        store.list("_IK_77", page.next.as_ref(), 5, &call()).await.unwrap();
        server.sql("", "SET GLOBAL general_log = 0");

        let run = place
            .texts(
                "SELECT CONVERT(argument USING utf8mb4) FROM mysql.general_log WHERE command_type = 'Execute' \
                 AND argument LIKE '%encryption_key%' AND argument NOT LIKE 'INSERT%'",
            )
            .await;
        // Where ids fold, what is not found is looked for once more.
        let expected = if table.is_empty() { 18 } else { 19 };
        assert_eq!(run.len(), expected, "{run:#?}");
        let mut connection = MySqlConnection::connect(&place.url).await.unwrap();
        for sql in run {
            let rows =
                raw_sql(AssertSqlSafe(format!("EXPLAIN {sql}"))).fetch_all(&mut connection).await.unwrap();
            let short: String = sql.chars().take(300).collect();
            assert!(!rows.is_empty(), "{short}");
            for row in rows {
                assert_by_primary_key(&row, &short, sql.contains("LIMIT"));
            }
        }
        assert_samples_are_small(&server, &place, &store).await;
        store.close().await;
    }
}

/// The check's look at rows, on a table of any size.
async fn assert_samples_are_small(server: &MariaDb, place: &Place, store: &MysqlMetastore) {
    server.sql("", "TRUNCATE mysql.general_log; SET GLOBAL general_log = 1");
    drop(store.check_schema(&call()).await.unwrap());
    server.sql("", "SET GLOBAL general_log = 0");
    let samples = "SELECT CONVERT(argument USING utf8mb4) FROM mysql.general_log \
                   WHERE command_type = 'Execute' AND argument LIKE '%JSON_VALID%'";
    let samples = place.texts(samples).await;
    assert!((2..=3).contains(&samples.len()), "{samples:#?}");
    let mut connection = MySqlConnection::connect(&place.url).await.unwrap();
    for sql in samples {
        let plan = raw_sql(AssertSqlSafe(format!("EXPLAIN {sql}"))).fetch_one(&mut connection).await.unwrap();
        let [kind, rows, extra] = ["type", "rows", "Extra"].map(|name| plan.get::<Option<String>, _>(name));
        assert_eq!((kind.as_deref(), rows.as_deref()), (Some("index"), Some("100")), "{sql}");
        assert!(!extra.unwrap_or_default().contains("filesort"), "{sql}");
    }
    connection.close().await.unwrap();
}

#[track_caller]
fn assert_by_primary_key(row: &MySqlRow, sql: &str, is_limited: bool) {
    let [kind, table, key, extra] =
        ["type", "table", "key", "Extra"].map(|name| row.get::<Option<String>, _>(name).unwrap_or_default());
    let plan = format!("{kind} {table} {key} {extra}: {sql}");
    if extra.starts_with("Impossible WHERE") || extra.starts_with("no matching row") {
        // It looked, by a whole key, and found no row.
        return;
    }
    assert_eq!(key, "PRIMARY", "{plan}");
    assert!(!extra.contains("filesort") && !extra.contains("temporary"), "{plan}");
    // A list reads on from where it begins, as far as its limit.
    let kinds = if is_limited {
        &["const", "ref", "range", "index"][..]
    } else {
        &["const", "ref", "range", "eq_ref"]
    };
    assert!(kinds.contains(&kind.as_str()), "{plan}");
    if !is_limited {
        let rows: i64 = row.get::<Option<String>, _>("rows").unwrap_or_default().parse().unwrap_or(i64::MAX);
        assert!(rows <= 4 * 1_024, "{plan}");
    }
}
