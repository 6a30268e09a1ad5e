//! What is done to a file of rows, from its first byte on, wherever it comes from and goes to.

use std::io::Read;

use claviger::SessionFactory;
use tokio::runtime::Runtime;

use super::Layout;
use super::chunks::{ChunkError, Chunks, Sizes};
use super::csv::CsvLayout;
use super::jsonl::JsonLayout;
use super::pipeline::{self, OnDone, chunk_failure};
use super::rows::{Direction, Done, Work};
use crate::args::Format;
use crate::exit::{Exit, Failure};
use crate::kms::watched::Watched;

/// Encrypting or decrypting the named fields of a file.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) direction: Direction,
    pub(crate) format: Format,
    pub(crate) fields: Vec<String>,
    pub(crate) partition_field: String,
    pub(crate) factory: SessionFactory,
    pub(crate) kms: Watched,
    /// Leave out rows that fail, instead of ending at the first.
    pub(crate) keep_going: bool,
    /// Seal what is a record already.
    pub(crate) allow_sealed: bool,
    pub(crate) sizes: Sizes,
}

/// A file's header row, and all that is to be copied up to its end.
struct Header {
    row: Vec<u8>,
    copied: Vec<u8>,
}

impl Job {
    /// Does it, and hands what comes of it to `on_done`, in order. The header is judged before
    /// anything is.
    ///
    /// `place` names the input in messages.
    pub(crate) fn run(
        self,
        runtime: &Runtime,
        input: impl Read + Send + 'static,
        place: &str,
        on_done: &mut OnDone<'_>,
    ) -> Result<(), Failure> {
        let unreadable = |error: ChunkError| chunk_failure(place, &error);
        let (mut chunks, mark) = Chunks::begin(input, self.sizes).map_err(unreadable)?;
        match self.format {
            Format::Csv => {
                let header = csv_header(&mut chunks).map_err(unreadable)?;
                let header = header.ok_or_else(|| {
                    let message = format!("{place} has no header row; add one that names the columns");
                    Failure::new(Exit::BadInput, message)
                })?;
                let layout = CsvLayout::from_header(&header.row, &self.partition_field, &self.fields);
                let layout = layout.map_err(|failure| failure.at(place))?;
                copy([mark, header.copied.as_slice()].concat(), on_done)?;
                pipeline::run(runtime, chunks, self.work(layout), place, on_done)
            }
            Format::Jsonl => {
                copy(mark.to_vec(), on_done)?;
                let layout = JsonLayout::new(&self.partition_field, &self.fields, self.direction);
                pipeline::run(runtime, chunks, self.work(layout), place, on_done)
            }
        }
    }

    fn work<L: Layout>(self, layout: L) -> Work<L> {
        Work {
            layout,
            direction: self.direction,
            factory: self.factory,
            kms: self.kms,
            keep_going: self.keep_going,
            allow_sealed: self.allow_sealed,
            row_bytes_max: self.sizes.row_bytes_max,
        }
    }
}

fn copy(bytes: Vec<u8>, on_done: &mut OnDone<'_>) -> Result<(), Failure> {
    let len = bytes.len();
    on_done(&Done { bytes, ..Done::default() }, len)
}

/// Reads up to the end of the header row, the first that is not blank; `None` if there is none.
fn csv_header(chunks: &mut Chunks<impl Read>) -> Result<Option<Header>, ChunkError> {
    let mut copied = Vec::new();
    while let Some(row) = chunks.next_row::<CsvLayout>()? {
        copied.extend_from_slice(&row.bytes);
        if !row.bytes.trim_ascii().is_empty() {
            return Ok(Some(Header { row: row.bytes, copied }));
        }
    }
    Ok(None)
}
