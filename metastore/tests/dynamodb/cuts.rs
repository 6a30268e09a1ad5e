//! The way to the server, cut, stalled and delayed at every point of an exchange.
//!
//! The server is a moto that no other tests wait for: dynalite dies of a request whose body ends early.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use claviger::testing::call;
use claviger::{EnvelopeKeyRecord, FailureClass, Insert, Metastore as _};
use claviger_metastore::DynamoDbMetastore;
use claviger_testkit::{Direction, Fault, Moto, Proxy, abandon, assert_says};
use tokio::task::JoinSet;

use crate::latest::LatestRecord as _;
use crate::support::{NOW, builder, chain, new_named_table, record};

fn moto() -> &'static str {
    static MOTO: OnceLock<(Moto, String)> = OnceLock::new();
    let start = || {
        let server = Moto::start();
        let endpoint = server.endpoint();
        (server, endpoint)
    };
    &MOTO.get_or_init(start).1
}

/// A table reached past a proxy and through it.
struct Way {
    direct: DynamoDbMetastore,
    through: DynamoDbMetastore,
    proxy: Proxy,
}

impl Way {
    async fn to(direct: &DynamoDbMetastore, table: &str) -> Self {
        let proxy = Proxy::start(moto().trim_start_matches("http://")).await;
        let through = builder(&format!("http://{}", proxy.address()), table).danger_unchecked();
        Self { direct: direct.clone(), through: through.open().await.unwrap(), proxy }
    }

    /// Lays a fault on the connection that is there, and on the next one.
    fn set(&self, fault: Fault) {
        self.proxy.set(fault);
        self.proxy.set_open(fault);
    }

    /// What became of an insert behind a fault: its answer, and whether the record is there.
    async fn insert(&self, fault: Fault, record: &EnvelopeKeyRecord) -> Outcome {
        self.set(fault);
        let answered = match self.through.insert(record, &call()).await {
            Ok(inserted) => {
                assert_eq!(inserted, Insert::Inserted, "{fault:?}: there was none before");
                true
            }
            Err(error) => {
                assert_eq!(error.class(), FailureClass::Transient, "{fault:?}: {}", chain(&error));
                false
            }
        };
        let there = self.look(record).await;
        assert!(there.as_ref().is_none_or(|there| there == record), "{fault:?}: whole or not at all");
        assert!(there.is_some() || !answered, "{fault:?}: told that it is in, it is");
        Outcome { answered, there: there.is_some() }
    }

    /// Reads past the proxy. A busy machine may need more than one try.
    async fn look(&self, record: &EnvelopeKeyRecord) -> Option<EnvelopeKeyRecord> {
        for _try in 0..TRIES {
            if let Ok(there) = self.direct.load(record.meta(), &call()).await {
                return there;
            }
        }
        panic!("the server does not answer");
    }

    /// Loads a record that is there: it comes, or there is an error. "Not found" would mint a key.
    async fn load(&self, fault: Fault, record: &EnvelopeKeyRecord) -> bool {
        self.set(fault);
        match self.through.latest(record.meta().id()).await {
            Ok(loaded) => {
                assert_eq!(loaded.as_ref(), Some(record), "{fault:?}");
                true
            }
            Err(error) => {
                assert_eq!(error.class(), FailureClass::Transient, "{fault:?}: {}", chain(&error));
                false
            }
        }
    }

    /// Loads a record that is there until it comes, and returns how often it did not come in time: a
    /// busy machine may need more than one try, and nothing else may be in the way.
    async fn read(&self, record: &EnvelopeKeyRecord) -> usize {
        for late in 0..TRIES {
            match self.through.latest(record.meta().id()).await {
                Ok(loaded) => {
                    assert_eq!(loaded.as_ref(), Some(record));
                    return late;
                }
                Err(error) => assert_says(&error, "no answer from DynamoDB within"),
            }
        }
        panic!("the way stayed bad");
    }

    /// Once the fault is gone the way is good, and the record gets in if it was not. A busy machine may
    /// need more than one try.
    async fn recover(&self, record: &EnvelopeKeyRecord) {
        self.set(Fault::None);
        for _try in 0..TRIES {
            let inserted = self.through.insert(record, &call()).await;
            match inserted {
                Ok(_either) => return,
                Err(error) => assert_eq!(error.class(), FailureClass::Transient, "{}", chain(&error)),
            }
        }
        panic!("the way stayed bad");
    }
}

const TRIES: usize = 50;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Outcome {
    answered: bool,
    there: bool,
}

fn numbered(number: u64) -> EnvelopeKeyRecord {
    record(&format!("_IK_{number:06}_svc_prod"), NOW)
}

/// How many bytes an insert and a load send and get, all of them alike.
struct Lengths {
    insert: (u64, u64),
    load: (u64, u64),
}

impl Lengths {
    async fn measure(direct: &DynamoDbMetastore, table: &str) -> Self {
        let record = numbered(999_999);
        let way = Way::to(direct, table).await;
        way.recover(&record).await;
        let insert = way.proxy.bytes();
        let way = Way::to(direct, table).await;
        assert!(way.load(Fault::None, &record).await);
        Self { insert, load: way.proxy.bytes() }
    }
}

/// Faults at every so many bytes of an exchange, in both directions.
fn points(lengths: (u64, u64), step: usize, fault: impl Fn(Direction, u64) -> Fault) -> Vec<Fault> {
    let to_server = (0..=lengths.0).step_by(step).map(|after| fault(Direction::ToServer, after));
    let to_client = (0..=lengths.1).step_by(step).map(|after| fault(Direction::ToClient, after));
    to_server.chain(to_client).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s1_4_an_insert_cut_after_every_byte_is_made_or_not_and_says_so() {
    let (direct, table) = new_named_table(moto()).await;
    let lengths = Lengths::measure(&direct, &table).await.insert;
    let faults = points(lengths, 1, |direction, after| Fault::Cut { direction, after });
    let way = Way::to(&direct, &table).await;
    let mut outcomes = Vec::new();
    for (number, fault) in faults.into_iter().enumerate() {
        let record = numbered(number as u64);
        outcomes.push(way.insert(fault, &record).await);
        way.recover(&record).await;
    }
    println!("{} cut points of an insert of {lengths:?} bytes", outcomes.len());
    // All that can happen did: not made, made and not answered, answered.
    for (answered, there) in [(false, false), (false, true), (true, true)] {
        assert!(outcomes.contains(&Outcome { answered, there }), "{answered} {there}");
    }
    assert!(way.proxy.connections() <= 2, "connections that were cut are not kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s1_4_a_load_cut_after_every_byte_never_misses_the_key() {
    let (direct, table) = new_named_table(moto()).await;
    let lengths = Lengths::measure(&direct, &table).await.load;
    let faults = points(lengths, 1, |direction, after| Fault::Cut { direction, after });
    let way = Way::to(&direct, &table).await;
    let record = numbered(999_999);
    let mut loaded = Vec::new();
    for fault in faults {
        loaded.push(way.load(fault, &record).await);
    }
    println!("{} cut points of a load of {lengths:?} bytes", loaded.len());
    assert!(loaded.contains(&true) && loaded.contains(&false));
    way.recover(&record).await;
    assert!(way.proxy.connections() <= 2, "connections that were cut are not kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s1_4_an_exchange_that_stalls_is_done_or_transient() {
    let (direct, table) = new_named_table(moto()).await;
    let lengths = Lengths::measure(&direct, &table).await.insert;
    let faults = points(lengths, 50, |direction, after| Fault::Stall { direction, after });
    let mut lanes = JoinSet::new();
    for (number, fault) in faults.into_iter().enumerate() {
        let way = Way::to(&direct, &table).await;
        lanes.spawn(async move {
            let record = numbered(number as u64);
            let outcome = way.insert(fault, &record).await;
            // What was on its way may arrive now.
            way.recover(&record).await;
            (outcome, way.load(fault, &record).await)
        });
    }
    println!("{} stall points of an insert and of a load", lanes.len());
    let outcomes = lanes.join_all().await;
    assert!(outcomes.iter().any(|(insert, load)| !insert.answered && !load));
}

/// What comes late is still the answer to its own request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s1_4_an_exchange_that_is_late_crosses_no_replies() {
    let (direct, table) = new_named_table(moto()).await;
    let time = Duration::from_millis(20);
    let lengths = Lengths::measure(&direct, &table).await.insert;
    let faults = points(lengths, 50, |direction, after| Fault::Delay { direction, after, time });
    let way = Way::to(&direct, &table).await;
    let mut answered = 0;
    for (number, fault) in faults.into_iter().enumerate() {
        let record = numbered(number as u64);
        let outcome = way.insert(fault, &record).await;
        answered += usize::from(outcome.answered && way.load(fault, &record).await);
        way.recover(&record).await;
    }
    assert!(answered > 0);
}

/// Calls that are dropped anywhere get no others' replies, and do not pile up connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s1_4_thousands_of_dropped_calls_leave_good_connections() {
    const CALLERS: usize = 8;
    const DROPPED: usize = 130;
    const KEPT: usize = 20;
    /// What the client keeps idle.
    const IDLE: usize = 32;
    let (direct, table) = new_named_table(moto()).await;
    let way = Arc::new(Way::to(&direct, &table).await);
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let way = Arc::clone(&way);
        callers.spawn(async move {
            for round in 0..DROPPED {
                let record = numbered((caller * DROPPED + round) as u64);
                abandon(way.through.insert(&record, &call()), round % 12).await;
                abandon(way.through.latest(record.meta().id()), round % 12).await;
            }
            let mut late = 0;
            for round in 0..KEPT {
                let record = numbered((caller * DROPPED + round) as u64);
                way.recover(&record).await;
                assert_eq!(way.look(&record).await.as_ref(), Some(&record));
                // Each caller reads its own record back, whatever the others read meanwhile.
                late += way.read(&record).await;
            }
            late
        });
    }
    let late: usize = callers.join_all().await.into_iter().sum();
    assert!(late <= CALLERS * KEPT / 4, "{late} loads were late");
    let last = numbered(0);
    for _try in 0..TRIES {
        if way.proxy.connections() <= IDLE {
            break;
        }
        // Those that were closed are gone after a while.
        assert_eq!(way.look(&last).await.as_ref(), Some(&last));
    }
    assert!(way.proxy.connections() <= IDLE, "{} connections", way.proxy.connections());
}
