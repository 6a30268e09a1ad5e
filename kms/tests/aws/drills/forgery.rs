//! Somebody writes the store, and has keys of his own in the same KMS. He can keep data from being
//! read; he cannot choose a key.

use claviger::testing::{ReplaceOne as _, call};
use claviger::{
    DataRowRecord, Error, Event, KeyManagementService as _, KeyMeta, Metastore as _, MetastoreAdmin as _,
};
use claviger_kms::AwsKms;
use claviger_testkit::shared_localstack;
use serde_json::{Value, json};

use crate::drills::world::{World, assert_reads, raised, write};
use crate::support::{REGIONS, builder, envelope, new_secret};

/// A store with a row in it, and its system key as it is wrapped.
struct Target {
    world: World,
    kms: AwsKms,
    row: DataRowRecord,
    system_key: KeyMeta,
    wrapped: Vec<u8>,
}

impl Target {
    async fn new() -> Self {
        let world = World::new(shared_localstack()).await;
        let kms = world.kms().await;
        Self::over(world, kms).await
    }

    async fn over(world: World, kms: AwsKms) -> Self {
        let row = write(&world.process(&kms, "product"), "alice").await;
        let (system_key, wrapped) = system_key(&world, "product").await;
        Self { world, kms, row, system_key, wrapped }
    }

    /// Puts a forged envelope in the place of the system key's, and returns what a process that
    /// starts then says to a read, and to a write of that partition.
    async fn forged(&self, forged: &Value) -> [Result<(), Error>; 2] {
        let stored = system_key(&self.world, "product").await.1;
        let forged = forged.to_string();
        let (store, context) = (&self.world.store, call());
        let replaced = store.replace_one(&self.system_key, &stored, forged.as_bytes(), &context).await;
        assert!(replaced.unwrap());
        let process = || self.world.process(&self.kms, "product").session("alice").unwrap();
        [
            process().decrypt(&self.row).await.map(|read| assert_eq!(&*read, b"alice")),
            process().encrypt(b"data").await.map(drop),
        ]
    }

    /// Neither is served, and no region was asked to use a key that is not configured.
    async fn assert_refused(&self, forged: &Value, what: &str) {
        for answer in self.forged(forged).await {
            assert!(matches!(answer, Err(Error::Authentication)), "{what}: {answer:?}");
        }
        self.assert_own_keys_named();
    }

    async fn assert_harmless(&self, forged: &Value, what: &str) {
        for answer in self.forged(forged).await {
            assert!(answer.is_ok(), "{what}: {answer:?}");
        }
        self.assert_own_keys_named();
    }

    fn assert_own_keys_named(&self) {
        for (site, keys) in self.world.sites.iter().zip(self.world.keys_named()) {
            assert!(keys.iter().all(|key| *key == site.arn), "{}: {keys:?}", site.region);
        }
    }
}

/// The one version of a product's system key, and how it is wrapped.
async fn system_key(world: &World, product: &str) -> (KeyMeta, Vec<u8>) {
    let page = world.store.list("", None, 100, &call()).await.unwrap();
    let id = format!("_SK_shop_{product}");
    let meta = page.records.iter().find(|record| record.meta().id().as_str() == id).unwrap().meta().clone();
    let record = world.store.load(&meta, &call()).await.unwrap().unwrap();
    (meta, record.wrapped_key().to_vec())
}

/// An envelope around a key that the forger knows, under master keys of his in the same account and
/// the same regions.
async fn own_envelope(of: &KeyMeta) -> Value {
    let forger = builder(shared_localstack(), &REGIONS).await.open().await.unwrap();
    envelope(forger.wrap_key(&new_secret(), of, &call()).await.unwrap().bytes())
}

/// The copies of one envelope with a field of each taken from the one that stands at its place in
/// another.
fn with_field(of: &Value, field: &str, from: &Value) -> Value {
    let mut forged = of.clone();
    for (place, copy) in forged["kmsKeks"].as_array_mut().unwrap().iter_mut().enumerate() {
        copy[field] = from["kmsKeks"][place][field].clone();
    }
    forged
}

#[tokio::test]
async fn a_forged_system_key_is_never_one_of_the_forgers_choice() {
    let target = Target::new().await;
    let (true_one, own) = (envelope(&target.wrapped), own_envelope(&target.system_key).await);
    target.assert_refused(&own, "his envelope with his ARNs").await;
    target.assert_refused(&with_field(&own, "arn", &true_one), "his envelope with our ARNs").await;
    let his_copies = with_field(&true_one, "encryptedKek", &own);
    target.assert_refused(&his_copies, "his copies around our key").await;
    let mut his_key = true_one.clone();
    his_key["encryptedKey"] = own["encryptedKey"].clone();
    target.assert_refused(&his_key, "our copies around his key").await;
    // Nothing is left of it when the true one is back.
    target.assert_harmless(&true_one, "the true one").await;
}

#[tokio::test]
async fn copies_in_other_places_open_nothing_and_arns_are_not_heeded() {
    let target = Target::new().await;
    let true_one = envelope(&target.wrapped);
    let mut turned = true_one.clone();
    turned["kmsKeks"].as_array_mut().unwrap().rotate_left(1);
    target.assert_harmless(&turned, "whole copies in another order").await;
    target.assert_harmless(&with_field(&true_one, "arn", &turned), "the regions' ARNs turned round").await;
    let own = own_envelope(&target.system_key).await;
    target.assert_harmless(&with_field(&true_one, "arn", &own), "his ARNs").await;
    target.assert_refused(&with_field(&true_one, "region", &turned), "each copy in another region").await;
    target.assert_refused(&with_field(&true_one, "encryptedKek", &turned), "ciphertexts turned round").await;
    // Of another key that the same process may unwrap.
    write(&target.world.process(&target.kms, "other"), "bob").await;
    let other = envelope(&system_key(&target.world, "other").await.1);
    target.assert_refused(&with_field(&true_one, "encryptedKek", &other), "another key's copies").await;
}

#[tokio::test]
async fn a_forged_copy_of_one_region_keeps_nobody_from_reading() {
    let target = Target::new().await;
    let (true_one, own) = (envelope(&target.wrapped), own_envelope(&target.system_key).await);
    for place in 0..REGIONS.len() {
        let mut forged = own.clone();
        forged["encryptedKey"] = true_one["encryptedKey"].clone();
        forged["kmsKeks"][place] = true_one["kmsKeks"][place].clone();
        target.assert_harmless(&forged, "one true copy among two of his").await;
        // A second copy of a region, before the true one.
        let mut twice = true_one.clone();
        let copies = twice["kmsKeks"].as_array_mut().unwrap();
        copies.splice(0..0, own["kmsKeks"].as_array().unwrap().iter().cloned());
        target.assert_harmless(&twice, "his copies before ours").await;
        let mut cut = true_one.clone();
        cut["kmsKeks"][place]["encryptedKek"] = json!("AAAA");
        target.assert_harmless(&cut, "a copy that is none").await;
    }
}

/// The whole envelope of another system key of the same service, in this one's place: KMS unwraps it,
/// and it opens nothing here.
#[tokio::test]
async fn another_system_keys_envelope_opens_no_row_of_this_one() {
    let target = Target::new().await;
    write(&target.world.process(&target.kms, "other"), "bob").await;
    let other = envelope(&system_key(&target.world, "other").await.1);
    target.assert_refused(&other, "another system key's envelope").await;
    let process = target.world.process(&target.kms, "product");
    let refused = process.session("alice").unwrap().decrypt(&target.row).await.unwrap_err();
    assert!(matches!(refused, Error::Authentication), "{refused:?}");
    assert!(raised(&process, Event::Tampered) >= 1, "it is an alarm");
    // The other key's own rows are as they were.
    let row = write(&target.world.process(&target.kms, "other"), "bob").await;
    assert_reads(&target.world.process(&target.kms, "other"), "bob", &row).await;
}

/// With an encryption context KMS itself refuses it, also for a partition that has no key yet.
#[tokio::test]
async fn bound_to_its_context_another_system_keys_envelope_is_refused_by_kms() {
    let world = World::new(shared_localstack()).await;
    let kms = world.builder().encryption_context(true).open().await.unwrap();
    let target = Target::over(world, kms).await;
    write(&target.world.process(&target.kms, "other"), "bob").await;
    let other = envelope(&system_key(&target.world, "other").await.1);
    target.assert_refused(&other, "another system key's envelope").await;
    let process = target.world.process(&target.kms, "product");
    let refused = process.session("nobody yet").unwrap().encrypt(b"data").await.unwrap_err();
    assert!(matches!(refused, Error::Authentication), "{refused:?}");
    target.assert_harmless(&envelope(&target.wrapped), "the true one").await;
}
