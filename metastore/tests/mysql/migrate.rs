//! Our own table made, and Asherah's turned into it by the statements that the findings name.

use std::error::Error as _;

use claviger::testing::call;
use claviger::{EnvelopeKeyRecord, Insert, Metastore as _, MetastoreAdmin as _};
use claviger_metastore::{FindingId, MysqlMetastore, SqlFault};
use claviger_testkit::{MariaDb, shared_mariadb};
use tokio::task::JoinSet;

use crate::latest::LatestRecord as _;
use crate::support::{
    ASHERAH, LATIN1, NOW, Place, UTF8, as_user, assert_permanent, builder, chain, dangers, execute, record,
};

#[tokio::test]
async fn an_empty_database_gets_the_table_once_and_keeps_it() {
    let place = Place::new(LATIN1).await;
    let refused = MysqlMetastore::open(&place.url).await.unwrap_err();
    assert_eq!(dangers(&refused), [FindingId::TableMissing]);
    assert!(chain(&refused).contains("MysqlMetastore::migrate"), "{}", chain(&refused));
    let accepted = builder().accept(FindingId::TableMissing).open(&place.url).await.unwrap();
    assert_permanent(accepted.count(&call()).await, "1146");
    let store = place.unchecked().await;
    assert_permanent(store.latest(record("_IK_a_svc_prod", NOW).meta().id()).await, "1146");
    let store = MysqlMetastore::migrate(&place.url).await.unwrap();
    assert_eq!(store.insert(&record("_IK_a_svc_prod", NOW), &call()).await.unwrap(), Insert::Inserted);
    let again = MysqlMetastore::migrate(&place.url).await.unwrap();
    assert_eq!(again.count(&call()).await.unwrap(), 1);
    assert_eq!(place.open().await.count(&call()).await.unwrap(), 1);
}

#[tokio::test]
async fn a_table_that_is_there_is_left_as_it_is() {
    let asherahs = Place::holding(ASHERAH, UTF8).await;
    let types =
        "SELECT GROUP_CONCAT(column_type) FROM information_schema.columns WHERE table_schema = DATABASE()";
    let before = asherahs.texts(types).await;
    MysqlMetastore::migrate(&asherahs.url).await.unwrap();
    assert_eq!(asherahs.texts(types).await, before);
}

#[tokio::test]
async fn those_who_come_first_at_once_make_one_table() {
    let place = Place::new(UTF8).await;
    let mut tasks = JoinSet::new();
    for second in 0..8 {
        let url = place.url.clone();
        tasks.spawn(async move {
            let store = builder().migrate().open(&url).await?;
            store.insert(&record("_IK_a_svc_prod", NOW + second), &call()).await
        });
    }
    for inserted in tasks.join_all().await {
        assert_eq!(inserted.unwrap(), Insert::Inserted);
    }
    assert_eq!(place.open().await.count(&call()).await.unwrap(), 8);
}

#[tokio::test]
async fn a_user_who_may_not_make_tables_is_told_and_needs_not_where_there_is_one() {
    let place = Place::new(UTF8).await;
    let database = place.url.rsplit_once('/').unwrap().1;
    let user = format!("{database}_user");
    let grant =
        format!("CREATE USER {user} IDENTIFIED BY 'less'; GRANT SELECT, INSERT ON {database}.* TO {user}");
    execute(shared_mariadb(), &grant).await;
    let url = as_user(&place.url, &user, "less");
    let refused = MysqlMetastore::migrate(&url).await.unwrap_err();
    let fault = refused.source().and_then(|source| source.downcast_ref());
    assert!(!refused.is_transient() && matches!(fault, Some(SqlFault::TableNotMade(_))), "{refused:?}");
    assert!(chain(&refused).contains("1142"), "{}", chain(&refused));
    place.migrate().await;
    MysqlMetastore::migrate(&url).await.unwrap();
}

/// Every hour of the days on which clocks change in Los Angeles, and of a day in July.
fn hours() -> impl Iterator<Item = i64> {
    [1_772_928_000, 1_793_491_200, 1_783_987_200]
        .into_iter()
        .flat_map(|midnight| (0..24).map(move |hour| midnight + hour * 3_600 + 1_800))
}

/// The statements of the documentation, for a table whose rows are read in this zone.
fn give_ids_rows_of_their_own(zone: &str) -> String {
    let documented = include_str!("../../../docs/metastores.md").split("```sql\n");
    let block =
        documented.filter_map(|block| block.split_once("```")).find(|(sql, _)| sql.contains("RENAME TABLE"));
    block.unwrap().0.replace("'+00:00'", &format!("'{zone}'"))
}

#[tokio::test]
async fn asherahs_table_gets_a_datetime_by_the_statements_of_the_finding() {
    let place = Place::holding(ASHERAH, UTF8).await;
    let store = builder().session_time_zone("America/Los_Angeles").open(&place.url).await.unwrap();
    let kept = record("_IK_a_svc_prod", NOW);
    assert_eq!(store.insert(&kept, &call()).await.unwrap(), Insert::Inserted);
    let report = store.check_schema(&call()).await.unwrap();
    let ends = report.findings().iter().find(|finding| finding.id == FindingId::EndsIn2038).unwrap();
    let statements = &ends.remedy[ends.remedy.find("SET time_zone").unwrap()..];
    place.execute(statements.trim_end_matches('.')).await;
    let new = place.open().await;
    let found: Vec<_> =
        new.check_schema(&call()).await.unwrap().findings().iter().map(|found| found.id).collect();
    assert_eq!(found, [FindingId::CollationFolds]);
    assert_eq!(new.load(kept.meta(), &call()).await.unwrap(), Some(kept));
}

/// In any zone, and whatever the encoding.
#[tokio::test]
async fn asherahs_table_becomes_ours_by_the_documented_statements() {
    for (system_zone, zone) in
        [("America/Los_Angeles", "SYSTEM"), ("UTC", "America/Los_Angeles"), ("UTC", "+00:00")]
    {
        let server = MariaDb::start_in(system_zone, &[]);
        for charset in [LATIN1, UTF8] {
            let place = Place::at(&server, charset).await;
            place.execute(ASHERAH).await;
            let store = builder().session_time_zone(zone).open(&place.url).await.unwrap();
            let mut kept: Vec<EnvelopeKeyRecord> = Vec::new();
            for id in ["_IK_andr\u{e9}_svc_prod", "_IK_o'brien_svc_prod", "_SK_svc_prod"] {
                for created in hours() {
                    let record = record(id, created);
                    // The hour that clocks skip cannot be stored in their zone.
                    match store.insert(&record, &call()).await {
                        Ok(inserted) => {
                            assert_eq!(inserted, Insert::Inserted);
                            kept.push(record);
                        }
                        error => assert_permanent(error, "CreatedNotHeld"),
                    }
                }
            }
            assert_eq!(kept.len(), if zone == "+00:00" { 216 } else { 213 });

            let report = store.check_schema(&call()).await.unwrap();
            let ends = report.findings().iter().find(|finding| finding.id == FindingId::EndsIn2038).unwrap();
            let statements = &ends.remedy[ends.remedy.find("SET time_zone").unwrap()..];
            assert!(!statements.contains(" id "), "records may name ids that have no row: {statements}");
            place.execute(&give_ids_rows_of_their_own(zone)).await;

            // The store that was open goes on, and so does one that never hears of zones.
            let new = MysqlMetastore::open(&place.url).await.unwrap();
            assert_eq!(new.check_schema(&call()).await.unwrap().findings(), []);
            for store in [&store, &new] {
                for record in &kept {
                    let found = store.load(record.meta(), &call()).await.unwrap();
                    assert_eq!(found.as_ref(), Some(record));
                    assert_eq!(store.insert(record, &call()).await.unwrap(), Insert::AlreadyExists);
                }
                assert_eq!(store.count(&call()).await.unwrap(), kept.len() as u64);
            }
            for late in ["_IK_andr\u{e9}_svc_prod", "_IK_ANDRE_svc_prod", "_IK_\u{1f600}_svc_prod"] {
                assert_eq!(
                    new.insert(&record(late, 4_102_444_800), &call()).await.unwrap(),
                    Insert::Inserted
                );
            }
        }
    }
}
