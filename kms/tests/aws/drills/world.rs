//! A service's world in three regions: a server of KMS that keeps its own rules, and to each region
//! a way of its own that a drill breaks.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_sdk_kms::Client;
use claviger::testing::FixedClock;
use claviger::{CryptoPolicy, DataRowRecord, Event, InMemoryMetastore, Limits, LockPolicy, SessionFactory};
use claviger_kms::{AwsKms, AwsKmsBuilder};
use claviger_testkit::{AwsService, AwsStandIn, Direction, Fault, Proxy, Reply, Request};
use tokio::runtime::Handle;

use crate::support::{REGIONS, client, new_key};

/// Nothing that a drill waits for takes as long.
pub(crate) const LATE: Duration = Duration::from_secs(1_000);

pub(crate) const NOW: u64 = 1_700_000_040;

pub(crate) struct World {
    pub(crate) clock: FixedClock,
    pub(crate) store: InMemoryMetastore,
    /// The first is the preferred one.
    pub(crate) sites: Vec<Site>,
    /// How long the processes wait for a call to the KMS.
    pub(crate) kms_deadline: Duration,
}

/// A region, with a master key.
pub(crate) struct Site {
    pub(crate) region: &'static str,
    pub(crate) arn: String,
    /// An operator's, by a way that nothing breaks.
    pub(crate) operator: Client,
    /// A service's way there.
    pub(crate) way: Proxy,
    front: AwsStandIn,
    throttles: Arc<AtomicBool>,
}

impl World {
    pub(crate) async fn new(endpoint: &'static str) -> Self {
        let mut sites = Vec::new();
        for region in REGIONS {
            sites.push(Site::new(endpoint, region).await);
        }
        Self { clock: FixedClock::new(NOW), store: InMemoryMetastore::new(), sites, kms_deadline: LATE }
    }

    /// The service of all regions. No hedge comes by chance.
    pub(crate) fn builder(&self) -> AwsKmsBuilder {
        let add = |builder: AwsKmsBuilder, site: &Site| {
            builder.region(site.region, &site.arn).client(site.region, site.client())
        };
        let builder = self.sites.iter().fold(AwsKms::builder(), add);
        builder.hedge_after(LATE).clock(self.clock.clone())
    }

    pub(crate) async fn kms(&self) -> AwsKms {
        self.builder().open().await.unwrap()
    }

    /// A process that has just been started. Each product has a system key of its own.
    pub(crate) fn process(&self, kms: &AwsKms, product: &str) -> SessionFactory {
        let limits =
            Limits::production().operation_deadline(LATE * 2).kms_deadline(self.kms_deadline).max_attempts(1);
        SessionFactory::builder(self.store.clone(), kms.clone())
            .service("shop")
            .product(product)
            .clock(self.clock.clone())
            .limits(limits)
            .policy(CryptoPolicy::production().lock_policy(LockPolicy::Off))
            // One client of the KMS serves several of them, and its connections end with their runtime.
            .runtime(Handle::current())
            .build()
            .unwrap()
    }

    /// What was asked for in each region since it was last forgotten.
    pub(crate) fn asked(&self) -> Vec<Vec<String>> {
        self.sites.iter().map(|site| site.front.operations()).collect()
    }

    /// The keys that were named to each region's KMS.
    pub(crate) fn keys_named(&self) -> Vec<Vec<String>> {
        let key = |request: Request| request.body["KeyId"].as_str().unwrap_or_default().to_owned();
        self.sites.iter().map(|site| site.front.seen().into_iter().map(key).collect()).collect()
    }

    pub(crate) fn forget(&self) {
        self.sites.iter().for_each(|site| site.front.forget());
    }
}

impl Site {
    async fn new(endpoint: &'static str, region: &'static str) -> Self {
        let throttles = Arc::new(AtomicBool::new(false));
        let switch = Arc::clone(&throttles);
        let front = AwsStandIn::start_with(move |request| {
            let is_throttled = switch.load(Ordering::SeqCst);
            async move {
                if is_throttled {
                    return Reply::error(400, "ThrottlingException", "Rate exceeded");
                }
                // The server went away in mid-answer.
                relayed(endpoint, region, request).await.unwrap_or(Reply::Cut(0))
            }
        })
        .await;
        let way = Proxy::start(front.endpoint().trim_start_matches("http://")).await;
        let (arn, operator) = (new_key(endpoint, region).await, client(endpoint, region));
        Self { region, arn, operator, way, front, throttles }
    }

    pub(crate) fn client(&self) -> Client {
        client(&format!("http://{}", self.way.address()), self.region)
    }

    /// From now on nobody is reached there.
    pub(crate) fn die(&self) {
        self.break_by(Fault::Cut { direction: Direction::ToServer, after: 0 });
        self.way.cut_all();
    }

    /// From now on there is never an answer.
    pub(crate) fn stall(&self) {
        self.break_by(Fault::Stall { direction: Direction::ToServer, after: 0 });
    }

    /// From now on each new connection waits first.
    pub(crate) fn slow_down(&self, time: Duration) {
        self.break_by(Fault::Delay { direction: Direction::ToServer, after: 0, time });
    }

    pub(crate) fn throttle(&self, throttles: bool) {
        self.throttles.store(throttles, Ordering::SeqCst);
    }

    pub(crate) fn revive(&self) {
        self.break_by(Fault::None);
        // Those that stalled do not go on: their clients have gone.
        self.way.cut_all();
    }

    fn break_by(&self, fault: Fault) {
        self.way.set(fault);
        self.way.set_open(fault);
    }

    /// Waits until every client has closed its connection.
    pub(crate) async fn until_deserted(&self) {
        let deserted = async {
            while self.way.clients() > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), deserted).await.expect("connections are closed");
    }
}

/// Hands a request on to the server, and its answer back.
async fn relayed(endpoint: &'static str, region: &'static str, request: Request) -> io::Result<Reply> {
    let ask = move || AwsService::Kms.ask(endpoint, region, &request.operation, &request.body.to_string());
    let answer = tokio::task::spawn_blocking(ask).await.unwrap()?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    assert!(!head.to_ascii_lowercase().contains("transfer-encoding"), "{head}");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok(Reply::Http(status.ok_or(io::ErrorKind::InvalidData)?, body.to_owned()))
}

/// Writes a row of a partition, and returns how it is stored.
pub(crate) async fn write(process: &SessionFactory, partition: &str) -> DataRowRecord {
    process.session(partition).unwrap().encrypt(partition.as_bytes()).await.unwrap()
}

/// Reads it back, and makes sure that it is what was written.
pub(crate) async fn assert_reads(process: &SessionFactory, partition: &str, record: &DataRowRecord) {
    let read = process.session(partition).unwrap().decrypt(record).await.unwrap();
    assert_eq!(&*read, partition.as_bytes());
}

/// How often an event was raised.
pub(crate) fn raised(process: &SessionFactory, event: Event) -> u64 {
    let events = process.status().unwrap().events;
    events.iter().find(|(raised, _)| *raised == event).map_or(0, |(_, count)| *count)
}

/// The regions that system keys lack copies of, as the process tells.
pub(crate) fn missing(process: &SessionFactory) -> Vec<Vec<String>> {
    process.status().unwrap().incomplete_keys.into_iter().map(|key| key.missing).collect()
}
