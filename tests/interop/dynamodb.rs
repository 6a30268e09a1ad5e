//! We and both others in one table of DynamoDB, as two stand-ins have it.

use std::sync::atomic::{AtomicUsize, Ordering};

use aws_sdk_dynamodb::config::Credentials;
use claviger_metastore::DynamoDbMetastore;
use claviger_testkit::{shared_dynalite, shared_moto};

use crate::clauses::led_by_each;
use crate::peer::{Package, Place};
use crate::world::{NAMES, Names, World};

pub(crate) const REGION: &str = "us-west-2";
/// The stand-ins take any.
pub(crate) const ACCESS_KEY: &str = "test";

led_by_each!(dynalite, |packages| world(shared_dynalite(), NAMES, packages));
led_by_each!(dynalite_with_region_suffix, |packages| world(shared_dynalite(), REGIONAL, packages));
led_by_each!(moto, |packages| world(shared_moto(), NAMES, packages));

/// As for global tables.
const REGIONAL: Names = Names { region_suffix: Some(REGION), ..NAMES };

/// There is one layout of a table, and so `migrate` makes what the others' documentation does.
pub(crate) async fn world(endpoint: &str, names: Names, packages: &[Package]) -> World<DynamoDbMetastore> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    // Not the only test process on the server.
    let table = format!("interop-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let builder = || {
        let credentials = Credentials::new(ACCESS_KEY, ACCESS_KEY, None, None, "tests");
        DynamoDbMetastore::builder().table(&table).region(REGION).endpoint(endpoint).credentials(credentials)
    };
    builder().danger_unchecked().migrate().open().await.unwrap();
    let store = builder().open().await.unwrap();
    let place = Place::DynamoDb { endpoint: endpoint.to_owned(), table };
    World::named(names, store, place, packages, ())
}
