//! A factory in a world of its own: a clock, a metastore and a KMS that do as they are told.

use std::future::Future;
use std::ops::Sub;
use std::time::Duration;

pub(crate) use crate::clock::{RunningClock, START};
pub(crate) use crate::runtime::on_this_runtime;
use claviger::testing::{
    Call, Fault, Faults, FaultyKms, FaultyMetastore, FixedClock, NoChance, Operation, call,
};
use claviger::{
    BackendError, Created, CryptoPolicy, DataRowRecord, EnvelopeKeyRecord, Error, Event, FailureClass,
    InMemoryMetastore, Insert, KeyId, KeyMeta, Limits, LockPolicy, Metastore, MetastoreAdmin, SecretKey,
    Session, SessionFactory, SessionFactoryBuilder, StaticKms, SystemRandom,
};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(60 * 60);
pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(crate) const IK: &str = "_IK_alice_checkout_payments";
pub(crate) const SK: &str = "_SK_checkout_payments";

pub(crate) const DOWN: Fault = Fault::Fail(FailureClass::Transient);
pub(crate) const DENIED: Fault = Fault::Fail(FailureClass::Permanent);

/// With the default policy: from this age on a key is due, stale, too old to encrypt, too old to
/// decrypt.
pub(crate) const DUE: Duration = Duration::from_secs(48 * 60);
pub(crate) const STALE: Duration = HOUR;
pub(crate) const TOO_OLD: Duration = Duration::from_secs(2 * 60 * 60 + 1);
pub(crate) const TOO_OLD_TO_DECRYPT: Duration = Duration::from_secs(25 * 60 * 60 + 1);

/// The default life of a key.
pub(crate) const LIFE: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// The production policy, its memory not locked.
pub(crate) fn policy() -> CryptoPolicy {
    CryptoPolicy::production().lock_policy(LockPolicy::Off)
}

/// What a factory of a world is told besides its back ends.
pub(crate) struct Rules(CryptoPolicy, Limits);

impl From<CryptoPolicy> for Rules {
    fn from(policy: CryptoPolicy) -> Self {
        Self(policy, Limits::production())
    }
}

impl From<(CryptoPolicy, Limits)> for Rules {
    fn from((policy, limits): (CryptoPolicy, Limits)) -> Self {
        Self(policy, limits)
    }
}

impl Rules {
    pub(crate) fn of(self, builder: SessionFactoryBuilder) -> SessionFactoryBuilder {
        builder.policy(self.0).limits(self.1)
    }
}

/// Limits with which so many intermediate keys are cached.
pub(crate) fn room_for(keys: u64) -> Limits {
    Limits::production().max_intermediate_keys(keys)
}

pub(crate) struct World {
    pub(crate) clock: FixedClock,
    pub(crate) store: FaultyMetastore<InMemoryMetastore>,
    pub(crate) kms: FaultyKms<StaticKms>,
    pub(crate) factory: SessionFactory,
}

/// How many calls of each kind left the factory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Calls {
    pub(crate) load: usize,
    pub(crate) load_latest: usize,
    pub(crate) insert: usize,
    pub(crate) wrap: usize,
    pub(crate) unwrap: usize,
}

impl Sub for Calls {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            load: self.load - before.load,
            load_latest: self.load_latest - before.load_latest,
            insert: self.insert - before.insert,
            wrap: self.wrap - before.wrap,
            unwrap: self.unwrap - before.unwrap,
        }
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(policy())
    }

    pub(crate) fn with(rules: impl Into<Rules>) -> Self {
        let rules = rules.into();
        Self::over(InMemoryMetastore::new(), FixedClock::new(START.unsigned_abs()), |builder| {
            rules.of(builder)
        })
    }

    /// Builds a world over a store and a clock that others may share.
    pub(crate) fn over(
        rows: InMemoryMetastore,
        clock: FixedClock,
        options: impl FnOnce(SessionFactoryBuilder) -> SessionFactoryBuilder,
    ) -> Self {
        let (store, kms) = (FaultyMetastore::new(rows), FaultyKms::new(master_key()));
        let builder = SessionFactory::builder(store.clone(), kms.clone())
            .service("checkout")
            .product("payments")
            .policy(policy())
            .clock(clock.clone())
            .random(NoChance::new(SystemRandom::new()));
        let factory = options(on_this_runtime(builder)).build().expect("a factory");
        Self { clock, store, kms, factory }
    }

    /// A world whose factory loads keys on a thread of its own, wherever it is built.
    pub(crate) fn with_own_thread() -> Self {
        std::thread::spawn(Self::new).join().expect("a world")
    }

    /// Another process: the same store, KMS key and time, no faults, nothing cached.
    pub(crate) fn other_process(&self) -> Self {
        Self::over(self.store.inner().clone(), self.clock.clone(), |builder| builder)
    }

    pub(crate) fn session(&self) -> Session {
        self.session_of("alice")
    }

    pub(crate) fn session_of(&self, partition: &str) -> Session {
        self.factory.session(partition).expect("a session")
    }

    /// Encrypts for alice and returns the record with the creation time of the key that did it,
    /// counted from [`START`].
    pub(crate) async fn sealed(&self) -> (DataRowRecord, i64) {
        let record = self.session().encrypt(b"secret").await.expect("a record");
        let created = created(&record);
        (record, created)
    }

    /// Encrypts for alice and tells which key did it.
    pub(crate) async fn encrypts_under(&self) -> i64 {
        self.sealed().await.1
    }

    pub(crate) async fn encrypt_error(&self) -> Error {
        self.session().encrypt(b"secret").await.expect_err("no record")
    }

    pub(crate) async fn decrypt_error(&self, record: &DataRowRecord) -> Error {
        self.session().decrypt(record).await.expect_err("no plaintext")
    }

    pub(crate) async fn decrypts(&self, record: &DataRowRecord) {
        let plaintext = self.session().decrypt(record).await.expect("a plaintext");
        assert_eq!(*plaintext, *b"secret");
    }

    pub(crate) fn faults(&self) -> &Faults {
        self.store.faults()
    }

    pub(crate) fn calls(&self) -> Calls {
        Calls {
            load: self.faults().calls_of(Operation::Load),
            load_latest: self.faults().calls_of(Operation::LoadLatest),
            insert: self.faults().calls_of(Operation::Insert),
            wrap: self.kms.faults().calls_of(Operation::WrapKey),
            unwrap: self.kms.faults().calls_of(Operation::UnwrapKey),
        }
    }

    /// Returns how often the KMS was asked to wrap or unwrap a key.
    pub(crate) fn kms_calls(&self) -> usize {
        let Calls { wrap, unwrap, .. } = self.calls();
        wrap + unwrap
    }

    /// Returns how many metastore calls were made of `operation` for the key id or version `key`.
    pub(crate) fn calls_for(&self, operation: Operation, key: &str) -> usize {
        let is_it = |call: &&Call| call.operation == operation && call.key.split('@').next() == Some(key);
        self.faults().log().iter().filter(is_it).count()
    }

    /// Returns how often the event was raised.
    pub(crate) fn raised(&self, event: Event) -> u64 {
        let events = self.factory.status().expect("a status").events;
        events.iter().find(|(raised, _)| *raised == event).map_or(0, |(_, count)| *count)
    }

    /// Makes both store and KMS fail every call.
    pub(crate) fn outage(&self, fault: Fault) {
        self.faults().always(fault);
        self.kms.faults().always(fault);
    }

    pub(crate) fn heal(&self) {
        self.faults().heal();
        self.kms.faults().heal();
    }

    /// Lets what runs in the background come to its end.
    pub(crate) async fn at_rest(&self) {
        self.landed().await;
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    /// Waits until no flight is under way.
    pub(crate) async fn landed(&self) {
        for _ in 0..10_000 {
            if self.factory.status().expect("a status").loads == 0 {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("a flight does not land");
    }

    /// Returns the rows of a key id, ascending.
    pub(crate) async fn rows(&self, id: &str) -> Vec<EnvelopeKeyRecord> {
        let rows = self.store.inner().list("", None, usize::MAX, &call()).await.expect("rows").records;
        rows.into_iter().filter(|row| row.meta().id().as_str() == id).collect()
    }

    /// Returns when the rows of a key id were created, counted from [`START`].
    pub(crate) async fn row_times(&self, id: &str) -> Vec<i64> {
        self.rows(id).await.iter().map(|row| row.meta().created().unix_seconds() - START).collect()
    }

    pub(crate) async fn latest_row(&self, id: &str) -> EnvelopeKeyRecord {
        self.rows(id).await.pop().expect("a row")
    }

    /// Makes alice's keys and returns the latest row of this id.
    pub(crate) async fn sealed_row(&self, id: &str) -> EnvelopeKeyRecord {
        self.sealed().await;
        self.latest_row(id).await
    }

    pub(crate) async fn revoke_latest(&self, id: &str) {
        let row = self.latest_row(id).await;
        assert!(self.store.inner().revoke(row.meta(), &call()).await.expect("revoked"));
    }

    pub(crate) async fn revoke_latest_but_one(&self, id: &str) {
        let rows = self.rows(id).await;
        let row = rows.iter().rev().nth(1).expect("two rows");
        assert!(self.store.inner().revoke(row.meta(), &call()).await.expect("revoked"));
    }

    pub(crate) async fn delete(&self, id: &str) {
        assert!(self.store.inner().delete(&KeyId::new(id), &call()).await.expect("deleted") > 0);
    }

    /// Writes a row in the place of those of its id and time, whatever they said.
    pub(crate) async fn put(&self, row: EnvelopeKeyRecord) {
        let kept: Vec<_> = self
            .rows(row.meta().id().as_str())
            .await
            .into_iter()
            .filter(|other| other.meta() != row.meta())
            .collect();
        self.store.inner().delete(row.meta().id(), &call()).await.expect("deleted");
        for row in kept.iter().chain([&row]) {
            assert_eq!(self.store.inner().insert(row, &call()).await.expect("inserted"), Insert::Inserted);
        }
    }
}

/// The master key that all processes of a test share.
fn master_key() -> StaticKms {
    let key = SecretKey::try_init(|bytes| {
        *bytes = *b"the master key of the life cycle";
        Ok::<(), BackendError>(())
    });
    StaticKms::new(&key.expect("a key")).expect("a KMS")
}

/// When the key that sealed this record was created, counted from [`START`].
pub(crate) fn created(record: &DataRowRecord) -> i64 {
    record.parent_created().unix_seconds() - START
}

pub(crate) fn meta(id: &str, since_start: i64) -> KeyMeta {
    KeyMeta::new(KeyId::new(id), Created::new(START + since_start).expect("a time"))
}

pub(crate) fn seconds(span: Duration) -> i64 {
    i64::try_from(span.as_secs()).expect("a span")
}

/// Spawns the operation, so that it goes on while the test does something else.
pub(crate) fn spawn_encrypt(session: Session) -> tokio::task::JoinHandle<Result<DataRowRecord, Error>> {
    tokio::spawn(async move { session.encrypt(b"secret").await })
}

/// Polls a future once and drops it, as a caller does that goes away.
pub(crate) async fn polled_once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        std::task::Poll::Ready(value) => std::task::Poll::Ready(Some(value)),
        std::task::Poll::Pending => std::task::Poll::Ready(None),
    })
    .await
}

/// The record as if a key of another time had sealed it.
pub(crate) fn of_version(record: &DataRowRecord, since_start: i64) -> DataRowRecord {
    let json =
        edited(record, &format!("\"Created\":{START}}}"), &format!("\"Created\":{}}}", START + since_start));
    DataRowRecord::from_json(json.as_bytes()).unwrap()
}

/// The record with one text in its JSON replaced.
pub(crate) fn edited(record: &DataRowRecord, from: &str, to: &str) -> String {
    let json = record.to_json();
    assert!(json.contains(from), "{json}");
    json.replacen(from, to, 1)
}
