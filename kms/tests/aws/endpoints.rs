//! Where requests go when AWS's settings say it: a listener of another machine is not asked in the clear.

use claviger::KeyManagementService as _;
use claviger::testing::call;
use claviger_kms::AwsKms;
use claviger_testkit::{AwsStandIn, EndpointSettings, as_another_machine, said_with, told_by_parent};

use crate::stand_in::honest;
use crate::support::{EAST, WEST, arn, chain, client, meta, new_secret};

/// As a child, opens a service whose first region is where AWS's settings say, and prints what comes of a wrap.
async fn ask_as_child() -> bool {
    if told_by_parent().is_none() {
        return false;
    }
    let opened = AwsKms::builder().region(EAST, arn(EAST)).open().await;
    let answer = match opened {
        Ok(kms) => kms.wrap_key(&new_secret(), &meta(), &call()).await.map(drop),
        Err(error) => Err(error),
    };
    match answer {
        Ok(()) => println!("answered"),
        Err(error) => println!("{:?} {}", error.class(), chain(&error)),
    }
    true
}

/// As a child, opens a service, and prints what comes of that.
async fn open_as_child() -> bool {
    if told_by_parent().is_none() {
        return false;
    }
    match AwsKms::builder().region(EAST, arn(EAST)).open().await {
        Ok(_) => println!("opened"),
        Err(error) => println!("{:?} {}", error.class(), chain(&error)),
    }
    true
}

const SETTINGS: EndpointSettings = EndpointSettings::of("kms");

#[tokio::test]
async fn an_endpoint_of_another_machine_from_any_setting_must_be_https() {
    if ask_as_child().await {
        return;
    }
    let test = "endpoints::an_endpoint_of_another_machine_from_any_setting_must_be_https";
    let server = AwsStandIn::start(honest).await;
    let folder = tempfile::tempdir().unwrap();
    for source in &SETTINGS.sources() {
        let said =
            said_with(test, &SETTINGS.saying(source, &as_another_machine(&server), folder.path())).await;
        assert!(said.contains("Permanent"), "{source}: {said}");
        assert!(
            said.contains("AWS_ENDPOINT_URL, AWS_ENDPOINT_URL_KMS or a profile sets is not https"),
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
    let server = AwsStandIn::start(honest).await;
    let both = |general: &str, own: &str| {
        vec![
            ("AWS_ENDPOINT_URL".to_owned(), general.to_owned()),
            ("AWS_ENDPOINT_URL_KMS".to_owned(), own.to_owned()),
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

/// The rule holds for each region by itself, and a client's own endpoint is the caller's.
#[tokio::test]
async fn settings_of_endpoints_are_for_regions_without_a_client_or_an_endpoint() {
    let test = "endpoints::settings_of_endpoints_are_for_regions_without_a_client_or_an_endpoint";
    if told_by_parent().is_some() {
        let both = || AwsKms::builder().region(EAST, arn(EAST)).region(WEST, arn(WEST));
        let here = "http://127.0.0.1:9";
        assert!(both().open().await.is_err());
        assert!(both().endpoint(EAST, here).open().await.is_err());
        assert!(both().client(WEST, client(here, WEST)).open().await.is_err());
        assert!(both().danger_http(true).open().await.is_ok());
        assert!(both().endpoint(EAST, here).client(WEST, client(here, WEST)).open().await.is_ok());
        return;
    }
    said_with(test, &[("AWS_ENDPOINT_URL".to_owned(), "http://example.com".to_owned())]).await;
}
