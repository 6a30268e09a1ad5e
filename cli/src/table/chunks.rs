//! Cuts a stream into chunks of whole rows.

use std::io::{self, Read};

use super::{Layout, tail};
use crate::encoding::{BYTE_ORDER_MARK, is_utf16};

/// Reads rows, as many at a time as fit.
#[derive(Debug)]
pub(crate) struct Chunks<R> {
    input: R,
    sizes: Sizes,
    /// Read and not handed out yet.
    pending: Vec<u8>,
    at_end: bool,
    /// The line that `pending` begins on.
    line: u64,
}

/// How much is held at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// How much is read at once. Several of these are under way at a time.
    pub(crate) chunk_bytes: usize,
    /// The longest row, with its line end.
    pub(crate) row_bytes_max: usize,
}

impl Sizes {
    /// A row holds a 64 MiB payload once it is sealed, base64 and all, with room to spare.
    pub(crate) const STANDARD: Self = Self { chunk_bytes: 64 << 10, row_bytes_max: 128 << 20 };
}

/// Whole rows.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) bytes: Vec<u8>,
    /// Where each row ends, the last at the end of `bytes`.
    pub(crate) row_ends: Vec<usize>,
    pub(crate) first_line: u64,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ChunkError {
    #[error(transparent)]
    Read(#[from] io::Error),
    #[error("the file is UTF-16; convert it to UTF-8, with iconv for instance")]
    Utf16,
    #[error("the row is over {bytes_max} bytes; {question}")]
    RowTooLong { line: u64, bytes_max: usize, question: &'static str },
}

impl<R: Read> Chunks<R> {
    /// Begins to read, and returns the byte order mark if there is one, to be copied: it is no part of
    /// the first row, nor may anything take it for one.
    pub(crate) fn begin(input: R, sizes: Sizes) -> Result<(Self, &'static [u8]), ChunkError> {
        let mut chunks = Self { input, sizes, pending: Vec::new(), at_end: false, line: 1 };
        chunks.fill(sizes.chunk_bytes.max(BEGINNING_BYTES))?;
        if is_utf16(&chunks.pending) {
            return Err(ChunkError::Utf16);
        }
        if !chunks.pending.starts_with(BYTE_ORDER_MARK) {
            return Ok((chunks, b""));
        }
        chunks.pending.drain(..BYTE_ORDER_MARK.len());
        Ok((chunks, BYTE_ORDER_MARK))
    }

    /// Returns the next row alone, for a header; `None` at the end.
    pub(crate) fn next_row<L: Layout>(&mut self) -> Result<Option<Chunk>, ChunkError> {
        self.next::<L>(1)
    }

    /// Returns the next rows, at least one; `None` at the end.
    pub(crate) fn next_rows<L: Layout>(&mut self) -> Result<Option<Chunk>, ChunkError> {
        self.next::<L>(usize::MAX)
    }

    fn next<L: Layout>(&mut self, rows_max: usize) -> Result<Option<Chunk>, ChunkError> {
        let bytes_max = self.sizes.row_bytes_max;
        let mut wanted = self.sizes.chunk_bytes;
        loop {
            self.fill(wanted)?;
            if self.pending.is_empty() {
                return Ok(None);
            }
            let row_ends = self.row_ends::<L>(rows_max);
            if !row_ends.is_empty() {
                return Ok(Some(self.take::<L>(row_ends)));
            }
            if self.pending.len() > bytes_max {
                return Err(ChunkError::RowTooLong { line: self.line, bytes_max, question: L::TOO_LONG });
            }
            // Doubling keeps what is scanned again and again below twice the row. One byte over the
            // limit is needed, to see that the row ends there.
            wanted = self.pending.len().max(wanted).saturating_mul(2).min(bytes_max.saturating_add(1));
        }
    }

    /// Where the rows end that are all there and not too long, at most `rows_max` of them.
    fn row_ends<L: Layout>(&self, rows_max: usize) -> Vec<usize> {
        let mut end = 0;
        let rows = std::iter::from_fn(|| {
            let rest = tail(&self.pending, end);
            let len = if rest.is_empty() { None } else { L::row_len(rest, self.at_end) }?;
            end += if len <= self.sizes.row_bytes_max { Some(len) } else { None }?;
            Some(end)
        });
        rows.take(rows_max).collect()
    }

    fn fill(&mut self, wanted: usize) -> io::Result<()> {
        let missing = wanted.saturating_sub(self.pending.len());
        if missing == 0 || self.at_end {
            return Ok(());
        }
        self.pending.reserve_exact(missing);
        let read = self.input.by_ref().take(missing as u64).read_to_end(&mut self.pending)?;
        self.at_end = read < missing;
        Ok(())
    }

    fn take<L: Layout>(&mut self, row_ends: Vec<usize>) -> Chunk {
        let len = row_ends.last().map_or(0, |end| self.pending.len().min(*end));
        let rest = self.pending.split_off(len);
        let bytes = std::mem::replace(&mut self.pending, rest);
        let chunk = Chunk { bytes, row_ends, first_line: self.line };
        self.line = chunk.rows().fold(self.line, |line, row| line.saturating_add(L::lines(row)));
        chunk
    }
}

impl Chunk {
    pub(crate) fn rows(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.row_ends.iter().map(move |&end| {
            let row = self.bytes.get(start..end).unwrap_or_default();
            start = end;
            row
        })
    }
}

/// What tells the encoding.
const BEGINNING_BYTES: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::csv::CsvLayout;
    use crate::table::jsonl::JsonLayout;
    use proptest::prelude::*;

    /// Gives out a few bytes at a time.
    struct Dribble<'a>(&'a [u8], usize);

    impl Read for Dribble<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let len = self.1.min(self.0.len()).min(buffer.len());
            buffer[..len].copy_from_slice(&self.0[..len]);
            self.0 = &self.0[len..];
            Ok(len)
        }
    }

    fn begin<R: Read>(input: R, chunk_bytes: usize, row_bytes_max: usize) -> (Chunks<R>, &'static [u8]) {
        Chunks::begin(input, Sizes { chunk_bytes, row_bytes_max }).unwrap()
    }

    fn drain(bytes: &[u8], step: usize, chunk_bytes: usize) -> Vec<Chunk> {
        let (mut chunks, _) = begin(Dribble(bytes, step), chunk_bytes, usize::MAX);
        std::iter::from_fn(|| chunks.next_rows::<CsvLayout>().unwrap()).collect()
    }

    proptest! {
        #[test]
        fn chunks_joined_are_the_input(
            bytes in "[a\",\r\n]{0,200}", step in 1..50_usize, chunk_bytes in 1..50_usize
        ) {
            let chunks = drain(bytes.as_bytes(), step, chunk_bytes);
            let joined: Vec<u8> = chunks.into_iter().flat_map(|c| c.bytes).collect();
            prop_assert_eq!(joined, bytes.into_bytes());
        }

        #[test]
        fn rows_and_their_lines_are_the_same_however_a_file_is_cut(
            bytes in "[a\",\r\n]{0,200}", chunk_bytes in 1..50_usize
        ) {
            let rows = |chunk_bytes| -> Vec<(u64, Vec<u8>)> {
                let mut rows = Vec::new();
                for chunk in drain(bytes.as_bytes(), 7, chunk_bytes) {
                    let mut line = chunk.first_line;
                    for row in chunk.rows() {
                        rows.push((line, row.to_vec()));
                        line += CsvLayout::lines(row);
                    }
                }
                rows
            };
            prop_assert_eq!(rows(chunk_bytes), rows(1000));
        }

        #[test]
        fn a_row_is_read_up_to_the_limit_and_not_beyond(
            over in 0..3_usize, end in "\n|\r\n|\r|", before in "|a\n", chunk_bytes in 1..80_usize
        ) {
            let row = "x".repeat(50 + over - end.len()) + &end;
            let file = before.clone() + &row;
            let (mut chunks, _) = begin(Dribble(file.as_bytes(), 9), chunk_bytes, 50);
            let mut read = Vec::new();
            let error = loop {
                match chunks.next_rows::<CsvLayout>() {
                    Ok(Some(chunk)) => read.extend(chunk.bytes),
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
            };
            if over == 0 {
                prop_assert!(error.is_none());
                prop_assert_eq!(read, file.into_bytes());
            } else {
                let line = if before.is_empty() { 1 } else { 2 };
                let is_told = matches!(error, Some(ChunkError::RowTooLong { line: told, .. }) if told == line);
                prop_assert!(is_told);
                prop_assert_eq!(read, before.into_bytes());
            }
        }
    }

    #[test]
    fn a_byte_order_mark_is_taken_off_before_rows_are_cut() {
        for chunk_bytes in 1..8 {
            let (mut chunks, mark) = begin("\u{feff}\"a\n\",b\nc".as_bytes(), chunk_bytes, 100);
            assert_eq!(mark, "\u{feff}".as_bytes());
            assert_eq!(chunks.next_row::<CsvLayout>().unwrap().unwrap().bytes, b"\"a\n\",b\n");
        }
        // Only the first one is one.
        let (mut chunks, _) = begin("\u{feff}\u{feff}a\n".as_bytes(), 10, 100);
        assert_eq!(chunks.next_row::<CsvLayout>().unwrap().unwrap().bytes, "\u{feff}a\n".as_bytes());
        let (mut chunks, mark) = begin(&b"\xef\xbb"[..], 10, 100);
        assert_eq!(mark, b"");
        assert_eq!(chunks.next_row::<CsvLayout>().unwrap().unwrap().bytes, b"\xef\xbb");
    }

    #[test]
    fn long_input_is_cut_between_rows_and_lines_are_counted() {
        let row = "a,\"b\nb\"\r\n";
        let chunks = drain(row.repeat(50_000).as_bytes(), 4096, Sizes::STANDARD.chunk_bytes);
        assert!(chunks.len() > 3);
        let mut line = 1;
        for chunk in chunks {
            assert_eq!(chunk.first_line, line);
            assert!(chunk.row_ends.iter().all(|end| end % row.len() == 0));
            assert_eq!(chunk.row_ends.last(), Some(&chunk.bytes.len()));
            line += 2 * (chunk.bytes.len() / row.len()) as u64;
        }
    }

    #[test]
    fn what_is_asked_of_a_row_without_an_end_depends_on_the_format() {
        fn told<L: Layout>() -> String {
            let bytes = io::Read::chain(&b"a\n\""[..], io::repeat(b'x'));
            let (mut chunks, _) = begin(bytes, 100, 1000);
            assert_eq!(chunks.next_row::<L>().unwrap().unwrap().bytes, b"a\n");
            let error = chunks.next_rows::<L>().unwrap_err();
            assert!(matches!(error, ChunkError::RowTooLong { line: 2, .. }));
            error.to_string()
        }
        assert_eq!(told::<CsvLayout>(), "the row is over 1000 bytes; is a quote not closed?");
        assert_eq!(told::<JsonLayout>(), "the row is over 1000 bytes; is each object on a line of its own?");
    }
}
