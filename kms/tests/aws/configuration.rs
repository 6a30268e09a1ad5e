//! What the builder takes and what it refuses.

use std::time::Duration;

use claviger_kms::{AwsKms, AwsKmsBuilder};

use crate::support::{EAST, PERMANENT, REGIONS, WEST, arn, assert_failed, client};

const NOWHERE: &str = "http://127.0.0.1:9";

fn two() -> AwsKmsBuilder {
    let builder = AwsKms::builder().region(EAST, arn(EAST)).region(WEST, arn(WEST));
    builder.client(EAST, client(NOWHERE, EAST)).client(WEST, client(NOWHERE, WEST))
}

fn one_with(key: &str) -> AwsKmsBuilder {
    AwsKms::builder().region(EAST, key).client(EAST, client(NOWHERE, EAST))
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_what_is_wrong() {
    let cases: [(AwsKmsBuilder, &str); 20] = [
        (AwsKms::builder(), "there are 0 regions"),
        ((0..17).fold(AwsKms::builder(), |b, n| b.region(format!("r-{n}"), "key")), "there are 17 regions"),
        (two().region(EAST, arn(EAST)), "region us-east-1 is there twice"),
        (two().region("", "key"), "\"\" is no region"),
        (two().region("eu west", "key"), "\"eu west\" is no region"),
        (two().preferred("eu-west-1"), "region \"eu-west-1\" has no key"),
        (two().previous_arn("eu-west-1", "key"), "region \"eu-west-1\" has no key"),
        (two().endpoint("eu-west-1", NOWHERE), "region \"eu-west-1\" has no key"),
        (two().client("eu-west-1", client(NOWHERE, "eu-west-1")), "region \"eu-west-1\" has no key"),
        (two().client(EAST, client(NOWHERE, WEST)), "the client for region us-east-1 is one for us-west-2"),
        (two().previous_arn(EAST, arn(WEST)), "is of region us-west-2, not of us-east-1"),
        ((0..9).fold(two(), |b, n| b.previous_arn(EAST, format!("key-{n}"))), "more than 8 previous keys"),
        (two().min_regions(0), "min_regions is 0 of 2 regions"),
        (two().min_regions(3), "min_regions is 3 of 2 regions"),
        (two().hedge_after(Duration::ZERO), "must be above zero"),
        (two().accept_no_context(true), "accept_no_context is for when encryption_context is on"),
        (one_with(&arn(WEST)), "is of region us-west-2, not of us-east-1"),
        (one_with("arn:aws:s3:us-east-1:111122223333:key/k"), "no ARN of KMS"),
        (one_with("arn:aws:kms:us-east-1"), "no ARN of KMS"),
        (one_with("not a key"), "no key of KMS"),
    ];
    for (builder, says) in cases {
        assert_failed(builder.open().await, PERMANENT, says);
    }
    for resource in ["key/", "grant/k", "key/a b", "alias/", ""] {
        let key = format!("arn:aws:kms:us-east-1:111122223333:{resource}");
        assert_failed(one_with(&key).open().await, PERMANENT, "no ARN of a key of KMS");
    }
    for account in ["", "12", "11112222333x"] {
        let key = format!("arn:aws:kms:us-east-1:{account}:key/k");
        assert_failed(one_with(&key).open().await, PERMANENT, "no ARN of a key of KMS");
    }
}

/// Data keys are in what KMS is told and answers.
#[tokio::test]
async fn an_endpoint_of_another_machine_must_be_https() {
    for refused in [
        "http://kms.us-east-1.amazonaws.com",
        "http://10.0.0.1:4566",
        "http://localhost.example.com/",
        "http://localhost@example.com/",
        "http://127.0.0.1@example.com:80/",
        "http://example.com:80/127.0.0.1",
        "http://[::2]:80",
        "ftp://localhost",
        "localhost",
        "",
    ] {
        assert_failed(two().endpoint(EAST, refused).open().await, PERMANENT, "is not https");
        two().endpoint(EAST, refused).danger_http(true).open().await.unwrap();
    }
    for taken in [
        "https://vpce-1a2b3c.kms.us-east-1.vpce.amazonaws.com",
        "http://localhost",
        "http://localhost:4566/",
        "http://127.0.0.1:4566",
        "http://[::1]:4566/path",
    ] {
        two().endpoint(EAST, taken).open().await.unwrap();
    }
}

#[tokio::test]
async fn arns_ids_aliases_and_keys_of_several_regions_are_taken() {
    for key in [
        "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        "arn:aws:kms:us-east-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab",
        "arn:aws-cn:kms:us-east-1:111122223333:alias/team/claviger",
        "1234abcd-12ab-34cd-56ef-1234567890ab",
        "mrk-1234abcd12ab34cd56ef1234567890ab",
        "alias/claviger",
    ] {
        one_with(key).open().await.unwrap();
    }
}

#[tokio::test]
async fn what_is_opened_names_its_regions_and_keys_and_no_credentials() {
    let kms = two().preferred(WEST).open().await.unwrap();
    let printed = format!("{kms:?} {kms:#?} {:?}", two());
    for region in [EAST, WEST] {
        assert!(printed.contains(&arn(region)), "{printed}");
    }
    assert!(!printed.contains("canary"), "{printed}");
    assert!(!printed.contains(REGIONS[2]));
}
