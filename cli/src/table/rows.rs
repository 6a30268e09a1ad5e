//! Encrypts or decrypts the named cells of a chunk of rows.

use std::fmt;

use claviger::{Error, Session, SessionFactory};

use super::chunks::Chunk;
use super::{Cell, Layout, RowError, RowFault, tail};
use crate::exit::Failure;
use crate::kms::watched::Watched;

/// Which way a run goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Encrypt,
    Decrypt,
}

impl Direction {
    /// What is told when it was gone to the end.
    pub(crate) const fn done(self) -> &'static str {
        match self {
            Self::Encrypt => "encrypted",
            Self::Decrypt => "decrypted",
        }
    }
}

/// What to do with each row. Shared by all the tasks of a run.
#[derive(Debug)]
pub(crate) struct Work<L> {
    pub(crate) layout: L,
    pub(crate) direction: Direction,
    pub(crate) factory: SessionFactory,
    pub(crate) kms: Watched,
    /// Leave out rows that fail, instead of ending at the first.
    pub(crate) keep_going: bool,
    /// Seal what is a record already.
    pub(crate) allow_sealed: bool,
    /// The longest row that decrypting reads.
    pub(crate) row_bytes_max: usize,
}

/// What became of a chunk.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// The rows that did well, in order.
    pub(crate) bytes: Vec<u8>,
    pub(crate) rows: u64,
    /// The rows that did not.
    pub(crate) left_out: Vec<BadRow>,
    /// The row at which the run ends. The rows before it are in `bytes`.
    pub(crate) fatal: Option<BadRow>,
}

/// A row that cannot be encrypted or decrypted, where it stands, and why.
#[derive(Debug)]
pub(crate) struct BadRow {
    pub(crate) line: u64,
    /// Far behind `line` where a quote is missing.
    pub(crate) last_line: u64,
    pub(crate) error: RowError,
}

impl BadRow {
    /// How many lines it takes up.
    pub(crate) const fn lines(&self) -> u64 {
        self.last_line.saturating_sub(self.line).saturating_add(1)
    }

    /// The failure of a run that ends at this row of the input that `name` names.
    pub(crate) fn into_failure(self, name: &str) -> Failure {
        let place = format!("{name}:{}", self.line);
        let message = self.to_string();
        self.error.into_failure().saying(message).at(&place)
    }
}

impl fmt::Display for BadRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)?;
        if self.last_line == self.line || !self.error.is_of_this_row() {
            return Ok(());
        }
        write!(f, " (the row ends on line {}: a quote may be missing)", self.last_line)
    }
}

impl<L: Layout> Work<L> {
    pub(crate) async fn run(&self, chunk: &Chunk) -> Done {
        let mut done =
            Done { bytes: Vec::with_capacity(chunk.bytes.len().saturating_mul(2)), ..Done::default() };
        let mut sessions = LastSession { factory: &self.factory, last: None };
        let mut line = chunk.first_line;
        for row in chunk.rows() {
            let good = done.bytes.len();
            let lines = L::lines(row);
            match self.row(row, &mut sessions, &mut done.bytes).await {
                Ok(rows) => done.rows += rows,
                Err(error) => {
                    done.bytes.truncate(good);
                    let of_this_row = error.is_of_this_row();
                    let is_ended = matches!(row.last(), Some(b'\n' | b'\r'));
                    let last_line = if is_ended { line + lines.saturating_sub(1) } else { line + lines };
                    let bad = BadRow { line, last_line, error };
                    if self.keep_going && of_this_row {
                        done.left_out.push(bad);
                    } else {
                        done.fatal = Some(bad);
                        return done;
                    }
                }
            }
            line += lines;
        }
        done
    }

    /// Writes what a row comes to; returns how many it is, since a blank line is none.
    async fn row(
        &self,
        row: &[u8],
        sessions: &mut LastSession<'_>,
        out: &mut Vec<u8>,
    ) -> Result<u64, RowError> {
        let row = str::from_utf8(row).map_err(|_invalid| RowError::NotUtf8)?;
        let Some(found) = self.layout.find(row)? else {
            out.extend_from_slice(row.as_bytes());
            return Ok(0);
        };
        let session = sessions.get(&found.partition).map_err(|error| RowError::crypt(&error))?;
        let begin = out.len();
        let mut copied = 0;
        for Cell { field, span } in found.cells {
            out.extend_from_slice(row.as_bytes().get(copied..span.start).unwrap_or_default());
            copied = span.end;
            let cell = row.get(span).unwrap_or_default();
            let written = match self.direction {
                Direction::Encrypt => self.encrypt(cell, session, out).await,
                Direction::Decrypt => self.decrypt(cell, session, out).await,
            };
            written.map_err(|error| self.explain(field, error))?;
            self.check_sealed_row(out.len().saturating_sub(begin), row.len().saturating_sub(copied))?;
        }
        out.extend_from_slice(tail(row.as_bytes(), copied));
        Ok(1)
    }

    /// Refuses to write a row that decrypting would not read.
    fn check_sealed_row(&self, written: usize, rest: usize) -> Result<(), RowError> {
        let bytes_max = self.row_bytes_max;
        let is_readable = written.checked_add(rest).is_some_and(|bytes| bytes <= bytes_max);
        if is_readable || self.direction == Direction::Decrypt {
            return Ok(());
        }
        Err(RowError::SealedTooLong { bytes_max })
    }

    async fn encrypt(&self, cell: &str, session: &Session, out: &mut Vec<u8>) -> Result<(), CellError> {
        let value = self.layout.value(cell)?;
        if !self.allow_sealed && self.layout.is_record(&value) {
            return Err(RowFault::Sealed.into());
        }
        let record = session.encrypt_json(value.as_bytes()).await?;
        self.layout.seal(cell, &record, out);
        Ok(())
    }

    async fn decrypt(&self, cell: &str, session: &Session, out: &mut Vec<u8>) -> Result<(), CellError> {
        let record = self.layout.record(cell)?;
        let value = session.decrypt_json(record.as_bytes()).await?;
        let value = str::from_utf8(&value).map_err(|_invalid| RowFault::ValueNotUtf8)?;
        Ok(self.layout.restore(&record, value, out)?)
    }

    fn explain(&self, field: usize, error: CellError) -> RowError {
        let name = self.layout.field_name(field);
        match error {
            CellError::Fault(fault) => RowError::Field { name: name.to_owned(), fault },
            CellError::Crypt(error) => {
                let (failure, of_this_row) = self.kms.explain(&error);
                RowError::Crypt { failure: failure.at(&format!("field {name}")), of_this_row }
            }
        }
    }
}

/// Keeps the session of the row before: in a sorted file the next row mostly asks for the same.
struct LastSession<'a> {
    factory: &'a SessionFactory,
    last: Option<(String, Session)>,
}

impl LastSession<'_> {
    fn get(&mut self, partition: &str) -> Result<&Session, Error> {
        let session = match self.last.take() {
            Some((id, session)) if id == partition => session,
            _ => self.factory.session(partition)?,
        };
        let (_, session) = self.last.insert((partition.to_owned(), session));
        Ok(session)
    }
}

enum CellError {
    Fault(RowFault),
    Crypt(Error),
}

impl From<RowFault> for CellError {
    fn from(fault: RowFault) -> Self {
        Self::Fault(fault)
    }
}

impl From<Error> for CellError {
    fn from(error: Error) -> Self {
        Self::Crypt(error)
    }
}

#[cfg(test)]
pub(super) mod tests;
