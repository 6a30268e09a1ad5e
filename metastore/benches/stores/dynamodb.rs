//! DynamoDB, as dynalite has it: loads of one key.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_dynamodb::types::AttributeValue;
use claviger::KeyMeta;
use claviger_metastore::DynamoDbMetastore;
use claviger_testkit::Dynalite;

use crate::{compare_loads, fill};

const TABLE: &str = "EncryptionKey";

pub(crate) async fn run(rounds: usize) {
    let server = Dynalite::start();
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-west-2"))
        .endpoint_url(server.endpoint())
        .credentials_provider(Credentials::new("bench", "bench", None, None, "bench"))
        .http_client(aws_smithy_http_client::Builder::new().build_http());
    let client = Client::from_conf(config.build());
    let builder = || DynamoDbMetastore::builder().table(TABLE);
    builder().danger_unchecked().migrate().open_with(client.clone()).await.unwrap();
    let store = builder().open_with(client.clone()).await.unwrap();
    fill(&store).await;
    let bare = |key: KeyMeta| {
        let client = client.clone();
        async move {
            let get = client.get_item().table_name(TABLE).consistent_read(true);
            let answer = get
                .key("Id", AttributeValue::S(key.id().as_str().into()))
                .key("Created", AttributeValue::N(key.created().to_string()))
                .send()
                .await
                .unwrap();
            let item = answer.item.unwrap();
            item["KeyRecord"].as_m().unwrap()["Key"].as_s().unwrap().len() + item.len() * 100
        }
    };
    compare_loads("DynamoDB (dynalite)", rounds, 100, &store, bare).await;
}
