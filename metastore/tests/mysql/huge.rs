//! Rows of foreign writers that are longer than any key's.

use claviger::testing::call;
use claviger_metastore::FindingId;
use claviger_testkit::{MariaDb, in_environment, told_by_parent};

use crate::common_huge::{BYTES, ID, ROWS, assert_not_fetched};
use crate::support::{ASHERAH, NOW, Place, UTF8, builder, ids};

#[tokio::test]
async fn huge_records_are_damaged_and_not_fetched() {
    if let Some(url) = told_by_parent() {
        let store = builder().open(&url).await.unwrap();
        let report = store.check_schema(&call()).await.unwrap();
        assert!(ids(&report).contains(&FindingId::DamagedRows), "{report:?}");
        assert_not_fetched(store).await;
        return;
    }
    let server = MariaDb::start_with(&["--max-allowed-packet=256M"]);
    for table in ["", ASHERAH] {
        let place = Place::at(&server, UTF8).await;
        if table.is_empty() {
            place.migrate().await;
        } else {
            place.execute(table).await;
        }
        // Our own table holds no more than 16 MiB.
        place.execute("ALTER TABLE encryption_key MODIFY key_record LONGTEXT NOT NULL").await;
        place
            .execute(&format!(
                "INSERT INTO encryption_key SELECT '{ID}', TIMESTAMPADD(SECOND, {NOW} + seq, '1970-01-01 00:00:00'), \
                 REPEAT('x', {BYTES}) FROM seq_0_to_{}",
                ROWS - 1
            ))
            .await;
        in_environment("huge::huge_records_are_damaged_and_not_fetched", &place.url, &[]).await;
    }
}
