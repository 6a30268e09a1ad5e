//! How a client is made: region, credentials, HTTPS, and no retries of its own.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::config::{
    Builder, IdentityCache, ProvideCredentials, Region, SharedCredentialsProvider,
};
use aws_smithy_http_client::tls;
use claviger::BackendError;

use crate::dynamodb::fault::DynamoDbFault;
use crate::dynamodb::{DEFAULT_TABLE, DynamoDbMetastore};
use crate::schema::FindingId;
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
    check: Check,
}

/// What is done with the findings of the start-up check.
#[derive(Debug)]
enum Check {
    /// Dangerous ones that are not among these are refused.
    Strict(Vec<FindingId>),
    Off,
}

impl DynamoDbBuilder {
    pub(super) fn new() -> Self {
        Self {
            table: DEFAULT_TABLE.to_owned(),
            region: None,
            endpoint: None,
            credentials: None,
            check: Check::Strict(Vec::new()),
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

    /// Sets the URL to send requests to, for a VPC endpoint or a local stand-in of DynamoDB.
    pub fn endpoint(mut self, url: impl Into<String>) -> Self {
        self.endpoint = Some(url.into());
        self
    }

    /// Sets where credentials come from.
    pub fn credentials(mut self, provider: impl ProvideCredentials + 'static) -> Self {
        self.credentials = Some(SharedCredentialsProvider::new(provider));
        self
    }

    /// Starts in spite of this dangerous finding.
    pub fn accept(mut self, finding: FindingId) -> Self {
        if let Check::Strict(accepted) = &mut self.check {
            accepted.push(finding);
        }
        self
    }

    /// Starts without looking at the table at all. It is for those who make it, with
    /// [`migrate`](DynamoDbMetastore::migrate).
    pub fn danger_unchecked(mut self) -> Self {
        self.check = Check::Off;
        self
    }

    /// Makes a client and looks at the table.
    ///
    /// # Errors
    /// Permanent when no region or credentials are found, when they are refused, or, with
    /// [`DangerousSchema`](crate::DangerousSchema) as its source, when the table is dangerous to use;
    /// else as DynamoDB's failures are.
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn open(self) -> Result<DynamoDbMetastore, BackendError> {
        let region = self.region.clone();
        let credentials = self.credentials.clone();
        let load: Loading = Box::pin(async move {
            let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http_client());
            if let Some(region) = region {
                loader = loader.region(Region::new(region));
            }
            if let Some(credentials) = credentials {
                loader = loader.credentials_provider(credentials);
            }
            loader.load().await
        });
        // Looking for a region may ask the machine's metadata service.
        runtime()?;
        let no_answer = |_elapsed| BackendError::from(DynamoDbFault::NoAnswer(START_WAIT));
        let config = tokio::time::timeout(START_WAIT, load).await.map_err(no_answer)?;
        let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT_WAIT);
        let config = Builder::from(&config)
            .timeout_config(timeouts.build())
            .identity_cache(IdentityCache::lazy().load_timeout(CREDENTIALS_WAIT).build());
        self.finish(config).await
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
    pub async fn client(self, client: Client) -> Result<DynamoDbMetastore, BackendError> {
        let mut config = client.config().to_builder();
        if let Some(region) = self.region.clone() {
            config = config.region(Region::new(region));
        }
        if let Some(credentials) = self.credentials.clone() {
            config = config.credentials_provider(credentials);
        }
        self.finish(config).await
    }

    async fn finish(self, mut config: Builder) -> Result<DynamoDbMetastore, BackendError> {
        if let Some(endpoint) = self.endpoint {
            config = config.endpoint_url(endpoint);
        }
        let config = config.retry_config(RetryConfig::disabled()).build();
        if config.region().is_none() {
            return Err(DynamoDbFault::RegionMissing.into());
        }
        let store = DynamoDbMetastore { client: Client::from_conf(config), table: Arc::from(self.table) };
        if let Check::Strict(accepted) = self.check {
            store.check_schema().await?.admit(&accepted).map_err(BackendError::permanent)?;
        }
        Ok(store)
    }
}

/// Boxed, since it nests very deeply.
type Loading = Pin<Box<dyn Future<Output = SdkConfig> + Send>>;

/// How long the start may wait for one answer: the first request waits for credentials too.
pub(super) const START_WAIT: Duration = Duration::from_secs(8);

/// Longer than any call waits, so that credentials that are slow to come do come in the end: the call
/// that asked for them first goes on after its caller has gone.
const CREDENTIALS_WAIT: Duration = Duration::from_secs(10);

/// Below what a call waits, so that it learns what was slow. Everything else is bounded by the wait.
const CONNECT_WAIT: Duration = Duration::from_millis(1_500);

/// How many idle connections are kept: what is dropped while it connects leaves one more.
const IDLE_MAX: usize = 32;

fn http_client() -> impl aws_sdk_dynamodb::config::HttpClient + 'static {
    let client = aws_smithy_http_client::Builder::new().pool_max_idle_per_host(IDLE_MAX);
    client.tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring)).build_https()
}
