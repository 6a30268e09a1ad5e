//! The contract suites, on our own table and on Asherah's, in both character sets of a MariaDB.

use std::num::NonZeroU32;

use claviger_metastore::MysqlMetastore;
use tokio::sync::OnceCell;

use crate::support::{ASHERAH, LATIN1, Place, UTF8, builder};

/// One database for all clauses of a suite. No clause is about time, so calls have plenty.
async fn open(place: &OnceCell<Place>, table: &str, charset: &str) -> MysqlMetastore {
    let make = async || match table {
        "" => Place::migrated(charset).await,
        table => Place::holding(table, charset).await,
    };
    let place = place.get_or_init(make).await;
    builder().max_connections(NonZeroU32::new(8).unwrap()).open(&place.url).await.unwrap()
}

macro_rules! suites {
    ($name:ident, $store:ident, $admin:ident, $table:expr, $charset:expr) => {
        mod $name {
            use super::*;

            static PLACE: OnceCell<Place> = OnceCell::const_new();

            claviger::testing::$store!(open(&PLACE, $table, $charset));

            mod admin {
                use super::*;

                claviger::testing::$admin!(open(&PLACE, $table, $charset));
            }
        }
    };
}

suites!(ours_in_utf8, metastore_contract, metastore_admin_contract, "", UTF8);
suites!(ours_in_latin1, metastore_contract, metastore_admin_contract, "", LATIN1);
suites!(asherah_in_utf8, metastore_legacy_contract, metastore_admin_legacy_contract, ASHERAH, UTF8);
suites!(asherah_in_latin1, metastore_legacy_contract, metastore_admin_legacy_contract, ASHERAH, LATIN1);
