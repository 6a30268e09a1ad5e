//! How rows become records.

use claviger::{BackendError, Created, DamagedRow, EnvelopeKeyRecord, KeyId, KeyMeta, Latest, Page};

use crate::sql::{ID_CHARS_MAX, LISTED_ID_BYTES_MAX, RECORD_BYTES_MAX, SqlFault};

/// Makes a record of a row: its `created` in Unix seconds, `None` if it could not be read, and its
/// JSON, `None` if it is too long to be returned. A `Created` inside the JSON that differs is a fault: one
/// of the two names another key.
pub(super) fn read_row(
    id: &KeyId,
    created: Option<i64>,
    json: Option<&[u8]>,
) -> Result<EnvelopeKeyRecord, SqlFault> {
    let created = created.and_then(Created::new).ok_or_else(|| SqlFault::CreatedUnreadable(id.clone()))?;
    let key = KeyMeta::new(id.clone(), created);
    match json.filter(|json| json.len() <= RECORD_BYTES_MAX) {
        Some(json) => EnvelopeKeyRecord::from_json(key.clone(), json)
            .map_err(|source| SqlFault::RowMalformed { key, source }),
        None => Err(SqlFault::RecordTooLarge(key)),
    }
}

/// Makes an answer of what was read of an id's rows, the latest first. A predecessor that cannot be read is
/// none, and so is one of the same second.
pub(super) fn read_latest(
    rows: impl IntoIterator<Item = Result<EnvelopeKeyRecord, SqlFault>>,
) -> Result<Option<Latest>, SqlFault> {
    let mut rows = rows.into_iter();
    let Some(record) = rows.next().transpose()? else { return Ok(None) };
    let predecessor = rows.next().and_then(Result::ok);
    let predecessor = predecessor.filter(|earlier| earlier.meta().created() < record.meta().created());
    Ok(Some(Latest::new(record, predecessor)))
}

/// The id of a row, if it can be a key's.
pub(super) fn read_id(id: &[u8]) -> Result<&str, SqlFault> {
    if id.len() > LISTED_ID_BYTES_MAX {
        return Err(SqlFault::RowIdTooLong);
    }
    str::from_utf8(id).map_err(|_not_utf8| SqlFault::IdUnreadable)
}

/// A row of a list: its id, or the beginning of one that is too long, its `created` in Unix seconds if it
/// could be read, and its JSON if it is not too long.
pub(super) struct ListedRow {
    pub(super) id: Vec<u8>,
    pub(super) created: Option<i64>,
    pub(super) json: Option<Vec<u8>>,
}

impl ListedRow {
    /// Where a page that ends with the row is followed by the next. What is past the year 9999 stands for
    /// all the rest of an id's rows: no key is among them.
    fn place(&self) -> Option<KeyMeta> {
        let created = self.created.filter(|seconds| *seconds > 0)?;
        Some(KeyMeta::new(KeyId::new(read_id(&self.id).ok()?), Created::new(created).unwrap_or(Created::MAX)))
    }

    fn read(&self) -> Result<EnvelopeKeyRecord, DamagedRow> {
        let damaged = |id, fault: SqlFault| {
            DamagedRow::new(id, self.created.and_then(Created::new), BackendError::from(fault))
        };
        match read_id(&self.id) {
            Ok(id) => {
                let id = KeyId::new(id);
                read_row(&id, self.created, self.json.as_deref()).map_err(|fault| damaged(id, fault))
            }
            Err(fault) => {
                let shown: String = String::from_utf8_lossy(&self.id).chars().take(ID_CHARS_MAX).collect();
                Err(damaged(KeyId::new(shown), fault))
            }
        }
    }
}

/// Makes a page of rows.
pub(super) fn read_page(mut rows: Vec<ListedRow>, is_last: bool) -> Result<Page, SqlFault> {
    let next = if is_last { None } else { end_page(&mut rows)? };
    let mut page = Page::new(Vec::with_capacity(rows.len()), Vec::new(), next);
    for row in rows {
        match row.read() {
            Ok(record) => page.records.push(record),
            Err(damaged) => page.damaged.push(damaged),
        }
    }
    Ok(page)
}

/// Cuts off what ends the page and has no place that the next one could go on from; it comes again
/// then. Returns the place.
fn end_page(rows: &mut Vec<ListedRow>) -> Result<Option<KeyMeta>, SqlFault> {
    let last = rows.iter().enumerate().rev().find_map(|(number, row)| Some((number, row.place()?)));
    if let Some((number, place)) = last {
        rows.truncate(number + 1);
        return Ok(Some(place));
    }
    // None has a place: beyond the first second of the last one's id, no key is as old as that.
    let Some(last) = rows.last() else { return Ok(None) };
    Ok(Some(KeyMeta::new(KeyId::new(read_id(&last.id)?), Created::MIN)))
}
