//! Cuts a stream into chunks of whole rows.

use std::io::{self, Read};

use super::tail;

/// Reads rows, as many at a time as fit.
#[derive(Debug)]
pub(crate) struct Chunks<R> {
    input: R,
    /// Read and not handed out yet.
    pending: Vec<u8>,
    at_end: bool,
    /// The line that `pending` begins on.
    line: u64,
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
    #[error("the row is over {ROW_BYTES_MAX} bytes; is a quote not closed?")]
    RowTooLong { line: u64 },
}

/// How a format tells where its first row ends: [`Layout::row_len`](super::Layout::row_len).
pub(crate) type RowLen = fn(&[u8], bool) -> Option<usize>;

impl<R: Read> Chunks<R> {
    pub(crate) const fn new(input: R) -> Self {
        Self { input, pending: Vec::new(), at_end: false, line: 1 }
    }

    /// Returns the next row alone, for a header; `None` at the end.
    pub(crate) fn next_row(&mut self, row_len: RowLen) -> Result<Option<Chunk>, ChunkError> {
        self.next(row_len, 1)
    }

    /// Returns the next rows, at least one; `None` at the end.
    pub(crate) fn next_rows(&mut self, row_len: RowLen) -> Result<Option<Chunk>, ChunkError> {
        self.next(row_len, usize::MAX)
    }

    fn next(&mut self, row_len: RowLen, rows_max: usize) -> Result<Option<Chunk>, ChunkError> {
        let mut wanted = CHUNK_BYTES;
        loop {
            self.fill(wanted)?;
            if self.pending.is_empty() {
                return Ok(None);
            }
            let row_ends = self.row_ends(row_len, rows_max);
            if !row_ends.is_empty() {
                return Ok(Some(self.take(row_ends)));
            }
            if self.pending.len() >= ROW_BYTES_MAX {
                return Err(ChunkError::RowTooLong { line: self.line });
            }
            // Doubling keeps what is scanned again and again below twice the row.
            wanted = self.pending.len().max(wanted).saturating_mul(2).min(ROW_BYTES_MAX);
        }
    }

    /// Where the rows end that are all there, at most `rows_max` of them.
    fn row_ends(&self, row_len: RowLen, rows_max: usize) -> Vec<usize> {
        let mut end = 0;
        let rows = std::iter::from_fn(|| {
            let rest = tail(&self.pending, end);
            end += if rest.is_empty() { None } else { row_len(rest, self.at_end) }?;
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

    fn take(&mut self, row_ends: Vec<usize>) -> Chunk {
        let len = row_ends.last().map_or(0, |end| self.pending.len().min(*end));
        let rest = self.pending.split_off(len);
        let bytes = std::mem::replace(&mut self.pending, rest);
        let first_line = self.line;
        self.line = self.line.saturating_add(count_lines(&bytes));
        Chunk { bytes, row_ends, first_line }
    }
}

/// How many lines an editor would say these bytes end: at LF, at CR LF, and at a lone CR where no
/// LF is about.
pub(crate) fn count_lines(bytes: &[u8]) -> u64 {
    let feeds = memchr::memchr_iter(b'\n', bytes).count();
    let lines = if feeds == 0 { memchr::memchr_iter(b'\r', bytes).count() } else { feeds };
    u64::try_from(lines).unwrap_or(u64::MAX)
}

/// How much is read at once. Several of these are under way at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// The longest row: that of a 64 MiB payload once it is sealed, base64 and all, with room to spare.
pub(crate) const ROW_BYTES_MAX: usize = 128 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Layout;
    use crate::table::csv::CsvLayout;
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

    fn drain(bytes: &[u8], step: usize) -> Vec<Chunk> {
        let mut chunks = Chunks::new(Dribble(bytes, step));
        std::iter::from_fn(|| chunks.next_rows(CsvLayout::row_len).unwrap()).collect()
    }

    proptest! {
        #[test]
        fn chunks_joined_are_the_input(bytes in "[a\",\r\n]{0,200}", step in 1..50_usize) {
            let joined: Vec<u8> = drain(bytes.as_bytes(), step).into_iter().flat_map(|c| c.bytes).collect();
            prop_assert_eq!(joined, bytes.into_bytes());
        }
    }

    #[test]
    fn long_input_is_cut_between_rows_and_lines_are_counted() {
        let row = "a,\"b\nb\"\r\n";
        let chunks = drain(row.repeat(50_000).as_bytes(), 4096);
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
    fn a_row_over_the_limit_is_refused_with_its_line() {
        let bytes = io::Read::chain(&b"a\n\""[..], io::repeat(b'x'));
        let mut chunks = Chunks::new(bytes);
        assert_eq!(chunks.next_row(CsvLayout::row_len).unwrap().unwrap().bytes, b"a\n");
        let error = chunks.next_rows(CsvLayout::row_len).unwrap_err();
        assert!(matches!(error, ChunkError::RowTooLong { line: 2 }));
    }
}
