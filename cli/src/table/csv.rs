//! CSV: cells between commas, quoted where need be.
//!
//! A named cell is sealed by its value, without the quotes, so that any program with the keys
//! reads what it expects. To give back the file byte for byte, decrypting has to know how the
//! value was quoted, and one bit tells it: a value can stand in a file in at most two ways,
//! as [`needs_quotes`] has it or the other way. The other way leaves a blank behind the record,
//! where JSON allows one.

use std::borrow::Cow;

use memchr::{memchr, memchr3};

use super::{Cell, Found, Layout, RowError, RowFault, tail};
use crate::exit::{Exit, Failure};

/// Where the named columns are.
#[derive(Debug)]
pub(crate) struct CsvLayout {
    columns: usize,
    partition: usize,
    /// The names and columns of the fields.
    fields: Vec<(String, usize)>,
}

impl CsvLayout {
    /// Finds the columns in the header row.
    pub(crate) fn from_header(
        header: &[u8],
        partition_field: &str,
        fields: &[String],
    ) -> Result<Self, Failure> {
        let wrong = |message: String| Failure::new(Exit::BadInput, message);
        let header = std::str::from_utf8(header).map_err(|error| {
            let why = if header.starts_with(b"\xff\xfe") || header.starts_with(b"\xfe\xff") {
                "it is UTF-16".to_owned()
            } else {
                error.to_string()
            };
            wrong(format!("the header row is not UTF-8 ({why}); convert the file, with iconv for instance"))
        })?;
        let names = cells(strip_line_end(header.strip_prefix(BYTE_ORDER_MARK).unwrap_or(header)))
            .map(|(_, cell)| value(cell))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|fault| wrong(format!("a name in the header row {fault}")))?;
        let column = |wanted: &str| {
            let mut places =
                names.iter().enumerate().filter(|(_, name)| *name == wanted).map(|(place, _)| place);
            match (places.next(), places.next()) {
                (Some(place), None) => Ok(place),
                (Some(_), Some(_)) => {
                    Err(wrong(format!("the header row has the column {wanted} twice; rename one of them")))
                }
                (None, _) => {
                    Err(wrong(format!("the header row has no column {wanted}; it has: {}", names.join(", "))))
                }
            }
        };
        Ok(Self {
            columns: names.len(),
            partition: column(partition_field)?,
            fields: fields
                .iter()
                .map(|name| Ok((name.clone(), column(name)?)))
                .collect::<Result<_, Failure>>()?,
        })
    }
}

impl Layout for CsvLayout {
    fn row_len(bytes: &[u8], at_end: bool) -> Option<usize> {
        let mut at = 0;
        loop {
            let end = cell_end(bytes, at);
            match bytes.get(end) {
                Some(b',') => at = end + 1,
                Some(b'\r') => {
                    return match bytes.get(end + 1) {
                        Some(b'\n') => Some(end + 2),
                        Some(_) => Some(end + 1),
                        None => at_end.then_some(end + 1),
                    };
                }
                Some(_) => return Some(end + 1),
                None => return at_end.then_some(bytes.len()),
            }
        }
    }

    fn find<'a>(&self, row: &'a str) -> Result<Option<Found<'a>>, RowError> {
        let row = strip_line_end(row);
        if row.is_empty() {
            return Ok(None);
        }
        let mut found = Vec::with_capacity(self.fields.len());
        let mut partition = None;
        let mut columns = 0;
        for (column, (start, cell)) in cells(row).enumerate() {
            columns = column + 1;
            if column == self.partition {
                partition = Some(value(cell).map_err(RowError::Partition)?);
            } else if let Some(field) = self.fields.iter().position(|(_, place)| *place == column) {
                found.push(Cell { field, span: start..start + cell.len() });
            }
        }
        if columns != self.columns {
            return Err(RowError::Columns { found: columns, expected: self.columns });
        }
        let partition = partition.filter(|partition| !partition.is_empty());
        let partition = partition.ok_or(RowError::Partition(RowFault::EmptyPartition))?;
        Ok(Some(Found { partition, cells: found }))
    }

    fn value<'a>(&self, cell: &'a str) -> Result<Cow<'a, str>, RowFault> {
        value(cell)
    }

    fn seal(&self, cell: &str, record: &str, out: &mut Vec<u8>) {
        // `value` has been here, so the cell has one.
        let plainly = value(cell).is_ok_and(|value| cell.starts_with('"') == needs_quotes(&value));
        out.push(b'"');
        push_doubling_quotes(record, out);
        if !plainly {
            out.push(b' ');
        }
        out.push(b'"');
    }

    fn record<'a>(&self, cell: &'a str) -> Result<Cow<'a, str>, RowFault> {
        value(cell)
    }

    fn restore(&self, record: &str, value: &str, out: &mut Vec<u8>) -> Result<(), RowFault> {
        let other_way = record.ends_with(' ');
        if needs_quotes(value) != other_way || must_be_quoted(value) {
            out.push(b'"');
            push_doubling_quotes(value, out);
            out.push(b'"');
        } else {
            out.extend_from_slice(value.as_bytes());
        }
        Ok(())
    }

    fn field_name(&self, field: usize) -> &str {
        self.fields.get(field).map_or("", |(name, _)| name)
    }
}

/// RFC 4180: a value with a comma, a quote or a line break in it is quoted.
fn needs_quotes(value: &str) -> bool {
    value.contains([',', '"', '\n', '\r'])
}

/// Without quotes the file would read differently. A quote inside an unquoted cell is a quote.
fn must_be_quoted(value: &str) -> bool {
    value.starts_with('"') || value.contains([',', '\n', '\r'])
}

/// Returns what a cell says.
fn value(cell: &str) -> Result<Cow<'_, str>, RowFault> {
    let Some(rest) = cell.strip_prefix('"') else { return Ok(Cow::Borrowed(cell)) };
    let inner = rest.strip_suffix('"').ok_or(RowFault::Quotes)?;
    if memchr(b'"', inner.as_bytes()).is_none() {
        return Ok(Cow::Borrowed(inner));
    }
    let mut value = String::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(quote) = memchr(b'"', rest.as_bytes()) {
        let (before, after) = rest.split_at_checked(quote + 1).unwrap_or((rest, ""));
        value.push_str(before);
        // One that is not doubled stands where the cell should have ended.
        rest = after.strip_prefix('"').ok_or(RowFault::Quotes)?;
    }
    value.push_str(rest);
    Ok(Cow::Owned(value))
}

fn push_doubling_quotes(text: &str, out: &mut Vec<u8>) {
    let mut rest = text.as_bytes();
    while let Some(quote) = memchr(b'"', rest) {
        let (before, after) = rest.split_at(quote + 1);
        out.extend_from_slice(before);
        out.push(b'"');
        rest = after;
    }
    out.extend_from_slice(rest);
}

/// The cells of a row without its line end, each with where it begins.
fn cells(row: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut next = Some(0);
    std::iter::from_fn(move || {
        let start = next?;
        let end = cell_end(row.as_bytes(), start);
        // A line break outside quotes would have ended the row, so a comma or the end is here.
        next = (end < row.len()).then_some(end + 1);
        row.get(start..end).map(|cell| (start, cell))
    })
}

/// Returns where the cell that begins at `start` ends: at a comma, a line break, or the end.
///
/// Only a quote at its very beginning quotes a cell. Text behind the closing quote still belongs
/// to the cell, which then has no value.
fn cell_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start;
    if bytes.get(at) == Some(&b'"') {
        at += 1;
        loop {
            let Some(quote) = memchr(b'"', tail(bytes, at)) else { return bytes.len() };
            at += quote + 1;
            if bytes.get(at) != Some(&b'"') {
                break;
            }
            at += 1;
        }
    }
    memchr3(b',', b'\n', b'\r', tail(bytes, at)).map_or(bytes.len(), |offset| at + offset)
}

fn strip_line_end(row: &str) -> &str {
    let row = row.strip_suffix('\n').unwrap_or(row);
    row.strip_suffix('\r').unwrap_or(row)
}

/// Some programs begin UTF-8 files with it. It is copied and is no part of the first name.
const BYTE_ORDER_MARK: char = '\u{feff}';

#[cfg(test)]
mod tests;
