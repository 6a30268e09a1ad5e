//! The record that a service stores: sealed data with its wrapped data row key.

use std::fmt;

use super::id::{Created, KeyId, KeyMeta, MalformedRecord};
use crate::aead::OVERHEAD_BYTES;
use crate::secret::KEY_BYTES;

/// Sealed data with its wrapped data row key: what the user stores.
///
/// [`to_json`](Self::to_json) and [`from_json`](Self::from_json) speak Asherah's JSON form, and so does serde in
/// formats that people read; the former two are the fast ones. In binary formats serde makes one byte string,
/// whose first byte is the format: see `docs/design/semantics.md`.
///
/// A service that keeps the parts in columns of its own puts them together again:
///
/// ```
/// # use claviger::{InMemoryMetastore, SecretKey, SessionFactory, StaticKms, SystemRandom};
/// use claviger::{Created, DataRowRecord, KeyId, KeyMeta};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let kms = StaticKms::new(&SecretKey::generate(&SystemRandom::new())?)?;
/// # let builder = SessionFactory::builder(InMemoryMetastore::new(), kms);
/// # let factory = builder.service("checkout").product("payments").build()?;
/// # let session = factory.session("customer-17")?;
/// let record = session.encrypt(b"4111 1111 1111 1111").await?;
/// let columns = (record.parent_created(), record.wrapped_key().to_vec(), record.data().to_vec());
///
/// let parent = KeyMeta::new(KeyId::new("_IK_customer-17_checkout_payments"), columns.0);
/// let record = DataRowRecord::from_parts(parent, &columns.1, columns.2, None)?;
/// assert_eq!(&*session.decrypt(&record).await?, b"4111 1111 1111 1111");
/// # Ok(()) }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct DataRowRecord {
    pub(super) created: i64,
    pub(super) wrapped_key: [u8; WRAPPED_DATA_ROW_KEY_BYTES],
    pub(super) parent: KeyMeta,
    pub(super) data: Vec<u8>,
}

/// How a [`DataRowRecord`] is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RecordFormat {
    /// Asherah's.
    V1,
}

/// A data row key with its tag and nonce.
pub(crate) const WRAPPED_DATA_ROW_KEY_BYTES: usize = KEY_BYTES + OVERHEAD_BYTES;

impl DataRowRecord {
    pub(crate) const fn new(
        created: i64,
        wrapped_key: [u8; WRAPPED_DATA_ROW_KEY_BYTES],
        parent: KeyMeta,
        data: Vec<u8>,
    ) -> Self {
        Self { created, wrapped_key, parent, data }
    }

    /// Puts a record of format 1 together from its parts: the intermediate key that wraps the data row key, the
    /// wrapped data row key, the sealed data, and when the data row key was made, if that was kept.
    ///
    /// # Errors
    /// [`MalformedRecord`] when the parent's id is over [`KeyId::MAX_BYTES`], the wrapped key has not the length
    /// of one, or the data cannot hold a tag and a nonce.
    pub fn from_parts(
        parent: KeyMeta,
        wrapped_key: &[u8],
        data: impl Into<Vec<u8>>,
        created: Option<Created>,
    ) -> Result<Self, MalformedRecord> {
        let created = created.map_or(0, Created::unix_seconds);
        let wrapped_key = wrapped_key
            .try_into()
            .map_err(|_length| MalformedRecord::new("Key has not the length of a wrapped data row key"))?;
        Self::checked(created, wrapped_key, parent, data.into())
    }

    /// Puts a record together, unless its parts have lengths that none has.
    pub(super) fn checked(
        created: i64,
        wrapped_key: [u8; WRAPPED_DATA_ROW_KEY_BYTES],
        parent: KeyMeta,
        data: Vec<u8>,
    ) -> Result<Self, MalformedRecord> {
        if parent.id.as_str().len() > KeyId::MAX_BYTES {
            return Err(MalformedRecord::new("ParentKeyMeta has an id that is too long"));
        }
        if data.len() < OVERHEAD_BYTES {
            return Err(MalformedRecord::new("Data is too short to hold a tag and a nonce"));
        }
        Ok(Self { created, wrapped_key, parent, data })
    }

    /// Returns the record's format.
    #[must_use]
    pub const fn version(&self) -> RecordFormat {
        RecordFormat::V1
    }

    /// Returns when the data row key was made, as the writer's clock said; `None` if the record does not say, or
    /// says what is no time of a key.
    ///
    /// It is information only: nothing is looked up or decided by it.
    #[must_use]
    pub const fn created(&self) -> Option<Created> {
        Created::new(self.created)
    }

    /// Returns the name of the intermediate key that wraps the data row key, if the record has it: a record of
    /// format 1 always does.
    #[must_use]
    pub const fn parent(&self) -> Option<&KeyMeta> {
        Some(&self.parent)
    }

    /// Returns when the intermediate key that wraps the data row key was created.
    #[must_use]
    pub const fn parent_created(&self) -> Created {
        self.parent.created
    }

    /// Returns the wrapped data row key, in format 1 `ciphertext ‖ tag ‖ nonce`.
    #[must_use]
    pub const fn wrapped_key(&self) -> &[u8] {
        &self.wrapped_key
    }

    /// Returns the key that wraps the data row key, and that wrapped.
    pub(crate) const fn wrapping(&self) -> (&KeyMeta, &[u8; WRAPPED_DATA_ROW_KEY_BYTES]) {
        (&self.parent, &self.wrapped_key)
    }

    /// Returns the sealed data: `ciphertext ‖ tag ‖ nonce`.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Takes apart what opening needs, so that the data can be opened in place.
    pub(crate) fn into_parts(self) -> (KeyMeta, [u8; WRAPPED_DATA_ROW_KEY_BYTES], Vec<u8>) {
        (self.parent, self.wrapped_key, self.data)
    }
}

impl fmt::Debug for DataRowRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataRowRecord")
            .field("created", &self.created)
            .field("parent", &self.parent)
            .field("data", &format_args!("[{} bytes]", self.data.len()))
            .finish_non_exhaustive()
    }
}
