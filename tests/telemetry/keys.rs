//! Keys: how many there are, and what becomes of them. And that no label names a partition.

use std::time::Duration;

use claviger::telemetry::METRICS;
use claviger::testing::call;
use claviger::{
    BackendError, CallContext, CryptoPolicy, HealthState, InMemoryMetastore, KeyId, KeyManagementService,
    KeyMeta, Limits, LockPolicy, MetastoreAdmin as _, SecretKey, SessionFactory, SessionFactoryBuilder,
    StaticKms, SystemRandom, WrapHealth, WrappedKey,
};

use crate::support::{DAY, HOUR, World, in_world};

const CHANGES: &str = "claviger_key_changes_total";

fn changes(world: &World, level: &str) -> [f64; 4] {
    ["created", "rotated", "replaced", "revoked"]
        .map(|change| world.value(CHANGES, &[("level", level), ("change", change)]))
}

#[test]
fn keys_created_rotated_found_revoked_and_replaced_are_each_counted() {
    in_world(
        |builder| builder,
        async |world| {
            let session = world.session("alice");
            session.encrypt(b"").await.unwrap();
            assert_eq!(
                (changes(&world, "intermediate"), changes(&world, "system")),
                ([1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0])
            );
            // Past their end.
            world.clock.advance(91 * DAY);
            let record = session.encrypt(b"").await.unwrap();
            assert_eq!(
                (changes(&world, "intermediate"), changes(&world, "system")),
                ([1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0])
            );
            let key = KeyMeta::new(KeyId::new("_IK_alice_checkout_payments"), record.parent_created());
            assert!(world.store.inner().revoke(&key, &call()).await.unwrap());
            world.factory.invalidate(key.id()).unwrap();
            session.encrypt(b"").await.unwrap();
            assert_eq!(
                (changes(&world, "intermediate"), changes(&world, "system")),
                ([1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0])
            );
            // What is read again is no news.
            world.clock.advance(HOUR);
            session.decrypt(&record).await.unwrap();
            session.encrypt(b"").await.unwrap();
            assert_eq!(changes(&world, "intermediate"), [1.0, 1.0, 1.0, 1.0]);
        },
    );
}

#[test]
fn live_keys_are_the_cached_and_the_orphaned_and_nothing_is_left_at_the_end() {
    let room_for_two = |builder: SessionFactoryBuilder| {
        builder.limits(Limits::production().max_attempts(1).max_intermediate_keys(2))
    };
    in_world(room_for_two, async |world| {
        let gauges = |level| {
            ["claviger_cached_keys", "claviger_live_keys"].map(|name| world.value(name, &[("level", level)]))
        };
        for partition in ["a", "b", "c", "d", "e"] {
            world.session(partition).encrypt(b"").await.unwrap();
        }
        let status = world.factory.status().unwrap();
        assert_eq!(status.intermediate_keys, 2);
        assert_eq!((gauges("intermediate"), gauges("system")), ([2.0, 2.0], [1.0, 1.0]));
        assert_eq!(world.value("claviger_cache_evictions_total", &[("cause", "evicted")]), 3.0);
        assert_eq!(world.value("claviger_orphaned_keys", &[]), 0.0);
        let unlocked = world.value("claviger_memory_bytes", &[("state", "unlocked")]);
        assert_eq!(unlocked, f64::from(u32::try_from(status.memory.unlocked_bytes).unwrap()));
        assert!(unlocked > 0.0 && world.value("claviger_memory_bytes", &[("state", "locked")]) == 0.0);
        drop(world.factory.close(Duration::from_secs(1)).await.unwrap());
        assert_eq!(world.value_now("claviger_memory_bytes", &[]), 0.0);
        assert_eq!((gauges("intermediate"), gauges("system")), ([0.0, 0.0], [0.0, 0.0]));
        assert_eq!(world.value("claviger_cache_evictions_total", &[("cause", "closed")]), 3.0);
    });
}

/// A KMS with a region that is never there.
#[derive(Debug)]
struct Lacking(StaticKms);

impl KeyManagementService for Lacking {
    async fn wrap_key(
        &self,
        key: &SecretKey,
        meta: &KeyMeta,
        context: &CallContext,
    ) -> Result<WrappedKey, BackendError> {
        Ok(self.0.wrap_key(key, meta, context).await?.lacking(vec!["eu-central-1".to_owned()]))
    }

    async fn unwrap_key(
        &self,
        wrapped: &[u8],
        meta: &KeyMeta,
        context: &CallContext,
    ) -> Result<SecretKey, BackendError> {
        self.0.unwrap_key(wrapped, meta, context).await
    }

    fn inspect(&self, wrapped: &[u8]) -> Result<WrapHealth, BackendError> {
        self.0.inspect(wrapped)
    }
}

#[test]
fn a_system_key_that_lacks_a_copy_is_shown_and_degrades() {
    in_world(
        |builder| builder,
        async |world| {
            let kms = StaticKms::new(&SecretKey::generate(&SystemRandom::new()).unwrap()).unwrap();
            let factory = SessionFactory::builder(InMemoryMetastore::new(), Lacking(kms))
                .service("checkout")
                .product("payments")
                .policy(CryptoPolicy::production().lock_policy(LockPolicy::Off))
                .runtime(tokio::runtime::Handle::current())
                .build()
                .unwrap();
            factory.session("alice").unwrap().encrypt(b"").await.unwrap();
            let health = factory.status().unwrap().health();
            assert_eq!(health.state, HealthState::Degraded, "{health:?}");
            assert_eq!(world.value_now("claviger_incomplete_keys", &[]), 1.0);
            assert_eq!(world.value_now("claviger_events_total", &[("event", "copies_missing")]), 1.0);
        },
    );
}

#[test]
fn loads_are_counted_by_level() {
    in_world(
        |builder| builder,
        async |world| {
            world.session("alice").encrypt(b"").await.unwrap();
            world.session("bob").encrypt(b"").await.unwrap();
            let loads = |level| world.value("claviger_loads_total", &[("level", level), ("outcome", "ok")]);
            assert_eq!((loads("intermediate"), loads("system")), (2.0, 1.0));
            assert_eq!(world.value("claviger_load_duration_seconds", &[]), 3.0);
        },
    );
}

#[test]
fn every_series_has_the_labels_of_the_table_and_none_names_a_partition() {
    in_world(
        |builder| builder,
        async |world| {
            let session = world.session("alice@example.com");
            let record = session.encrypt(b"").await.unwrap();
            session.decrypt(&record).await.unwrap();
            world.store.faults().always(crate::support::DOWN);
            assert!(world.session("bob@example.com").encrypt(b"").await.is_err());
            let series = world.series();
            for one in &series {
                let metric = METRICS.iter().find(|metric| metric.name == one.name);
                let metric = metric.unwrap_or_else(|| panic!("{} is not in the table", one.name));
                assert_eq!(metric.kind, one.kind, "{}", one.name);
                let labels: Vec<_> = one.labels.iter().map(|(label, _)| &**label).collect();
                assert_eq!(labels, metric.labels, "{}", one.name);
                assert!(!one.labels.iter().any(|(_, value)| value.contains("example.com")), "{one:?}");
            }
            let is_there = |name| series.iter().any(|one| one.name == name);
            let missing: Vec<_> =
                METRICS.iter().map(|metric| metric.name).filter(|name| !is_there(*name)).collect();
            // What only others do.
            let others = [
                "claviger_invalidations_total",
                "claviger_warmed_up_partitions_total",
                "claviger_rewraps_total",
                "claviger_kms_copy_calls_total",
                "claviger_kms_copy_call_duration_seconds",
                "claviger_kms_copy_failures_total",
                "claviger_kms_copy_breaker_open",
                "claviger_invalidations_malformed_total",
            ];
            assert_eq!(missing, others);
        },
    );
}
