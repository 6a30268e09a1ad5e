//! How rows become records, pages and answers to what was asked.

use claviger::backend::DamagedRow;
use claviger::{BackendError, Created, EnvelopeKeyRecord, KeyId, KeyMeta, Latest, Page};

#[cfg(any(feature = "postgres", feature = "sqlite"))]
use crate::sql::error::SqlError;
use crate::sql::{ID_CHARS_MAX, LISTED_ID_BYTES_MAX, RECORD_BYTES_MAX, SqlFault};

/// A row: its id, or the beginning of one that is too long, its `created` in Unix seconds if it could be
/// read, and its JSON if it is not too long.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) id: Vec<u8>,
    pub(super) created: Option<i64>,
    pub(super) json: Option<Vec<u8>>,
}

impl Row {
    /// A row of a version that was found by its whole name.
    #[cfg(feature = "postgres")]
    pub(super) fn of_version(key: &KeyMeta, json: Option<Vec<u8>>) -> Self {
        Self::of_id(key.id(), Some(key.created().unix_seconds()), json)
    }

    /// A row that was found by its id.
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(super) fn of_id(id: &KeyId, created: Option<i64>, json: Option<Vec<u8>>) -> Self {
        Self { id: id.as_str().into(), created, json }
    }

    /// Returns `true` if it is the row of that version: the database compares as its collation and its
    /// clock do.
    pub(super) fn is_of(&self, key: &KeyMeta) -> bool {
        self.id == key.id().as_str().as_bytes() && self.created == Some(key.created().unix_seconds())
    }

    /// Makes a record of a row that was found for this id.
    pub(super) fn record(&self, id: &KeyId) -> Result<EnvelopeKeyRecord, SqlFault> {
        read_row(id, self.created, self.json.as_deref())
    }

    /// Where a page that ends with the row is followed by the next. What is past the year 9999 stands for
    /// all the rest of an id's rows: no key is among them.
    fn place(&self) -> Option<KeyMeta> {
        let created = self.created.filter(|seconds| *seconds > 0)?;
        Some(KeyMeta::new(self.key_id()?, Created::new(created).unwrap_or(Created::MAX)))
    }

    /// The same where its time cannot be gone on from: beyond the first second of its id. No key is as old
    /// as that.
    fn place_of_id(&self) -> Option<KeyMeta> {
        Some(KeyMeta::new(self.key_id()?, Created::MIN))
    }

    fn key_id(&self) -> Option<KeyId> {
        read_id(&self.id).ok().map(KeyId::new)
    }

    fn read(&self) -> Result<EnvelopeKeyRecord, DamagedRow> {
        let damaged = |id, fault: SqlFault| {
            DamagedRow::new(id, self.created.and_then(Created::new), BackendError::from(fault))
        };
        match read_id(&self.id) {
            Ok(id) => {
                let id = KeyId::new(id);
                self.record(&id).map_err(|fault| damaged(id, fault))
            }
            Err(fault) => {
                let shown: String = String::from_utf8_lossy(&self.id).chars().take(ID_CHARS_MAX).collect();
                Err(damaged(KeyId::new(shown), fault))
            }
        }
    }
}

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

/// Makes an answer of an id's rows, the latest first. A predecessor that cannot be read is none, and so is
/// one of the same second.
pub(super) fn read_latest(id: &KeyId, rows: &[Row]) -> Result<Option<Latest>, SqlFault> {
    let mut rows = rows.iter().map(|row| row.record(id));
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

/// Puts rows in the places of what was asked for them. A row in a place that there is not answers something
/// else.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(super) fn in_places<T>(
    places: usize,
    rows: impl IntoIterator<Item = (i64, T)>,
) -> Result<Vec<Vec<T>>, SqlError> {
    let mut placed: Vec<Vec<T>> = (0..places).map(|_| Vec::new()).collect();
    for (place, row) in rows {
        let place = usize::try_from(place).ok().and_then(|place| placed.get_mut(place));
        place.ok_or(SqlError::Crossed)?.push(row);
    }
    Ok(placed)
}

/// Makes a page of rows, of which there are no more if they are the last. `None` if the next page would
/// have nowhere to begin: no row has an id that is one.
pub(super) fn read_page(mut rows: Vec<Row>, is_last: bool) -> Option<Page> {
    let next = if is_last { None } else { Some(end_page(&mut rows)?) };
    let mut page = Page::new(Vec::with_capacity(rows.len()), Vec::new(), next);
    for row in rows {
        match row.read() {
            Ok(record) => page.records.push(record),
            Err(damaged) => page.damaged.push(damaged),
        }
    }
    Some(page)
}

/// Cuts off what ends the page and has no place that the next one could go on from; it comes again
/// then. Returns the place.
fn end_page(rows: &mut Vec<Row>) -> Option<KeyMeta> {
    let last = |place: fn(&Row) -> Option<KeyMeta>| {
        rows.iter().enumerate().rev().find_map(|(number, row)| Some((number, place(row)?)))
    };
    let (number, place) = last(Row::place).or_else(|| last(Row::place_of_id))?;
    rows.truncate(number + 1);
    Some(place)
}
