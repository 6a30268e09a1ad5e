//! The three kinds of servers, as the tests of faults see them.

mod dynamodb;
mod mariadb;
mod postgres;
pub(crate) mod sqlite;

use std::hash::{BuildHasher as _, RandomState};
use std::pin::Pin;
use std::time::Duration;

use claviger::BoxedMetastore;
use sqlx::{Connection as _, Database, Pool};

pub(crate) use dynamodb::DynamoDb;
pub(crate) use mariadb::MariaDb;
pub(crate) use postgres::Postgres;

/// A server with an empty table, and stores on it.
pub(crate) trait Engine: Send + Sync + 'static {
    const NAME: &str;

    /// A table of its own on the server that all tests share.
    fn shared() -> impl Future<Output = Self> + Send
    where
        Self: Sized;

    /// Where the server is, as `127.0.0.1:PORT`.
    fn address(&self) -> String;

    /// A store whose connections, so many at most, go to `address`. It has made none, and gives up a
    /// call after `patience`.
    fn way(&self, address: &str, connections: u32, patience: Duration) -> impl Future<Output = Way> + Send;

    /// How many rows its table has.
    fn rows(&self) -> impl Future<Output = u64> + Send;

    /// A store with the straight way to the server.
    fn direct(&self) -> impl Future<Output = BoxedMetastore> + Send {
        async { self.way(&self.address(), 1, LONG).await.store }
    }
}

/// Longer than anything takes.
const LONG: Duration = Duration::from_secs(20);

/// A store, and a look at its connections.
pub(crate) struct Way {
    pub(crate) store: BoxedMetastore,
    is_idle: Box<dyn Fn() -> bool + Send + Sync>,
    hold_all: Box<dyn Fn() -> BoxFuture + Send + Sync>,
}

type BoxFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Way {
    /// Of a store over this pool of so many connections.
    fn over<DB: Database>(store: BoxedMetastore, pool: Pool<DB>, connections: u32) -> Self {
        let held = pool.clone();
        Self {
            store,
            is_idle: Box::new(move || pool.num_idle() == pool.size() as usize),
            hold_all: Box::new(move || Box::pin(hold(held.clone(), connections))),
        }
    }

    /// Waits until nothing goes on after the answers that there were.
    pub(crate) async fn idle(&self) {
        while !(self.is_idle)() {
            tokio::task::yield_now().await;
        }
    }

    /// Takes all connections of the pool at once, if it has one: none was lost, and each works.
    pub(crate) async fn hold_all(&self) {
        (self.hold_all)().await;
    }
}

async fn hold<DB: Database>(pool: Pool<DB>, count: u32) {
    let mut connections = Vec::new();
    for _ in 0..count {
        let mut connection = pool.acquire().await.unwrap();
        connection.ping().await.unwrap();
        connections.push(connection);
    }
    assert_eq!(pool.size(), count);
}

/// A name that no other test and no earlier run uses.
fn new_name() -> String {
    format!("faults_{:016x}", RandomState::new().hash_one(std::process::id()))
}

fn host_and_port(address: &str) -> (&str, u16) {
    let (host, port) = address.rsplit_once(':').unwrap();
    (host, port.parse().unwrap())
}
