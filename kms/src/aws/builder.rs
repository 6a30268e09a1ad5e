//! How the regions are configured: keys, clients, credentials, and no retries of the SDK's own.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kms::Client;
use aws_sdk_kms::config::retry::RetryConfig;
use aws_sdk_kms::config::{Builder, Region as SdkRegion};
use claviger::{BackendError, Clock, LockPolicy, SystemClock};
use claviger_aws::{Endpoint, SdkConfig, Service};

use crate::aws::error::AwsKmsFault;
use crate::aws::region::Region;
use crate::aws::{AwsKms, Binding, COPIES_MAX, Settings};
use crate::copies::CopyHolder;

/// Says which keys in which regions to use and how to reach them.
///
/// Credentials come from where every AWS program has them (environment, profile, web identity,
/// container or instance role; not SSO), for each region that has no client of its own.
#[must_use]
pub struct AwsKmsBuilder {
    keys: Vec<(String, String)>,
    previous: Vec<(String, String)>,
    clients: Vec<(String, Client)>,
    endpoints: Vec<(String, String)>,
    preferred: Option<String>,
    min_regions: usize,
    hedge_after: Duration,
    encryption_context: bool,
    accept_no_context: bool,
    danger_http: bool,
    clock: Arc<dyn Clock>,
    locks: LockPolicy,
}

impl fmt::Debug for AwsKmsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the clients: what is in them is the caller's.
        f.debug_struct("AwsKmsBuilder")
            .field("keys", &self.keys)
            .field("previous", &self.previous)
            .field("preferred", &self.preferred)
            .field("min_regions", &self.min_regions)
            .field("hedge_after", &self.hedge_after)
            .field("encryption_context", &self.encryption_context)
            .field("accept_no_context", &self.accept_no_context)
            .field("danger_http", &self.danger_http)
            .finish_non_exhaustive()
    }
}

impl AwsKms {
    /// Begins with no region, a hedge after 300 ms and no encryption context.
    pub fn builder() -> AwsKmsBuilder {
        AwsKmsBuilder::new()
    }
}

impl AwsKmsBuilder {
    pub(super) fn new() -> Self {
        Self {
            keys: Vec::new(),
            previous: Vec::new(),
            clients: Vec::new(),
            endpoints: Vec::new(),
            preferred: None,
            min_regions: 1,
            hedge_after: Duration::from_millis(300),
            encryption_context: false,
            accept_no_context: false,
            danger_http: false,
            clock: Arc::new(SystemClock::new()),
            locks: LockPolicy::Prefer,
        }
    }

    /// Adds a region and the key that wraps there: its ARN, or its id or alias. Regions are tried in
    /// the order in which they are added, after the preferred one; there may be 16.
    ///
    /// A copy's ARN is stored as it is given here; other Asherahs want ARNs of keys.
    pub fn region(mut self, region: impl Into<String>, key_arn: impl Into<String>) -> Self {
        self.keys.push((region.into(), key_arn.into()));
        self
    }

    /// Adds a key that may still unwrap in a region, and never wraps: the one that wrapped there
    /// before. It is asked when KMS answers that another key than those before it wrapped a copy.
    pub fn previous_arn(mut self, region: impl Into<String>, key_arn: impl Into<String>) -> Self {
        self.previous.push((region.into(), key_arn.into()));
        self
    }

    /// Sets the region that is asked first, the nearest one; else it is the one added first.
    pub fn preferred(mut self, region: impl Into<String>) -> Self {
        self.preferred = Some(region.into());
        self
    }

    /// Sets the client for a region, with its HTTP client, credentials and time-outs. Its retries are
    /// switched off, since the core does them.
    pub fn client(mut self, region: impl Into<String>, client: Client) -> Self {
        self.clients.push((region.into(), client));
        self
    }

    /// Sets the URL to send a region's requests to, for a VPC endpoint or a local stand-in of KMS; else
    /// AWS's settings say it, as `AWS_ENDPOINT_URL_KMS`, `AWS_ENDPOINT_URL` and profiles do, unless the
    /// region has a client. It must be `https://` unless it is of this machine, whoever says it. One that is
    /// not AWS's is logged.
    pub fn endpoint(mut self, region: impl Into<String>, url: impl Into<String>) -> Self {
        self.endpoints.push((region.into(), url.into()));
        self
    }

    /// Takes endpoints of other machines with `http://`: data keys then go over the network in the clear.
    pub const fn danger_http(mut self, danger_http: bool) -> Self {
        self.danger_http = danger_http;
        self
    }

    /// Makes it an error when fewer regions than this wrap a key; 1 unless told.
    pub const fn min_regions(mut self, min_regions: usize) -> Self {
        self.min_regions = min_regions;
        self
    }

    /// Sets how long a region may take until the next is asked, too; 300 ms unless told.
    pub const fn hedge_after(mut self, hedge_after: Duration) -> Self {
        self.hedge_after = hedge_after;
        self
    }

    /// Sets how the memory is locked in which data keys lie for the time of a call; if possible, unless told. A
    /// factory whose policy requires locked memory takes no service that does not.
    pub const fn lock_policy(mut self, locks: LockPolicy) -> Self {
        self.locks = locks;
        self
    }

    /// Binds each wrapped key to the id and creation of the key it is, so that KMS does not unwrap it
    /// in another's place. **No Asherah can read what is wrapped so.** Off unless told.
    ///
    /// The encryption context is `claviger-key-id` (`_SK_service_product`) and `claviger-created` (Unix
    /// seconds). Once something was wrapped so it must stay on.
    pub const fn encryption_context(mut self, encryption_context: bool) -> Self {
        self.encryption_context = encryption_context;
        self
    }

    /// Takes keys that were wrapped without an encryption context, too, while
    /// [`encryption_context`](Self::encryption_context) is on. Off unless told.
    ///
    /// It is for the time between switching the context on and wrapping the last old key anew. As long,
    /// a writer of the store can still put the envelope of an *old* key in another's place: therefore
    /// it has to be asked for.
    pub const fn accept_no_context(mut self, accept_no_context: bool) -> Self {
        self.accept_no_context = accept_no_context;
        self
    }

    /// Sets the clock of the regions' circuit breakers.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Checks the configuration and makes the clients. Nothing is asked of KMS:
    /// [`AwsKms::check`] does that.
    ///
    /// # Errors
    /// Permanent, with [`AwsKmsFault::ConfigInvalid`] as its source, unless there are 1 to 16 regions,
    /// each once, among them the preferred one and every one that something else is said of; keys are
    /// ARNs of KMS in their region, ids or aliases; endpoints are `https://`; `min_regions` is between 1 and the number of
    /// regions, and the times are above zero. Transient when the machine's configuration, for regions
    /// without a client, does not come in time.
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn open(self) -> Result<AwsKms, BackendError> {
        self.validate().map_err(AwsKmsFault::ConfigInvalid)?;
        let shared = self.load_shared().await?;
        let mut regions = Vec::with_capacity(self.keys.len());
        for (name, key) in &self.keys {
            let client = Client::from_conf(self.client_config(name, shared.as_ref())?.build());
            let previous = of(&self.previous, name).cloned().collect();
            let holder = CopyHolder::new(name.as_str(), Arc::clone(&self.clock));
            regions.push(Arc::new(Region::new(holder, client, key.clone(), previous)));
        }
        // Stable: the others keep their order.
        regions.sort_by_key(|region| self.preferred.as_deref().is_some_and(|name| name != &**region.name()));
        let binding = match self.encryption_context {
            false => Binding::Unbound,
            true => Binding::Bound { or_not: self.accept_no_context },
        };
        let Self { min_regions, hedge_after, clock, locks, .. } = self;
        let settings = Settings { min_regions, hedge_after, binding, clock, locks };
        Ok(AwsKms { regions, settings })
    }

    fn validate(&self) -> Result<(), String> {
        if !(1..=COPIES_MAX).contains(&self.keys.len()) {
            return Err(format!("there are {} regions, where 1 to {COPIES_MAX} can be", self.keys.len()));
        }
        let mut names = HashSet::new();
        for (region, _) in &self.keys {
            if !is_region(region) {
                return Err(format!("{region:?} is no region"));
            }
            if !names.insert(region.as_str()) {
                return Err(format!("region {region} is there twice"));
            }
        }
        let said = self.previous.iter().map(|(region, _)| region);
        let said = said.chain(self.clients.iter().map(|(region, _)| region));
        let said = said.chain(self.endpoints.iter().map(|(region, _)| region)).chain(&self.preferred);
        for region in said {
            if !names.contains(region.as_str()) {
                return Err(format!("region {region:?} has no key"));
            }
        }
        for (region, key) in self.keys.iter().chain(&self.previous) {
            check_key(region, key)?;
        }
        for name in names {
            if of(&self.previous, name).count() > PREVIOUS_MAX {
                return Err(format!("region {name} has more than {PREVIOUS_MAX} previous keys"));
            }
        }
        if !(1..=self.keys.len()).contains(&self.min_regions) {
            return Err(format!("min_regions is {} of {} regions", self.min_regions, self.keys.len()));
        }
        if self.hedge_after.is_zero() {
            return Err("hedge_after must be above zero".to_owned());
        }
        if self.accept_no_context && !self.encryption_context {
            return Err("accept_no_context is for when encryption_context is on".to_owned());
        }
        Ok(())
    }

    /// What the machine says of AWS, if a region needs it.
    async fn load_shared(&self) -> Result<Option<SdkConfig>, BackendError> {
        let Some((region, _)) =
            self.keys.iter().find(|(region, _)| of(&self.clients, region).next().is_none())
        else {
            return Ok(None);
        };
        // One for all regions: they have the same credentials. A region is given, lest the machine's
        // metadata service be asked for one.
        let loaded = claviger_aws::load(Some(region.clone()), None).await;
        Ok(Some(loaded.map_err(|_elapsed| AwsKmsFault::ConfigLate)?))
    }

    fn client_config(&self, region: &str, shared: Option<&SdkConfig>) -> Result<Builder, AwsKmsFault> {
        let mut config = match (of(&self.clients, region).last(), shared) {
            (Some(client), _) => match client.config().region() {
                Some(other) if other.as_ref() != region => {
                    let reason = format!("the client for region {region} is one for {other}");
                    return Err(AwsKmsFault::ConfigInvalid(reason));
                }
                _ => client.config().to_builder(),
            },
            (None, Some(shared)) => Builder::from(shared),
            (None, None) => Builder::new(),
        };
        // A client's own endpoint stays its own.
        let machine = if of(&self.clients, region).next().is_some() { None } else { shared };
        let given = of(&self.endpoints, region).last().map(String::as_str);
        let endpoint = Endpoint::choose(Service::Kms, given, machine, self.danger_http)
            .map_err(|fault| AwsKmsFault::ConfigInvalid(format!("region {region}: {fault}")))?;
        if let Some(endpoint) = endpoint {
            config = config.endpoint_url(endpoint.into_url());
        }
        Ok(config.region(SdkRegion::new(region.to_owned())).retry_config(RetryConfig::disabled()))
    }
}

/// What is said of a region.
fn of<'a, T>(said: &'a [(String, T)], region: &str) -> impl Iterator<Item = &'a T> {
    said.iter().filter(move |(name, _)| name == region).map(|(_, value)| value)
}

/// How many previous keys a region may have: each is one more request for a copy of the oldest.
const PREVIOUS_MAX: usize = 8;

fn is_region(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Checks that a key can be one of its region: an ARN says which region it is of, an id and an alias do
/// not.
fn check_key(region: &str, key: &str) -> Result<(), String> {
    let Some(rest) = key.strip_prefix("arn:") else {
        return if is_id(key) { Ok(()) } else { Err(format!("{key:?} is no key of KMS")) };
    };
    let fields: Vec<_> = rest.splitn(5, ':').collect();
    let [partition, "kms", of, account, resource] = fields.as_slice() else {
        return Err(format!("{key:?} is no ARN of KMS"));
    };
    let id = resource.strip_prefix("key/").or_else(|| resource.strip_prefix("alias/"));
    let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
    if partition.is_empty() || !is_account || !id.is_some_and(is_id) {
        return Err(format!("{key:?} is no ARN of a key of KMS"));
    }
    if *of != region {
        return Err(format!("{key:?} is of region {of}, not of {region}"));
    }
    Ok(())
}

/// What KMS takes in ids and aliases.
fn is_id(id: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-_/".contains(&byte);
    (1..=256).contains(&id.len()) && id.bytes().all(is_part)
}
