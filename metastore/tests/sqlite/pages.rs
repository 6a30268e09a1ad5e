//! Pages of rows some of which cannot be read.

use claviger::backend::DamagedRow;
use claviger::testing::call;
use claviger::{FailureClass, Insert, KeyId, Metastore as _, MetastoreAdmin as _};
use claviger_metastore::SqliteMetastore;

use crate::support::{NOW, Place, chain, record};

/// Goes on from page to page to the end.
async fn list(store: &SqliteMetastore, limit: usize) -> (Vec<String>, Vec<DamagedRow>) {
    let (mut listed, mut damaged, mut after) = (Vec::new(), Vec::new(), None);
    for _ in 0..1_000 {
        let page = store.list("", after.as_ref(), limit, &call()).await.unwrap();
        assert!(page.records.len() + page.damaged.len() <= limit);
        listed.extend(page.records.iter().map(|record| record.meta().to_string()));
        damaged.extend(page.damaged);
        after = page.next;
        if after.is_none() {
            return (listed, damaged);
        }
    }
    panic!("the pages have no end");
}

#[tokio::test]
async fn pages_go_on_past_rows_that_cannot_be_read() {
    let place = Place::new();
    let store = place.open().await;
    let mut expected = Vec::new();
    for id in ["_IK_a", "_IK_c", "_IK_e"] {
        for second in [0, 1] {
            let record = record(id, NOW + second);
            assert_eq!(store.insert(&record, &call()).await.unwrap(), Insert::Inserted);
            expected.push(record.meta().to_string());
        }
    }
    let garbage = [
        // Between others, first and last; of a key of its own, and of one that has good versions.
        ("_IK_a", "'yesterday'"),
        ("_IK_b", "'2023-11-14 22:13:20'"),
        ("_IK_c", "'2023-11-14 22:13:22'"),
        ("_IK_d", "'tomorrow'"),
        ("_IK_e", "-5"),
        ("_IK_f", "'2023-11-14 22:13:20'"),
        ("_IK_g", "''"),
    ];
    for (id, created) in garbage {
        place.write_row(id, created, "{").await;
    }
    for limit in 1..=15 {
        let (listed, damaged) = list(&store, limit).await;
        assert_eq!(listed, expected, "pages of {limit}");
        let ids: Vec<_> = damaged.iter().map(|row| row.id.to_string()).collect();
        assert_eq!(ids, garbage.map(|(id, _)| id), "pages of {limit}");
        assert!(damaged.iter().all(|row| row.error.class() == FailureClass::Damaged));
        let times: Vec<_> =
            damaged.iter().map(|row| row.created.map(|created| created.unix_seconds())).collect();
        assert_eq!(times, [None, Some(NOW), Some(NOW + 2), None, None, Some(NOW), None], "pages of {limit}");
    }
}

#[tokio::test]
async fn several_unreadable_times_of_one_key_fit_one_page() {
    let place = Place::new();
    let store = place.open().await;
    let record = record("_IK_a", NOW);
    assert_eq!(store.insert(&record, &call()).await.unwrap(), Insert::Inserted);
    for form in ["'x'", "'y'", "'z'"] {
        place.write_row("_IK_b", form, "{").await;
    }
    place.write_row("_IK_c", "'2023-11-14 22:13:20'", &record.to_json()).await;
    for limit in 4..=6 {
        let (listed, damaged) = list(&store, limit).await;
        assert_eq!((listed.len(), damaged.len()), (2, 3), "pages of {limit}");
    }
}

#[tokio::test]
async fn ids_that_are_no_text_are_told_of_or_left_out_and_hide_no_others() {
    let place = Place::new();
    let store = place.open().await;
    let pool = place.pool().await;
    for id in ["CAST(x'5f494b5f62ff' AS TEXT)", "x'5f494b5f62'"] {
        let insert = format!("INSERT INTO encryption_key VALUES ({id}, '2023-11-14 22:13:20', '{{}}')");
        sqlx::query(sqlx::AssertSqlSafe(insert)).execute(&pool).await.unwrap();
    }
    let expected = ["_IK_a", "_IK_b", "_IK_c"].map(|id| record(id, NOW));
    for record in &expected {
        assert_eq!(store.insert(record, &call()).await.unwrap(), Insert::Inserted);
    }
    for limit in 2..=6 {
        let (listed, damaged) = list(&store, limit).await;
        assert_eq!(listed, expected.each_ref().map(|record| record.meta().to_string()), "pages of {limit}");
        let damaged: Vec<_> = damaged.into_iter().map(|row| row.id).collect();
        assert_eq!(damaged, [KeyId::new("_IK_b\u{fffd}")], "pages of {limit}");
    }
    // Where a page would have to end with it, the next would have no beginning: it is longer.
    let page = store.list("", Some(expected[1].meta()), 1, &call()).await.unwrap();
    assert_eq!((page.records, page.next), (vec![expected[2].clone()], Some(expected[2].meta().clone())));
    assert_eq!(page.damaged.len(), 1);
    assert_eq!(page.damaged[0].error.class(), FailureClass::Damaged);
    let text = chain(&page.damaged[0].error);
    assert!(text.contains("not UTF-8"), "{text}");
}
