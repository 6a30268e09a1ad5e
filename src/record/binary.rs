//! The byte string that binary serde formats keep of a data row record.
//!
//! Its first byte is the format. Format 1, integers big endian and times in Unix seconds:
//!
//! ```text
//! 1 ‖ created (8) ‖ parent created (8) ‖ wrapped key (60) ‖ length of parent id (2) ‖ parent id ‖ data
//! ```

use super::data_row::{DataRowRecord, WRAPPED_DATA_ROW_KEY_BYTES};
use super::id::{Created, KeyId, KeyMeta, MalformedRecord};

const FORMAT_1: u8 = 1;

/// Returns the byte string; `None` if the parent's id is longer than any store holds.
pub(super) fn write(record: &DataRowRecord) -> Option<Vec<u8>> {
    let id = record.parent.id.as_str().as_bytes();
    let id_length = u16::try_from(id.len()).ok()?;
    let parts: [&[u8]; 7] = [
        &[FORMAT_1],
        &record.created.to_be_bytes(),
        &record.parent.created.unix_seconds().to_be_bytes(),
        &record.wrapped_key,
        &id_length.to_be_bytes(),
        id,
        &record.data,
    ];
    Some(parts.concat())
}

pub(super) fn read(bytes: &[u8]) -> Result<DataRowRecord, MalformedRecord> {
    match bytes.split_first() {
        Some((&FORMAT_1, rest)) => read_format_1(rest),
        Some((_, _)) => Err(MalformedRecord::new("the first byte is that of no known format")),
        None => Err(MalformedRecord::new("no bytes")),
    }
}

fn read_format_1(bytes: &[u8]) -> Result<DataRowRecord, MalformedRecord> {
    let too_short = || MalformedRecord::new("it ends too early");
    let (created, rest) = bytes.split_first_chunk().ok_or_else(too_short)?;
    let (parent_created, rest) = rest.split_first_chunk().ok_or_else(too_short)?;
    let (wrapped_key, rest) = rest.split_first_chunk::<WRAPPED_DATA_ROW_KEY_BYTES>().ok_or_else(too_short)?;
    let (id_length, rest) = rest.split_first_chunk().ok_or_else(too_short)?;
    let id_length = usize::from(u16::from_be_bytes(*id_length));
    let (id, data) = rest.split_at_checked(id_length).ok_or_else(too_short)?;
    let id = str::from_utf8(id).map_err(|_where| MalformedRecord::new("the parent's id is not UTF-8"))?;
    let parent_created = Created::new(i64::from_be_bytes(*parent_created))
        .ok_or_else(|| MalformedRecord::new("the parent's time is not positive, or past the year 9999"))?;
    let parent = KeyMeta::new(KeyId::new(id), parent_created);
    DataRowRecord::checked(i64::from_be_bytes(*created), *wrapped_key, parent, data.to_vec())
}
