//! The names of keys, and what is said of a record that cannot be read.

use std::fmt;
use std::num::NonZeroI64;
use std::sync::Arc;

use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;

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
    pub(super) id: KeyId,
    pub(super) created: Created,
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
