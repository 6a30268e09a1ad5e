//! Files of rows: each named cell is replaced by its record, everything else is copied as it is.
//!
//! A [`Layout`] knows how a file format lays out rows and cells, and nothing of keys; the
//! pipeline knows how rows flow, and nothing of formats.

pub(crate) mod chunks;
pub(crate) mod csv;
pub(crate) mod file;
pub(crate) mod job;
pub(crate) mod jsonl;
mod names;
mod option;
pub(crate) mod pipeline;
pub(crate) mod rows;
pub mod testing;

use std::borrow::Cow;
use std::ops::Range;

use claviger::Error;

use crate::exit::{Exit, Failure};
use crate::explain;

/// How a file format lays out rows and cells.
///
/// The two directions undo each other: what `restore` makes of `value` and of the marks that
/// `seal` left is the cell as it was, byte for byte.
pub(crate) trait Layout: Send + Sync + 'static {
    /// What to ask of a row that does not end.
    const TOO_LONG: &'static str;

    /// Returns the length of the first row with its line end, `None` if its end is not there yet.
    /// At the end of the file the last row needs no line end.
    fn row_len(bytes: &[u8], at_end: bool) -> Option<usize>;

    /// Returns how many lines a row ends.
    fn lines(row: &[u8]) -> u64;

    /// Finds the partition and the named cells of a row; `None` for a blank line.
    fn find<'a>(&self, row: &'a str) -> Result<Option<Found<'a>>, RowError>;

    /// Returns what is sealed: a service that opens the record with the library gets these bytes.
    fn value<'a>(&self, cell: &'a str) -> Result<Cow<'a, str>, RowFault>;

    /// Tells whether a value is a record already.
    fn is_record(&self, value: &str) -> bool;

    /// Writes the cell that holds `record` in place of `cell`.
    fn seal(&self, cell: &str, record: &str, out: &mut Vec<u8>);

    /// Returns the record that a sealed cell holds.
    fn record<'a>(&self, cell: &'a str) -> Result<Cow<'a, str>, RowFault>;

    /// Writes the cell whose value was sealed, as it was before.
    fn restore(&self, record: &str, value: &str, out: &mut Vec<u8>) -> Result<(), RowFault>;

    /// Returns the name of the field that [`Cell::field`] counts.
    fn field_name(&self, field: usize) -> &str;
}

/// The cells of a row that are to be replaced, in the order in which they stand in it.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    pub(crate) partition: Cow<'a, str>,
    pub(crate) cells: Vec<Cell>,
}

#[derive(Debug)]
pub(crate) struct Cell {
    /// Which of the named fields it is.
    pub(crate) field: usize,
    /// Where it stands in the row.
    pub(crate) span: Range<usize>,
}

/// Why a row cannot be encrypted or decrypted. It names fields, never what is in them.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RowError {
    #[error("the row is not UTF-8 text; convert the file, with iconv for instance")]
    NotUtf8,
    #[error("the row has {found} columns where the header has {expected}; correct it")]
    Columns { found: usize, expected: usize },
    #[error("there is a line break outside quotes; quote the field that holds it")]
    LineBreak,
    #[error("a name {0}")]
    Name(RowFault),
    #[error("the line is not a JSON object{}; put one object on each line", in_column(*.column))]
    NotAnObject { column: usize },
    #[error("there is no field {0}; add it or correct the option")]
    Missing(String),
    #[error("the field {0} is there twice; keep one")]
    Twice(String),
    #[error("the field {name} {fault}")]
    Field { name: String, fault: RowFault },
    #[error("the partition field {0}")]
    Partition(RowFault),
    #[error(
        "the row would have over {bytes_max} bytes once it is encrypted, more than decrypt reads; name fewer fields \
         or split it"
    )]
    SealedTooLong { bytes_max: usize },
    #[error("{}", failure.message())]
    Crypt {
        failure: Failure,
        /// Other rows may still do well.
        of_this_row: bool,
    },
}

/// What is wrong with a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RowFault {
    #[error("has a quote that is not closed, or text after it; correct it")]
    Quotes,
    #[error("is empty: the row belongs to nobody")]
    EmptyPartition,
    #[error("is neither text nor a number, so it cannot be a partition")]
    NoPartition,
    #[error(
        "is a number that other programs write in another way, such as 1.0 or one over 2^53; write it as text"
    )]
    Respelled,
    #[error("is a record already; decrypt it first, or say --allow-sealed to seal it once more")]
    Sealed,
    #[error("was sealed from what is no UTF-8 text; decrypt it with the library")]
    ValueNotUtf8,
    #[error("was sealed from what is no JSON value on one line; decrypt it with the library")]
    ValueNotJson,
}

impl RowError {
    /// What the library answered; `field` is where.
    fn crypt(error: &Error) -> Self {
        Self::Crypt { failure: explain::failure(error), of_this_row: explain::is_of_one_row(error) }
    }

    /// Tells whether other rows may still do well.
    const fn is_of_this_row(&self) -> bool {
        match self {
            Self::Crypt { of_this_row, .. } => *of_this_row,
            _ => true,
        }
    }

    /// The failure of a run that ends at this row.
    fn into_failure(self) -> Failure {
        match self {
            Self::Crypt { failure, .. } => failure,
            other => Failure::new(Exit::BadInput, other.to_string()),
        }
    }
}

/// Where in its line something is, if that is known.
fn in_column(column: usize) -> String {
    if column == 0 { String::new() } else { format!(" (column {column})") }
}

/// What there is from `at` on; nothing beyond the end.
fn tail(bytes: &[u8], at: usize) -> &[u8] {
    bytes.get(at..).unwrap_or_default()
}
