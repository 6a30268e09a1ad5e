//! The records that are stored: wrapped keys in the metastore, sealed data with the user.
//!
//! The formats are those of Asherah, byte for byte; reading them takes what any of its
//! implementations has written.

mod binary;
mod json;

use std::fmt;
use std::num::NonZeroI64;
use std::sync::Arc;

use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;

use crate::aead::OVERHEAD_BYTES;
use crate::secret::KEY_BYTES;

/// The id of a system or intermediate key, such as `_IK_customer-17_checkout_payments`.
///
/// An id names a key through all its versions; [`KeyMeta`] names one version.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(Arc<str>);

impl KeyId {
    /// How many bytes an id has at most on any store: DynamoDB's limit, which is the widest. A record that
    /// names a longer one is malformed.
    pub const MAX_BYTES: usize = 2_048;

    /// Takes `id` as it is. Nothing is trimmed, folded or escaped.
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }

    /// Returns the id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns what the usual collations of tables compare of the id: nothing of case, of accents and of
    /// blanks at its end. Ids that fold alike are one id to such a table.
    ///
    /// ```
    /// use claviger::KeyId;
    ///
    /// let fold = |id| KeyId::new(id).folded();
    /// assert_eq!(fold("_IK_Andr\u{e9}_checkout_payments "), fold("_IK_andre_checkout_payments"));
    /// ```
    #[must_use]
    pub fn folded(&self) -> String {
        let upper = self.0.trim_end_matches(' ').to_uppercase();
        let letters = upper.nfkd().filter(|letter| !is_combining_mark(*letter));
        letters.flat_map(char::to_lowercase).collect()
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Shows what a terminal or a reader of logs could obey, such as control characters, as escapes. An id to go
/// on with is [`as_str`](KeyId::as_str).
impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = &*self.0;
        while let Some(at) = rest.find(is_obeyed) {
            let (shown, from) = rest.split_at(at);
            f.write_str(shown)?;
            let mut characters = from.chars();
            if let Some(obeyed) = characters.next() {
                fmt::Display::fmt(&obeyed.escape_default(), f)?;
            }
            rest = characters.as_str();
        }
        f.write_str(rest)
    }
}

/// Control characters, breaks of lines, and what turns the direction of writing.
fn is_obeyed(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

// Lets maps keyed by `KeyId` be asked with a `&str`; the derived `Hash` and `Eq` are `str`'s.
impl std::borrow::Borrow<str> for KeyId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// When a key version was created: whole Unix seconds, greater than zero, up to the end of the year 9999,
/// which is as far as SQL's dates go.
///
/// With the key's id it is the primary key of a key record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Created(NonZeroI64);

/// 9999-12-31 23:59:59.
const CREATED_MAX: i64 = 253_402_300_799;

impl Created {
    /// One second after the Unix epoch.
    pub const MIN: Self = Self(match NonZeroI64::new(1) {
        Some(one) => one,
        None => NonZeroI64::MAX,
    });
    /// The last second of the year 9999.
    pub const MAX: Self = Self(match NonZeroI64::new(CREATED_MAX) {
        Some(max) => max,
        None => NonZeroI64::MAX,
    });

    /// Returns the time, or `None` when `unix_seconds` is zero, negative or past the year 9999.
    #[must_use]
    pub const fn new(unix_seconds: i64) -> Option<Self> {
        match NonZeroI64::new(unix_seconds) {
            Some(seconds) if unix_seconds > 0 && unix_seconds <= CREATED_MAX => Some(Self(seconds)),
            _ => None,
        }
    }

    /// Returns the time in Unix seconds.
    #[must_use]
    pub const fn unix_seconds(self) -> i64 {
        self.0.get()
    }
}

impl fmt::Display for Created {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Names one version of one key: the primary key of a key record.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyMeta {
    id: KeyId,
    created: Created,
}

impl KeyMeta {
    /// Names the version of `id` that was created at `created`.
    #[must_use]
    pub const fn new(id: KeyId, created: Created) -> Self {
        Self { id, created }
    }

    /// Returns the key's id.
    #[must_use]
    pub const fn id(&self) -> &KeyId {
        &self.id
    }

    /// Returns when this version was created.
    #[must_use]
    pub const fn created(&self) -> Created {
        self.created
    }
}

impl fmt::Display for KeyMeta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.id, self.created)
    }
}

/// A wrapped key with its meta and its parent's meta: what the metastore stores.
///
/// A record never changes but for [`is_revoked`](Self::is_revoked). Its JSON form does not hold
/// the id, which is the store's key.
#[derive(Clone, PartialEq, Eq)]
pub struct EnvelopeKeyRecord {
    meta: KeyMeta,
    revoked: bool,
    wrapped_key: Arc<[u8]>,
    parent: Option<KeyMeta>,
    kept_under: Option<KeyId>,
}

impl EnvelopeKeyRecord {
    /// How many bytes the JSON of a record may have, 64 KiB: stores neither write nor read more. A wrapped key
    /// of 48 KiB less a few hundred bytes fits.
    pub const MAX_JSON_BYTES: usize = 65_536;

    /// Builds the record of a key that is not revoked.
    ///
    /// `parent` is the system key that wraps an intermediate key, `None` for a system key, which
    /// the KMS wraps.
    pub fn new(meta: KeyMeta, wrapped_key: impl Into<Arc<[u8]>>, parent: Option<KeyMeta>) -> Self {
        Self { meta, revoked: false, wrapped_key: wrapped_key.into(), parent, kept_under: None }
    }

    /// Returns the record with the revoked flag set as told.
    #[must_use]
    pub const fn revoked(mut self, revoked: bool) -> Self {
        self.revoked = revoked;
        self
    }

    /// Says that the row which holds the record has this other id, which its table takes for the one
    /// asked for. Such a record serves decrypts only.
    #[must_use]
    pub fn folded(mut self, kept_under: KeyId) -> Self {
        self.kept_under = Some(kept_under);
        self
    }

    /// Returns the id of the row, if it is another one than the record was asked for by.
    #[must_use]
    pub const fn kept_under(&self) -> Option<&KeyId> {
        self.kept_under.as_ref()
    }

    /// Returns the name of the key version this record holds.
    #[must_use]
    pub const fn meta(&self) -> &KeyMeta {
        &self.meta
    }

    /// Returns `true` if an operator has withdrawn the key.
    #[must_use]
    pub const fn is_revoked(&self) -> bool {
        self.revoked
    }

    /// Returns the wrapped key, as the parent key or the KMS made it.
    #[must_use]
    pub const fn wrapped_key(&self) -> &Arc<[u8]> {
        &self.wrapped_key
    }

    /// Returns the system key that wraps this key, `None` if the KMS does.
    #[must_use]
    pub const fn parent(&self) -> Option<&KeyMeta> {
        self.parent.as_ref()
    }

    /// Returns the JSON text that a metastore keeps: Asherah's fields in Asherah's order, no
    /// white space.
    #[must_use]
    pub fn to_json(&self) -> String {
        json::write_key_record(self)
    }

    /// Returns how many bytes [`to_json`](Self::to_json) has.
    pub(crate) fn json_bytes(&self) -> usize {
        json::key_record_bytes(self)
    }

    /// Reads the JSON text of the key version `meta`.
    ///
    /// Fields may stand in any order and unknown ones are ignored; `Revoked` and `ParentKeyMeta`
    /// may be missing or null.
    ///
    /// # Errors
    /// [`MalformedRecord`] when a field is missing, stands twice or has the wrong type, base64 is bad
    /// or empty, a `Created` is not a positive whole number, or the key's own differs from the one in
    /// `meta`.
    pub fn from_json(meta: KeyMeta, json: &[u8]) -> Result<Self, MalformedRecord> {
        json::read_key_record(meta, json)
    }
}

impl fmt::Debug for EnvelopeKeyRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnvelopeKeyRecord")
            .field("meta", &self.meta)
            .field("revoked", &self.revoked)
            .field("wrapped_key", &format_args!("[{} bytes]", self.wrapped_key.len()))
            .field("parent", &self.parent)
            .field("kept_under", &self.kept_under)
            .finish()
    }
}

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
    created: i64,
    wrapped_key: [u8; WRAPPED_DATA_ROW_KEY_BYTES],
    parent: KeyMeta,
    data: Vec<u8>,
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
        Self::checked(created, wrapped_key, parent, data.into())
    }

    /// Puts a record together, unless its parts have lengths that none has.
    fn checked(
        created: i64,
        wrapped_key: &[u8],
        parent: KeyMeta,
        data: Vec<u8>,
    ) -> Result<Self, MalformedRecord> {
        if parent.id.0.len() > KeyId::MAX_BYTES {
            return Err(MalformedRecord::new("ParentKeyMeta has an id that is too long"));
        }
        let wrapped_key = wrapped_key
            .try_into()
            .map_err(|_length| MalformedRecord::new("Key has not the length of a wrapped data row key"))?;
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

    /// Returns Asherah's JSON text: its fields in its order, no white space. It is allocated once.
    #[must_use]
    pub fn to_json(&self) -> String {
        json::write_data_row_record(self)
    }

    /// Reads Asherah's JSON text, fields in any order, unknown ones ignored.
    ///
    /// What it allocates is bounded by the length of `json`: the data and the parent's id, and copies
    /// of strings that hold escapes.
    ///
    /// # Errors
    /// [`MalformedRecord`] when a field is missing, stands twice or has the wrong type, base64 is bad,
    /// the parent's `Created` is not a positive whole number, the wrapped key has not the length of
    /// one, or the data cannot hold a tag and a nonce.
    pub fn from_json(json: &[u8]) -> Result<Self, MalformedRecord> {
        json::read_data_row_record(json)
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

/// A record that cannot be read, with the reason.
///
/// It names what is wrong, never the bytes that are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed record: {reason}")]
pub struct MalformedRecord {
    reason: Arc<str>,
}

impl MalformedRecord {
    pub(crate) fn new(reason: impl Into<Arc<str>>) -> Self {
        Self { reason: reason.into() }
    }
}

#[cfg(test)]
mod tests;
