//! A partition's door: encrypt and decrypt.

use std::fmt;
use std::sync::Arc;

use crate::clock::Moment;
use crate::core::Core;
use crate::data_row;
use crate::error::{BackendError, Error};
use crate::keyring::Keyring;
use crate::partition::Owner;
use crate::plaintext::Plaintext;
use crate::record::{DataRowRecord, KeyMeta, WRAPPED_DATA_ROW_KEY_BYTES};

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
    pub async fn encrypt(&self, plaintext: &[u8]) -> Result<DataRowRecord, Error> {
        let core = self.core.open()?;
        data_row::check_payload(plaintext.len(), core.payload_bytes_max())?;
        let context = core.context();
        let now = context.now();
        touch(core, &self.keyring, now);
        if let Some(key) = self.keyring.take_latest().filter(|key| context.rules().is_ready(key, now)) {
            return data_row::seal(key, context.random(), now, self.wraps(core), plaintext);
        }
        let key = core.wait_for(core.engine().key_to_encrypt(&self.keyring)).await?;
        data_row::seal(key, context.random(), now, self.wraps(core), plaintext)
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
        self.open(record.parent(), record.wrapped_key(), record.data())
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
    pub async fn decrypt_json(&self, json: &[u8]) -> Result<Plaintext, Error> {
        self.core.open()?;
        let (parent, wrapped_key, data) = DataRowRecord::from_json(json)?.into_parts();
        self.open(&parent, &wrapped_key, data).await
    }

    /// Encrypts `plaintext` and hands the record to `persistence`; returns what it is found by.
    ///
    /// # Errors
    /// As [`encrypt`](Self::encrypt), and [`Error::Persistence`].
    pub async fn store<P: Persistence>(&self, persistence: &P, plaintext: &[u8]) -> Result<P::Key, Error> {
        let record = self.encrypt(plaintext).await?;
        persistence.store(&record).await.map_err(|source| Error::Persistence { operation: "store", source })
    }

    /// Loads a record from `persistence` and decrypts it; `None` if there is none.
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
        let core = self.core.open()?;
        data_row::check_sealed(data.as_ref().len(), core.payload_bytes_max())?;
        let context = core.context();
        let other_keyring;
        let keyring = match context.naming().owner(self.keyring.id(), parent.id()) {
            Owner::Own => &self.keyring,
            Owner::OtherRegion => {
                other_keyring = core.caches().intermediate().keyring(parent.id().as_str());
                &other_keyring
            }
            Owner::Foreign => return Err(Error::ForeignRecord),
        };
        let data = data.into();
        let now = context.now();
        touch(core, keyring, now);
        let formers = || keyring.formers(parent.created(), now);
        let key = keyring.take_version(parent.created());
        if let Some(key) = key.filter(|key| context.rules().is_ready_to_decrypt(key, now)) {
            return data_row::open(key, formers, wrapped_key, data);
        }
        let engine = core.engine();
        let key = core.wait_for(engine.key_to_decrypt(self.keyring.id(), keyring, parent.created())).await?;
        data_row::open(key, formers, wrapped_key, data)
    }
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
