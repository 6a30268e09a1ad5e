//! DynamoDB, as moto has it: dynalite dies of a request that ends early.

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::config::{BehaviorVersion, Config, Credentials, Region};
use claviger::testing::call;
use claviger::{BoxedMetastore, MetastoreAdmin as _};
use claviger_metastore::DynamoDbMetastore;
use claviger_testkit::shared_moto;

use crate::engine::{Engine, LONG, Way, new_name};

pub(crate) struct DynamoDb {
    address: String,
    table: String,
}

impl DynamoDb {
    /// A new table at `endpoint`.
    pub(crate) async fn create(endpoint: &str) -> Self {
        let address = endpoint.strip_prefix("http://").unwrap().to_owned();
        let engine = Self { address, table: new_name() };
        let builder = DynamoDbMetastore::builder().table(&engine.table).danger_unchecked().migrate();
        Box::pin(builder.open_with(Self::client(&engine.address, LONG))).await.unwrap();
        engine
    }

    async fn open(&self, address: &str, patience: Duration) -> DynamoDbMetastore {
        let builder = DynamoDbMetastore::builder().table(&self.table).danger_unchecked();
        builder.open_with(Self::client(address, patience)).await.unwrap()
    }

    pub(crate) fn client(address: &str, patience: Duration) -> Client {
        let timeouts = TimeoutConfig::builder().connect_timeout(patience).operation_timeout(patience);
        let config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-central-1"))
            .credentials_provider(Credentials::new("AKIDEXAMPLE", "canary-secret", None, None, "tests"))
            .endpoint_url(format!("http://{address}"))
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts.build());
        Client::from_conf(config.build())
    }
}

impl Engine for DynamoDb {
    const NAME: &str = "dynamodb";

    async fn shared() -> Self {
        Self::create(shared_moto()).await
    }

    fn address(&self) -> String {
        self.address.clone()
    }

    async fn way(&self, address: &str, _connections: u32, patience: Duration) -> Way {
        let store = BoxedMetastore::new(self.open(address, patience).await);
        Way { store, counts: Box::new(|| (0, 0)), connections_max: 0, patience }
    }

    async fn rows(&self) -> u64 {
        let store = self.open(&self.address, LONG).await;
        Box::pin(store.count(&call())).await.unwrap()
    }
}
