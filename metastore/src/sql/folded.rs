//! Rows whose id a table takes for the one asked for.

use claviger::backend::is_reserved_id;
use claviger::{EnvelopeKeyRecord, KeyId, KeyMeta};

use crate::sql::SqlFault;
use crate::sql::rows::read_id;

/// What becomes of a row whose id is the one asked for by the table's collation alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum FoldedIds {
    #[default]
    Refused,
    /// It is given out, for decrypting only.
    Served,
}

impl From<bool> for FoldedIds {
    fn from(are_served: bool) -> Self {
        if are_served { Self::Served } else { Self::Refused }
    }
}

impl FoldedIds {
    /// Answers a load of `key` by a row of this id, which the table takes for it; `None` if that row is
    /// no key.
    pub(crate) fn answer(
        self,
        key: &KeyMeta,
        row_id: &[u8],
        read: impl FnOnce() -> Result<EnvelopeKeyRecord, SqlFault>,
    ) -> Result<Option<EnvelopeKeyRecord>, SqlFault> {
        let row_id = read_id(row_id)?;
        if is_reserved_id(row_id) {
            return Ok(None);
        }
        let kept_under = KeyId::new(row_id);
        match self {
            Self::Refused => Err(SqlFault::FoldedId { key: key.clone(), kept_under }),
            Self::Served => Ok(Some(read()?.folded(kept_under))),
        }
    }
}
