//! Where requests go when AWS's settings say it: a listener of another machine is not asked in the clear.

use claviger::testing::call;
use claviger::{Created, FailureClass, KeyId, Metastore as _};
use claviger_metastore::DynamoDbMetastore;
use claviger_testkit::{AwsStandIn, EndpointSettings, Reply, as_another_machine, said_with, told_by_parent};
use serde_json::json;

use crate::support::{assert_failed, chain, client, credentials};

/// As a child, opens a table where AWS's settings say, and prints what comes of a load.
async fn ask_as_child() -> bool {
    if told_by_parent().is_none() {
        return false;
    }
    let opened = DynamoDbMetastore::builder().danger_unchecked().region("us-west-2").open().await;
    let answer = match opened {
        Ok(store) => store.load_latest(&KeyId::new("a"), Created::MAX, &call()).await.map(drop),
        Err(error) => Err(error),
    };
    match answer {
        Ok(()) => println!("answered"),
        Err(error) => println!("{:?} {}", error.class(), chain(&error)),
    }
    true
}

/// As a child, opens a table without a look at it, and prints what comes of that.
async fn open_as_child() -> bool {
    if told_by_parent().is_none() {
        return false;
    }
    match DynamoDbMetastore::builder().danger_unchecked().region("us-west-2").open().await {
        Ok(_) => println!("opened"),
        Err(error) => println!("{:?} {}", error.class(), chain(&error)),
    }
    true
}

const SETTINGS: EndpointSettings = EndpointSettings::of("dynamodb");

#[tokio::test]
async fn an_endpoint_of_another_machine_from_any_setting_must_be_https() {
    if ask_as_child().await {
        return;
    }
    let test = "endpoints::an_endpoint_of_another_machine_from_any_setting_must_be_https";
    let server = AwsStandIn::start(|_| Reply::ok(json!({}))).await;
    let folder = tempfile::tempdir().unwrap();
    for source in &SETTINGS.sources() {
        let said =
            said_with(test, &SETTINGS.saying(source, &as_another_machine(&server), folder.path())).await;
        assert!(said.contains("Permanent"), "{source}: {said}");
        assert!(
            said.contains("AWS_ENDPOINT_URL, AWS_ENDPOINT_URL_DYNAMODB or a profile sets is not https"),
            "{source}: {said}"
        );
    }
    assert!(server.seen().is_empty(), "{:?}", server.operations());
    for source in &SETTINGS.sources() {
        let said = said_with(test, &SETTINGS.saying(source, server.endpoint(), folder.path())).await;
        assert!(said.contains("answered"), "{source}: {said}");
        assert_eq!(server.seen().len(), 1, "{source}");
        server.forget();
    }
}

#[tokio::test]
async fn the_setting_that_the_sdk_prefers_is_the_one_that_is_judged() {
    if ask_as_child().await {
        return;
    }
    let test = "endpoints::the_setting_that_the_sdk_prefers_is_the_one_that_is_judged";
    let server = AwsStandIn::start(|_| Reply::ok(json!({}))).await;
    let both = |general: &str, own: &str| {
        vec![
            ("AWS_ENDPOINT_URL".to_owned(), general.to_owned()),
            ("AWS_ENDPOINT_URL_DYNAMODB".to_owned(), own.to_owned()),
        ]
    };
    let said = said_with(test, &both(&as_another_machine(&server), server.endpoint())).await;
    assert!(said.contains("answered"), "{said}");
    assert_eq!(server.seen().len(), 1);
    let said = said_with(test, &both(server.endpoint(), &as_another_machine(&server))).await;
    assert!(said.contains("is not https"), "{said}");
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn settings_of_endpoints_that_are_to_be_ignored_are_not_judged() {
    if open_as_child().await {
        return;
    }
    let test = "endpoints::settings_of_endpoints_that_are_to_be_ignored_are_not_judged";
    let folder = tempfile::tempdir().unwrap();
    for source in &SETTINGS.sources() {
        let mut settings = SETTINGS.saying(source, "http://example.com", folder.path());
        assert!(said_with(test, &settings).await.contains("is not https"), "{source}");
        settings.push(("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS".to_owned(), "true".to_owned()));
        let said = said_with(test, &settings).await;
        assert!(said.contains("opened"), "{source}: {said}");
    }
}

#[tokio::test]
async fn an_endpoint_of_another_machine_that_is_given_must_be_https() {
    let server = AwsStandIn::start(|_| Reply::ok(json!({}))).await;
    let builder = || DynamoDbMetastore::builder().danger_unchecked().region("us-west-2");
    let given = || builder().endpoint(as_another_machine(&server));
    assert_failed(given().open().await, FailureClass::Permanent, "that was given is not https");
    assert_failed(
        given().open_with(client(server.endpoint())).await,
        FailureClass::Permanent,
        "is not https",
    );
    assert!(server.seen().is_empty());
    let store = given().danger_http(true).credentials(credentials()).open().await.unwrap();
    assert!(store.load_latest(&KeyId::new("a"), Created::MAX, &call()).await.unwrap().is_none());
    assert_eq!(server.seen().len(), 1);
}
