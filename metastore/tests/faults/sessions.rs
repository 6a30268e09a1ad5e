//! A factory whose way to the store breaks, from the first byte of a connection on: no key is made
//! because another could not be read, and nothing that was encrypted is lost.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use claviger::{BoxedMetastore, DataRowRecord, Error, SecretKey, SessionFactory, StaticKms, SystemRandom};
use claviger_testkit::{Direction, Fault, Proxy};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::engine::{DynamoDb, Engine, MariaDb, Postgres};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn postgres_breaks_and_no_key_is_minted() {
    sampled::<Postgres>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn mariadb_breaks_and_no_key_is_minted() {
    sampled::<MariaDb>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn dynamodb_breaks_and_no_key_is_minted() {
    sampled::<DynamoDb>().await;
}

/// How many points of a connection are tried, in each direction.
const POINTS: u64 = 20;
const AT_ONCE: usize = 10;
/// How long a call of the store waits.
const SHORT: Duration = Duration::from_millis(400);
const LONG: Duration = Duration::from_secs(60);

struct World<E> {
    engine: E,
    master_key: SecretKey,
    /// Of a partition whose keys are there.
    record: DataRowRecord,
}

async fn sampled<E: Engine>() {
    let engine = E::shared().await;
    let master_key = SecretKey::generate(&SystemRandom::new()).unwrap();
    let direct = factory(engine.direct().await, &master_key);
    let record = direct.session("alice").unwrap().encrypt(b"secret").await.unwrap();
    let world = Arc::new(World { engine, master_key, record });
    assert_eq!(world.engine.rows().await, 2);

    let points = world.points().await;
    println!("{}: {} points of a connection", E::NAME, points.len());
    let failed = world.all(&points, |world, _, fault| Box::pin(world.read(fault))).await;
    println!("{}: with the keys there, {failed} operations failed", E::NAME);
    assert!(failed > 0);
    assert_eq!(world.engine.rows().await, 2);

    let failed = world.all(&points, |world, number, fault| Box::pin(world.create(number, fault))).await;
    println!("{}: with the key to be made, {failed} operations failed", E::NAME);
    assert!(failed > 0);
    // One for each partition, whatever became of the first try.
    assert_eq!(world.engine.rows().await, 2 + points.len() as u64);
}

fn factory(store: BoxedMetastore, master_key: &SecretKey) -> SessionFactory {
    let kms = StaticKms::new(master_key).unwrap();
    SessionFactory::builder(store, kms).service("svc").product("prod").build().unwrap()
}

type Try = std::pin::Pin<Box<dyn Future<Output = bool> + Send>>;

impl<E: Engine> World<E> {
    /// Points of a new connection that decrypts, and what happens at each.
    async fn points(&self) -> Vec<Fault> {
        let proxy = Proxy::start(&self.engine.address()).await;
        let way = self.engine.way(&proxy.address(), 1, LONG).await;
        self.decrypts(&factory(way.store, &self.master_key)).await.unwrap();
        let (to_server, to_client) = proxy.bytes();
        let mut points = Vec::new();
        for (direction, bytes) in [(Direction::ToServer, to_server), (Direction::ToClient, to_client)] {
            let step = NonZeroU64::new(bytes / POINTS).unwrap();
            for after in (0..=bytes).step_by(step.get().try_into().unwrap()) {
                points.push(Fault::Cut { direction, after });
                points.push(Fault::Stall { direction, after });
            }
        }
        points
    }

    /// Tries all points, some at a time, and returns how many operations failed.
    async fn all(
        self: &Arc<Self>,
        points: &[Fault],
        attempt: impl Fn(Arc<Self>, usize, Fault) -> Try,
    ) -> usize {
        let (mut tasks, mut failed) = (JoinSet::new(), 0);
        for (number, fault) in points.iter().enumerate() {
            if tasks.len() == AT_ONCE {
                failed += usize::from(tasks.join_next().await.unwrap().unwrap());
            }
            tasks.spawn(attempt(Arc::clone(self), number, *fault));
        }
        failed + tasks.join_all().await.into_iter().filter(|failed| *failed).count()
    }

    /// Reads what is there. Tells whether it failed.
    async fn read(self: Arc<Self>, fault: Fault) -> bool {
        let (proxy, factory) = self.behind(fault).await;
        let decrypted = self.decrypts(&factory).await;
        let encrypted = encrypt(&factory, "alice").await;
        assert_eq!(self.engine.rows().await, 2, "{fault:?}");
        mend(&proxy);
        timeout(LONG, async {
            while self.decrypts(&factory).await.is_err() || encrypt(&factory, "alice").await.is_err() {
                // The factory asks a store that failed once a second.
                sleep(Duration::from_millis(50)).await;
            }
        })
        .await
        .unwrap();
        assert_eq!(self.engine.rows().await, 2, "{fault:?}");
        decrypted.is_err() || encrypted.is_err()
    }

    /// Encrypts for a new partition. Tells whether it failed.
    async fn create(self: Arc<Self>, number: usize, fault: Fault) -> bool {
        let (proxy, factory) = self.behind(fault).await;
        let partition = format!("new-{number}");
        let first = encrypt(&factory, &partition).await;
        mend(&proxy);
        let second = timeout(LONG, async {
            loop {
                match encrypt(&factory, &partition).await {
                    Ok(record) => break record,
                    Err(_) => sleep(Duration::from_millis(50)).await,
                }
            }
        });
        let second = second.await.unwrap();
        let other = self::factory(self.engine.direct().await, &self.master_key);
        for record in first.iter().chain([&second]) {
            // On a machine with more to do an operation may reach its deadline on a server that is well.
            let session = other.session(&partition).unwrap();
            let read = timeout(LONG, async {
                loop {
                    if let Ok(plaintext) = checked(session.decrypt(record).await) {
                        break plaintext;
                    }
                }
            });
            assert_eq!(&*read.await.unwrap(), b"new", "{fault:?}");
        }
        first.is_err()
    }

    async fn behind(&self, fault: Fault) -> (Proxy, SessionFactory) {
        let proxy = Proxy::start(&self.engine.address()).await;
        // It is opened by connections of its own.
        let way = self.engine.way(&proxy.address(), 1, SHORT).await;
        proxy.set(fault);
        (proxy, factory(way.store, &self.master_key))
    }

    async fn decrypts(&self, factory: &SessionFactory) -> Result<(), Error> {
        let plaintext = checked(factory.session("alice").unwrap().decrypt(&self.record).await)?;
        assert_eq!(&*plaintext, b"secret");
        Ok(())
    }
}

async fn encrypt(factory: &SessionFactory, partition: &str) -> Result<DataRowRecord, Error> {
    checked(factory.session(partition).unwrap().encrypt(b"new").await)
}

fn checked<T>(answer: Result<T, Error>) -> Result<T, Error> {
    answer.inspect_err(|error| assert!(error.is_retryable(), "{error:?}"))
}

fn mend(proxy: &Proxy) {
    proxy.set(Fault::None);
    proxy.set_open(Fault::None);
}
