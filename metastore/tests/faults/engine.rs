//! The three kinds of servers, as the tests of faults see them.

mod dynamodb;
mod mariadb;
mod postgres;

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use claviger::BoxedMetastore;

use crate::bytes::Operation;

pub(crate) use dynamodb::DynamoDb;
pub(crate) use mariadb::MariaDb;
pub(crate) use postgres::Postgres;

/// A server with an empty table, and stores on it.
pub(crate) trait Engine: Send + Sync + 'static {
    const NAME: &str;
    /// How many connections to it may be open in one test, with many others at work.
    const CONNECTIONS: usize;

    /// How long a call waits for an answer that never comes: longer than honest ones take, on a machine
    /// with other things to do.
    const SHORT: Duration;
    /// The calls whose exchanges are broken after every byte.
    const OPERATIONS: &[Operation];
    /// How many calls may fail after a connection was cut that nobody used. A request over HTTP that
    /// was sent on it may have been done, and so is not sent again.
    const IDLE_DEATHS_FELT: u32;

    /// A table of its own on the server that all tests share.
    fn shared() -> impl Future<Output = Self> + Send
    where
        Self: Sized;

    /// Where the server is, as `127.0.0.1:PORT`.
    fn address(&self) -> String;

    /// A store whose connections, one at most, go to `address`. It has made none, and gives up a call
    /// after `patience`.
    fn way(&self, address: &str, patience: Duration) -> impl Future<Output = Way> + Send;

    /// How many rows its table has.
    fn rows(&self) -> impl Future<Output = u64> + Send;

    /// A store with the straight way to the server.
    fn direct(&self) -> impl Future<Output = BoxedMetastore> + Send {
        async { self.way(&self.address(), LONG).await.store }
    }
}

/// Longer than anything takes.
const LONG: Duration = Duration::from_secs(20);

/// A store, and a look at its connections.
pub(crate) struct Way {
    pub(crate) store: BoxedMetastore,
    is_idle: Box<dyn Fn() -> bool + Send + Sync>,
}

impl Way {
    /// Waits until nothing goes on after the answers that there were.
    pub(crate) async fn idle(&self) {
        while !(self.is_idle)() {
            tokio::task::yield_now().await;
        }
    }
}

/// A name that no other test and no earlier run uses.
fn new_name() -> String {
    format!("faults_{:016x}", RandomState::new().hash_one(std::process::id()))
}

fn host_and_port(address: &str) -> (&str, u16) {
    let (host, port) = address.rsplit_once(':').unwrap();
    (host, port.parse().unwrap())
}
