//! A row copied under another id or time: whose key it is no row proves, and a process that knows the key
//! tells.

use claviger::{
    BackendError, CallContext, DataRowRecord, EnvelopeKeyRecord, Error, Event, KeyManagementService, KeyMeta,
    SecretKey, Session, StaticKms, WrapHealth, WrappedKey,
};

use crate::forged::{copy, relabelled};
use crate::support::*;

const MALLORY: &str = "_IK_mallory_checkout_payments";

async fn is_refused(session: &Session, record: &DataRowRecord) {
    let error = session.decrypt(record).await.unwrap_err();
    assert!(matches!(error, Error::Authentication), "{error:?}");
}

/// He copies alice's row to an id of his own and relabels her record.
#[tokio::test]
async fn writer_of_both_reads_no_record_whose_key_the_process_holds() {
    for created in [-60, 0, 60] {
        let world = World::new();
        let (record, _) = world.sealed().await;
        let row = world.latest_row(IK).await;
        let mallory = world.session_of("mallory");
        world.put(copy(&row, meta(MALLORY, created))).await;
        is_refused(&mallory, &relabelled(&record, &meta(MALLORY, created))).await;
        assert_eq!(world.raised(Event::Tampered), 1, "{created}");
        world.decrypts(&record).await;
        assert_eq!(world.encrypts_under().await, 0);
    }
}

/// The same key in another row of its own id is no other partition's: another program may take it for the latest
/// and seal under it in good faith. It opens that, and encrypts nothing here.
#[tokio::test]
async fn copy_under_its_own_id_opens_what_others_sealed_under_it_and_tells() {
    let world = World::new();
    let (record, _) = world.sealed().await;
    let row = world.latest_row(IK).await;
    world.put(copy(&row, meta(IK, 60))).await;
    let theirs = relabelled(&record, &meta(IK, 60));
    for _ in 0..3 {
        world.decrypts(&theirs).await;
        world.decrypts(&record).await;
    }
    assert_eq!(world.raised(Event::Tampered), 1);
    assert_eq!(world.encrypts_under().await, 0);
    world.clock.advance(STALE);
    assert_eq!(world.encrypts_under().await, seconds(STALE));
}

/// Nor while it is in use only, its keyring evicted.
#[tokio::test]
async fn writer_of_both_reads_no_record_whose_key_is_an_orphan() {
    let world = World::with((policy(), room_for(1)));
    let (record, _) = world.sealed().await;
    let row = world.latest_row(IK).await;
    // What holds a key in use is a plaintext that is read: here an operation that stands still.
    let held = world.session();
    let plaintext = held.decrypt(&record).await.unwrap();
    world.put(copy(&row, meta(MALLORY, 0))).await;
    is_refused(&world.session_of("mallory"), &relabelled(&record, &meta(MALLORY, 0))).await;
    assert_eq!(*plaintext, *b"secret");
}

/// What one process cannot see: the threat model says so, and this is how it is.
#[tokio::test]
async fn writer_of_both_reads_a_record_by_a_process_that_does_not_hold_its_key() {
    let home = World::new();
    let (record, _) = home.sealed().await;
    let row = home.latest_row(IK).await;
    home.put(copy(&row, meta(MALLORY, 0))).await;
    let world = home.other_process();
    let plaintext =
        world.session_of("mallory").decrypt(&relabelled(&record, &meta(MALLORY, 0))).await.unwrap();
    assert_eq!(*plaintext, *b"secret");
    // And then the owner's key is the one that comes second.
    is_refused(&world.session(), &record).await;
    assert_eq!(world.raised(Event::Tampered), 1);
}

/// A copy of another id's key encrypts nothing, and is no reason to make a key.
#[tokio::test]
async fn copy_of_another_ids_key_that_is_held_never_encrypts_and_makes_no_new_key() {
    for to in [meta(MALLORY, 0), meta(MALLORY, 60), meta("_IK_alice2_checkout_payments", 0)] {
        let world = World::new();
        let row = world.sealed_row(IK).await;
        let partition = to.id().as_str()["_IK_".len()..].split('_').next().unwrap().to_owned();
        world.put(copy(&row, to.clone())).await;
        let error = world.session_of(&partition).encrypt(b"secret").await.unwrap_err();
        assert!(matches!(error, Error::Authentication), "{to}: {error:?}");
        assert_eq!(world.raised(Event::Tampered), 1, "{to}");
        assert_eq!(world.rows(to.id().as_str()).await.len(), 1, "{to}");
    }
}

/// One of its own id's key is replaced at once, by the process that holds that key and by one that sees the row
/// beside the copy. So it denies nobody service.
#[tokio::test]
async fn copy_in_a_later_row_of_its_own_id_is_replaced_at_once() {
    for is_held in [true, false] {
        let home = World::new();
        let row = home.sealed_row(IK).await;
        home.put(copy(&row, meta(IK, 60))).await;
        let world = if is_held { home } else { home.other_process() };
        world.clock.advance(STALE);
        assert_eq!(world.encrypts_under().await, seconds(STALE), "{is_held}");
        assert_eq!(world.raised(Event::Tampered), 1, "{is_held}");
        assert_ne!(world.latest_row(IK).await.wrapped_key(), row.wrapped_key());
    }
}

/// A KMS whose wrapped keys have another spelling, as JSON has.
#[derive(Debug)]
struct Spelled(StaticKms);

/// What stands behind a wrapped key in its other spelling: more than a wrapped key ends in by chance.
const SPELLING: &[u8] = b", spelled otherwise";

impl Spelled {
    fn plain(wrapped: &[u8]) -> &[u8] {
        wrapped.strip_suffix(SPELLING).unwrap_or(wrapped)
    }
}

impl KeyManagementService for Spelled {
    async fn wrap_key(
        &self,
        key: &SecretKey,
        meta: &KeyMeta,
        context: &CallContext,
    ) -> Result<WrappedKey, BackendError> {
        self.0.wrap_key(key, meta, context).await
    }

    async fn unwrap_key(
        &self,
        wrapped: &[u8],
        meta: &KeyMeta,
        context: &CallContext,
    ) -> Result<SecretKey, BackendError> {
        self.0.unwrap_key(Self::plain(wrapped), meta, context).await
    }

    fn inspect(&self, wrapped: &[u8]) -> Result<WrapHealth, BackendError> {
        self.0.inspect(Self::plain(wrapped))
    }
}

/// Nor does another spelling of the wrapped form hide a system key.
#[tokio::test]
async fn copy_of_a_system_key_is_told_by_the_key_itself() {
    for is_revoked in [false, true] {
        let world = World::new();
        let builder = claviger::SessionFactory::builder(
            world.store.clone(),
            Spelled(StaticKms::new(&SecretKey::generate(&claviger::SystemRandom::new()).unwrap()).unwrap()),
        );
        let factory = builder
            .service("checkout")
            .product("payments")
            .policy(policy())
            .clock(world.clock.clone())
            .build()
            .unwrap();
        let first = factory.session("alice").unwrap().encrypt(b"secret").await.unwrap();
        let row = world.latest_row(SK).await;
        if is_revoked {
            world.revoke_latest(SK).await;
            factory.invalidate(row.meta().id()).unwrap();
            let second = factory.session("alice").unwrap().encrypt(b"secret").await.unwrap();
            assert_eq!(created(&second), 1);
        }
        let spelled = [row.wrapped_key(), SPELLING].concat();
        world.put(EnvelopeKeyRecord::new(meta(SK, 60), spelled, None)).await;
        world.clock.advance(2 * MINUTE);
        // A new partition needs the latest system key.
        factory.invalidate(row.meta().id()).unwrap();
        factory.session("bob").unwrap().encrypt(b"secret").await.unwrap();
        let parent = world.latest_row("_IK_bob_checkout_payments").await.parent().cloned();
        assert_eq!(parent, Some(meta(SK, 120)), "a new one");
        let events = factory.status().unwrap().events;
        assert!(events.contains(&(Event::Tampered, 1)), "{events:?}");
        assert!(factory.session("alice").unwrap().decrypt(&first).await.is_ok());
    }
}
