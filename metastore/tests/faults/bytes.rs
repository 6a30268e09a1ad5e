//! The way to the server breaks after every byte of a load's and of an insert's exchange, in either
//! direction: cut, stalled, delayed. DynamoDB has this among its own tests.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use claviger::testing::call;
use claviger::{BackendError, BoxedMetastore, EnvelopeKeyRecord, Insert, Metastore};
use claviger_testkit::{Direction, Fault, Proxy};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::engine::{Engine, MariaDb, Postgres, Way};
use crate::keys::{NOW, record};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn postgres_breaks_after_every_byte() {
    every_byte::<Postgres>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn mariadb_breaks_after_every_byte() {
    every_byte::<MariaDb>().await;
}

/// How long a call waits for an answer where a stall is not the point.
const PATIENCE: Duration = Duration::from_secs(20);
/// And where it never comes: longer than honest ones take, on a machine with other things to do.
const SHORT: Duration = Duration::from_secs(1);
const HICCUP: Duration = Duration::from_millis(1);

/// How many connections wait at once for answers that never come.
const CONNECTIONS: usize = 48;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Load,
    LoadLatest,
    Insert,
}

const OPERATIONS: [Operation; 3] = [Operation::Load, Operation::LoadLatest, Operation::Insert];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Cut,
    /// Goes on when the caller has given up.
    Stall,
    /// Goes on while the caller still waits.
    Hiccup,
}

const KINDS: [Kind; 3] = [Kind::Cut, Kind::Stall, Kind::Hiccup];

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
    for operation in OPERATIONS {
        let (to_server, to_client) = world.measure(operation).await;
        println!("{}: {operation:?} takes {to_server} bytes to the server and {to_client} back", E::NAME);
        for kind in KINDS {
            let point = |direction| move |after| Point { operation, kind, direction, after };
            points.extend((0..=to_server).map(point(Direction::ToServer)));
            points.extend((0..=to_client).map(point(Direction::ToClient)));
        }
    }
    println!("{}: {} cut points", E::NAME, points.len());
    let (hasty, patient) = points.into_iter().partition(|point: &Point| point.kind == Kind::Stall);
    let (hasty, patient) =
        tokio::join!(world.try_all(hasty, CONNECTIONS, SHORT), world.try_all(patient, 8, PATIENCE));
    let outcomes = [hasty, patient].concat();
    for operation in OPERATIONS {
        for kind in KINDS {
            let count = |wanted: Outcome| {
                let is_one = |(point, outcome): &&(Point, Outcome)| {
                    (point.operation, point.kind, *outcome) == (operation, kind, wanted)
                };
                outcomes.iter().filter(is_one).count()
            };
            let [answered, failed, stored] =
                [Outcome::Answered, Outcome::Failed, Outcome::FailedAndStored].map(count);
            println!(
                "{}: {operation:?}, {kind:?}: {answered} answered, {failed} failed, {stored} failed and stored",
                E::NAME
            );
            match (operation, kind) {
                (_, Kind::Hiccup) => assert_eq!((failed, stored), (0, 0), "{operation:?}"),
                (Operation::Insert, Kind::Cut) => assert!(failed > 0 && stored > 0),
                // It arrives in the end, before the second try or after.
                (Operation::Insert, Kind::Stall) => assert!(failed + stored > 0),
                (_, Kind::Stall) => assert!(failed > 0, "{operation:?}"),
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
            assert_eq!(direct.insert(record, &call()).await.unwrap(), Insert::Inserted);
        }
        Self { engine, direct, alice, bob, older }
    }

    /// How many bytes an exchange takes on a connection that has had others.
    async fn measure(&self, operation: Operation) -> (u64, u64) {
        let proxy = Proxy::start(&self.engine.address()).await;
        let way = self.engine.way(&proxy.address(), 1, PATIENCE).await;
        let created = NOW + 2 * operation as i64;
        self.warm_up(&way, &record("size", created), 0).await;
        let before = proxy.bytes();
        self.call(&way, operation, &record("size", created + 1)).await.unwrap();
        way.idle().await;
        let after = proxy.bytes();
        (after.0 - before.0, after.1 - before.1)
    }

    /// Tries all points, so many at a time, each on one connection while it lasts.
    async fn try_all(
        self: &Arc<Self>,
        points: Vec<Point>,
        at_once: usize,
        patience: Duration,
    ) -> Vec<(Point, Outcome)> {
        let left = Arc::new(Mutex::new(points.into_iter()));
        let mut workers = JoinSet::new();
        for worker in 0..at_once {
            let (world, left) = (Arc::clone(self), Arc::clone(&left));
            workers.spawn(async move {
                let proxy = Proxy::start(&world.engine.address()).await;
                let way = world.engine.way(&proxy.address(), 1, patience).await;
                let partition = format!("{}w{worker:03}", if patience == SHORT { 's' } else { 'p' });
                let mut created = NOW;
                let mut next = || {
                    created += 1;
                    record(&partition, created)
                };
                let mut outcomes = Vec::new();
                loop {
                    let point = left.lock().await.next();
                    let Some(point) = point else { return outcomes };
                    let spare = if point.kind == Kind::Stall { SPARE } else { 0 };
                    world.warm_up(&way, &next(), spare).await;
                    outcomes.push((point, world.try_one(&proxy, &way, &next(), point).await));
                }
            });
        }
        workers.join_all().await.concat()
    }

    async fn try_one(&self, proxy: &Proxy, way: &Way, new: &EnvelopeKeyRecord, point: Point) -> Outcome {
        proxy.set_open(point.fault());
        let answer = self.call(way, point.operation, new).await;
        let spare = match point.kind {
            Kind::Stall => SPARE,
            Kind::Cut | Kind::Hiccup => 0,
        };
        if answer.is_err() && point.kind == Kind::Stall {
            // At once, while what stalled is still on its way.
            self.check(way, spare).await;
        }
        assert!(answer.is_ok() || point.kind != Kind::Hiccup, "{point:?}");
        proxy.set_open(Fault::None);
        self.check(way, spare).await;
        if point.operation != Operation::Insert {
            return if answer.is_ok() { Outcome::Answered } else { Outcome::Failed };
        }
        let again = insert(way, new, &mut { spare }).await;
        let stored = self.direct.load(new.meta(), &call()).await.unwrap();
        assert_eq!(stored.as_ref(), Some(new), "{point:?}");
        match (answer, again) {
            (Ok(()), Insert::AlreadyExists) => Outcome::Answered,
            (Ok(()), Insert::Inserted) => unreachable!("{point:?}: inserted, and not there"),
            (Err(()), Insert::Inserted) => Outcome::Failed,
            (Err(()), Insert::AlreadyExists) => Outcome::FailedAndStored,
        }
    }
}

impl<E: Engine> World<E> {
    /// Makes the call; what it answers is right, and what it errs with passes.
    async fn call(&self, way: &Way, operation: Operation, new: &EnvelopeKeyRecord) -> Result<(), ()> {
        let Self { alice, .. } = self;
        match operation {
            Operation::Load => {
                let answer = failed(way.store.load(alice.meta(), &way.call()).await)?;
                assert_eq!(answer.as_ref(), Some(alice));
            }
            Operation::LoadLatest => {
                let answer = failed(way.latest(alice.meta().id()).await)?;
                assert_eq!(answer.as_ref(), Some(alice));
            }
            Operation::Insert => {
                assert_eq!(failed(way.store.insert(new, &way.call()).await)?, Insert::Inserted)
            }
        }
        Ok(())
    }

    /// Makes each call once, so that a connection is there and the server knows its statements.
    async fn warm_up(&self, way: &Way, new: &EnvelopeKeyRecord, mut spare: u32) {
        self.check(way, spare).await;
        // One that seemed to fail may have happened.
        let (Insert::Inserted | Insert::AlreadyExists) = insert(way, new, &mut spare).await;
        way.idle().await;
    }

    /// Asks for two partitions in turn: no answer is another question's.
    async fn check(&self, way: &Way, mut spare: u32) {
        let Self { alice, bob, older, .. } = self;
        for expected in [alice, bob, older] {
            let answer = loop {
                let answer = match expected == alice {
                    true => way.latest(alice.meta().id()).await,
                    false => way.store.load(expected.meta(), &way.call()).await,
                };
                if let Some(answer) = take(answer, &mut spare) {
                    break answer;
                }
            };
            assert_eq!(answer.as_ref(), Some(expected));
        }
    }
}

/// How often a call with little patience may run out of it, for no other reason than a busy machine.
const SPARE: u32 = 100;

/// Takes the answer; none, if it is a failure that passes and one is to spare.
fn take<T>(answer: Result<T, BackendError>, spare: &mut u32) -> Option<T> {
    match answer {
        Ok(answer) => Some(answer),
        Err(error) => {
            assert!(error.is_transient() && *spare > 0, "{error:?}");
            *spare -= 1;
            None
        }
    }
}

/// Inserts, again and again while there are failures to spare.
async fn insert(way: &Way, new: &EnvelopeKeyRecord, spare: &mut u32) -> Insert {
    loop {
        if let Some(outcome) = take(way.store.insert(new, &way.call()).await, spare) {
            return outcome;
        }
    }
}

fn failed<T: Debug>(answer: Result<T, BackendError>) -> Result<T, ()> {
    answer.map_err(|error| assert!(error.is_transient(), "{error:?}"))
}
