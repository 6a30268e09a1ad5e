//! The start-up check: what it finds, what it refuses, and making the table.

use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, PointInTimeRecoverySpecification,
    ScalarAttributeType, TimeToLiveSpecification,
};
use claviger::testing::call;
use claviger::{FailureClass, Insert, Metastore as _, MetastoreAdmin as _};
use claviger_metastore::{DangerousSchema, DynamoDbMetastore, FindingId, Severity};
use claviger_testkit::{AwsStandIn, Reply, Request, shared_dynalite, shared_moto};
use serde_json::{Value, json};

use crate::equal_keys::assert_equal_keys_found;
use crate::latest::LatestRecord as _;
use crate::support::{
    Beside, NOW, assert_failed, builder, chain, client, fresh_name, key, meta, new_named_table, new_table,
    record,
};

use FindingId as Id;
use Severity::{Dangerous, Warning};

async fn unchecked(endpoint: &str, table: &str) -> DynamoDbMetastore {
    builder(endpoint, table).danger_unchecked().open().await.unwrap()
}

async fn findings(store: &DynamoDbMetastore) -> Vec<(FindingId, Severity)> {
    let report = store.check_schema(&call()).await.unwrap();
    for finding in report.findings() {
        assert!(finding.what.ends_with('.') && finding.remedy.ends_with('.'), "{finding}");
    }
    report.findings().iter().map(|finding| (finding.id, finding.severity)).collect()
}

/// What keeps a store from starting, once the table is no longer being created.
async fn refused(endpoint: &str, table: &str) -> Vec<FindingId> {
    let error = loop {
        let error = builder(endpoint, table).open().await.unwrap_err();
        if !error.is_transient() {
            break error;
        }
        assert!(chain(&error).contains("the table is CREATING"), "{}", chain(&error));
    };
    assert_eq!(error.class(), FailureClass::Permanent);
    let source = std::error::Error::source(&error).unwrap();
    let schema = source.downcast_ref::<DangerousSchema>().unwrap();
    schema.findings.iter().map(|finding| finding.id).collect()
}

#[tokio::test]
async fn a_table_that_was_migrated_has_no_findings() {
    assert_eq!(findings(&new_table(shared_moto()).await).await, []);
    // dynalite has neither backups nor deletion protection.
    assert_eq!(findings(&new_table(shared_dynalite()).await).await, [(Id::NoBackup, Warning)]);
}

#[tokio::test]
async fn migrating_twice_or_at_once_is_as_good_as_once() {
    for endpoint in [shared_dynalite(), shared_moto()] {
        let table = fresh_name();
        let refused = builder(endpoint, &table).open().await.unwrap_err();
        assert!(chain(&refused).contains("DynamoDbMetastore::migrate"), "{}", chain(&refused));
        let migrate = || builder(endpoint, &table).migrate().open();
        let (one, other) = tokio::join!(migrate(), migrate());
        let store = one.and(other).unwrap();
        let record = record("_IK_a_svc_prod", NOW);
        assert_eq!(store.insert(&record, &call()).await.unwrap(), Insert::Inserted);
        let store = migrate().await.unwrap();
        assert_eq!(store.latest(record.meta().id()).await.unwrap(), Some(record));
    }
}

#[tokio::test]
async fn a_table_that_is_not_there_is_refused() {
    for endpoint in [shared_dynalite(), shared_moto()] {
        let table = fresh_name();
        assert_eq!(refused(endpoint, &table).await, [Id::TableMissing]);
        let store = unchecked(endpoint, &table).await;
        assert_eq!(findings(&store).await, [(Id::TableMissing, Dangerous)]);
        assert_failed(store.latest(meta("a", NOW).id()).await, FailureClass::Permanent, "");
    }
}

#[tokio::test]
async fn a_table_with_another_key_is_refused() {
    use ScalarAttributeType::{B, N, S};
    let cases: [(&[(&str, ScalarAttributeType)], FindingId); 5] = [
        (&[("Id", S)], Id::PrimaryKeyMissing),
        (&[("id", S), ("Created", N)], Id::ColumnMissing),
        (&[("Id", S), ("created", N)], Id::ColumnMissing),
        (&[("Id", B), ("Created", N)], Id::ColumnType),
        (&[("Id", S), ("Created", S)], Id::ColumnType),
    ];
    for endpoint in [shared_dynalite(), shared_moto()] {
        for (keys, expected) in &cases {
            let table = fresh_name();
            let mut create =
                client(endpoint).create_table().table_name(&table).billing_mode(BillingMode::PayPerRequest);
            for ((name, kind), role) in keys.iter().zip([KeyType::Hash, KeyType::Range]) {
                let attribute =
                    AttributeDefinition::builder().attribute_name(*name).attribute_type(kind.clone());
                let key = KeySchemaElement::builder().attribute_name(*name).key_type(role);
                create =
                    create.attribute_definitions(attribute.build().unwrap()).key_schema(key.build().unwrap());
            }
            create.send().await.unwrap();
            assert_eq!(refused(endpoint, &table).await, [*expected], "{keys:?}");
        }
    }
}

#[tokio::test]
async fn a_table_whose_items_expire_is_refused_unless_told() {
    let (_, table) = new_named_table(shared_moto()).await;
    let expiry = TimeToLiveSpecification::builder().enabled(true).attribute_name("Expires").build().unwrap();
    let update =
        client(shared_moto()).update_time_to_live().table_name(&table).time_to_live_specification(expiry);
    update.send().await.unwrap();
    assert_eq!(refused(shared_moto(), &table).await, [Id::Expiry]);
    let told = builder(shared_moto(), &table).accept(Id::NoBackup).accept(Id::Expiry).open().await.unwrap();
    assert_eq!(findings(&told).await, [(Id::Expiry, Dangerous)]);
    let ready = DynamoDbMetastore::new(client(shared_moto()), &table).await;
    assert_failed(ready, FailureClass::Permanent, "expiry");
}

#[tokio::test]
async fn a_table_without_recovery_is_a_warning() {
    let (store, table) = new_named_table(shared_moto()).await;
    let off =
        PointInTimeRecoverySpecification::builder().point_in_time_recovery_enabled(false).build().unwrap();
    let client = client(shared_moto());
    let update = client.update_continuous_backups().table_name(&table);
    update.point_in_time_recovery_specification(off).send().await.unwrap();
    assert_eq!(findings(&store).await, [(Id::NoBackup, Warning)]);
    assert!(builder(shared_moto(), &table).open().await.is_ok());
}

#[tokio::test]
async fn a_table_that_can_be_deleted_is_a_warning() {
    let (store, table) = new_named_table(shared_moto()).await;
    let update = client(shared_moto()).update_table().table_name(&table).deletion_protection_enabled(false);
    update.send().await.unwrap();
    assert_eq!(findings(&store).await, [(Id::NoDeletionProtection, Warning)]);
}

#[tokio::test]
async fn damaged_items_are_a_warning_and_those_that_are_no_keys_none() {
    let beside = Beside::on(shared_moto()).await;
    beside.put(key(&meta("__asherah_internal_guard", NOW))).await;
    assert_eq!(findings(&beside.store).await, []);
    beside.put(key(&meta("_IK_a_svc_prod", NOW))).await;
    assert_eq!(findings(&beside.store).await, [(Id::DamagedRows, Warning)]);
    assert!(builder(shared_moto(), &beside.table).open().await.is_ok());
}

/// The check writes nothing.
#[tokio::test]
async fn a_check_leaves_nothing_behind() {
    for endpoint in [shared_dynalite(), shared_moto()] {
        let beside = Beside::on(endpoint).await;
        drop(beside.store.check_schema(&call()).await.unwrap());
        let scan = beside.client.scan().table_name(&beside.table).send().await.unwrap();
        assert_eq!(scan.count, 0);
        assert_eq!(beside.store.count(&call()).await.unwrap(), 0);
    }
}

/// The description of a good table, with these fields besides.
fn table(more: Value) -> Value {
    let mut table = json!({
        "TableStatus": "ACTIVE",
        "KeySchema": [
            { "AttributeName": "Id", "KeyType": "HASH" },
            { "AttributeName": "Created", "KeyType": "RANGE" },
        ],
        "AttributeDefinitions": [
            { "AttributeName": "Id", "AttributeType": "S" },
            { "AttributeName": "Created", "AttributeType": "N" },
        ],
    });
    table.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({ "Table": table })
}

/// How a server with a good table answers.
fn good(request: &Request) -> Reply {
    match request.operation.as_str() {
        "DescribeTable" => Reply::ok(table(json!({}))),
        "DescribeContinuousBackups" => {
            let recovery = json!({ "PointInTimeRecoveryStatus": "ENABLED" });
            let description =
                json!({ "ContinuousBackupsStatus": "ENABLED", "PointInTimeRecoveryDescription": recovery });
            Reply::ok(json!({ "ContinuousBackupsDescription": description }))
        }
        "PutItem" => Reply::error(400, "ConditionalCheckFailedException", "The conditional request failed"),
        _ => Reply::ok(json!({})),
    }
}

#[tokio::test]
async fn each_denied_request_is_a_finding() {
    let cases: [(&str, &[(FindingId, Severity)]); 8] = [
        ("GetItem", &[(Id::PermissionMissing, Dangerous)]),
        ("Query", &[(Id::PermissionMissing, Dangerous)]),
        ("PutItem", &[(Id::PermissionMissing, Dangerous)]),
        ("BatchGetItem", &[(Id::PermissionMissing, Warning)]),
        ("DescribeTable", &[(Id::PermissionMissing, Warning)]),
        ("Scan", &[(Id::AdminPermissionMissing, Warning)]),
        ("DescribeTimeToLive", &[(Id::Expiry, Warning)]),
        ("DescribeContinuousBackups", &[(Id::NoBackup, Warning)]),
    ];
    for (denied, expected) in cases {
        let server = AwsStandIn::start(move |request| {
            if request.operation != denied {
                return good(request);
            }
            let kind = "com.amazon.coral.service#AccessDeniedException";
            let message = format!(
                "User: arn:aws:sts::1:assumed-role/x is not authorized to perform: dynamodb:{denied}"
            );
            Reply::Http(400, json!({ "__type": kind, "Message": message }).to_string())
        })
        .await;
        let store = unchecked(server.endpoint(), "keys").await;
        assert_eq!(findings(&store).await, expected, "{denied}");
        let report = store.check_schema(&call()).await.unwrap();
        assert!(report.findings()[0].remedy.contains(&format!("dynamodb:{denied}")));
        let opened = builder(server.endpoint(), "keys").open().await;
        assert_eq!(opened.is_ok(), expected[0].1 == Warning);
    }
}

#[tokio::test]
async fn what_the_server_does_not_know_is_no_failure() {
    let server = AwsStandIn::start(|request| {
        if request.operation.starts_with("Describe") {
            return Reply::error(400, "UnknownOperationException", "");
        }
        good(request)
    })
    .await;
    let store = builder(server.endpoint(), "keys").open().await.unwrap();
    assert_eq!(findings(&store).await, [(Id::NoBackup, Warning)]);
}

#[tokio::test]
async fn an_outage_is_an_error_and_no_finding() {
    for failing in
        ["DescribeTable", "GetItem", "Query", "PutItem", "BatchGetItem", "Scan", "DescribeTimeToLive"]
    {
        let server = AwsStandIn::start(move |request| {
            if request.operation == failing {
                return Reply::error(400, "ThrottlingException", "as told");
            }
            good(request)
        })
        .await;
        let opened = builder(server.endpoint(), "keys").open().await;
        assert_failed(opened, FailureClass::Transient, "as told");
    }
}

/// The key is wrong and may not be described: what a request says of it is heard.
#[tokio::test]
async fn a_wrong_key_that_may_not_be_described_is_refused() {
    let server = AwsStandIn::start(|request| match request.operation.as_str() {
        "DescribeTable" => Reply::error(400, "AccessDeniedException", "as told"),
        "GetItem" => {
            Reply::error(400, "ValidationException", "The provided key element does not match the schema")
        }
        _ => good(request),
    })
    .await;
    assert_eq!(refused(server.endpoint(), "keys").await, [Id::ColumnType]);
}

#[tokio::test]
async fn replicas_are_a_warning_unless_they_are_consistent() {
    let replicas = json!([{ "RegionName": "eu-west-1" }, { "RegionName": "us-east-1" }]);
    for (more, expected) in [
        (json!({ "Replicas": replicas }), vec![(Id::Replicated, Warning)]),
        (
            json!({ "Replicas": replicas, "MultiRegionConsistency": "EVENTUAL" }),
            vec![(Id::Replicated, Warning)],
        ),
        (json!({ "Replicas": replicas, "MultiRegionConsistency": "STRONG" }), vec![]),
        (json!({ "Replicas": [] }), vec![]),
    ] {
        let server = AwsStandIn::start(move |request| match request.operation.as_str() {
            "DescribeTable" => Reply::ok(table(more.clone())),
            _ => good(request),
        })
        .await;
        let store = unchecked(server.endpoint(), "keys").await;
        assert_eq!(findings(&store).await, expected);
    }
}

#[tokio::test]
async fn a_table_that_comes_or_goes_is_not_used() {
    let with_status = |status: &'static str| {
        AwsStandIn::start(move |request| match request.operation.as_str() {
            "DescribeTable" => Reply::ok(table(json!({ "TableStatus": status }))),
            _ => good(request),
        })
    };
    let creating = with_status("CREATING").await;
    let opened = builder(creating.endpoint(), "keys").open().await;
    assert_failed(opened, FailureClass::Transient, "the table is CREATING");
    let deleting = with_status("DELETING").await;
    assert_eq!(refused(deleting.endpoint(), "keys").await, [Id::TableMissing]);
}

#[tokio::test]
async fn a_server_that_ignores_conditions_is_refused() {
    let server = AwsStandIn::start(|request| match request.operation.as_str() {
        "PutItem" => Reply::ok(json!({})),
        _ => good(request),
    })
    .await;
    assert_eq!(refused(server.endpoint(), "keys").await, [Id::PrimaryKeyMissing]);
}

/// What makes the table asks for everything that keeps keys, and takes no for an answer where the
/// table is as good without.
#[tokio::test]
async fn a_table_is_made_protected_and_recoverable() {
    for refusal in ["", "AccessDeniedException", "UnknownOperationException"] {
        let server = AwsStandIn::start(move |request| match request.operation.as_str() {
            "UpdateContinuousBackups" if !refusal.is_empty() => Reply::error(400, refusal, ""),
            _ => good(request),
        })
        .await;
        builder(server.endpoint(), "keys").danger_unchecked().migrate().open().await.unwrap();
        let seen = server.seen();
        let operations: Vec<_> = seen.iter().map(|request| request.operation.as_str()).collect();
        assert_eq!(operations, ["CreateTable", "DescribeTable", "UpdateContinuousBackups"]);
        assert_eq!(seen[0].body["BillingMode"], json!("PAY_PER_REQUEST"));
        assert_eq!(seen[0].body["DeletionProtectionEnabled"], json!(true));
        let asked = &seen[2].body["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"];
        assert_eq!(*asked, json!(true));
    }
}

/// A table that is there is never changed.
#[tokio::test]
async fn a_table_that_is_there_is_left_as_it_is() {
    let server = AwsStandIn::start(|request| match request.operation.as_str() {
        "CreateTable" => Reply::error(400, "ResourceInUseException", "Table already exists: keys"),
        _ => good(request),
    })
    .await;
    builder(server.endpoint(), "keys").danger_unchecked().migrate().open().await.unwrap();
    let operations: Vec<_> = server.seen().into_iter().map(|request| request.operation).collect();
    assert_eq!(operations, ["CreateTable", "DescribeTable"]);
}

#[tokio::test]
async fn a_table_that_may_not_be_made_is_an_error() {
    let server = AwsStandIn::start(|_| Reply::error(400, "AccessDeniedException", "as told")).await;
    let made = builder(server.endpoint(), "keys").migrate().open().await;
    assert_failed(made, FailureClass::Permanent, "as told");
}

#[tokio::test]
async fn a_right_to_make_tables_is_not_needed_where_there_is_one() {
    let server = AwsStandIn::start(|request| match request.operation.as_str() {
        "CreateTable" => Reply::error(400, "AccessDeniedException", "as told"),
        _ => good(request),
    })
    .await;
    builder(server.endpoint(), "keys").danger_unchecked().migrate().open().await.unwrap();
}

#[tokio::test]
async fn a_key_that_several_rows_hold_is_found() {
    for server in [shared_dynalite(), shared_moto()] {
        assert_equal_keys_found(&new_table(server).await).await;
    }
}
