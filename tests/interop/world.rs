//! One store, the peers on it, and what it takes for us to be there too.

use std::any::Any;
use std::time::Duration;

use claviger::testing::{FixedClock, call};
use claviger::{
    Clock, CryptoPolicy, DataRowRecord, Error, KeyId, KeyMeta, MetastoreAdmin, SecretKey, Session,
    SessionFactory, StaticKms, SystemClock,
};
use tokio::runtime::Handle;

use crate::peer::{Habits, Package, Peer, Place};

pub(crate) const PRODUCT: &str = "payments";
pub(crate) const PARTITION: &str = "customer-17";
/// What ids have to hold.
const PARTITIONS: [&str; 8] =
    [PARTITION, "a_b", "with blanks", r#"quote " and ' and \ slash"#, "Zoë", "令 😀", "&<>+/=", LONG];
/// With what is put around it, 255 characters.
const LONG: &str = match str::from_utf8(&[b'l'; 255 - "_IK__checkout_payments".len()]) {
    Ok(long) => long,
    Err(_) => "",
};
pub(crate) const EXPIRE_AFTER: Duration = Duration::from_secs(90 * 24 * 60 * 60);
pub(crate) const HOUR: Duration = Duration::from_secs(60 * 60);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
/// The one that the Go package has built in.
pub(crate) const MASTER_KEY: &[u8; 32] = b"thisIsAStaticMasterKeyForTesting";

/// What key ids are made of, besides the partition and the product.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names {
    pub(crate) service: &'static str,
    pub(crate) region_suffix: Option<&'static str>,
}

pub(crate) const NAMES: Names = Names { service: "checkout", region_suffix: None };

/// The clock of the peers is the machine's; ours is set, so that keys are old without waiting.
pub(crate) struct World<S> {
    pub(crate) store: S,
    pub(crate) place: Place,
    names: Names,
    /// The one that acts first in what a test tells.
    pub(crate) lead: Peer,
    /// Those that have to follow.
    pub(crate) others: Vec<Peer>,
    pub(crate) clock: FixedClock,
    /// Those that everyone can write in.
    pub(crate) partitions: Vec<&'static str>,
    /// What must not go away before.
    _keep: Box<dyn Any + Send>,
}

impl<S: MetastoreAdmin + Clone> World<S> {
    /// `packages` are on the store, the first of them in the lead.
    pub(crate) fn new(store: S, place: Place, packages: &[Package], keep: impl Any + Send) -> Self {
        Self::named(NAMES, store, place, packages, keep)
    }

    pub(crate) fn named(
        names: Names,
        store: S,
        place: Place,
        packages: &[Package],
        keep: impl Any + Send,
    ) -> Self {
        let mut others = Peer::start_all(packages, &place, &habits(names));
        let lead = others.remove(0);
        let clock = FixedClock::new(now());
        Self {
            store,
            place,
            names,
            lead,
            others,
            clock,
            partitions: PARTITIONS.to_vec(),
            _keep: Box::new(keep),
        }
    }

    /// Of the database it is on.
    pub(crate) fn url(&self) -> &str {
        match &self.place {
            Place::Mysql(url) | Place::Postgres(url) => url,
            place => panic!("{place:?} has no URL"),
        }
    }

    pub(crate) fn without_partitions(mut self, which: impl Fn(&str) -> bool) -> Self {
        self.partitions.retain(|partition| !which(partition));
        self
    }

    /// A factory that has cached nothing yet, and asks the metastore at each call. It runs where the
    /// store's other calls do, whose connections would else end with the factory.
    pub(crate) fn ours(&self) -> SessionFactory {
        let policy = CryptoPolicy::default().expire_after(EXPIRE_AFTER).revoke_check_interval(Duration::ZERO);
        let builder = SessionFactory::builder(self.store.clone(), kms())
            .service(self.names.service)
            .product(PRODUCT)
            .policy(policy)
            .clock(self.clock.clone())
            .runtime(Handle::current());
        match self.names.region_suffix {
            Some(suffix) => builder.region_suffix(suffix),
            None => builder,
        }
        .build()
        .unwrap()
    }

    pub(crate) async fn encrypt(&self, plaintext: &[u8]) -> DataRowRecord {
        self.ours().session(PARTITION).unwrap().encrypt(plaintext).await.unwrap()
    }

    pub(crate) fn peers(&mut self) -> impl Iterator<Item = &mut Peer> {
        std::iter::once(&mut self.lead).chain(&mut self.others)
    }

    /// Every one encrypts, the lead first, and all use one key.
    pub(crate) async fn all_encrypt(&mut self, plaintext: &[u8]) -> Vec<DataRowRecord> {
        let mut records: Vec<_> = self.peers().map(|peer| peer.encrypt(PARTITION, plaintext)).collect();
        records.push(self.encrypt(plaintext).await);
        assert_one_key(&records);
        records
    }

    /// We and every peer decrypt all of these.
    pub(crate) async fn assert_all_decrypt(&mut self, records: &[(&DataRowRecord, &[u8])]) {
        let ours = self.ours().session(PARTITION).unwrap();
        for (record, plaintext) in records {
            assert_decrypts(&ours, record, plaintext).await;
            for peer in self.peers() {
                peer.assert_decrypts(PARTITION, record, plaintext);
            }
        }
    }

    pub(crate) async fn revoke(&self, key: &KeyMeta) {
        assert!(self.store.revoke(key, &call()).await.unwrap());
    }

    pub(crate) async fn system_key_of(&self, record: &DataRowRecord) -> KeyMeta {
        let intermediate = self.store.load(record.parent().unwrap(), &call()).await.unwrap().unwrap();
        intermediate.parent().unwrap().clone()
    }

    pub(crate) async fn count(&self) -> u64 {
        self.store.count(&call()).await.unwrap()
    }

    pub(crate) async fn versions(&self, id: &KeyId) -> usize {
        let page = self.store.list("", None, 1_000, &call()).await.unwrap();
        assert!(page.damaged.is_empty() && page.next.is_none(), "{page:?}");
        page.records.iter().filter(|record| record.meta().id() == id).count()
    }

    /// A process like the lead's whose sessions live on, and ask the metastore at each call.
    pub(crate) fn live_lead(&self) -> Peer {
        let habits = Habits { check_interval: Duration::from_nanos(1), live: true, ..habits(self.names) };
        Peer::start_all(&[self.lead.package()], &self.place, &habits).remove(0)
    }

    /// Sets our clock to the machine's.
    pub(crate) fn catch_up(&self) {
        self.clock.advance(Duration::from_secs(now() - self.clock.unix_seconds()));
    }
}

pub(crate) const fn habits(names: Names) -> Habits {
    Habits { names, expire_after: EXPIRE_AFTER, check_interval: HOUR, precision: MINUTE, live: false }
}

/// One key encrypted all of these.
#[track_caller]
pub(crate) fn assert_one_key<'a>(records: impl IntoIterator<Item = &'a DataRowRecord>) {
    let mut keys = records.into_iter().map(DataRowRecord::parent);
    let first = keys.next().unwrap();
    keys.for_each(|key| assert_eq!(key, first));
}

pub(crate) async fn assert_decrypts(ours: &Session, record: &DataRowRecord, plaintext: &[u8]) {
    assert_eq!(*ours.decrypt(record).await.unwrap(), *plaintext);
}

pub(crate) fn now() -> u64 {
    SystemClock::new().wall().as_secs()
}

pub(crate) fn kms() -> StaticKms {
    let master_key = SecretKey::try_init(|key| {
        key.copy_from_slice(MASTER_KEY);
        Ok::<_, Error>(())
    });
    StaticKms::danger_any_key(&master_key.unwrap()).unwrap()
}
