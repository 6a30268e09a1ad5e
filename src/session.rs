//! A partition's door: encrypt and decrypt.

use std::fmt;
use std::sync::Arc;

use crate::clock::Moment;
use crate::core::Core;
use crate::data_row;
use crate::error::{BackendError, Error};
use crate::keyring::{KeyInUse, Keyring};
use crate::keys::engine::Begun;
use crate::partition::Owner;
use crate::plaintext::Plaintext;
use crate::record::{Created, DataRowRecord, KeyMeta, WRAPPED_DATA_ROW_KEY_BYTES};
use crate::telemetry::operations::Operation;

/// Encrypts and decrypts one partition's data.
///
/// It is a cheap handle: it pins no keys, dropping it needs no call, and it may outlive the
/// [`SessionFactory`](crate::SessionFactory) handle it came from.
///
/// # Cancel safety
/// Every method may be dropped at any await: nothing half-made stays, and key loads go on for
/// others that wait for them.
#[derive(Clone)]
pub struct Session {
    core: Arc<Core>,
    keyring: Arc<Keyring>,
}

/// Where a service keeps its records, for [`Session::store`] and [`Session::load`].
///
/// ```
/// # use claviger::{InMemoryMetastore, SecretKey, SessionFactory, StaticKms, SystemRandom};
/// use std::sync::Mutex;
/// use claviger::{BackendError, DataRowRecord, Persistence};
///
/// #[derive(Default)]
/// struct Cards(Mutex<Vec<DataRowRecord>>);
///
/// impl Persistence for Cards {
///     type Key = usize;
///
///     async fn store(&self, record: &DataRowRecord) -> Result<usize, BackendError> {
///         let mut cards = self.0.lock().map_err(|_| BackendError::permanent("a writer panicked"))?;
///         cards.push(record.clone());
///         Ok(cards.len() - 1)
///     }
///
///     async fn load(&self, key: &usize) -> Result<Option<DataRowRecord>, BackendError> {
///         let cards = self.0.lock().map_err(|_| BackendError::permanent("a writer panicked"))?;
///         Ok(cards.get(*key).cloned())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let kms = StaticKms::new(&SecretKey::generate(&SystemRandom::new())?)?;
/// # let builder = SessionFactory::builder(InMemoryMetastore::new(), kms);
/// # let factory = builder.service("checkout").product("payments").build()?;
/// let (session, cards) = (factory.session("customer-17")?, Cards::default());
/// let key = session.store(&cards, b"4111 1111 1111 1111").await?;
/// let card = session.load(&cards, &key).await?;
/// assert_eq!(card.as_deref(), Some(&b"4111 1111 1111 1111"[..]));
/// assert!(session.load(&cards, &99).await?.is_none());
/// # Ok(()) }
/// ```
pub trait Persistence {
    /// What a record is found by.
    type Key;

    /// Stores a record and returns what it is found by.
    fn store(&self, record: &DataRowRecord) -> impl Future<Output = Result<Self::Key, BackendError>> + Send;

    /// Loads a record; `None` if there is none.
    fn load(
        &self,
        key: &Self::Key,
    ) -> impl Future<Output = Result<Option<DataRowRecord>, BackendError>> + Send;
}

impl Session {
    pub(crate) const fn new(core: Arc<Core>, keyring: Arc<Keyring>) -> Self {
        Self { core, keyring }
    }

    /// Encrypts `plaintext`, which may be empty, under a fresh data row key.
    ///
    /// # Errors
    /// [`Error::TooLarge`]; [`Error::Random`] and [`Error::Memory`]; with no usable key in the
    /// cache whatever loading or creating one can meet: [`Error::Metastore`], [`Error::Kms`],
    /// [`Error::Deadline`], [`Error::Overloaded`], [`Error::NoRuntime`] and what a damaged key
    /// record gives; [`Error::Closed`], [`Error::Forked`].
    ///
    /// ```
    /// # use claviger::{InMemoryMetastore, SecretKey, SessionFactory, StaticKms, SystemRandom};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let kms = StaticKms::new(&SecretKey::generate(&SystemRandom::new())?)?;
    /// # let builder = SessionFactory::builder(InMemoryMetastore::new(), kms);
    /// # let factory = builder.service("checkout").product("payments").build()?;
    /// let session = factory.session("customer-17")?;
    /// let record = session.encrypt(b"4111 1111 1111 1111").await?;
    /// let column = record.to_json();
    /// # assert_eq!(&*session.decrypt_json(&column).await?, b"4111 1111 1111 1111");
    /// # Ok(()) }
    /// ```
    pub async fn encrypt(&self, plaintext: &[u8]) -> Result<DataRowRecord, Error> {
        let begun = self.core.operations().begin(Operation::Encrypt);
        let core = begun.check(self.core.open())?;
        begun.check(data_row::check_payload(plaintext.len(), core.max_payload_bytes()))?;
        let now = core.context().now();
        if let Some(sealed) = self.seal_if_ready(core, now, plaintext) {
            begun.end_warm(now, &sealed);
            return sealed;
        }
        let cold = begun.leave_hot_path();
        let key = core.wait_for(core.engine().key_to_encrypt(&self.keyring)).await;
        cold.end(
            key.and_then(|key| {
                data_row::seal(key, core.context().random(), now, self.wraps(core), plaintext)
            }),
        )
    }

    /// Encrypts `plaintext` as [`encrypt`](Self::encrypt) does if that takes no waiting: with a cached key that
    /// may be used as it is. `None`: it would have to wait, so nothing was done; use `encrypt`.
    ///
    /// For callers that cannot await, such as bindings to other languages. Checks and replacements of keys that
    /// are due go on in the background, as ever.
    ///
    /// # Errors
    /// [`Error::TooLarge`]; [`Error::Random`] and [`Error::Memory`]; [`Error::Closed`], [`Error::Forked`].
    ///
    /// ```
    /// # use claviger::{InMemoryMetastore, SecretKey, SessionFactory, StaticKms, SystemRandom};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let kms = StaticKms::new(&SecretKey::generate(&SystemRandom::new())?)?;
    /// # let builder = SessionFactory::builder(InMemoryMetastore::new(), kms);
    /// # let factory = builder.service("checkout").product("payments").build()?;
    /// let session = factory.session("customer-17")?;
    /// assert!(session.try_encrypt(b"no key is cached yet")?.is_none());
    /// session.encrypt(b"loads the key, or makes it").await?;
    /// assert!(session.try_encrypt(b"finds it")?.is_some());
    /// # Ok(()) }
    /// ```
    pub fn try_encrypt(&self, plaintext: &[u8]) -> Result<Option<DataRowRecord>, Error> {
        let begun = self.core.operations().begin(Operation::Encrypt);
        let core = begun.check(self.core.open())?;
        begun.check(data_row::check_payload(plaintext.len(), core.max_payload_bytes()))?;
        let now = core.context().now();
        if let Some(sealed) = self.seal_if_ready(core, now, plaintext) {
            begun.end_warm(now, &sealed);
            return sealed.map(Some);
        }
        let Begun::Ready(key) = core.engine().begin_to_encrypt(&self.keyring) else { return Ok(None) };
        let sealed = key
            .and_then(|key| data_row::seal(key, core.context().random(), now, self.wraps(core), plaintext));
        begun.end_warm(now, &sealed);
        sealed.map(Some)
    }

    /// Encrypts if the latest key is cached, fresh and good for more.
    #[inline]
    fn seal_if_ready(
        &self,
        core: &Core,
        now: Moment,
        plaintext: &[u8],
    ) -> Option<Result<DataRowRecord, Error>> {
        let context = core.context();
        touch(core, &self.keyring, now);
        let key = self.keyring.take_latest().filter(|key| context.rules().is_ready(key, now))?;
        Some(data_row::seal(key, context.random(), now, self.wraps(core), plaintext))
    }

    /// Returns how much a key may wrap, and what is done about one that is to wrap no more.
    fn wraps(&self, core: &Core) -> (u64, impl FnOnce()) {
        (core.context().rules().wraps_max(), || core.engine().replace_worn_out(&self.keyring))
    }

    /// Decrypts a record of this partition.
    ///
    /// # Errors
    /// [`Error::ForeignRecord`] for a record of another partition, service or product;
    /// [`Error::Authentication`] for one that was altered; [`Error::KeyNotFound`] if its key is
    /// gone; [`Error::KeyRevoked`] if the policy says so; [`Error::MalformedRecord`],
    /// [`Error::TooLarge`]; otherwise as [`encrypt`](Self::encrypt).
    // Not an `async fn`, whose future would hold the other one and pass its result on.
    pub fn decrypt(&self, record: &DataRowRecord) -> impl Future<Output = Result<Plaintext, Error>> + Send {
        let (parent, wrapped_key) = record.wrapping();
        self.open(parent, wrapped_key, record.data())
    }

    /// Decrypts a record as [`decrypt`](Self::decrypt) does if that takes no waiting: with a cached key that may
    /// be used as it is. `None`: it would have to wait, so nothing was done; use `decrypt`.
    ///
    /// For callers that cannot await, such as bindings to other languages. Checks of keys that are due go on in
    /// the background, as ever.
    ///
    /// # Errors
    /// As [`decrypt`](Self::decrypt), but for those of loading a key.
    ///
    /// ```
    /// # use claviger::{InMemoryMetastore, SecretKey, SessionFactory, StaticKms, SystemRandom};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let kms = StaticKms::new(&SecretKey::generate(&SystemRandom::new())?)?;
    /// # let builder = SessionFactory::builder(InMemoryMetastore::new(), kms);
    /// # let factory = builder.service("checkout").product("payments").build()?;
    /// let session = factory.session("customer-17")?;
    /// let record = session.encrypt(b"4111 1111 1111 1111").await?;
    /// let Some(plaintext) = session.try_decrypt(&record)? else { panic!("its key is cached") };
    /// assert_eq!(&*plaintext, b"4111 1111 1111 1111");
    /// # Ok(()) }
    /// ```
    pub fn try_decrypt(&self, record: &DataRowRecord) -> Result<Option<Plaintext>, Error> {
        let begun = self.core.operations().begin(Operation::Decrypt);
        let core = begun.check(self.core.open())?;
        begun.check(data_row::check_sealed(record.data().len(), core.max_payload_bytes()))?;
        let (parent, wrapped_key) = record.wrapping();
        let mut other_keyring = None;
        let keyring = begun.check(self.keyring_of(core, parent, &mut other_keyring))?;
        let now = core.context().now();
        touch(core, keyring, now);
        let formers = || keyring.formers(parent.created(), now);
        let opened = if let Some(key) = ready_to_decrypt(core, keyring, parent.created(), now) {
            data_row::open(key, formers, wrapped_key, record.data().into())
        } else {
            match core.engine().begin_to_decrypt(self.keyring.id(), keyring, parent.created()) {
                Begun::Ready(key) => {
                    key.and_then(|key| data_row::open(key, formers, wrapped_key, record.data().into()))
                }
                Begun::Wait(_) | Begun::Load(..) => return Ok(None),
            }
        };
        begun.end_warm(now, &opened);
        opened.map(Some)
    }

    /// Encrypts `plaintext` and returns the record's JSON.
    ///
    /// # Errors
    /// As [`encrypt`](Self::encrypt).
    pub async fn encrypt_json(&self, plaintext: &[u8]) -> Result<String, Error> {
        Ok(self.encrypt(plaintext).await?.to_json())
    }

    /// Decrypts a record from its JSON.
    ///
    /// # Errors
    /// As [`decrypt`](Self::decrypt).
    ///
    /// ```
    /// # use claviger::{InMemoryMetastore, SecretKey, SessionFactory, StaticKms, SystemRandom};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let kms = StaticKms::new(&SecretKey::generate(&SystemRandom::new())?)?;
    /// # let builder = SessionFactory::builder(InMemoryMetastore::new(), kms);
    /// # let factory = builder.service("checkout").product("payments").build()?;
    /// let session = factory.session("customer-17")?;
    /// let json = session.encrypt_json(b"4111 1111 1111 1111").await?;
    /// assert_eq!(&*session.decrypt_json(&json).await?, b"4111 1111 1111 1111");
    /// # Ok(()) }
    /// ```
    pub async fn decrypt_json(&self, json: impl AsRef<[u8]>) -> Result<Plaintext, Error> {
        let begun = self.core.operations().begin(Operation::Decrypt);
        begun.check(self.core.open())?;
        let record = begun.check(DataRowRecord::from_json(json.as_ref()).map_err(Error::from))?;
        let (parent, wrapped_key, data) = record.into_parts();
        self.open(&parent, &wrapped_key, data).await
    }

    /// Encrypts `plaintext` and hands the record to `persistence`; returns what it is found by. There is an example
    /// at [`Persistence`].
    ///
    /// # Errors
    /// As [`encrypt`](Self::encrypt), and [`Error::Persistence`].
    pub async fn store<P: Persistence>(&self, persistence: &P, plaintext: &[u8]) -> Result<P::Key, Error> {
        let record = self.encrypt(plaintext).await?;
        persistence.store(&record).await.map_err(|source| Error::Persistence { operation: "store", source })
    }

    /// Loads a record from `persistence` and decrypts it; `None` if there is none. There is an example at
    /// [`Persistence`].
    ///
    /// # Errors
    /// As [`decrypt`](Self::decrypt), and [`Error::Persistence`].
    pub async fn load<P: Persistence>(
        &self,
        persistence: &P,
        key: &P::Key,
    ) -> Result<Option<Plaintext>, Error> {
        let loaded = persistence.load(key).await;
        match loaded.map_err(|source| Error::Persistence { operation: "load", source })? {
            Some(record) => self.decrypt(&record).await.map(Some),
            None => Ok(None),
        }
    }

    /// Opens a record given in its parts.
    async fn open(
        &self,
        parent: &KeyMeta,
        wrapped_key: &[u8; WRAPPED_DATA_ROW_KEY_BYTES],
        data: impl AsRef<[u8]> + Into<Box<[u8]>>,
    ) -> Result<Plaintext, Error> {
        let begun = self.core.operations().begin(Operation::Decrypt);
        let core = begun.check(self.core.open())?;
        begun.check(data_row::check_sealed(data.as_ref().len(), core.max_payload_bytes()))?;
        let mut other_keyring = None;
        let keyring = begun.check(self.keyring_of(core, parent, &mut other_keyring))?;
        let data = data.into();
        let now = core.context().now();
        touch(core, keyring, now);
        let formers = || keyring.formers(parent.created(), now);
        if let Some(key) = ready_to_decrypt(core, keyring, parent.created(), now) {
            let opened = data_row::open(key, formers, wrapped_key, data);
            begun.end_warm(now, &opened);
            return opened;
        }
        let cold = begun.leave_hot_path();
        let engine = core.engine();
        let key = core.wait_for(engine.key_to_decrypt(self.keyring.id(), keyring, parent.created())).await;
        cold.end(key.and_then(|key| data_row::open(key, formers, wrapped_key, data)))
    }

    /// Returns the keyring of the key that a record names; one that is not this session's is put in `other`.
    #[inline]
    fn keyring_of<'a>(
        &'a self,
        core: &Core,
        parent: &KeyMeta,
        other: &'a mut Option<Arc<Keyring>>,
    ) -> Result<&'a Arc<Keyring>, Error> {
        match core.context().naming().owner(self.keyring.id(), parent.id()) {
            Owner::Own => Ok(&self.keyring),
            Owner::OtherRegion => {
                Ok(other.insert(core.caches().intermediate().keyring(parent.id().as_str())))
            }
            Owner::Foreign => Err(Error::ForeignRecord),
        }
    }
}

/// Returns the key version if it is cached, fresh and not revoked.
#[inline]
fn ready_to_decrypt(core: &Core, keyring: &Keyring, created: Created, now: Moment) -> Option<KeyInUse> {
    keyring.take_version(created).filter(|key| core.context().rules().is_ready_to_decrypt(key, now))
}

/// Notes that the keyring is in use; about once a second the cache hears of it, so that a hot
/// partition that looks nothing up does not look idle.
#[inline]
fn touch(core: &Core, keyring: &Keyring, now: Moment) {
    if keyring.touch(now) {
        core.caches().intermediate().touch(keyring);
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("intermediate_key", self.keyring.id()).finish_non_exhaustive()
    }
}
