//! The start-up check of the table.

use aws_sdk_dynamodb::types::{
    KeyType, MultiRegionConsistency, PointInTimeRecoveryStatus, ScalarAttributeType, TableDescription,
    TableStatus, TimeToLiveStatus,
};
use claviger::backend::is_reserved_id;
use claviger::{BackendError, CallContext, Consistency, Created, KeyId, KeyMeta};

use crate::dynamodb::DynamoDbMetastore;
use crate::dynamodb::fault::{CONDITION_FAILED, DynamoDbError, DynamoDbFault, TABLE_NOT_FOUND};
use crate::dynamodb::item::{self, CREATED, ID};
use crate::dynamodb::requests::{Answer, Items, RESERVED, send};
use crate::schema::{Finding, FindingId, SchemaReport};

impl DynamoDbMetastore {
    /// Looks at the table: its primary key, its replicas, whether items expire or can be brought back,
    /// what the caller may do, and a sample of items.
    ///
    /// What the caller may do is found out by doing it where it changes nothing: a key is read that
    /// there is not, and written on a condition that cannot hold. Updates and deletions are not tried,
    /// since most services should not be allowed to make them. What the server does not know of, as
    /// local stand-ins of DynamoDB do not know of backups, does not fail the check.
    ///
    /// # Errors
    /// As DynamoDB's failures are; a denial is a finding.
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn check_schema(&self, context: &CallContext) -> Result<SchemaReport, BackendError> {
        let mut report = SchemaReport::default();
        match self.describe_table(*context).await? {
            Ok(Some(table)) => check_table(&table, &mut report)?,
            Err(error) if error.is_denial() => {
                report.add(may_not_look("DescribeTable", FindingId::PermissionMissing))
            }
            Err(error) => note(&mut report, "DescribeTable", Need::ToStart, error)?,
            Ok(None) => {}
        }
        let has_key =
            |report: &SchemaReport| !report.findings().iter().any(|finding| KEY.contains(&finding.id));
        if has_key(&report) {
            self.check_permissions(*context, &mut report).await?;
        }
        if has_key(&report) {
            self.check_expiry(*context, &mut report).await?;
            self.check_backups(*context, &mut report).await?;
            self.check_items(*context, &mut report).await?;
        }
        Ok(report)
    }

    pub(super) async fn describe_table(&self, context: CallContext) -> Answer<Option<TableDescription>> {
        let request = self.client.describe_table().table_name(&*self.table);
        Ok(send(context, request.send()).await?.map(|answer| answer.table))
    }

    async fn check_permissions(
        &self,
        context: CallContext,
        report: &mut SchemaReport,
    ) -> Result<(), BackendError> {
        let probe = KeyMeta::new(KeyId::new(format!("{RESERVED}probe")), Created::MIN);
        if let Err(error) = self.get(context, &probe).await? {
            note(report, "GetItem", Need::ToStart, error)?;
        }
        if let Err(error) = self.query_latest(context, probe.id(), Created::MAX).await? {
            note(report, "Query", Need::ToStart, error)?;
        }
        match self.put_if(context, item::key(&probe), NEVER).await? {
            Ok(()) => report.add(Finding::dangerous(
                FindingId::PrimaryKeyMissing,
                "The server made a write whose condition cannot hold, so it would store one key version twice.",
                "Use DynamoDB, or a stand-in that looks at conditions.",
            )),
            Err(error) if error.is(CONDITION_FAILED) => {}
            Err(error) => note(report, "PutItem", Need::ToWrite, error)?,
        }
        let keys = vec![item::key(&probe)];
        if let Err(error) = self.batch_get(context, keys).await? {
            note(report, "BatchGetItem", Need::ForMany, error)?;
        }
        Ok(())
    }

    async fn check_expiry(
        &self,
        context: CallContext,
        report: &mut SchemaReport,
    ) -> Result<(), BackendError> {
        let request = self.client.describe_time_to_live().table_name(&*self.table);
        let answer = send(context, request.send()).await?;
        match answer.map(|answer| answer.time_to_live_description) {
            Ok(description) => {
                let status = description.and_then(|description| description.time_to_live_status);
                if matches!(status, Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling)) {
                    report.add(Finding::dangerous(
                        FindingId::Expiry,
                        "The table has a time to live: a key that expires from it takes all that was encrypted under it along.",
                        "Switch it off: aws dynamodb update-time-to-live, Enabled=false.",
                    ));
                }
            }
            Err(error) if error.is_denial() => {
                report.add(may_not_look("DescribeTimeToLive", FindingId::Expiry))
            }
            // A server that does not know of it lets nothing expire.
            Err(error) if error.is_unknown_operation() => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    async fn check_backups(
        &self,
        context: CallContext,
        report: &mut SchemaReport,
    ) -> Result<(), BackendError> {
        let request = self.client.describe_continuous_backups().table_name(&*self.table);
        let answer = send(context, request.send()).await?;
        match answer.map(|answer| answer.continuous_backups_description) {
            Ok(description) => {
                let recovery =
                    description.and_then(|description| description.point_in_time_recovery_description);
                let status = recovery.and_then(|recovery| recovery.point_in_time_recovery_status);
                if status != Some(PointInTimeRecoveryStatus::Enabled) {
                    report.add(no_backup("Point-in-time recovery is off"));
                }
            }
            Err(error) if error.is_denial() => {
                report.add(may_not_look("DescribeContinuousBackups", FindingId::NoBackup));
            }
            Err(error) if error.is_unknown_operation() => {
                report.add(no_backup("The server knows no continuous backups"));
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    async fn check_items(&self, context: CallContext, report: &mut SchemaReport) -> Result<(), BackendError> {
        let items = match self.scan(context.consistency(Consistency::Eventual), "", None, SAMPLE).await? {
            Ok(Items { items, .. }) => items,
            Err(error) => return note(report, "Scan", Need::ToOperate, error),
        };
        let keys = || items.iter().filter(|item| !is_reserved_id(item::read_id(item).as_str()));
        let faults: Vec<_> = keys().filter_map(|item| item::read(item).err()).collect();
        if let Some(first) = faults.first() {
            report.add(Finding::warning(
                FindingId::DamagedRows,
                format!("{} of {} items looked at cannot be read; {first}.", faults.len(), keys().count()),
                "List them all and bring them back from a backup.",
            ));
        }
        Ok(())
    }
}

/// A condition that no item meets, and a missing one neither.
const NEVER: &str = "attribute_exists(Id) AND attribute_not_exists(Id)";

/// How many items are sampled.
const SAMPLE: i32 = 100;

/// With one of these there is no table of keys to look at further.
const KEY: &[FindingId] =
    &[FindingId::TableMissing, FindingId::ColumnMissing, FindingId::ColumnType, FindingId::PrimaryKeyMissing];

/// What a request is needed for.
#[derive(Clone, Copy)]
enum Need {
    ToStart,
    ToWrite,
    ForMany,
    ToOperate,
}

/// Makes a finding of a refusal, if it is one.
fn note(
    report: &mut SchemaReport,
    action: &str,
    need: Need,
    error: DynamoDbError,
) -> Result<(), BackendError> {
    if error.is(TABLE_NOT_FOUND) {
        report.add(table_missing("There is no such table."));
    } else if error.is("ValidationException") {
        report.add(Finding::dangerous(
            FindingId::ColumnType,
            format!("The table's primary key is not Id (S) and Created (N): {}.", error.message),
            KEY_REMEDY,
        ));
    } else if error.is_denial() {
        let remedy = format!("Allow dynamodb:{action} on the table.");
        report.add(match need {
            Need::ToStart => {
                let what = format!("{action} is denied, without which keys cannot be loaded.");
                Finding::dangerous(FindingId::PermissionMissing, what, remedy)
            }
            Need::ToWrite => {
                let what = format!("{action} is denied, without which keys cannot be created.");
                Finding::dangerous_to_write(FindingId::PermissionMissing, what, remedy)
            }
            Need::ForMany => {
                let what = format!("{action} is denied, without which keys cannot be loaded many at a time.");
                Finding::warning(FindingId::PermissionMissing, what, remedy)
            }
            Need::ToOperate => {
                let what = format!("{action} is denied, without which keys cannot be listed and counted.");
                Finding::warning(FindingId::AdminPermissionMissing, what, remedy)
            }
        });
    } else if !error.is_unknown_operation() {
        return Err(error.into());
    }
    Ok(())
}

fn check_table(table: &TableDescription, report: &mut SchemaReport) -> Result<(), BackendError> {
    match &table.table_status {
        Some(TableStatus::Creating) => {
            return Err(DynamoDbFault::TableNotActive { status: TableStatus::Creating.to_string() }.into());
        }
        Some(status @ (TableStatus::Deleting | TableStatus::Archiving | TableStatus::Archived)) => {
            report.add(table_missing(&format!("The table is {status}.")));
            return Ok(());
        }
        _ => {}
    }
    check_key(table, KeyType::Hash, ID, ScalarAttributeType::S, report);
    check_key(table, KeyType::Range, CREATED, ScalarAttributeType::N, report);
    if table.deletion_protection_enabled == Some(false) {
        report.add(Finding::warning(
            FindingId::NoDeletionProtection,
            "One call of DeleteTable deletes all keys at once.",
            "Switch deletion protection on: aws dynamodb update-table --deletion-protection-enabled.",
        ));
    }
    let replicas = table.replicas().iter().filter_map(|replica| replica.region_name());
    let replicas: Vec<_> = replicas.collect();
    if !replicas.is_empty() && table.multi_region_consistency != Some(MultiRegionConsistency::Strong) {
        report.add(Finding::warning(
            FindingId::Replicated,
            format!(
                "The table is replicated to {}: of two regions that write one key version at the same time one loses it.",
                replicas.join(", ")
            ),
            "Set the region_suffix of every region's session factory to the region's name.",
        ));
    }
    Ok(())
}

/// Checks one half of the primary key.
fn check_key(
    table: &TableDescription,
    key_type: KeyType,
    name: &str,
    attribute_type: ScalarAttributeType,
    report: &mut SchemaReport,
) {
    let Some(key) = table.key_schema().iter().find(|key| key.key_type == key_type) else {
        report.add(Finding::dangerous(
            FindingId::PrimaryKeyMissing,
            format!("The table has no {key_type} key, so that it holds one version of a key and no second."),
            KEY_REMEDY,
        ));
        return;
    };
    if key.attribute_name != name {
        report.add(Finding::dangerous(
            FindingId::ColumnMissing,
            format!("The table's {key_type} key is {} and not {name}.", key.attribute_name),
            KEY_REMEDY,
        ));
        return;
    }
    let mut attributes = table.attribute_definitions().iter();
    let found = attributes.find(|attribute| attribute.attribute_name == name).map(|it| &it.attribute_type);
    if let Some(found) = found.filter(|found| **found != attribute_type) {
        report.add(Finding::dangerous(
            FindingId::ColumnType,
            format!("The table's {key_type} key {name} is of type {found} and not {attribute_type}."),
            KEY_REMEDY,
        ));
    }
}

const KEY_REMEDY: &str = "Keep keys in a table of their own, with the hash key Id (S) and the range key Created (N): migrate makes one.";

fn table_missing(what: &str) -> Finding {
    Finding::dangerous(
        FindingId::TableMissing,
        what,
        "Look at the table's name, the region and the account, or make the table by `claviger schema apply`, or by \
         DynamoDbMetastore::migrate.",
    )
}

fn no_backup(what: &str) -> Finding {
    Finding::warning(
        FindingId::NoBackup,
        format!("{what}: what is deleted or overwritten by mistake is lost."),
        "Switch point-in-time recovery on: aws dynamodb update-continuous-backups.",
    )
}

/// What could not be looked at for want of a right.
fn may_not_look(action: &str, id: FindingId) -> Finding {
    Finding::warning(
        id,
        format!("{action} is denied, so this could not be checked."),
        format!("Allow dynamodb:{action} on the table."),
    )
}
