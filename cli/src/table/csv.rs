//! CSV: cells between commas, quoted where need be.
//!
//! A named cell is sealed by its value, without the quotes, so that any program with the keys
//! reads what it expects. To give back the file byte for byte, decrypting has to know how the
//! value was quoted, and one bit tells it: a value can stand in a file in at most two ways,
//! as [`needs_quotes`] has it or the other way. The other way leaves a blank behind the record,
//! where JSON allows one.

use std::borrow::Cow;
use std::ops::Range;

use memchr::{memchr, memchr_iter, memchr3};

use super::names::unknown_column;
use super::{Cell, Found, Layout, RowError, RowFault, tail};
use crate::exit::{Exit, Failure};
use crate::sealed::is_record;

/// Where the named columns are.
#[derive(Debug)]
pub(crate) struct CsvLayout {
    columns: usize,
    partition: usize,
    /// The names and columns of the fields.
    fields: Vec<(String, usize)>,
}

impl CsvLayout {
    /// Finds the columns in the header row, which begins where the row was cut.
    pub(crate) fn from_header(
        header: &[u8],
        partition_field: &str,
        fields: &[String],
    ) -> Result<Self, Failure> {
        let wrong = |message: String| Failure::new(Exit::BadInput, message);
        let header = std::str::from_utf8(header).map_err(|error| {
            wrong(format!("the header row is not UTF-8 ({error}); convert the file, with iconv for instance"))
        })?;
        let names = values(header).map_err(|fault| wrong(format!("the header row: {fault}")))?;
        let column = |wanted: &str| {
            let mut places =
                names.iter().enumerate().filter(|(_, name)| *name == wanted).map(|(place, _)| place);
            match (places.next(), places.next()) {
                (Some(place), None) => Ok(place),
                (Some(_), Some(_)) => {
                    Err(wrong(format!("the header row has the column {wanted} twice; rename one of them")))
                }
                (None, _) => Err(wrong(unknown_column(wanted, &names))),
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
    const TOO_LONG: &'static str = "is a quote not closed?";

    fn row_len(bytes: &[u8], at_end: bool) -> Option<usize> {
        let mut cells = Cells::of(bytes);
        cells.by_ref().for_each(drop);
        cells.row_end(at_end)
    }

    /// As an editor would say: at LF, at CR LF, and at a lone CR where no LF is about.
    fn lines(row: &[u8]) -> u64 {
        let feeds = memchr_iter(b'\n', row).count();
        let lines = if feeds == 0 { memchr_iter(b'\r', row).count() } else { feeds };
        u64::try_from(lines).unwrap_or(u64::MAX)
    }

    fn find<'a>(&self, row: &'a str) -> Result<Option<Found<'a>>, RowError> {
        if matches!(row, "" | "\n" | "\r\n" | "\r") {
            return Ok(None);
        }
        let mut found = Vec::with_capacity(self.fields.len());
        let mut partition = None;
        let mut columns = 0;
        let mut cells = Cells::of(row.as_bytes());
        for (column, span) in cells.by_ref().enumerate() {
            columns = column + 1;
            if column == self.partition {
                partition = Some(value(text_at(row, span)).map_err(RowError::Partition)?);
            } else if let Some(field) = self.fields.iter().position(|(_, place)| *place == column) {
                found.push(Cell { field, span });
            }
        }
        cells.check_end(row)?;
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

    fn is_record(&self, value: &str) -> bool {
        is_record(value.as_bytes())
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

/// Returns what the cells of a row say.
fn values(row: &str) -> Result<Vec<Cow<'_, str>>, RowError> {
    let mut cells = Cells::of(row.as_bytes());
    let values = cells.by_ref().map(|span| value(text_at(row, span)));
    let values = values.collect::<Result<_, _>>().map_err(RowError::Name)?;
    cells.check_end(row)?;
    Ok(values)
}

fn text_at(row: &str, span: Range<usize>) -> &str {
    row.get(span).unwrap_or_default()
}

/// Returns what a cell says.
pub(super) fn value(cell: &str) -> Result<Cow<'_, str>, RowFault> {
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

/// The one pass over a row: where its cells are and, behind the last of them, where it ends.
///
/// Rows are cut and cells are found by this alone, each time from the row's beginning: were there
/// two readings of one row, a named cell could be looked for where it is not.
struct Cells<'a> {
    bytes: &'a [u8],
    /// Where the next cell begins; none behind the last.
    next: Option<usize>,
    /// Where the last cell ended.
    end: usize,
}

impl<'a> Cells<'a> {
    const fn of(bytes: &'a [u8]) -> Self {
        Self { bytes, next: Some(0), end: 0 }
    }

    /// Returns where the row ends with its line end, once all its cells are read; `None` if its end is
    /// not there yet.
    fn row_end(&self, at_end: bool) -> Option<usize> {
        let end = self.end;
        match (self.bytes.get(end), self.bytes.get(end + 1)) {
            (Some(b'\r'), Some(b'\n')) => Some(end + 2),
            // A line feed may follow.
            (Some(b'\r'), None) => at_end.then_some(end + 1),
            (Some(_), _) => Some(end + 1),
            (None, _) => at_end.then_some(end),
        }
    }

    /// Refuses a row that ends before all of `row` is read.
    fn check_end(&self, row: &str) -> Result<(), RowError> {
        if self.row_end(true) == Some(row.len()) { Ok(()) } else { Err(RowError::LineBreak) }
    }
}

impl Iterator for Cells<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        let start = self.next?;
        self.end = cell_end(self.bytes, start);
        self.next = (self.bytes.get(self.end) == Some(&b',')).then_some(self.end + 1);
        Some(start..self.end)
    }
}

/// Returns where the cell that begins at `start` ends: at a comma, a line break, or the end.
///
/// Text behind the closing quote still belongs to the cell, which then has no value.
fn cell_end(bytes: &[u8], start: usize) -> usize {
    let at = start + quoted_len(tail(bytes, start));
    memchr3(b',', b'\n', b'\r', tail(bytes, at)).map_or(bytes.len(), |offset| at + offset)
}

/// Returns how long the quoted part is that a cell begins with; all of it if no quote closes it. Only
/// a quote at its very beginning quotes a cell.
pub(super) fn quoted_len(bytes: &[u8]) -> usize {
    if bytes.first() != Some(&b'"') {
        return 0;
    }
    let mut at = 1;
    loop {
        let Some(quote) = memchr(b'"', tail(bytes, at)) else { return bytes.len() };
        at += quote + 1;
        if bytes.get(at) != Some(&b'"') {
            return at;
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests;
