//! Every combination of what is cached and what is stored: {intermediate key, system key} ×
//! {absent, valid, expired, revoked} in {cache, store}. Each is made of real keys by real operations,
//! and what encrypting and decrypting do is foretold by an [oracle](crate::oracle) written from the tables.

use std::collections::BTreeMap;
use std::time::Duration;

use claviger::testing::{FixedClock, call};
use claviger::{
    DataRowRecord, EnvelopeKeyRecord, Error, Event, InMemoryMetastore, KeyId, Limits, MetastoreAdmin,
    RevokedDecrypt,
};

use crate::oracle::{Age, Day, KEYS, Key, Opened, Oracle, TODAY, View, combinations, good, parent_of};
use crate::support::*;

const REGION: &str = "us-west-2";
const IK_HERE: &str = "_IK_alice_checkout_payments_us-west-2";
const SK_HERE: &str = "_SK_checkout_payments_us-west-2";

fn clock_at(day: Day) -> FixedClock {
    FixedClock::new((START + day * 86_400).unsigned_abs())
}

fn world_at(day: Day, rows: InMemoryMetastore, region: &str, rules: impl Into<Rules>) -> World {
    let rules = rules.into();
    World::over(rows, clock_at(day), |builder| rules.of(builder.region_suffix(region)))
}

/// Real keys of every version, and a record sealed under each.
struct Archive {
    rows: BTreeMap<(&'static str, Day), EnvelopeKeyRecord>,
    records: BTreeMap<Day, DataRowRecord>,
}

impl Archive {
    async fn new() -> Self {
        let (mut rows, mut records) = (BTreeMap::new(), BTreeMap::new());
        for (day, children) in KEYS {
            let maker = world_at(day, InMemoryMetastore::new(), REGION, policy());
            maker.session_of("bob").encrypt(b"makes the system key").await.unwrap();
            rows.insert((SK_HERE, day), maker.latest_row(SK_HERE).await);
            for child in children {
                let maker = world_at(*child, InMemoryMetastore::new(), REGION, policy());
                maker.put(rows[&(SK_HERE, day)].clone()).await;
                records.insert(*child, maker.sealed().await.0);
                rows.insert((IK_HERE, *child), maker.latest_row(IK_HERE).await);
            }
        }
        Self { rows, records }
    }

    async fn store(&self, world: &World, id: &'static str, key: Key) {
        world.put(self.rows[&(id, key.day)].clone().revoked(key.revoked)).await;
    }

    /// Builds a factory that holds what the view says, over a store that says the other.
    async fn world(
        &self,
        view: &View,
        age: Age,
        revoked_decrypt: RevokedDecrypt,
        replica_reads: bool,
    ) -> World {
        let policy = policy().revoked_decrypt(revoked_decrypt).replica_reads(replica_reads);
        let mut limits = Limits::production();
        let is_evicted = view.cached_sk.is_none() && view.cached_ik.is_some();
        if is_evicted {
            limits = limits.max_system_keys(1);
        }
        let world = world_at(0, InMemoryMetastore::new(), REGION, (policy, limits));
        self.fill_cache(&world, view).await;
        if is_evicted {
            // Another region's system key takes the place of ours.
            let other = world_at(TODAY, world.store.inner().clone(), "eu-west-1", crate::support::policy());
            let record = other.session_of("carol").encrypt(b"").await.unwrap();
            world.session_of("carol").decrypt(&record).await.unwrap();
            assert_eq!(world.factory.status().unwrap().system_keys, 1);
        }
        for id in [IK_HERE, SK_HERE] {
            world.store.inner().delete(&KeyId::new(id), &call()).await.unwrap();
        }
        for (id, keys) in [(IK_HERE, &view.stored_iks), (SK_HERE, &view.stored_sks)] {
            for key in keys {
                self.store(&world, id, *key).await;
            }
        }
        if age == Age::Stale {
            world.clock.advance(HOUR + MINUTE);
        }
        world.faults().reset();
        world
    }

    /// Has the factory load the keys in their time, and learn today what became of them.
    async fn fill_cache(&self, world: &World, view: &View) {
        let advance_to = |day: Day| {
            let to = u64::try_from(START + day * 86_400).unwrap();
            world.clock.advance(Duration::from_secs(to - world.clock.unix_seconds()));
        };
        let mut to_learn = Vec::new();
        if let Some(ik) = view.cached_ik {
            advance_to(ik.day);
            self.store(world, SK_HERE, good(parent_of(ik.day))).await;
            self.store(world, IK_HERE, good(ik.day)).await;
            assert_eq!(world.encrypts_under().await, ik.day * 86_400);
            to_learn.push((world.session(), self.records[&ik.day].clone()));
        }
        if let Some(sk) = view.cached_sk {
            advance_to(view.cached_ik.map_or(1, |ik| ik.day).max(sk.day));
            self.store(world, SK_HERE, good(sk.day)).await;
            let session = world.session_of("bob");
            let record = session.encrypt(b"needs the latest system key").await.unwrap();
            to_learn.push((session, record));
        }
        advance_to(TODAY);
        for (id, key) in [(IK_HERE, view.cached_ik), (SK_HERE, view.cached_sk)] {
            if let Some(key) = key.filter(|key| key.revoked) {
                assert!(world.store.inner().revoke(&meta(id, key.day * 86_400), &call()).await.unwrap());
            }
        }
        for (session, record) in to_learn {
            match session.decrypt(&record).await {
                Ok(_) | Err(Error::KeyRevoked(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn states_are_256_and_all_of_them_possible() {
    let mut tried = 0;
    for combination in combinations() {
        assert_eq!(View::of(combination).combination(), combination, "the view is what it says");
        tried += 1;
    }
    assert_eq!(tried, 256);
}

#[tokio::test]
async fn states_encrypt_as_the_tables_say() {
    let archive = Archive::new().await;
    let mut tried = 0;
    for combination in combinations() {
        let view = View::of(combination);
        // Replicas make no difference.
        for (age, replica_reads) in
            [(Age::Fresh, false), (Age::Stale, false), (Age::Fresh, true), (Age::Stale, true)]
        {
            let world = archive.world(&view, age, RevokedDecrypt::Allow, replica_reads).await;
            let now = i64::try_from(world.clock.unix_seconds()).unwrap() - START;
            let (_, created) = world.sealed().await;
            let row = world.rows(IK_HERE).await.into_iter().find(|row| row.meta() == &meta(IK_HERE, created));
            let parent = match (row, view.cached_ik) {
                (Some(row), _) => row.parent().unwrap().created().unix_seconds() - START,
                // Encrypted under a key whose row is gone, which is not known yet.
                (None, Some(key)) => parent_of(key.day) * 86_400,
                (None, None) => panic!("{combination:?}: no row"),
            };
            let foretold = Oracle { view: &view, age }.encrypt();
            let at = |key: Option<Day>| key.map_or(now, |day| day * 86_400);
            assert_eq!(
                (created, parent, world.raised(Event::MissingParent)),
                (at(foretold.ik), at(foretold.sk), u64::from(foretold.missing_parent)),
                "{combination:?} {age:?} {foretold:?}"
            );
            tried += 1;
        }
    }
    println!("states: {tried} encrypts");
    assert_eq!(tried, 1024);
}

#[tokio::test]
async fn states_decrypt_as_the_tables_say() {
    let archive = Archive::new().await;
    let mut tried = 0;
    for combination in combinations() {
        let view = View::of(combination);
        // A record of the cached key, of the stored one, or of one that is neither.
        let version = view.cached_ik.or(view.stored_iks.last().copied()).map_or(61, |key| key.day);
        for age in [Age::Fresh, Age::Stale] {
            // A replica that does not lag behind makes no difference.
            for (policy, replica_reads) in [
                (RevokedDecrypt::Allow, false),
                (RevokedDecrypt::Deny, false),
                (RevokedDecrypt::Allow, true),
                (RevokedDecrypt::Deny, true),
            ] {
                let world = archive.world(&view, age, policy, replica_reads).await;
                let opened = match world.session().decrypt(&archive.records[&version]).await {
                    Ok(plaintext) => {
                        assert_eq!(*plaintext, *b"secret");
                        Opened::Plaintext
                    }
                    Err(Error::KeyNotFound(_)) => Opened::NotFound,
                    Err(Error::KeyRevoked(_)) => Opened::Revoked,
                    Err(error) => panic!("{combination:?}: {error}"),
                };
                let foretold = Oracle { view: &view, age }.decrypt(version, policy);
                assert_eq!(opened, foretold, "{combination:?} {age:?} {policy:?}");
                tried += 1;
            }
        }
    }
    println!("states: {tried} decrypts");
    assert_eq!(tried, 2048);
}
