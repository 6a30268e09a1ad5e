//! Statements that reach the server as others: behind a pooler that shares their names.

use claviger::testing::call;
use claviger::{Insert, Metastore as _, MetastoreAdmin as _};
use claviger_metastore::PostgresMetastore;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _, raw_sql};

use crate::support::{ASHERAH, NOW, Place, record};

/// What each statement is sent with, as SQL.
fn values(tag: &str, id: &str) -> String {
    let json = record(id, NOW).to_json();
    let values = match tag {
        "claviger.load" | "claviger.holder" | "claviger.load_latest" | "claviger.delete_version" => {
            format!("'{id}', {NOW}")
        }
        "claviger.delete" => format!("'{id}'"),
        "claviger.load_many" => format!("'{{{id}}}', '{{{NOW}}}'"),
        "claviger.load_latest_many" => format!("'{{{id}}}', {NOW}"),
        "claviger.insert" => format!("'{id}', {}, '{json}'", NOW + 1),
        "claviger.update" => format!("'{id}', {NOW}, '{json}', '{{}}'"),
        "claviger.list" => "'', '-infinity', 10, ''".to_owned(),
        "claviger.count" => String::new(),
        other => panic!("{other} is new: what is it sent with?"),
    };
    if values.is_empty() { format!("'{tag}'") } else { format!("'{tag}', {values}") }
}

/// Every statement is run with what is meant for every other one: nothing changes, and nothing that
/// comes back is taken for an answer.
#[tokio::test]
async fn what_is_meant_for_another_statement_does_nothing_and_is_not_believed() {
    let id = "_IK_a_svc_prod";
    let all: Vec<_> = PostgresMetastore::statements().collect();
    let (ours, asherahs) = all.split_at(all.len() / 2);
    for (place, statements) in [(Place::migrated().await, ours), (Place::holding(ASHERAH).await, asherahs)] {
        let store = place.open().await;
        assert_eq!(store.insert(&record(id, NOW), &call()).await.unwrap(), Insert::Inserted);
        let before = store.list("", None, 10, &call()).await.unwrap().records;
        let mut session = PgConnection::connect(&place.url).await.unwrap();
        let (mut refused, mut answered) = (0, 0);
        for (run, sql) in statements {
            raw_sql("DEALLOCATE ALL").execute(&mut session).await.unwrap();
            let prepare = format!("PREPARE statement AS {sql}");
            raw_sql(AssertSqlSafe(prepare)).execute(&mut session).await.unwrap();
            for (meant, _) in statements.iter().filter(|(meant, _)| meant != run) {
                let execute = format!("EXECUTE statement ({})", values(meant, id));
                match raw_sql(AssertSqlSafe(execute)).fetch_all(&mut session).await {
                    Err(_) => refused += 1,
                    Ok(rows) => {
                        let tags: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
                        assert!(!tags.contains(&(*meant).to_owned()), "{meant} run as {run}");
                        answered += 1;
                    }
                }
            }
        }
        println!("{refused} were refused, {answered} answered with nothing");
        assert!(refused > 0 && answered > 0);
        assert_eq!(store.list("", None, 10, &call()).await.unwrap().records, before);
        // The right tag is what makes them do something.
        for (tag, sql) in statements {
            raw_sql("DEALLOCATE ALL").execute(&mut session).await.unwrap();
            let sql = format!("PREPARE statement AS {sql}");
            raw_sql(AssertSqlSafe(sql)).execute(&mut session).await.unwrap();
            let execute = format!("EXECUTE statement ({})", values(tag, id));
            let rows = raw_sql(AssertSqlSafe(execute)).fetch_all(&mut session).await.unwrap();
            assert_eq!(rows[0].get::<String, _>(0), *tag);
        }
    }
}
