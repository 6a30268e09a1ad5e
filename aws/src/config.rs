//! What the machine says of AWS, and how it is reached.

use std::pin::Pin;
use std::time::Duration;

use aws_config::identity::IdentityCache;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_http_client::tls;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use tokio::time::error::Elapsed;

use crate::SharedCredentialLoad;

/// Loads what the machine says of AWS (environment, profile, web identity, container or instance role;
/// not SSO), but for what is given here. Nothing is asked of a service.
///
/// Clients made of it speak HTTPS by rustls with ring and the system's certificates, over the same
/// connections and with the same [credentials](SharedCredentialLoad). How long a call takes, and how often it is tried, is
/// theirs to say.
///
/// # Errors
/// When it takes longer than [`START_WAIT`]: the machine's metadata service may be asked.
///
/// # Panics
/// Outside a tokio runtime.
///
/// # Cancel safety
/// Nothing is changed.
pub async fn load(
    region: Option<String>,
    credentials: Option<SharedCredentialsProvider>,
) -> Result<SdkConfig, Elapsed> {
    let identities = IdentityCache::lazy().load_timeout(CREDENTIALS_WAIT).build();
    let loader = aws_config::defaults(BehaviorVersion::latest()).http_client(https_client());
    let mut loader = loader.identity_cache(identities);
    if let Some(region) = region {
        loader = loader.region(Region::new(region));
    }
    if let Some(credentials) = credentials {
        loader = loader.credentials_provider(credentials);
    }
    // Boxed, since it nests very deeply.
    let loading: Pin<Box<dyn Future<Output = SdkConfig> + Send>> = Box::pin(loader.load());
    let loaded = tokio::time::timeout(START_WAIT, loading).await?;
    let enduring = loaded.credentials_provider().map(SharedCredentialLoad::shared);
    let mut config = loaded.into_builder();
    config.set_credentials_provider(enduring);
    config.set_timeout_config(Some(TimeoutConfig::disabled()));
    Ok(config.build())
}

/// How long a start may wait for one answer: the first request waits for credentials, too.
pub const START_WAIT: Duration = Duration::from_secs(8);

/// Longer than any call waits, so that credentials that are slow to come do come in the end.
const CREDENTIALS_WAIT: Duration = Duration::from_secs(10);

/// How many idle connections to one host are kept: what is dropped while it connects leaves one more.
const IDLE_MAX: usize = 32;

fn https_client() -> SharedHttpClient {
    let client = aws_smithy_http_client::Builder::new().pool_max_idle_per_host(IDLE_MAX);
    client.tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring)).build_https()
}
