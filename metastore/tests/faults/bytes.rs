//! The way to the server breaks after every byte of a load's and of an insert's exchange, in either
//! direction: cut, stalled, delayed, delayed until nobody waits any more.

use std::fmt::Debug;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use claviger::{BackendError, BoxedMetastore, Consistency, EnvelopeKeyRecord, Insert, Metastore};
use claviger_test_servers::{Direction, Fault, Proxy};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::engine::{DynamoDb, Engine, Postgres};
use crate::keys::{NOW, record};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn postgres_breaks_after_every_byte() {
    every_byte::<Postgres>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn dynamodb_breaks_after_every_byte() {
    every_byte::<DynamoDb>().await;
}

/// How long a call waits for an answer in which a stall is not the point.
const PATIENCE: Duration = Duration::from_secs(20);
/// And where it is: longer than an honest answer takes, on a machine with other things to do.
const SHORT: Duration = Duration::from_millis(400);
const HICCUP: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Load,
    LoadLatest,
    Insert,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Cut,
    Stall,
    /// Goes on while the caller still waits.
    Hiccup,
    /// Goes on when the caller has given up.
    TooLate,
}

#[derive(Clone, Copy, Debug)]
struct Point {
    operation: Operation,
    kind: Kind,
    direction: Direction,
    after: u64,
}

impl Point {
    const fn fault(self) -> Fault {
        let Self { direction, after, .. } = self;
        match self.kind {
            Kind::Cut => Fault::Cut { direction, after },
            Kind::Stall => Fault::Stall { direction, after },
            Kind::Hiccup => Fault::Delay { direction, after, time: HICCUP },
            Kind::TooLate => Fault::Delay { direction, after, time: SHORT.saturating_add(HICCUP) },
        }
    }

    const fn patience(self) -> Duration {
        match self.kind {
            Kind::Cut | Kind::Hiccup => PATIENCE,
            Kind::Stall | Kind::TooLate => SHORT,
        }
    }
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Answered,
    Failed,
    /// An insert that failed, and whose row is there.
    FailedAndStored,
}

async fn every_byte<E: Engine>() {
    let world = Arc::new(World::<E>::new().await);
    let mut points = Vec::new();
    for operation in [Operation::Load, Operation::LoadLatest, Operation::Insert] {
        let exchange = world.measure(operation).await;
        println!("{}: {operation:?} takes {exchange:?} bytes of a connection", E::NAME);
        for (direction, bytes) in exchange {
            for kind in [Kind::Cut, Kind::Stall, Kind::Hiccup, Kind::TooLate] {
                points.extend(bytes.clone().map(|after| Point { operation, kind, direction, after }));
            }
        }
    }
    println!("{}: {} cut points", E::NAME, points.len());
    let outcomes = world.try_all(points).await;
    let count = |operation: Operation, kind: Kind, outcome: Outcome| {
        outcomes
            .iter()
            .filter(|(point, of)| (point.operation, point.kind, *of) == (operation, kind, outcome))
            .count()
    };
    for operation in [Operation::Load, Operation::LoadLatest, Operation::Insert] {
        for kind in [Kind::Cut, Kind::Stall, Kind::Hiccup, Kind::TooLate] {
            let [answered, failed, stored] = [Outcome::Answered, Outcome::Failed, Outcome::FailedAndStored]
                .map(|outcome| count(operation, kind, outcome));
            println!(
                "{}: {operation:?} {kind:?}: {answered} answered, {failed} failed, {stored} failed and stored",
                E::NAME
            );
            match (operation, kind) {
                (_, Kind::Hiccup) => assert_eq!((failed, stored), (0, 0), "{operation:?}"),
                (Operation::Insert, _) => assert!(failed > 0 && stored > 0, "{kind:?}"),
                (_, Kind::Stall | Kind::TooLate) => assert!(failed > 0, "{operation:?} {kind:?}"),
                // A store may ask again on a new connection.
                (_, Kind::Cut) => {}
            }
        }
    }
}

struct World<E: Engine> {
    engine: E,
    direct: BoxedMetastore,
    /// Stored from the beginning; never the answer to a question about another.
    alice: EnvelopeKeyRecord,
    bob: EnvelopeKeyRecord,
    older: EnvelopeKeyRecord,
}

impl<E: Engine> World<E> {
    async fn new() -> Self {
        let engine = E::shared().await;
        let direct = engine.direct().await;
        let (alice, bob, older) = (record("alice", NOW), record("bob", NOW), record("alice", NOW - 60));
        for record in [&alice, &bob, &older] {
            assert_eq!(direct.insert(record).await.unwrap(), Insert::Inserted);
        }
        Self { engine, direct, alice, bob, older }
    }

    /// Which bytes of a connection, from the end of its first call on, an exchange takes.
    async fn measure(&self, operation: Operation) -> [(Direction, RangeInclusive<u64>); 2] {
        let proxy = Proxy::start(&self.engine.address()).await;
        let store = self.engine.store(&proxy.address(), PATIENCE).await;
        self.check_bob(&store).await;
        let before = proxy.bytes();
        self.call(&store, operation, &record("measure0", NOW)).await.unwrap();
        let after = proxy.bytes();
        [(Direction::ToServer, before.0..=after.0), (Direction::ToClient, before.1..=after.1)]
    }

    /// Tries all points, many at a time.
    async fn try_all(self: &Arc<Self>, points: Vec<Point>) -> Vec<(Point, Outcome)> {
        let left = Arc::new(Mutex::new(points.into_iter().enumerate()));
        let mut workers = JoinSet::new();
        for _ in 0..E::CONNECTIONS {
            let (world, left) = (Arc::clone(self), Arc::clone(&left));
            workers.spawn(async move {
                let proxy = Proxy::start(&world.engine.address()).await;
                let mut outcomes = Vec::new();
                loop {
                    let next = left.lock().await.next();
                    let Some((number, point)) = next else { return outcomes };
                    outcomes.push((point, world.try_one(&proxy, number, point).await));
                }
            });
        }
        workers.join_all().await.concat()
    }

    async fn try_one(&self, proxy: &Proxy, number: usize, point: Point) -> Outcome {
        let new = record(&format!("new{number:05}"), NOW);
        proxy.set(point.fault());
        let store = self.engine.store(&proxy.address(), point.patience()).await;
        self.check_bob(&store).await;
        let answer = self.call(&store, point.operation, &new).await;
        proxy.set(Fault::None);
        if answer.is_ok() {
            // It may have struck the connection after the call, which nobody can know before the next.
            proxy.cut_all();
        } else if point.kind == Kind::Hiccup {
            panic!("{point:?}: {answer:?}");
        }
        // At once, and while a late answer to the call above is on its way.
        for _ in 0..2 {
            self.check_alice(&store, point).await;
            self.check_bob(&store).await;
        }
        match answer {
            Ok(()) if point.operation != Operation::Insert => Outcome::Answered,
            Ok(()) => {
                assert_eq!(self.load(&self.direct, &new).await.as_ref(), Some(&new), "{point:?}");
                Outcome::Answered
            }
            Err(()) if point.operation != Operation::Insert => Outcome::Failed,
            Err(()) => {
                let again = store.insert(&new).await.unwrap();
                assert_eq!(self.load(&self.direct, &new).await.as_ref(), Some(&new), "{point:?}");
                match again {
                    Insert::Inserted => Outcome::Failed,
                    Insert::AlreadyExists => Outcome::FailedAndStored,
                }
            }
        }
    }
}

impl<E: Engine> World<E> {
    /// Makes the call; what it answers is right, and what it errs with passes.
    async fn call(
        &self,
        store: &BoxedMetastore,
        operation: Operation,
        new: &EnvelopeKeyRecord,
    ) -> Result<(), ()> {
        let (key, id) = (self.alice.meta(), self.alice.meta().id());
        match operation {
            Operation::Load => {
                let answer = failed(store.load(key, Consistency::Strong).await)?;
                assert_eq!(answer.as_ref(), Some(&self.alice));
            }
            Operation::LoadLatest => {
                let answer = failed(store.load_latest(id).await)?;
                assert_eq!(answer.as_ref(), Some(&self.alice));
            }
            Operation::Insert => assert_eq!(failed(store.insert(new).await)?, Insert::Inserted),
        }
        Ok(())
    }

    async fn check_alice(&self, store: &BoxedMetastore, point: Point) {
        let id = self.alice.meta().id();
        assert_eq!(store.load_latest(id).await.unwrap().as_ref(), Some(&self.alice), "{point:?}");
        assert_eq!(self.load(store, &self.older).await.as_ref(), Some(&self.older), "{point:?}");
    }

    async fn check_bob(&self, store: &BoxedMetastore) {
        assert_eq!(self.load(store, &self.bob).await.as_ref(), Some(&self.bob));
    }

    async fn load(&self, store: &BoxedMetastore, like: &EnvelopeKeyRecord) -> Option<EnvelopeKeyRecord> {
        store.load(like.meta(), Consistency::Strong).await.unwrap()
    }
}

fn failed<T: Debug>(answer: Result<T, BackendError>) -> Result<T, ()> {
    answer.map_err(|error| assert!(error.is_transient(), "{error:?}"))
}
