//! The contract suites, on our own table and on tables that others made.

use std::num::NonZeroU32;

use claviger_metastore::PostgresMetastore;
use tokio::sync::OnceCell;

use crate::support::Place;

/// The table that Asherah in Rust works on.
const ASHERAH_RUST: &str = "CREATE TABLE encryption_key (id TEXT NOT NULL, created TIMESTAMPTZ NOT NULL, \
     key_record JSONB NOT NULL, PRIMARY KEY (id, created))";

/// Asherah's, in a collation that sorts by more than bytes.
const ASHERAH_IN_ENGLISH: &str = "CREATE TABLE encryption_key (id VARCHAR(255) COLLATE \"en-x-icu\" NOT NULL, \
     created TIMESTAMP NOT NULL, key_record TEXT NOT NULL, PRIMARY KEY (id, created))";

/// One database for all clauses of a suite. No clause is about time, so calls have plenty.
async fn open(place: &OnceCell<Place>, table: &str, parameters: &str) -> PostgresMetastore {
    let make = async || match table {
        "" => Place::migrated().await,
        table => Place::holding(table).await,
    };
    let place = place.get_or_init(make).await;
    let connections = NonZeroU32::new(8).unwrap();
    let builder = PostgresMetastore::builder().max_connections(connections);
    builder.open(&format!("{}{parameters}", place.url)).await.unwrap()
}

macro_rules! suites {
    ($name:ident, $table:expr, $parameters:literal) => {
        mod $name {
            use super::*;

            static PLACE: OnceCell<Place> = OnceCell::const_new();

            claviger::testing::metastore_contract!(open(&PLACE, $table, $parameters));

            mod admin {
                use super::*;

                claviger::testing::metastore_admin_contract!(open(&PLACE, $table, $parameters));
            }
        }
    };
}

suites!(ours, "", "");
suites!(ours_without_names, "", "?prepared-statements=off");
suites!(asherah_rust, ASHERAH_RUST, "");
suites!(asherah_in_english, ASHERAH_IN_ENGLISH, "");
suites!(asherah_in_english_without_names, ASHERAH_IN_ENGLISH, "?prepared-statements=off");

/// A table whose collation takes upper and lower case, and accents, for one.
mod folding {
    use claviger_metastore::FindingId;

    use super::*;

    static PLACE: OnceCell<Place> = OnceCell::const_new();

    const TABLE: &str = "CREATE COLLATION folding (provider = icu, locale = 'und-u-ks-level1', \
         deterministic = false); CREATE TABLE encryption_key (id VARCHAR(255) COLLATE folding NOT NULL, \
         created TIMESTAMP NOT NULL, key_record TEXT NOT NULL, PRIMARY KEY (id, created))";

    async fn open_folding() -> PostgresMetastore {
        let place = PLACE.get_or_init(async || Place::holding(TABLE).await).await;
        let builder = PostgresMetastore::builder().accept(FindingId::CollationFolds);
        builder.open(&place.url).await.unwrap()
    }

    claviger::testing::metastore_legacy_contract!(open_folding());

    mod admin {
        use super::open_folding;

        claviger::testing::metastore_admin_legacy_contract!(open_folding());
    }
}
