//! DynamoDB, as dynalite has it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use claviger_testkit::{Dynalite, shared_dynalite};

use super::Client;

const CREDENTIALS: [(&str, &str); 4] = [
    ("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE"),
    ("AWS_SECRET_ACCESS_KEY", "a-secret-access-key"),
    ("AWS_CONFIG_FILE", "/dev/null"),
    ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
];

/// A table of this test run's own, which need not be there.
fn table(endpoint: &str, name: &str) -> Client<'static> {
    let url = format!("dynamodb://{name}.{}?region=us-east-1&endpoint={endpoint}", std::process::id());
    Client::with(url, &CREDENTIALS)
}

#[test]
fn dynamodb_keys_are_made_and_found_again() {
    table(shared_dynalite(), "Keys").starts_from_nothing();
}

#[test]
fn dynamodb_shown_schema_is_the_one_that_is_applied() {
    let client = table(shared_dynalite(), "Shown");
    let shown = client.ends_with(0, &["schema", "show"]);
    let name = format!("Shown.{}", std::process::id());
    assert!(shown.text().contains(&name), "{}", shown.text());
    request(shared_dynalite(), "CreateTable", shown.text());
    assert!(client.dangers(0).is_empty());
    let applied = table(shared_dynalite(), "Applied");
    applied.ends_with(0, &["schema", "apply"]);
    let describe = |name: &str| {
        let body = format!("{{\"TableName\":\"{name}.{}\"}}", std::process::id());
        let answer: serde_json::Value =
            serde_json::from_str(&request(shared_dynalite(), "DescribeTable", &body)).unwrap();
        let table = &answer["Table"];
        let parts = ["KeySchema", "AttributeDefinitions", "DeletionProtectionEnabled"];
        let billing = table["BillingModeSummary"]["BillingMode"].to_string();
        (parts.map(|part| table[part].to_string()), billing)
    };
    assert_eq!(describe("Shown"), describe("Applied"));
}

#[test]
fn dynamodb_table_is_asherahs_unless_one_is_named() {
    let shown = Client::with("dynamodb://?region=us-east-1".to_owned(), &CREDENTIALS)
        .ends_with(0, &["schema", "show"]);
    assert!(shown.text().contains("\"TableName\": \"EncryptionKey\""), "{}", shown.text());
}

#[test]
fn dynamodb_fault_is_found_and_refused() {
    let client = table(shared_dynalite(), "Fault");
    let body = format!(
        "{{\"TableName\":\"Fault.{}\",\"BillingMode\":\"PAY_PER_REQUEST\",\
          \"AttributeDefinitions\":[{{\"AttributeName\":\"Id\",\"AttributeType\":\"S\"}}],\
          \"KeySchema\":[{{\"AttributeName\":\"Id\",\"KeyType\":\"HASH\"}}]}}",
        std::process::id()
    );
    request(shared_dynalite(), "CreateTable", &body);
    assert_eq!(client.dangers(3), ["primary-key-missing"]);
    client.kit.write("payload", "x");
    let refused = client.ends_with(3, &["encrypt", "payload", "-p", "me"]);
    assert!(refused.stderr.contains("\nprimary-key-missing\n"), "{}", refused.stderr);
}

#[test]
fn dynamodb_customer_in_trouble_is_left_out_and_not_told_of() {
    let client = table(shared_dynalite(), "Trouble");
    client.ends_with(0, &["schema", "apply"]);
    client.leaves_out_the_row_in_trouble(&"eve".repeat(700), |id, created| {
        let body = serde_json::json!({
            "TableName": format!("Trouble.{}", std::process::id()),
            "Item": {"Id": {"S": id}, "Created": {"N": created.to_string()}, "KeyRecord": {"M": {}}},
        });
        request(shared_dynalite(), "PutItem", &body.to_string());
    });
}

#[test]
fn dynamodb_server_that_is_down_is_told_with_69() {
    let mut server = Dynalite::start();
    let client = table(&server.endpoint(), "Keys");
    server.kill();
    client.fails(69, &["the key store dynamodb://Keys.", "check that it runs and can be reached"]);
}

#[test]
fn dynamodb_without_credentials_is_told() {
    let mut client = table(shared_dynalite(), "Keys");
    let without = [CREDENTIALS[2], CREDENTIALS[3], ("AWS_EC2_METADATA_DISABLED", "true")];
    client.variables = &without;
    client.fails(77, &["credentials"]);
}

/// Asks as AWS's tools do; neither dynalite nor moto looks at the signature.
fn request(endpoint: &str, operation: &str, body: &str) -> String {
    let host = endpoint.strip_prefix("http://").unwrap().trim_end_matches('/');
    let mut stream = TcpStream::connect(host).unwrap();
    write!(
        stream,
        "POST / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: application/x-amz-json-1.0\r\n\
         X-Amz-Target: DynamoDB_20120810.{operation}\r\nX-Amz-Date: 20260101T000000Z\r\n\
         Authorization: AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/20260101/us-east-1/dynamodb/aws4_request, \
         SignedHeaders=host, Signature=0000\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
    body.to_owned()
}
