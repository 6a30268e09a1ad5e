//! What is written, in whatever dialect: one insert, one revocation, one replacement, one deletion.

use claviger::{EnvelopeKeyRecord, Insert, KeyId, KeyMeta, Replacement};

use crate::sql::SqlFault;
use crate::sql::error::SqlError;
use crate::sql::statements::{On, Placed, Statements};

/// Something to be written.
#[derive(Clone, Debug)]
pub(crate) enum Write {
    Insert(EnvelopeKeyRecord),
    Revoke(KeyMeta),
    Replace(Replacement),
    DeleteVersion(KeyMeta),
    Delete(KeyId),
}

impl Write {
    fn id(&self) -> &KeyId {
        match self {
            Self::Insert(record) => record.meta().id(),
            Self::Revoke(key) | Self::DeleteVersion(key) => key.id(),
            Self::Replace(replacement) => replacement.key.id(),
            Self::Delete(id) => id,
        }
    }
}

/// Writes, and returns how many rows it reached: those inserted, found to be revoked, replaced or deleted.
pub(crate) async fn carry_out<D: Statements>(on: &mut On<'_, D>, write: &Write) -> Result<u64, SqlError> {
    D::check_id(on.table, write.id())?;
    match write {
        Write::Insert(record) => {
            insert::<D>(on, record).await.map(|answer| u64::from(answer == Insert::Inserted))
        }
        Write::Revoke(key) => {
            let rewritten = rewrite::<D>(on, key, revoke).await?;
            Ok(u64::from(rewritten != Rewritten::NotFound))
        }
        Write::Replace(replacement) => {
            let replace = |record: &EnvelopeKeyRecord| replacement.applied_to(record);
            let rewritten = rewrite::<D>(on, &replacement.key, replace).await?;
            Ok(u64::from(rewritten == Rewritten::Changed))
        }
        Write::DeleteVersion(key) => D::delete_version(on, key).await,
        Write::Delete(id) => D::delete(on, id).await,
    }
}

/// Inserts a row. A duplicate is one only if the row is there, byte for byte: otherwise the table takes
/// another key for this one.
pub(crate) async fn insert<D: Statements>(
    on: &mut On<'_, D>,
    record: &EnvelopeKeyRecord,
) -> Result<Insert, SqlError> {
    let (key, json) = (record.meta(), D::checked_json(on.table, record)?);
    let mut fault = SqlFault::Indistinct(key.clone());
    // More than once, since the row in the way can be deleted before it is looked at.
    for _ in 0..INSERT_ROUNDS {
        fault = match D::insert(on, key, &json).await? {
            Placed::Inserted => return Ok(Insert::Inserted),
            Placed::Refused => SqlFault::Indistinct(key.clone()),
            // A trigger or a rule of the table took the row away, unless it was there.
            Placed::Nowhere => SqlFault::InsertSwallowed(key.clone()),
        };
        match D::find_holder(on, key).await? {
            Some(holder) if holder.is_of(key) => return Ok(Insert::AlreadyExists),
            Some(_) => return Err(SqlFault::Indistinct(key.clone()).into()),
            None => {}
        }
    }
    // Nobody deletes so often: another unique key than that of the version is in the way.
    Err(fault.into())
}

/// How often an insert is begun when the row in its way was gone.
const INSERT_ROUNDS: usize = 3;

/// What became of a rewrite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rewritten {
    NotFound,
    Left,
    Changed,
}

/// Puts what `change` makes of the record in its place, in every form that the version is stored in, if
/// nobody changed it meanwhile; else it is begun anew. `None` leaves it. One form that cannot be read keeps all
/// as they are.
async fn rewrite<D: Statements>(
    on: &mut On<'_, D>,
    key: &KeyMeta,
    change: impl Fn(&EnvelopeKeyRecord) -> Option<EnvelopeKeyRecord> + Send + Sync,
) -> Result<Rewritten, SqlError> {
    for _ in 0..REWRITE_ROUNDS {
        let rows = D::find_forms(on, key).await?;
        if rows.is_empty() {
            return Ok(Rewritten::NotFound);
        }
        let mut changes = Vec::new();
        for row in rows {
            if let Some(changed) = change(&row.record(key.id())?) {
                // A record that was read has its JSON.
                changes.push((row.json.unwrap_or_default(), D::checked_json(on.table, &changed)?));
            }
        }
        if changes.is_empty() {
            return Ok(Rewritten::Left);
        }
        let mut is_whole = true;
        for (old, new) in changes {
            is_whole &= D::update(on, key, &old, &new).await? > 0;
        }
        if is_whole {
            return Ok(Rewritten::Changed);
        }
    }
    Err(SqlFault::Contended(key.clone()).into())
}

/// How often a rewrite is begun when others rewrite the same record. They do so once or twice in its life.
const REWRITE_ROUNDS: usize = 20;

/// Makes a revoked record of one that is not.
fn revoke(record: &EnvelopeKeyRecord) -> Option<EnvelopeKeyRecord> {
    (!record.is_revoked()).then(|| record.clone().revoked(true))
}

#[cfg(test)]
mod tests;
