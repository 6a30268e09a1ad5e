//! The steps and the table of `docs/migration.md`.

use crate::peer::{Package, Peer};
use crate::postgres::{Table, world};
use crate::world::{NAMES, PARTITION, assert_one_key, habits};

const GUIDE: &str = include_str!("../../docs/migration.md");

/// One instance of a service after the other is ours, and one comes back.
#[tokio::test]
async fn instances_of_a_service_move_one_at_a_time_and_back() {
    let mut world = world(Table::Own, &[Package::Go, Package::Rust]).await;
    let before = world.lead.encrypt(PARTITION, b"before");
    let ours = world.ours().session(PARTITION).unwrap();
    let first = ours.encrypt(b"first").await.unwrap();
    let beside = world.others[0].encrypt(PARTITION, b"beside");
    world.assert_all_decrypt(&[(&before, b"before"), (&first, b"first"), (&beside, b"beside")]).await;

    // All are ours, for as long as it takes for a new key.
    world.others.clear();
    world.revoke(first.parent().unwrap()).await;
    let alone = world.encrypt(b"alone").await;
    assert_ne!(alone.parent().unwrap(), first.parent().unwrap());
    for package in [Package::Go, Package::Rust] {
        let mut back = Peer::start_all(&[package], &world.place, &habits(NAMES)).remove(0);
        for (record, plaintext) in [(&before, "before"), (&first, "first"), (&alone, "alone")] {
            back.assert_decrypts(PARTITION, record, plaintext.as_bytes());
        }
        assert_one_key([&back.encrypt(PARTITION, b"back"), &alone]);
    }
}

#[test]
fn every_setting_that_the_packages_name_is_in_the_table() {
    let (_, table) = GUIDE.split_once("## Every setting").unwrap();
    for package in [Package::Go, Package::Rust] {
        let settings = package.settings();
        assert!(settings.len() > 15 && settings.iter().any(|name| name == "RegionMap"), "{settings:?}");
        for name in settings {
            assert!(table.contains(&format!("`{name}`")), "{package:?} has {name}");
        }
    }
}
