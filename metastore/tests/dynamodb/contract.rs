//! The contract suites, on both servers.

use claviger_metastore::DynamoDbMetastore;
use claviger_testkit::{shared_dynalite, shared_moto};

use crate::support::new_table;

async fn on_dynalite() -> DynamoDbMetastore {
    new_table(shared_dynalite()).await
}

async fn on_moto() -> DynamoDbMetastore {
    new_table(shared_moto()).await
}

mod dynalite {
    claviger::testing::metastore_contract!(super::on_dynalite());
}

mod dynalite_admin {
    claviger::testing::metastore_admin_contract!(super::on_dynalite());
}

mod moto {
    claviger::testing::metastore_contract!(super::on_moto());
}

mod moto_admin {
    claviger::testing::metastore_admin_contract!(super::on_moto());
}
