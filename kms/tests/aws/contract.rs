//! The contract of a KMS, on moto and on LocalStack, with one, two and three regions.

use std::time::Duration;

use claviger::testing::kms::{Outage, Trouble};
use claviger_kms::AwsKms;
use claviger_testkit::{Direction, Fault, Proxy};

use crate::support::{REGIONS, builder, client, new_key};

async fn open(endpoint: &str, regions: usize) -> AwsKms {
    builder(endpoint, &REGIONS[..regions]).await.open().await.unwrap()
}

/// Two services on the same server, with other keys.
async fn pair(endpoint: &str, regions: usize) -> (AwsKms, AwsKms) {
    (open(endpoint, regions).await, open(endpoint, regions).await)
}

/// A way to the server for each region.
#[derive(Debug)]
struct Ways(Vec<Proxy>);

const SLOW: Duration = Duration::from_millis(400);

async fn behind_proxies(endpoint: &str, regions: usize) -> (AwsKms, Ways) {
    let mut builder = AwsKms::builder();
    let mut ways = Vec::new();
    for region in &REGIONS[..regions] {
        let proxy = Proxy::start(endpoint.trim_start_matches("http://")).await;
        let through = client(&format!("http://{}", proxy.address()), region);
        builder = builder.region(*region, new_key(endpoint, region).await).client(*region, through);
        ways.push(proxy);
    }
    (builder.open().await.unwrap(), Ways(ways))
}

impl Ways {
    fn set(&self, fault: Fault) {
        for proxy in &self.0 {
            proxy.set(fault);
            proxy.set_open(fault);
        }
    }
}

impl Outage for Ways {
    async fn begin(&self, trouble: Trouble) {
        let (direction, after) = (Direction::ToServer, 0);
        self.set(match trouble {
            Trouble::OutOfReach => Fault::Cut { direction, after },
            Trouble::Hanging => Fault::Stall { direction, after },
            Trouble::Slow => Fault::Delay { direction, after, time: SLOW },
            other => panic!("{other:?} is new"),
        });
    }

    async fn end(&self) {
        self.set(Fault::None);
    }
}

macro_rules! contract_on {
    ($server:ident, $endpoint:expr, $($name:ident: $regions:literal),*) => {
        mod $server {$(
            mod $name {
                claviger::testing::kms_copies_contract!(crate::contract::open($endpoint, $regions));
                claviger::testing::kms_wrong_key_contract!(crate::contract::pair($endpoint, $regions));
                claviger::testing::kms_outage_contract!(crate::contract::behind_proxies($endpoint, $regions));
            }
        )*}
    };
}

contract_on!(moto, claviger_testkit::shared_moto(), one_region: 1, two_regions: 2, three_regions: 3);
contract_on!(
    localstack, claviger_testkit::shared_localstack(), one_region: 1, two_regions: 2, three_regions: 3
);
