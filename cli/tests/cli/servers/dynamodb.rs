//! DynamoDB, as dynalite has it.

use claviger_testkit::{AWS_VARIABLES, AwsService, Dynalite, shared_dynalite};

use super::Client;

/// A table of this test run's own, which need not be there.
fn table(endpoint: &str, name: &str) -> Client<'static> {
    let url = format!("dynamodb://{name}.{}?region=us-east-1&endpoint={endpoint}", std::process::id());
    Client::with(url, &AWS_VARIABLES)
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
    request("CreateTable", shown.text());
    assert!(client.dangers(0).is_empty());
    let applied = table(shared_dynalite(), "Applied");
    applied.ends_with(0, &["schema", "apply"]);
    let describe = |name: &str| {
        let body = format!("{{\"TableName\":\"{name}.{}\"}}", std::process::id());
        let table = &request("DescribeTable", &body)["Table"];
        let parts = ["KeySchema", "AttributeDefinitions", "DeletionProtectionEnabled"];
        let billing = table["BillingModeSummary"]["BillingMode"].to_string();
        (parts.map(|part| table[part].to_string()), billing)
    };
    assert_eq!(describe("Shown"), describe("Applied"));
}

#[test]
fn dynamodb_table_is_asherahs_unless_one_is_named() {
    let shown = Client::with("dynamodb://?region=us-east-1".to_owned(), &AWS_VARIABLES)
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
    request("CreateTable", &body);
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
        request("PutItem", &body.to_string());
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
    let without = [AWS_VARIABLES[2], AWS_VARIABLES[3], ("AWS_EC2_METADATA_DISABLED", "true")];
    client.variables = &without;
    client.fails(77, &["credentials"]);
}

fn request(operation: &str, body: &str) -> serde_json::Value {
    AwsService::DynamoDb.done(shared_dynalite(), "us-east-1", operation, body)
}
