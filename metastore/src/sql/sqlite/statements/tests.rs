use sqlx::AssertSqlSafe;

use super::*;

/// How SQLite goes about the statement, step by step.
async fn plan(statement: &str) -> Vec<String> {
    let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
    create_table(&mut connection).await.unwrap();
    let steps: Vec<(i64, i64, i64, String)> =
        query_as(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}")))
            .fetch_all(&mut connection)
            .await
            .unwrap();
    steps.into_iter().map(|(_, _, _, step)| step).collect()
}

const PRIMARY_KEY: &str = "SEARCH encryption_key USING INDEX sqlite_autoindex_encryption_key_1 ";

#[tokio::test]
async fn load_goes_by_the_whole_primary_key_first() {
    let steps = plan(LOAD).await;
    let searches: Vec<_> = steps.iter().filter(|step| step.starts_with("SEARCH")).collect();
    assert_eq!(*searches[0], format!("{PRIMARY_KEY}(id=? AND created=?)"), "{steps:#?}");
    assert_eq!(*searches[1], format!("{PRIMARY_KEY}(id=?)"), "{steps:#?}");
}

#[tokio::test]
async fn no_statement_reads_other_ids_rows() {
    let of_one_id = [LOAD, LOAD_LATEST, INSERT, LOAD_ALL_FORMS, UPDATE, DELETE];
    for statement in of_one_id {
        let steps = plan(statement).await;
        assert!(steps.iter().any(|step| step.contains("encryption_key")), "{steps:#?}");
        for step in steps.iter().filter(|step| step.contains("encryption_key ")) {
            assert!(step.contains("(id=?"), "{statement}: {steps:#?}");
        }
    }
    for statement in [LOAD_MANY, LOAD_MANY_OTHER_FORMS, LOAD_LATEST_MANY] {
        let steps = plan(statement).await;
        let searches: Vec<_> = steps.iter().filter(|step| step.contains("encryption_key ")).collect();
        assert_eq!(searches.len(), 1, "{statement}: {steps:#?}");
        assert!(searches[0].contains("(id=?"), "{statement}: {steps:#?}");
    }
    let steps = plan(LOAD_MANY).await;
    assert!(steps.contains(&format!("{PRIMARY_KEY}(id=? AND created=?)")), "{steps:#?}");
    let steps = plan(LIST).await;
    assert!(steps.contains(&format!("{PRIMARY_KEY}(id>?)")), "{steps:#?}");
}
