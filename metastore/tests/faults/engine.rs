//! The three kinds of servers, as the tests of faults see them.

mod dynamodb;
mod postgres;

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use claviger::BoxedMetastore;

pub(crate) use dynamodb::DynamoDb;
pub(crate) use postgres::Postgres;

/// A server with an empty table, and stores on it.
pub(crate) trait Engine: Send + Sync + 'static {
    const NAME: &str;
    /// How many connections to it may be open in one test, with many others at work.
    const CONNECTIONS: usize;

    /// A table of its own on the server that all tests share.
    fn shared() -> impl Future<Output = Self> + Send
    where
        Self: Sized;

    /// Where the server is, as `127.0.0.1:PORT`.
    fn address(&self) -> String;

    /// A store whose connections, one at most, go to `address`. It has made none, and gives up a call
    /// after `patience`.
    fn store(&self, address: &str, patience: Duration) -> impl Future<Output = BoxedMetastore> + Send;

    /// How many rows its table has.
    fn rows(&self) -> impl Future<Output = u64> + Send;

    /// A store with the straight way to the server.
    fn direct(&self) -> impl Future<Output = BoxedMetastore> + Send {
        async { self.store(&self.address(), Duration::from_secs(10)).await }
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
