//! We and the Python package `asherah` (Rust inside) on one SQLite file: each reads what the other
//! writes, and follows the other's rotations and revocations.
//!
//! Its clock is the machine's; ours is set, so that keys are old without waiting.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper fails its test by panicking"
)]

mod peer;

use std::time::Duration;

use claviger::testing::FixedClock;
use claviger::{
    Clock, Consistency, CryptoPolicy, DataRowRecord, Error, KeyMeta, Metastore, MetastoreAdmin, SecretKey,
    SessionFactory, StaticKms, SystemClock,
};
use claviger_metastore::SqliteMetastore;
use peer::Peer;
use tempfile::TempDir;

const SERVICE: &str = "checkout";
const PRODUCT: &str = "payments";
const EXPIRE_AFTER: Duration = Duration::from_secs(90 * 24 * 60 * 60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const PARTITION: &str = "customer-17";

/// One SQLite file, the peer on it, and what it takes for us to be there too.
struct World {
    store: SqliteMetastore,
    peer: Peer,
    clock: FixedClock,
    _folder: TempDir,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.db");
        let store = SqliteMetastore::open(&path).await.unwrap();
        let peer = Peer::start(&path, master_key().expose_secret());
        let clock = FixedClock::new(SystemClock::new().wall().as_secs());
        Self { store, peer, clock, _folder: folder }
    }

    /// A factory that has cached nothing yet, and asks the metastore at each call.
    fn ours(&self) -> SessionFactory {
        let policy = CryptoPolicy::default().expire_after(EXPIRE_AFTER).revoke_check_interval(Duration::ZERO);
        SessionFactory::builder(self.store.clone(), StaticKms::new(&master_key()).unwrap())
            .service(SERVICE)
            .product(PRODUCT)
            .policy(policy)
            .clock(self.clock.clone())
            .build()
            .unwrap()
    }

    async fn encrypt(&self, plaintext: &[u8]) -> DataRowRecord {
        self.ours().session(PARTITION).unwrap().encrypt(plaintext).await.unwrap()
    }

    /// Both sides decrypt all of these.
    async fn assert_both_decrypt(&mut self, records: &[(&DataRowRecord, &[u8])]) {
        for (record, plaintext) in records {
            assert_decrypts(&self.ours(), PARTITION, record, plaintext).await;
            self.peer.assert_decrypts(PARTITION, record, plaintext);
        }
    }

    async fn revoke(&self, key: &KeyMeta) {
        assert!(self.store.revoke(key).await.unwrap());
    }

    async fn system_key_of(&self, record: &DataRowRecord) -> KeyMeta {
        let intermediate = self.store.load(record.parent(), Consistency::Strong).await.unwrap().unwrap();
        intermediate.parent().unwrap().clone()
    }

    async fn count(&self) -> u64 {
        self.store.count().await.unwrap()
    }
}

fn master_key() -> SecretKey {
    SecretKey::try_init(|key| {
        key.iter_mut().zip(0..).for_each(|(byte, value)| *byte = value);
        Ok::<_, Error>(())
    })
    .unwrap()
}

async fn assert_decrypts(
    factory: &SessionFactory,
    partition: &str,
    record: &DataRowRecord,
    plaintext: &[u8],
) {
    let decrypted = factory.session(partition).unwrap().decrypt(record).await.unwrap();
    assert_eq!(*decrypted, *plaintext);
}

/// In either order of who comes first and so makes the keys.
#[tokio::test]
async fn each_reads_what_the_other_writes_under_the_same_keys() {
    let mut world = World::new().await;
    let ours = world.ours();
    let large = vec![0xa5; 100_000];
    let payloads: [&[u8]; 4] = [b"", b"\0", "4111 1111 1111 1111, Zoë".as_bytes(), &large];
    let partitions = [PARTITION, "a_b", "with blanks", r#"quote " and \ slash"#, "Zoë 令 😀", "&<>+/="];
    for (index, partition) in partitions.into_iter().enumerate() {
        let session = ours.session(partition).unwrap();
        for (turn, payload) in payloads.iter().enumerate() {
            let (our_record, their_record);
            if (index + turn) % 2 == 0 {
                our_record = session.encrypt(payload).await.unwrap();
                their_record = world.peer.encrypt(partition, payload);
            } else {
                their_record = world.peer.encrypt(partition, payload);
                our_record = session.encrypt(payload).await.unwrap();
            }
            assert_eq!(our_record.parent(), their_record.parent());
            world.peer.assert_decrypts(partition, &our_record, payload);
            assert_decrypts(&ours, partition, &their_record, payload).await;
        }
    }
    // One system key, and not counted what the peer keeps beside the keys.
    assert_eq!(world.count().await, 1 + partitions.len() as u64);
}

#[tokio::test]
async fn records_of_another_partition_are_refused_by_both() {
    let mut world = World::new().await;
    let our_record = world.encrypt(b"ours").await;
    let their_record = world.peer.encrypt(PARTITION, b"theirs");
    world.peer.assert_refuses("customer-18", &our_record);
    let error = world.ours().session("customer-18").unwrap().decrypt(&their_record).await.unwrap_err();
    assert!(matches!(error, Error::ForeignRecord), "{error:?}");
}

#[tokio::test]
async fn asherah_replaces_our_expired_keys_and_we_follow() {
    let mut world = World::new().await;
    world.clock.set_wall_back(EXPIRE_AFTER + HOUR);
    let old = world.encrypt(b"old").await;

    let rotated = world.peer.encrypt(PARTITION, b"rotated");
    assert_ne!(rotated.parent(), old.parent());
    assert_ne!(world.system_key_of(&rotated).await, world.system_key_of(&old).await);

    world.clock.advance(EXPIRE_AFTER + HOUR);
    let followed = world.encrypt(b"followed").await;
    assert_eq!(followed.parent(), rotated.parent());
    world.assert_both_decrypt(&[(&old, b"old"), (&rotated, b"rotated"), (&followed, b"followed")]).await;
    assert_eq!(world.count().await, 4);
}

#[tokio::test]
async fn we_replace_expired_keys_of_asherah_and_it_follows() {
    let mut world = World::new().await;
    let old = world.peer.encrypt(PARTITION, b"old");

    world.clock.advance(EXPIRE_AFTER + HOUR);
    let rotated = world.encrypt(b"rotated").await;
    assert_ne!(rotated.parent(), old.parent());
    assert_ne!(world.system_key_of(&rotated).await, world.system_key_of(&old).await);

    let followed = world.peer.encrypt(PARTITION, b"followed");
    assert_eq!(followed.parent(), rotated.parent());
    world.assert_both_decrypt(&[(&old, b"old"), (&rotated, b"rotated"), (&followed, b"followed")]).await;
    assert_eq!(world.count().await, 4);
}

#[tokio::test]
async fn asherah_replaces_a_key_we_revoked_and_we_follow_in_a_live_session() {
    let mut world = World::new().await;
    world.clock.set_wall_back(2 * HOUR);
    let ours = world.ours();
    let session = ours.session(PARTITION).unwrap();
    let revoked = session.encrypt(b"revoked").await.unwrap();
    world.revoke(revoked.parent()).await;

    let replaced = world.peer.encrypt(PARTITION, b"replaced");
    assert_ne!(replaced.parent(), revoked.parent());

    world.clock.advance(2 * HOUR);
    let followed = session.encrypt(b"followed").await.unwrap();
    assert_eq!(followed.parent(), replaced.parent());
    world
        .assert_both_decrypt(&[(&revoked, b"revoked"), (&replaced, b"replaced"), (&followed, b"followed")])
        .await;
}

/// Asherah itself cannot: its new key would have the creation time of the revoked one.
#[tokio::test]
async fn we_replace_a_key_revoked_in_the_minute_it_was_made_and_asherah_follows() {
    let mut world = World::new().await;
    let revoked = world.peer.encrypt(PARTITION, b"revoked");
    world.revoke(revoked.parent()).await;

    let replaced = world.encrypt(b"replaced").await;
    assert!(replaced.parent().created() > revoked.parent().created());

    let followed = world.peer.encrypt(PARTITION, b"followed");
    assert_eq!(followed.parent(), replaced.parent());
    world
        .assert_both_decrypt(&[(&revoked, b"revoked"), (&replaced, b"replaced"), (&followed, b"followed")])
        .await;
}

#[tokio::test]
async fn we_replace_the_keys_under_a_revoked_system_key_and_asherah_follows() {
    let mut world = World::new().await;
    let old = world.peer.encrypt(PARTITION, b"old");
    let revoked = world.system_key_of(&old).await;
    world.revoke(&revoked).await;

    let replaced = world.encrypt(b"replaced").await;
    assert_ne!(replaced.parent(), old.parent());
    assert_ne!(world.system_key_of(&replaced).await, revoked);

    let followed = world.peer.encrypt(PARTITION, b"followed");
    assert_eq!(followed.parent(), replaced.parent());
    world.assert_both_decrypt(&[(&old, b"old"), (&replaced, b"replaced"), (&followed, b"followed")]).await;
}
