//! Every combination of what is cached and what is stored: {intermediate key, system key} ×
//! {absent, valid, expired, revoked} in {cache, store}. Each is made of real keys by real operations,
//! and what encrypting and decrypting do is foretold by an oracle written from the tables.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use claviger::testing::{FixedClock, call};
use claviger::{
    CryptoPolicy, DataRowRecord, EnvelopeKeyRecord, Error, Event, InMemoryMetastore, KeyId, MetastoreAdmin,
    RevokedDecrypt,
};

use crate::support::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Absent,
    Valid,
    Expired,
    Revoked,
}

const STATES: [State; 4] = [State::Absent, State::Valid, State::Expired, State::Revoked];

/// One of the 256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Combination {
    cached_ik: State,
    cached_sk: State,
    stored_ik: State,
    stored_sk: State,
}

/// All of them can be. A key outlives its row in the cache when the rows are shredded, and a younger one
/// when an older copy of the store is put back. A system key is evicted while what it wraps stays cached, or
/// was never asked for. A key learned to be revoked stays cached until its successor is stored. And another
/// process may have stored whatever is newer.
fn combinations() -> impl Iterator<Item = Combination> {
    (0..256_usize).map(|number| Combination {
        cached_ik: STATES[number / 64],
        cached_sk: STATES[number / 16 % 4],
        stored_ik: STATES[number / 4 % 4],
        stored_sk: STATES[number % 4],
    })
}

/// A day since [`START`], which names the key version made then.
type Day = i64;

/// When the operation happens: what was made by day 9 is expired.
const TODAY: Day = 100;

/// The system keys there are, each with the days of the intermediate keys under it. Those under the
/// first two expire apart: day 50's is valid when its parent is not.
const KEYS: [(Day, &[Day]); 3] = [(0, &[1, 50, 51]), (60, &[61, 62]), (70, &[71])];

fn parent_of(ik: Day) -> Day {
    KEYS.into_iter().find(|(_, children)| children.contains(&ik)).expect("a known key").0
}

fn is_expired(key: Day) -> bool {
    key + 90 < TODAY
}

/// A key version and whether it is, or is known to be, revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    day: Day,
    revoked: bool,
}

const fn good(day: Day) -> Key {
    Key { day, revoked: false }
}

const fn revoked(day: Day) -> Key {
    Key { day, revoked: true }
}

fn state(key: Option<Key>) -> State {
    match key {
        None => State::Absent,
        Some(key) if key.revoked => State::Revoked,
        Some(key) if is_expired(key.day) => State::Expired,
        Some(_) => State::Valid,
    }
}

/// A combination told in key versions.
#[derive(Clone, Debug)]
struct View {
    cached_ik: Option<Key>,
    /// The latest one; the parent of `cached_ik` is cached beside it.
    cached_sk: Option<Key>,
    stored_iks: Vec<Key>,
    stored_sks: Vec<Key>,
}

impl View {
    fn of(combination: Combination) -> Self {
        let Combination { cached_ik, cached_sk, stored_ik, stored_sk } = combination;
        let under_the_old_one = cached_sk == State::Expired;
        let cached_ik = match cached_ik {
            State::Absent => None,
            State::Valid => Some(good(if under_the_old_one { 50 } else { 61 })),
            State::Expired => Some(good(1)),
            State::Revoked => Some(revoked(if under_the_old_one { 50 } else { 61 })),
        };
        let cached_sk = match cached_sk {
            State::Absent => None,
            State::Valid => Some(good(60)),
            State::Expired => Some(good(0)),
            State::Revoked => Some(revoked(60)),
        };
        // The system key that the cache knows, if only by what it wraps.
        let known = cached_sk.or(cached_ik.map(|ik| good(parent_of(ik.day))));
        let stored_sks = match (stored_sk, known) {
            (State::Absent, _) => vec![],
            (State::Valid, Some(Key { revoked: true, .. })) => vec![good(0), revoked(60), good(70)],
            (State::Valid, _) => vec![good(0), good(60)],
            // For what was known of day 60: a copy from before it was put back.
            (State::Expired, _) => vec![good(0)],
            (State::Revoked, Some(Key { day: 0, .. })) => vec![revoked(0)],
            (State::Revoked, _) => vec![good(0), revoked(60)],
        };
        // What another process made under what is stored, or was stored before that was shredded.
        let newer = match stored_sks.last() {
            Some(Key { day: 70, .. }) => 71,
            Some(Key { day: 0, .. }) => 51,
            Some(_) | None => 62,
        };
        let stored_iks = match (stored_ik, cached_ik) {
            (State::Absent, _) => vec![],
            (State::Valid, Some(cached)) if state(Some(cached)) == State::Valid => vec![cached],
            (State::Valid, Some(cached)) if cached.day < newer => vec![cached, good(newer)],
            (State::Valid, _) => vec![good(newer)],
            (State::Expired, _) => vec![good(1)],
            (State::Revoked, Some(cached)) => vec![revoked(cached.day)],
            (State::Revoked, None) => vec![revoked(newer)],
        };
        Self { cached_ik, cached_sk, stored_iks, stored_sks }
    }

    fn combination(&self) -> Combination {
        Combination {
            cached_ik: state(self.cached_ik),
            cached_sk: state(self.cached_sk),
            stored_ik: state(self.stored_iks.last().copied()),
            stored_sk: state(self.stored_sks.last().copied()),
        }
    }

    /// The system keys of which something is known that is not older than the check interval.
    fn known_sks(&self) -> BTreeSet<Key> {
        // An evicted one is not asked, though its child is at hand.
        let Some(cached_sk) = self.cached_sk else { return BTreeSet::new() };
        let parent = self.cached_ik.map(|ik| parent_of(ik.day)).filter(|day| *day != cached_sk.day);
        parent.map(good).into_iter().chain([cached_sk]).collect()
    }
}

/// How long ago the store was asked: just now, or longer than the check interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Age {
    Fresh,
    Stale,
}

/// What the tables say.
struct Oracle<'a> {
    view: &'a View,
    age: Age,
}

/// The key that encrypts and its parent; `None` for one made now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sealed {
    ik: Option<Day>,
    sk: Option<Day>,
    missing_parent: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opened {
    Plaintext,
    NotFound,
    Revoked,
}

impl Oracle<'_> {
    /// T1.
    fn encrypt(&self) -> Sealed {
        if let Some(key) = self.view.cached_ik {
            let is_revoked = key.revoked || self.is_known_revoked(parent_of(key.day));
            let is_ended = is_expired(key.day) || is_expired(parent_of(key.day));
            if !is_revoked && !is_ended && self.age == Age::Fresh {
                return Sealed { ik: Some(key.day), sk: Some(parent_of(key.day)), missing_parent: false };
            }
        }
        self.latest()
    }

    /// T2, the store being well.
    fn latest(&self) -> Sealed {
        let created = |missing_parent| Sealed { ik: None, sk: self.sk_to_wrap(), missing_parent };
        let Some(row) = self.view.stored_iks.last() else { return created(false) };
        let is_known_revoked = self.view.cached_ik == Some(revoked(row.day));
        if row.revoked || is_expired(row.day) || is_known_revoked {
            return created(false);
        }
        let parent = parent_of(row.day);
        match self.read_sk(parent) {
            None => created(true),
            Some(key) if key.revoked || is_expired(parent) => created(false),
            Some(_) => Sealed { ik: Some(row.day), sk: Some(parent), missing_parent: false },
        }
    }

    /// T3, step 1.
    fn sk_to_wrap(&self) -> Option<Day> {
        let is_valid = |key: &Key| !key.revoked && !is_expired(key.day) && !self.is_known_revoked(key.day);
        let cached = self.view.cached_sk.filter(|key| self.age == Age::Fresh && is_valid(key));
        cached.or(self.view.stored_sks.last().copied().filter(is_valid)).map(|key| key.day)
    }

    /// What is known of a system key: what was read within the interval, else what the store says.
    fn read_sk(&self, day: Day) -> Option<Key> {
        let known = self.view.known_sks().into_iter().find(|key| key.day == day);
        if self.age == Age::Fresh && known.is_some() {
            return known;
        }
        let stored = self.view.stored_sks.iter().find(|key| key.day == day)?;
        Some(Key { day, revoked: stored.revoked || self.is_known_revoked(day) })
    }

    fn is_known_revoked(&self, sk: Day) -> bool {
        self.view.known_sks().contains(&revoked(sk))
    }

    /// T5.
    fn decrypt(&self, version: Day, policy: RevokedDecrypt) -> Opened {
        let denies = policy == RevokedDecrypt::Deny;
        let cached = self.view.cached_ik.filter(|key| key.day == version);
        if let Some(key) = cached {
            let is_revoked = key.revoked || self.is_known_revoked(parent_of(version));
            if denies && is_revoked {
                return Opened::Revoked;
            }
            if self.age == Age::Fresh {
                return Opened::Plaintext;
            }
        }
        let Some(row) = self.view.stored_iks.iter().find(|key| key.day == version) else {
            return Opened::NotFound;
        };
        let Some(parent) = self.read_sk(parent_of(version)) else { return Opened::NotFound };
        let is_known_revoked = cached.is_some_and(|key| key.revoked);
        if denies && (row.revoked || is_known_revoked || parent.revoked) {
            return Opened::Revoked;
        }
        Opened::Plaintext
    }
}

const REGION: &str = "us-west-2";
const IK_HERE: &str = "_IK_alice_checkout_payments_us-west-2";
const SK_HERE: &str = "_SK_checkout_payments_us-west-2";

fn clock_at(day: Day) -> FixedClock {
    FixedClock::new((START + day * 86_400).unsigned_abs())
}

fn world_at(day: Day, rows: InMemoryMetastore, region: &str, policy: CryptoPolicy) -> World {
    World::over(rows, clock_at(day), |builder| builder.region_suffix(region).policy(policy))
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
        let mut policy = policy().revoked_decrypt(revoked_decrypt).replica_reads(replica_reads);
        let is_evicted = view.cached_sk.is_none() && view.cached_ik.is_some();
        if is_evicted {
            policy = policy.system_keys_max(1);
        }
        let world = world_at(0, InMemoryMetastore::new(), REGION, policy);
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
