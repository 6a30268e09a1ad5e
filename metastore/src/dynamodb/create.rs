//! Making the table.

use std::time::Duration;

use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, PointInTimeRecoverySpecification,
    ScalarAttributeType, TableStatus,
};
use claviger::{BackendError, CallContext};
use claviger_aws::START_WAIT;
use tokio::time::Instant;

use crate::dynamodb::DynamoDbMetastore;
use crate::dynamodb::fault::{DynamoDbFault, TABLE_NOT_FOUND};
use crate::dynamodb::item::{CREATED, ID};
use crate::dynamodb::requests::{Answer, send};
use crate::task::to_its_end;

impl DynamoDbMetastore {
    /// Makes the table if it is not there, and waits until it can be used.
    pub(super) async fn make_table(&self) -> Result<(), BackendError> {
        let store = self.clone();
        to_its_end(async move {
            match store.create_table().await? {
                Ok(()) => {
                    store.wait_until_active().await?;
                    store.ask_for_recovery().await
                }
                Err(error) if error.is("ResourceInUseException") => store.wait_until_active().await,
                // Where there is a table no right to make one is needed.
                Err(error)
                    if error.is_denial()
                        && store.describe_table(CallContext::within(START_WAIT)).await?.is_ok() =>
                {
                    store.wait_until_active().await
                }
                Err(error) => Err(error.into()),
            }
        })
        .await
    }

    async fn create_table(&self) -> Answer<()> {
        let mut request = self.client.create_table().table_name(&*self.table);
        let keys =
            [(ID, ScalarAttributeType::S, KeyType::Hash), (CREATED, ScalarAttributeType::N, KeyType::Range)];
        for (name, attribute_type, key_type) in keys {
            let attribute =
                AttributeDefinition::builder().attribute_name(name).attribute_type(attribute_type);
            let key = KeySchemaElement::builder().attribute_name(name).key_type(key_type);
            request = request
                .attribute_definitions(attribute.build().map_err(BackendError::permanent)?)
                .key_schema(key.build().map_err(BackendError::permanent)?);
        }
        let request = request.billing_mode(BillingMode::PayPerRequest).deletion_protection_enabled(true);
        Ok(send(CallContext::within(START_WAIT), request.send()).await?.map(|_answer| ()))
    }

    async fn wait_until_active(&self) -> Result<(), BackendError> {
        let end = Instant::now() + CREATE_WAIT;
        loop {
            let status = match self.describe_table(CallContext::within(START_WAIT)).await? {
                Ok(table) => table.and_then(|table| table.table_status),
                // The description may come from a replica that has not heard of the table yet.
                Err(error) if error.is(TABLE_NOT_FOUND) => None,
                Err(error) => return Err(error.into()),
            };
            if matches!(status, Some(TableStatus::Active | TableStatus::Updating)) {
                return Ok(());
            }
            if Instant::now() >= end {
                let status = status.map_or_else(|| "CREATING".to_owned(), |status| status.to_string());
                return Err(DynamoDbFault::TableNotActive { status }.into());
            }
            tokio::time::sleep(POLL_PAUSE).await;
        }
    }

    /// Asks for point-in-time recovery. What refuses it for good is left to the check to report.
    async fn ask_for_recovery(&self) -> Result<(), BackendError> {
        let end = Instant::now() + CREATE_WAIT;
        loop {
            let recovery = PointInTimeRecoverySpecification::builder().point_in_time_recovery_enabled(true);
            let request = self
                .client
                .update_continuous_backups()
                .table_name(&*self.table)
                .point_in_time_recovery_specification(recovery.build().map_err(BackendError::permanent)?);
            match send(CallContext::within(START_WAIT), request.send()).await? {
                Ok(_answer) => return Ok(()),
                Err(error) if error.is_denial() || error.is_unknown_operation() => return Ok(()),
                // Backups of a table that is seconds old are still being set up.
                Err(error) if error.is("ContinuousBackupsUnavailableException") && Instant::now() < end => {
                    tokio::time::sleep(POLL_PAUSE).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Tables come up within ten seconds or so.
const CREATE_WAIT: Duration = Duration::from_secs(60);

const POLL_PAUSE: Duration = Duration::from_millis(250);
