//! How a client is made: region, credentials, and no retries of its own.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::{Builder, ProvideCredentials, Region, SharedCredentialsProvider};
use claviger::{BackendError, CallContext};
use claviger_aws::{Endpoint, START_WAIT, SdkConfig, Service, SharedCredentialLoad};

use crate::dynamodb::DynamoDbMetastore;
use crate::dynamodb::fault::DynamoDbFault;
use crate::schema::{Admission, FindingId};
use crate::task::runtime;

/// Says which table to use and how to reach it.
///
/// Region and credentials come from where every AWS program has them (environment, profile, web
/// identity, container or instance role; not SSO) unless they are given here.
#[derive(Debug)]
#[must_use]
pub struct DynamoDbBuilder {
    table: String,
    region: Option<String>,
    endpoint: Option<String>,
    credentials: Option<SharedCredentialsProvider>,
    danger_http: bool,
    makes_table: bool,
    checks: bool,
    admission: Admission,
}

/// What every Asherah calls its table unless told.
const DEFAULT_TABLE: &str = "EncryptionKey";

impl DynamoDbMetastore {
    /// Begins with the table `EncryptionKey`, the machine's region and credentials, and the start-up
    /// check.
    pub fn builder() -> DynamoDbBuilder {
        DynamoDbBuilder::new()
    }
}

impl DynamoDbBuilder {
    pub(super) fn new() -> Self {
        Self {
            table: DEFAULT_TABLE.to_owned(),
            region: None,
            endpoint: None,
            credentials: None,
            danger_http: false,
            makes_table: false,
            checks: true,
            admission: Admission::default(),
        }
    }

    /// Sets the table's name, `EncryptionKey` unless told.
    pub fn table(mut self, table: impl Into<String>) -> Self {
        self.table = table.into();
        self
    }

    /// Sets the region the table is in.
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.region = Some(region.into());
        self
    }

    /// Sets the URL to send requests to, for a VPC endpoint or a local stand-in of DynamoDB; else AWS's
    /// settings say it, as `AWS_ENDPOINT_URL_DYNAMODB`, `AWS_ENDPOINT_URL` and profiles do. It must be
    /// `https://` unless it is of this machine, whoever says it. One that is not AWS's is logged.
    pub fn endpoint(mut self, url: impl Into<String>) -> Self {
        self.endpoint = Some(url.into());
        self
    }

    /// Takes an endpoint of another machine with `http://`: anybody on the way reads the records then, and
    /// answers in DynamoDB's place.
    pub const fn danger_http(mut self, danger_http: bool) -> Self {
        self.danger_http = danger_http;
        self
    }

    /// Sets where credentials come from.
    pub fn credentials(mut self, provider: impl ProvideCredentials + 'static) -> Self {
        self.credentials = Some(SharedCredentialsProvider::new(provider));
        self
    }

    /// Starts in spite of this dangerous finding.
    pub fn accept(mut self, finding: FindingId) -> Self {
        self.admission.accepted.push(finding);
        self
    }

    /// Opens the store for loading alone, as decrypting does: that the caller may not write keeps it
    /// from nothing then. Off unless set. Inserts are tried all the same, and answered by the server.
    pub const fn read_only(mut self, on: bool) -> Self {
        self.admission.read_only = on;
        self
    }

    /// Makes the table, if it is not there, before the store is opened, and waits until it can be used:
    /// billed by request, protected from deletion, with point-in-time recovery where the server and the
    /// caller's rights allow it. A table that is there stays as it is.
    ///
    /// It needs `dynamodb:CreateTable` and `DescribeTable`, and `UpdateContinuousBackups` for the
    /// recovery: whether that is on, [`check_schema`](DynamoDbMetastore::check_schema) tells. It is for
    /// installing; a service does without. Any number of programs may do it at once.
    pub const fn migrate(mut self) -> Self {
        self.makes_table = true;
        self
    }

    /// Starts without looking for what is wrong with the table: to find it out with
    /// [`check_schema`](DynamoDbMetastore::check_schema), or to mend it.
    pub const fn danger_unchecked(mut self) -> Self {
        self.checks = false;
        self
    }

    /// Makes a client and looks at the table.
    ///
    /// # Errors
    /// Permanent when no region or credentials are found, when they are refused, when the endpoint is
    /// one of another machine and not https, or, with [`DangerousSchema`](crate::DangerousSchema) as
    /// its source, when the table is dangerous to use; else as DynamoDB's failures are.
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn open(self) -> Result<DynamoDbMetastore, BackendError> {
        runtime()?;
        let (region, credentials) = (self.region.clone(), self.credentials.clone());
        let config = claviger_aws::load(region, credentials).await;
        let config = config.map_err(|_elapsed| DynamoDbFault::NoAnswer(START_WAIT))?;
        self.finish(Builder::from(&config), Some(&config)).await
    }

    /// Uses a client made by the caller, with its HTTP client, credentials and time-outs, and looks at
    /// the table. What was given to the builder goes before what the client has; the client's retries
    /// are switched off, since the core does them.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn open_with(self, client: Client) -> Result<DynamoDbMetastore, BackendError> {
        let mut config = client.config().to_builder();
        if let Some(region) = self.region.clone() {
            config = config.region(Region::new(region));
        }
        if let Some(credentials) = self.credentials.clone() {
            config = config.credentials_provider(SharedCredentialLoad::new(credentials));
        }
        self.finish(config, None).await
    }

    async fn finish(
        self,
        mut config: Builder,
        machine: Option<&SdkConfig>,
    ) -> Result<DynamoDbMetastore, BackendError> {
        let given = self.endpoint.as_deref();
        let endpoint = Endpoint::choose(Service::DynamoDb, given, machine, self.danger_http)
            .map_err(|fault| DynamoDbFault::EndpointInTheClear(fault.to_string()))?;
        if let Some(endpoint) = endpoint {
            config = config.endpoint_url(endpoint.into_url());
        }
        let config = config.retry_config(RetryConfig::disabled()).build();
        if config.region().is_none() {
            return Err(DynamoDbFault::RegionMissing.into());
        }
        let store = DynamoDbMetastore { client: Client::from_conf(config), table: Arc::from(self.table) };
        if self.makes_table {
            store.make_table().await?;
        }
        if self.checks {
            store
                .check_schema(&CallContext::within(OPENING_MAX))
                .await?
                .admit(&self.admission)
                .map_err(BackendError::permanent)?;
        }
        Ok(store)
    }
}

/// How long the look at a table may take before it is used.
const OPENING_MAX: Duration = Duration::from_secs(30);
