//! What a factory is built from.

use std::sync::{Arc, Weak};
use std::time::Duration;

use claviger_memory::{Arena, ForkSentinel, LockPolicy};
use tokio::runtime::Handle;

use super::SessionFactory;
use crate::clock::{Clock, SystemClock, nanos};
use crate::core::Core;
use crate::error::Error;
use crate::gate::replica::ReplicaGate;
use crate::gate::{Gate, GateRules, Lanes, Width};
use crate::invalidation::listener::Listeners;
use crate::invalidation::{BoxedSource, InvalidationSource};
use crate::key::known::Known;
use crate::keys::back_ends::BackEnds;
use crate::keys::caches::Caches;
use crate::keys::context::Context;
use crate::keys::dispatch::Dispatcher;
use crate::keys::engine::Engine;
use crate::keys::loader::Loader;
use crate::keys::lost::Lost;
use crate::keys::lost_rows::LostRows;
use crate::keys::maker::KeyMaker;
use crate::keys::parts::Parts;
use crate::keys::rules::Rules;
use crate::keys::sweep::Sweep;
use crate::kms::{BoxedKms, KeyManagementService, KmsHandle};
use crate::metastore::Metastore;
use crate::metastore::boxed::BoxedMetastore;
use crate::metastore::handle::MetastoreHandle;
use crate::partition::{Naming, ReadableSuffixes};
use crate::policy::{CryptoPolicy, Lifetime, Limits};
use crate::random::{SecureRandom, SystemRandom};
use crate::tasks::Tasks;
use crate::telemetry::way::WayGauges;
use crate::telemetry::{Telemetry, Way};

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
    restore_lost: bool,
    folded_ids: bool,
    runtime: Option<Handle>,
    sources: Vec<BoxedSource>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn SecureRandom>,
}

impl SessionFactory {
    /// Begins a factory over this metastore and KMS.
    pub fn builder(metastore: impl Metastore, kms: impl KeyManagementService) -> SessionFactoryBuilder {
        SessionFactoryBuilder::new(BoxedMetastore::new(metastore), BoxedKms::new(kms))
    }
}

impl SessionFactoryBuilder {
    fn new(metastore: BoxedMetastore, kms: BoxedKms) -> Self {
        Self {
            metastore,
            kms,
            service: String::new(),
            product: String::new(),
            policy: CryptoPolicy::default(),
            limits: Limits::default(),
            region_suffix: None,
            readable_suffixes: ReadableSuffixes::default(),
            strict_ids: false,
            restore_lost: false,
            folded_ids: false,
            runtime: None,
            sources: Vec::new(),
            clock: Arc::new(SystemClock::new()),
            random: Arc::new(SystemRandom::new()),
        }
    }

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

    /// Sets which other regions' records a factory with a suffix reads. Best those there are:
    /// [`ReadableSuffixes::Only`].
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

    /// Puts the row of a cached key back when a check finds it gone, and goes on with the key as if the
    /// row had been there: what the metastore lost in a fail-over comes back before anybody misses it.
    ///
    /// Off by default. It also undoes a deletion that was meant, from any process that has the key cached. So an
    /// operator that deletes keys tells all factories before, by [`SessionFactory::shredded`] or
    /// [`Invalidation::Shredded`](crate::Invalidation::Shredded). Each loss raises
    /// [`Event::RowLost`](crate::Event::RowLost) all the same.
    pub const fn restore_lost(mut self, restore: bool) -> Self {
        self.restore_lost = restore;
        self
    }

    /// Lets ids that fold alike, such as those of the partitions `Alice` and `alice`, have the same key of one
    /// creation time: for a table whose rows were copied under each id that records name, as
    /// `docs/metastores.md` describes under "Ids that fold". Where a metastore itself gives out rows of other
    /// ids (its builder's `folded_ids`) this is not needed.
    ///
    /// Off by default: a key that is known under one id is then refused under any other, with the alarm
    /// [`Event::Tampered`](crate::Event::Tampered). Otherwise anybody that writes the table could read one
    /// partition's data through another one's session.
    pub const fn folded_ids(mut self, allowed: bool) -> Self {
        self.folded_ids = allowed;
        self
    }

    /// Loads keys on this runtime, which must have its timer enabled, and runs their timers, the sweep of
    /// idle keys and the listeners there.
    ///
    /// Without it they run on the multi-threaded runtime that [`build`](Self::build) is called in; else on
    /// a thread of the factory's own, which the first key load starts. A current-thread runtime is taken
    /// only when it is given here: somebody must drive it as long as anybody waits for a key. A runtime that
    /// shuts down is replaced by the thread. Callers may wait on any runtime, or on none.
    ///
    /// A connection belongs to the runtime that it was opened in, and answers only while that one is driven.
    /// So a metastore or a KMS that connects when it is made is best made where its factory is built:
    ///
    /// ```
    /// # use claviger::{BackendError, InMemoryMetastore, SecretKey, SessionFactory, StaticKms, SystemRandom};
    /// # fn kms() -> Result<StaticKms, BackendError> {
    /// #     StaticKms::new(&SecretKey::generate(&SystemRandom::new()).map_err(BackendError::transient)?)
    /// # }
    /// # async fn open() -> InMemoryMetastore { InMemoryMetastore::new() }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let background = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    /// let factory = background.block_on(async {
    ///     let metastore = open().await;
    ///     let builder = SessionFactory::builder(metastore, kms()?).service("checkout").product("payments");
    ///     Ok::<_, Box<dyn std::error::Error>>(builder.build()?)
    /// })?;
    /// // Any thread may use it now, such as one that blocks on a runtime of its own for each request.
    /// let request = tokio::runtime::Builder::new_current_thread().build()?;
    /// request.block_on(factory.session("customer-17")?.encrypt(b"4111"))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Factories that share a metastore or a KMS best share a runtime too, with all else that uses it: when
    /// the runtime that opened a connection ends, a call which another makes over it fails, and has to be
    /// made again.
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Listens to `source` for messages about keys whose records changed. Each call adds a source.
    ///
    /// A task of the factory does so, from the first key load on until the factory is closed. A source that fails
    /// is called again after a while. Meanwhile keys are checked each `revoke_check_interval` as ever.
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

    /// Checks everything and builds the factory. No I/O, no task, no thread, no key.
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
        let kms_locks = self.kms.lock_policy();
        if self.policy.lock_policy == LockPolicy::Require
            && kms_locks.is_some_and(|it| it != LockPolicy::Require)
        {
            return Err(Error::invalid_config(
                "the policy requires locked memory, and the KMS holds keys in memory that need not be locked",
            ));
        }
        let naming = Naming::new(
            &self.service,
            &self.product,
            self.region_suffix.clone(),
            self.readable_suffixes.clone(),
            self.strict_ids,
        )?;
        let sentinel = Arc::new(ForkSentinel::new()?);
        let system_key = naming.system_key_id();
        let telemetry = Telemetry::new(&system_key, &self.clock, &sentinel);
        telemetry.show_waiting_limit(self.limits.max_cold_operations);
        let store_gates = self.store_gates(&telemetry);
        let replica = (self.replica_gate(), telemetry.way(Way::MetastoreReplica));
        let kms_gate = self.kms_gate(&telemetry);
        let caches = Caches::new(&self.limits, &system_key, &self.clock, &sentinel, telemetry.keys());
        let known = Arc::new(Known::new(self.folded_ids, Arc::clone(&sentinel)));
        let idle_timeout = match self.policy.idle_timeout {
            Lifetime::Of(timeout) => Some(timeout),
            Lifetime::Never => None,
        };
        let Self { metastore, kms, policy, limits, runtime, sources, clock, random, .. } = self;
        let engine = Arc::new_cyclic(|engine: &Weak<Engine>| {
            let on_failover = with(engine, |engine| engine.failed_over());
            let before_loads = with(engine, Engine::ensure_tasks);
            let calls = || Arc::clone(telemetry.calls());
            let store = MetastoreHandle::new(metastore, store_gates, replica, calls(), on_failover);
            let back_ends = Arc::new(BackEnds::new(store, KmsHandle::new(kms, kms_gate, calls())));
            let listeners = Listeners::new(sources, limits.store_deadline, &telemetry);
            let context = Arc::new(Context::new(naming, Rules::new(&policy), clock, random, telemetry));
            let parts = Parts { context, caches: Arc::new(caches), back_ends };
            let tasks = Tasks::new(runtime, limits.max_background_refreshes);
            let dispatcher = Dispatcher::new(&parts, tasks, &limits, before_loads);
            let maker = KeyMaker::new(&parts, Arena::new(policy.lock_policy), known);
            let lost = Lost::new(nanos(policy.max_stale_decrypt));
            let lost_rows = LostRows::new(&parts, lost, self.restore_lost);
            let loader = Arc::new(Loader::new(&parts, dispatcher, maker, lost_rows));
            let sweep = Sweep::new(&parts, Arc::clone(&loader), idle_timeout);
            Engine::new(parts, loader, sweep, listeners)
        });
        Ok(SessionFactory::new(Arc::new(Core::new(engine, sentinel, limits.max_payload_bytes))))
    }

    /// The ways to the metastore: for reads, and for writes.
    fn store_gates(&self, telemetry: &Telemetry) -> [Gate; 2] {
        let Limits { max_store_calls, store_deadline, .. } = self.limits;
        let lanes = Lanes::new(Width::Key);
        [(Way::MetastoreReads, max_store_calls), (Way::MetastoreWrites, half(max_store_calls))].map(
            |(way, calls_max)| self.gate(calls_max, store_deadline, Arc::clone(&lanes), &telemetry.way(way)),
        )
    }

    fn kms_gate(&self, telemetry: &Telemetry) -> Gate {
        let Limits { max_kms_calls, kms_deadline, .. } = self.limits;
        self.gate(max_kms_calls, kms_deadline, Lanes::new(Width::Version), &telemetry.way(Way::Kms))
    }

    fn gate(&self, loads_max: usize, deadline: Duration, lanes: Arc<Lanes>, gauges: &Arc<WayGauges>) -> Gate {
        let rules = GateRules {
            loads_max,
            checks_max: half(loads_max),
            lanes,
            deadline,
            max_attempts: self.limits.max_attempts,
            slow: self.policy.refresh_wait,
            probe_wait: self.limits.store_deadline,
        };
        Gate::new(rules, gauges, Arc::clone(&self.clock), Arc::clone(&self.random))
    }

    /// The store itself answers for a replica that does not, so little patience loses nothing.
    fn replica_gate(&self) -> ReplicaGate {
        let deadline = self.policy.refresh_wait.min(self.limits.store_deadline);
        ReplicaGate::new(self.limits.max_store_calls, deadline, Arc::clone(&self.clock))
    }
}

/// Returns what does this to the engine, as long as that is there.
fn with<F: Fn(&Arc<Engine>)>(engine: &Weak<Engine>, act: F) -> impl Fn() + use<F> {
    let engine = Weak::clone(engine);
    move || {
        if let Some(engine) = engine.upgrade() {
            act(&engine);
        }
    }
}

fn half(calls_max: usize) -> usize {
    (calls_max / 2).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kms::static_key::StaticKms;
    use crate::metastore::memory::InMemoryMetastore;
    use crate::secret::SecretKey;

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
