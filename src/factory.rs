//! Sessions' origin: what they share, and its life cycle.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use claviger_memory::{Arena, ForkSentinel};
use tokio::runtime::Handle;
use tokio::sync::OnceCell;

use crate::call::{Gate, GateRules};
use crate::clock::{Clock, SystemClock};
use crate::error::Error;
use crate::hierarchy::Hierarchy;
use crate::hierarchy::rules::Rules;
use crate::invalidation::listener::Listeners;
use crate::invalidation::{BoxedSource, InvalidationSource};
use crate::keyring::cache::KeyCache;
use crate::keyring::orphans::Orphans;
use crate::kms::{BoxedKms, KeyManagementService, KmsHandle};
use crate::metastore::{BoxedMetastore, Metastore, MetastoreHandle};
use crate::partition::{Naming, ReadableSuffixes};
use crate::policy::{CryptoPolicy, Limits, Span};
use crate::random::{SecureRandom, SystemRandom};
use crate::record::KeyId;
use crate::session::Session;
use crate::status::{CloseReport, Status, WarmUp};
use crate::tasks::Tasks;

/// Hands out [`Session`]s, one per partition, over a shared cache of keys.
///
/// A service has one for each `(service, product)` it encrypts for. Clones are handles to the same
/// factory; dropping the last handle, sessions included, ends its tasks and wipes its keys.
#[derive(Clone)]
pub struct SessionFactory {
    shared: Arc<Shared>,
}

/// What factory and session handles share. Dropped with the last of them; flights, which hold the
/// core, end then.
pub(crate) struct Shared {
    core: Arc<Hierarchy>,
    sentinel: Arc<ForkSentinel>,
    payload_bytes_max: usize,
    closed: AtomicBool,
    report: OnceCell<CloseReport>,
}

impl SessionFactory {
    /// Begins a factory over this metastore and KMS.
    pub fn builder(metastore: impl Metastore, kms: impl KeyManagementService) -> SessionFactoryBuilder {
        SessionFactoryBuilder {
            metastore: BoxedMetastore::new(metastore),
            kms: BoxedKms::new(kms),
            service: String::new(),
            product: String::new(),
            policy: CryptoPolicy::default(),
            limits: Limits::default(),
            region_suffix: None,
            readable_suffixes: ReadableSuffixes::default(),
            strict_ids: false,
            runtime: None,
            sources: Vec::new(),
            clock: Arc::new(SystemClock::new()),
            random: Arc::new(SystemRandom::new()),
        }
    }

    /// Returns the session of a partition: a customer, a tenant, an account. No I/O; make one for
    /// each call or keep it, as you like.
    ///
    /// # Errors
    /// [`Error::InvalidPartition`], [`Error::Closed`], [`Error::Forked`].
    pub fn session(&self, partition: &str) -> Result<Session, Error> {
        let core = self.shared.open()?;
        core.ensure_listening();
        let ring = core.intermediate.ring(&core.naming.intermediate_key_id(partition)?);
        Ok(Session::new(Arc::clone(&self.shared), ring))
    }

    /// Loads the latest keys of these partitions in bulk, so that their first encrypts wait for
    /// nothing: a thousand to a call to the metastore, and one call to the KMS for each system key.
    ///
    /// ```
    /// # use claviger::{Error, SessionFactory};
    /// # async fn start(factory: &SessionFactory, customers: Vec<String>) -> Result<(), Error> {
    /// let report = factory.warm_up(&customers).await?;
    /// for (partition, error) in &report.failed {
    ///     eprintln!("{partition}: {error}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// No key is created, and no more are loaded than the cache holds; say the most important
    /// partitions first. A chunk is loaded by a task of the factory, within one operation's deadline,
    /// and operations that want one of its keys meanwhile wait for it as they would for a load of
    /// their own.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Forked`], [`Error::NoRuntime`]. What went wrong with single
    /// partitions is in the report.
    ///
    /// # Cancel safety
    /// The chunk that is being loaded comes to its end; no other one is begun.
    pub async fn warm_up(
        &self,
        partitions: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<WarmUp, Error> {
        let partitions = partitions.into_iter().map(|partition| partition.as_ref().to_owned()).collect();
        self.shared.open()?.warm_up(partitions).await
    }

    /// Notes that records of this key, a system or an intermediate one, may have changed: they were
    /// revoked, rewrapped or deleted.
    ///
    /// What is cached of it is checked before it is used next, as if its check interval were over: an
    /// operation that begins after this call waits for the metastore, and goes on with what is cached
    /// only if that does not answer. No I/O; of a key that is not cached nothing is noted. For a
    /// system key all cached keys are looked through for those under it.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Forked`].
    pub fn invalidate(&self, key: &KeyId) -> Result<(), Error> {
        self.shared.open()?.invalidate(key);
        Ok(())
    }

    /// Notes that any key's records may have changed, as [`invalidate`](Self::invalidate) does for
    /// one: for when word of that may have been missed.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Forked`].
    pub fn invalidate_all(&self) -> Result<(), Error> {
        self.shared.open()?.invalidate_everything();
        Ok(())
    }

    /// Returns what the factory holds and what happened to it.
    ///
    /// # Errors
    /// [`Error::Forked`].
    pub fn status(&self) -> Result<Status, Error> {
        self.shared.unforked()?;
        let core = &self.shared.core;
        Ok(Status {
            intermediate_keys: core.intermediate.keys(),
            system_keys: core.system.keys(),
            orphans: core.orphans.list(core.now()),
            flights: core.tasks.flights(),
            memory: core.arena.stats(),
            events: core.events.counts(),
            degraded_keys: core.degraded.list(),
            metastore_down: core.store.gate().is_open(),
            kms_down: core.kms.gate().is_open(),
            sources_connected: core.listeners.connected(),
            closed: self.shared.closed.load(Ordering::Acquire),
        })
    }

    /// Closes the factory: refuses new work with [`Error::Closed`], ends the tasks that listen, waits for key loads and for
    /// keys in use until the deadline, ends what is left and wipes all keys.
    ///
    /// Further calls, also concurrent ones, return the first one's report.
    ///
    /// # Errors
    /// [`Error::Forked`]. What went wrong while closing is in the report.
    ///
    /// # Cancel safety
    /// New work stays refused; another call goes on with the closing.
    pub async fn close(&self, deadline: Duration) -> Result<CloseReport, Error> {
        self.shared.unforked()?;
        self.shared.closed.store(true, Ordering::Release);
        Ok(self.shared.report.get_or_init(|| close(&self.shared.core, deadline)).await.clone())
    }
}

impl fmt::Debug for SessionFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionFactory")
            .field("system_key", self.shared.core.system_ring.id())
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// Lets an operation in: not closed, and not in a forked child.
    pub(crate) fn open(&self) -> Result<&Arc<Hierarchy>, Error> {
        self.unforked()?;
        if self.closed.load(Ordering::Relaxed) { Err(Error::Closed) } else { Ok(&self.core) }
    }

    pub(crate) const fn payload_bytes_max(&self) -> usize {
        self.payload_bytes_max
    }

    fn unforked(&self) -> Result<(), Error> {
        if self.sentinel.is_forked() { Err(Error::Forked) } else { Ok(()) }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // In a forked child a lock may be held by a thread that does not exist there, and the keys
        // are wiped already.
        if !self.sentinel.is_forked() {
            self.core.listeners.stop();
            self.core.tasks.stop();
            self.core.intermediate.close();
            self.core.system.close();
        }
    }
}

/// How long a closing factory waits for aborted key loads to let go of their keys: each does at its
/// task's next turn, unless a plug-in blocks its thread.
const ABORT_GRACE: Duration = Duration::from_millis(50);

/// How often a closing factory looks whether keys are still in use.
const ORPHAN_POLL: Duration = Duration::from_millis(2);

/// Who listens and the flights first, then the caches, then the keys still in use.
async fn close(core: &Hierarchy, deadline: Duration) -> CloseReport {
    let until = tokio::time::Instant::now() + deadline;
    core.listeners.stop();
    let _ended = tokio::time::timeout_at(until, core.listeners.ended()).await;
    let landed = tokio::time::timeout_at(until, core.tasks.idle()).await.is_ok();
    let mut aborted_flights = Vec::new();
    if !landed {
        aborted_flights = core.intermediate.in_flight();
        aborted_flights.extend(core.system.in_flight());
    }
    core.tasks.stop();
    core.intermediate.close();
    core.system.close();
    if !landed {
        // What does not end now is abandoned; its tasks end when they can.
        let _ended = tokio::time::timeout(ABORT_GRACE, core.tasks.idle()).await;
    }
    loop {
        let keys_in_use = core.orphans.list(core.now());
        if keys_in_use.is_empty() || tokio::time::Instant::now() >= until {
            return CloseReport { aborted_flights, keys_in_use, stuck_sources: core.listeners.listening() };
        }
        tokio::time::sleep(ORPHAN_POLL).await;
    }
}

/// Gathers a factory's options. [`build`](Self::build) is the one step that can fail.
#[derive(Debug)]
#[must_use]
pub struct SessionFactoryBuilder {
    metastore: BoxedMetastore,
    kms: BoxedKms,
    service: String,
    product: String,
    policy: CryptoPolicy,
    limits: Limits,
    region_suffix: Option<String>,
    readable_suffixes: ReadableSuffixes,
    strict_ids: bool,
    runtime: Option<Handle>,
    sources: Vec<BoxedSource>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn SecureRandom>,
}

impl SessionFactoryBuilder {
    /// Names the service whose keys these are. Required.
    pub fn service(mut self, service: impl Into<String>) -> Self {
        self.service = service.into();
        self
    }

    /// Names the product whose keys these are. Required.
    pub fn product(mut self, product: impl Into<String>) -> Self {
        self.product = product.into();
        self
    }

    /// Sets the life cycle of keys.
    pub fn policy(mut self, policy: CryptoPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Sets how much of everything there may be.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Appends a suffix to all key ids, so that each region of a replicated metastore has keys of
    /// its own.
    pub fn region_suffix(mut self, suffix: impl Into<String>) -> Self {
        self.region_suffix = Some(suffix.into());
        self
    }

    /// Sets which other regions' records a factory with a suffix reads.
    pub fn readable_suffixes(mut self, suffixes: ReadableSuffixes) -> Self {
        self.readable_suffixes = suffixes;
        self
    }

    /// Refuses service, product and partition names with `_`, with which two partitions can share
    /// one key id.
    pub const fn strict_ids(mut self, strict: bool) -> Self {
        self.strict_ids = strict;
        self
    }

    /// Loads keys on this runtime, which must have its timer enabled, instead of on the caller's.
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Listens to `source` for word of keys whose records changed; said again, to another one too.
    ///
    /// A task of the factory does so, from the first session or key load within a runtime on until
    /// the factory is closed. While a source fails it is called again after a while, and keys are
    /// checked each `revoke_check_interval` as ever.
    pub fn invalidations(mut self, source: impl InvalidationSource) -> Self {
        self.sources.push(BoxedSource::new(source));
        self
    }

    /// Takes the time from `clock` instead of the operating system.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Draws keys and nonces from `random` instead of the operating system.
    pub fn random(mut self, random: impl SecureRandom) -> Self {
        self.random = Arc::new(random);
        self
    }

    /// Checks everything and builds the factory. No I/O, no task, no key.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] naming what to change; [`Error::Memory`] if not even the page that
    /// recognises a fork can be had.
    pub fn build(self) -> Result<SessionFactory, Error> {
        self.policy.validate()?;
        self.limits.validate()?;
        if self.policy.refresh_wait >= self.limits.operation_deadline {
            return Err(Error::invalid_config("refresh_wait is not below operation_deadline"));
        }
        let naming = Naming::new(
            &self.service,
            &self.product,
            self.region_suffix,
            self.readable_suffixes,
            self.strict_ids,
        )?;
        let Limits { waiting_calls_max, attempts_max, .. } = self.limits;
        let gate = |calls_max, deadline| {
            let rules = GateRules { calls_max, waiting_max: waiting_calls_max, deadline, attempts_max };
            Gate::new(rules, Arc::clone(&self.clock), Arc::clone(&self.random))
        };
        let store_gate = gate(self.limits.store_calls_max, self.limits.store_deadline);
        let kms_gate = gate(self.limits.kms_calls_max, self.limits.kms_deadline);
        let orphans = Arc::new(Orphans::default());
        let sentinel = Arc::new(ForkSentinel::new()?);
        let cache = |capacity| {
            KeyCache::new(capacity, Arc::clone(&orphans), Arc::clone(&self.clock), Arc::clone(&sentinel))
        };
        let system = cache(self.policy.system_keys_max);
        let core = Hierarchy {
            store: MetastoreHandle::new(self.metastore, store_gate),
            kms: KmsHandle::new(self.kms, kms_gate),
            intermediate: cache(self.policy.intermediate_keys_max),
            system_ring: system.ring(naming.system_key_id().as_str()),
            system,
            orphans,
            arena: Arena::new(self.policy.lock_policy),
            rules: Rules::new(&self.policy),
            idle_timeout: match self.policy.idle_timeout {
                Span::Of(timeout) => Some(timeout),
                Span::Never => None,
            },
            operation_deadline: self.limits.operation_deadline,
            clock: self.clock,
            random: self.random,
            events: Default::default(),
            tasks: Tasks::new(self.runtime, self.limits.background_refreshes_max),
            listeners: Listeners::new(self.sources),
            missing: Default::default(),
            degraded: Default::default(),
            naming,
        };
        Ok(SessionFactory {
            shared: Arc::new(Shared {
                core: Arc::new(core),
                sentinel,
                payload_bytes_max: self.limits.payload_bytes_max,
                closed: AtomicBool::new(false),
                report: OnceCell::new(),
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::SecretKey;
    use crate::kms::static_key::StaticKms;
    use crate::metastore::memory::InMemoryMetastore;

    #[test]
    fn s3_6_a_refresh_is_waited_for_less_than_an_operation_may_take() {
        let build = |refresh_wait| {
            let kms = StaticKms::new(&SecretKey::generate(&SystemRandom::new()).unwrap()).unwrap();
            SessionFactory::builder(InMemoryMetastore::new(), kms)
                .service("service")
                .product("product")
                .policy(CryptoPolicy::default().refresh_wait(Duration::from_millis(refresh_wait)))
                .limits(Limits::default().operation_deadline(Duration::from_secs(1)))
                .build()
        };
        assert!(build(999).is_ok());
        assert!(matches!(build(1000), Err(Error::InvalidConfig { .. })));
    }
}
