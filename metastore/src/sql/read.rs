//! What loads and lists answer, in whatever dialect.

use claviger::{Created, EnvelopeKeyRecord, KeyId, KeyMeta, Latest, Page};

use crate::sql::FoldedIds;
use crate::sql::error::SqlError;
use crate::sql::rows::{read_latest, read_page};
use crate::sql::statements::{Found, On, Statements};

pub(crate) async fn load<D: Statements>(
    on: &mut On<'_, D>,
    key: &KeyMeta,
    folded: FoldedIds,
) -> Result<Option<EnvelopeKeyRecord>, SqlError> {
    D::check_id(on.table, key.id())?;
    let found = D::find(on, key).await?;
    read::<D>(on, key, found, folded).await
}

/// Loads what [`load`] loads, of each version.
pub(crate) async fn load_many<D: Statements>(
    on: &mut On<'_, D>,
    keys: &[KeyMeta],
    folded: FoldedIds,
) -> Result<Vec<Option<EnvelopeKeyRecord>>, SqlError> {
    keys.iter().try_for_each(|key| D::check_id(on.table, key.id()))?;
    let mut records = Vec::with_capacity(keys.len());
    for keys in keys.chunks(D::ASKED_MAX) {
        let found = D::find_many(on, keys).await?;
        for (key, found) in keys.iter().zip(found) {
            records.push(read::<D>(on, key, found, folded).await?);
        }
    }
    Ok(records)
}

async fn read<D: Statements>(
    on: &mut On<'_, D>,
    key: &KeyMeta,
    found: Found,
    folded: FoldedIds,
) -> Result<Option<EnvelopeKeyRecord>, SqlError> {
    match found {
        Found::Row(row) => Ok(Some(row.record(key.id())?)),
        Found::Nothing => Ok(None),
        Found::HeldPerhaps => load_folded::<D>(on, key, folded).await,
    }
}

/// Loads what there is of a version that has no row of its own: one whose id the table takes for its.
async fn load_folded<D: Statements>(
    on: &mut On<'_, D>,
    key: &KeyMeta,
    folded: FoldedIds,
) -> Result<Option<EnvelopeKeyRecord>, SqlError> {
    let holder = D::find_holder(on, key).await?;
    let holder = holder.filter(|row| row.created == Some(key.created().unix_seconds()));
    let Some(row) = holder else { return Ok(None) };
    if row.is_of(key) {
        // It was inserted meanwhile.
        return Ok(Some(row.record(key.id())?));
    }
    Ok(folded.answer(key, &row.id, || row.record(key.id()))?)
}

pub(crate) async fn load_latest<D: Statements>(
    on: &mut On<'_, D>,
    id: &KeyId,
    up_to: Created,
) -> Result<Option<Latest>, SqlError> {
    D::check_id(on.table, id)?;
    let rows = D::find_latest(on, id, up_to).await?;
    Ok(read_latest(id, &rows)?)
}

/// Loads what [`load_latest`] loads, of each id.
pub(crate) async fn load_latest_many<D: Statements>(
    on: &mut On<'_, D>,
    ids: &[KeyId],
    up_to: Created,
) -> Result<Vec<Option<Latest>>, SqlError> {
    ids.iter().try_for_each(|id| D::check_id(on.table, id))?;
    let mut records = Vec::with_capacity(ids.len());
    for ids in ids.chunks(D::ASKED_MAX) {
        let found = D::find_latest_many(on, ids, up_to).await?;
        for (id, rows) in ids.iter().zip(found) {
            records.push(read_latest(id, &rows)?);
        }
    }
    Ok(records)
}

/// Lists a page. It is longer than `limit` only where none of so many rows has an id that the next page
/// could begin after.
pub(crate) async fn list<D: Statements>(
    on: &mut On<'_, D>,
    prefix: &str,
    after: Option<&KeyMeta>,
    limit: usize,
) -> Result<Page, SqlError> {
    after.map_or(Ok(()), |place| D::check_place(on.table, place))?;
    if !prefix.is_empty() {
        D::check_place(on.table, &KeyMeta::new(KeyId::new(prefix), Created::MIN))?;
    }
    let mut length = limit;
    loop {
        let rows = D::list(on, prefix, after, length).await?;
        let is_last = rows.len() < length || length == 0;
        if let Some(page) = read_page(rows, is_last) {
            return Ok(page);
        }
        length = length.saturating_mul(2);
    }
}
