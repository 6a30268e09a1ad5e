//! Every statement on keys goes by the primary key, also in a plan that fits all parameters.

use claviger::testing::call;
use claviger::{Insert, Metastore as _, MetastoreAdmin as _};
use claviger_metastore::PostgresMetastore;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _, raw_sql};

use crate::latest::LatestRecord as _;
use crate::support::{ASHERAH, NOW, Place, record};

/// A number of rows that nobody would read from end to end.
const FILL: &str = "INSERT INTO encryption_key \
     SELECT '_IK_' || n % 10000 || '_svc_prod', to_timestamp(1700000000 + n) AT TIME ZONE 'UTC', '{}' \
     FROM generate_series(1, 50000) AS n";

const IN_ENGLISH: &str = "CREATE TABLE encryption_key (id VARCHAR(255) COLLATE \"en-x-icu\" NOT NULL, \
     created TIMESTAMP NOT NULL, key_record TEXT NOT NULL, PRIMARY KEY (id, created))";

#[tokio::test]
async fn statements_go_by_the_primary_key() {
    for table in ["", ASHERAH, IN_ENGLISH] {
        let place = match table {
            "" => Place::migrated().await,
            table => Place::holding(table).await,
        };
        place.execute(FILL).await;
        place.execute("ANALYZE encryption_key").await;
        run_all(&PostgresMetastore::builder().danger_unchecked().open(&place.url).await.unwrap()).await;
        let is_of_timestamp = !table.is_empty();
        let mut connection = PgConnection::connect(&place.url).await.unwrap();
        let statements: Vec<_> = PostgresMetastore::statements().collect();
        let (ours, asherahs) = statements.split_at(statements.len() / 2);
        let mut plans = 0;
        for (tag, text) in if is_of_timestamp { asherahs } else { ours } {
            if ["claviger.count", "claviger.insert"].contains(tag) {
                continue;
            }
            let plan = generic_plan(&mut connection, tag, text).await;
            assert!(plan.contains("using encryption_key_pkey"), "{text}\n{plan}");
            for costly in ["Seq Scan", "Sort", "Hash Join", "Merge Join"] {
                assert!(!plan.contains(costly), "{text}\n{plan}");
            }
            plans += 1;
        }
        // load, load_latest, load_many, load_latest_many, holder, update, list, delete_version, delete.
        assert_eq!(plans, 9);
    }
}

/// Runs each statement once.
async fn run_all(store: &PostgresMetastore) {
    let record = record("_IK_a_svc_prod", NOW);
    assert_eq!(store.insert(&record, &call()).await.unwrap(), Insert::Inserted);
    let (key, id) = (record.meta(), record.meta().id());
    assert!(store.load(key, &call()).await.unwrap().is_some());
    assert!(store.latest(id).await.unwrap().is_some());
    assert_eq!(store.load_many(std::slice::from_ref(key), &call()).await.unwrap().len(), 1);
    assert_eq!(store.latest_many(std::slice::from_ref(id)).await.unwrap().len(), 1);
    assert!(store.revoke(key, &call()).await.unwrap());
    assert_eq!(store.list("", None, 10, &call()).await.unwrap().damaged.len(), 10);
    assert!(store.delete_version(key, &call()).await.unwrap());
    assert_eq!(store.delete(id, &call()).await.unwrap(), 0);
    assert_eq!(store.count(&call()).await.unwrap(), 50_000);
}

/// The plan that the server makes of a statement once and for all parameters.
async fn generic_plan(connection: &mut PgConnection, tag: &str, text: &str) -> String {
    for set in ["SET plan_cache_mode = force_generic_plan", "SET enable_bitmapscan = off", "DEALLOCATE ALL"] {
        raw_sql(set).execute(&mut *connection).await.unwrap();
    }
    let prepare = format!("PREPARE statement AS {text}");
    raw_sql(AssertSqlSafe(prepare)).execute(&mut *connection).await.unwrap();
    let types = raw_sql("SELECT parameter_types::text[] FROM pg_prepared_statements");
    let types: Vec<String> = types.fetch_one(&mut *connection).await.unwrap().get(0);
    let values = types.iter().skip(1).map(|of_type| match of_type.as_str() {
        "text[]" => "'{_IK_1_svc_prod,_IK_2_svc_prod}'",
        "bigint[]" => "'{1700000001,1700000002}'",
        "text" | "json" => "'{}'",
        _ => "10",
    });
    let values: Vec<_> = values.collect();
    let explain = format!("EXPLAIN EXECUTE statement ('{tag}', {})", values.join(", "));
    let lines = raw_sql(AssertSqlSafe(explain)).fetch_all(connection).await.unwrap();
    lines.iter().map(|line| line.get::<String, _>(0) + "\n").collect()
}
