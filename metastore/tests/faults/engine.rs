//! The three kinds of servers, as the tests of faults see them.

mod dynamodb;
mod mariadb;
mod postgres;
pub(crate) mod sqlite;

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use claviger::{BackendError, BoxedMetastore, CallContext, Created, EnvelopeKeyRecord, KeyId, Metastore};
use claviger_testkit::shown_number;

use crate::latest::LatestRecord as _;

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

    /// A store whose connections, so many at most, go to `address`. It has made none. Its
    /// [`Way::call`] is given up after `patience`.
    fn way(&self, address: &str, connections: u32, patience: Duration) -> impl Future<Output = Way> + Send;

    /// How many rows its table has.
    fn rows(&self) -> impl Future<Output = u64> + Send;

    /// A store with the straight way to the server.
    fn direct(&self) -> impl Future<Output = BoxedMetastore> + Send {
        async { self.way(&self.address(), 1, LONG).await.store }
    }
}

/// Longer than anything takes.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// A store, and a look at its connections.
pub(crate) struct Way {
    pub(crate) store: BoxedMetastore,
    /// How many connections there are, and how many of them nobody uses.
    counts: Box<dyn Fn() -> (u32, u32) + Send + Sync>,
    connections_max: u32,
    patience: Duration,
}

impl Way {
    /// Of a store of so many connections, which its `Debug` tells.
    fn over(store: impl Metastore + Clone, connections_max: u32, patience: Duration) -> Self {
        let counted = store.clone();
        let counts = move || (shown_number(&counted, "connections"), shown_number(&counted, "idle"));
        Self { store: BoxedMetastore::new(store), counts: Box::new(counts), connections_max, patience }
    }

    /// The context of a call that is given up after its patience.
    pub(crate) fn call(&self) -> CallContext {
        CallContext::within(self.patience)
    }

    pub(crate) async fn latest(&self, id: &KeyId) -> Result<Option<EnvelopeKeyRecord>, BackendError> {
        let latest = self.store.load_latest(id, Created::MAX, &self.call()).await?;
        Ok(latest.map(|latest| latest.record))
    }

    /// Waits until nothing goes on after the answers that there were.
    pub(crate) async fn idle(&self) {
        loop {
            let (all, idle) = (self.counts)();
            if all == idle {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Uses all connections at once, if it has some: none was lost, and each works.
    pub(crate) async fn hold_all(&self) {
        let loads = (0..10 * self.connections_max).map(|_| {
            let store = self.store.clone();
            tokio::spawn(async move { store.latest(&KeyId::new("_IK_whole")).await.unwrap() })
        });
        for load in loads.collect::<Vec<_>>() {
            assert_eq!(load.await.unwrap(), None);
        }
        self.idle().await;
        assert!((self.counts)().0 <= self.connections_max);
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
