//! How rows flow: one thread reads and cuts chunks, tasks of the runtime encrypt or decrypt
//! them on all cores, and the caller writes them in the order they were read.
//!
//! The channel holds the tasks' handles, so order needs no sorting; permits by the byte bound
//! what is under way between reading and writing.

use std::io::Read;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use tokio::runtime::{Handle, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use super::Layout;
use super::chunks::{Chunk, ChunkError, Chunks};
use super::rows::{Done, Work};
use crate::exit::{Exit, Failure};

/// What a chunk came to, in the order of the chunks, and how many bytes it was read from.
pub(crate) type OnDone<'a> = dyn FnMut(&Done, usize) -> Result<(), Failure> + 'a;

/// A chunk under way, with its share of the memory.
struct Flight {
    task: JoinHandle<Done>,
    bytes: usize,
    _memory: OwnedSemaphorePermit,
}

/// Sends all rows through `work` and hands what they come to, in order, to `on_done`.
///
/// `place` names the input in messages.
pub(crate) fn run<L: Layout>(
    runtime: &Runtime,
    chunks: Chunks<impl Read + Send + 'static>,
    work: Work<L>,
    place: &str,
    on_done: &mut OnDone<'_>,
) -> Result<(), Failure> {
    let (sender, flights) = sync_channel(FLIGHTS_MAX);
    let reader = Reader {
        chunks,
        work: Arc::new(work),
        memory: Arc::new(Semaphore::new(MEMORY_BYTES)),
        runtime: runtime.handle().clone(),
        flights: sender,
        place: place.to_owned(),
    };
    // Not joined when writing fails: it may be waiting for a terminal or a pipe, and the program must
    // not wait with it.
    let reader =
        thread::Builder::new().name("reader".to_owned()).spawn(move || reader.read()).map_err(|error| {
            Failure::new(Exit::Unavailable, format!("cannot start a thread: {error}; try again"))
        })?;
    write_in_order(runtime, &flights, place, on_done)?;
    // It has dropped its end of the channel, at the end of the input or because it broke off.
    reader.join().map_err(|_panic| Failure::internal("reading was broken off"))
}

fn write_in_order(
    runtime: &Runtime,
    flights: &Receiver<Result<Flight, Failure>>,
    place: &str,
    on_done: &mut OnDone<'_>,
) -> Result<(), Failure> {
    for flight in flights {
        let Flight { task, bytes, _memory } = flight?;
        let done = runtime.block_on(task).map_err(|_panic| Failure::internal("encrypting was broken off"))?;
        on_done(&done, bytes)?;
        if let Some(bad) = done.fatal {
            return Err(bad.into_failure(place));
        }
    }
    Ok(())
}

/// The failure of a run whose input cannot be cut into rows.
pub(crate) fn chunk_failure(place: &str, error: &ChunkError) -> Failure {
    match error {
        ChunkError::Read(error) => Failure::read(place, error),
        ChunkError::Utf16 => Failure::new(Exit::BadInput, error.to_string()).at(place),
        ChunkError::RowTooLong { line, .. } => {
            Failure::new(Exit::BadInput, error.to_string()).at(&format!("{place}:{line}"))
        }
    }
}

struct Reader<R, L> {
    chunks: Chunks<R>,
    work: Arc<Work<L>>,
    memory: Arc<Semaphore>,
    runtime: Handle,
    flights: SyncSender<Result<Flight, Failure>>,
    place: String,
}

impl<R: Read, L: Layout> Reader<R, L> {
    /// Reads until the end, a failure, or until nobody takes the results any more.
    fn read(mut self) {
        loop {
            let flight = match self.chunks.next_rows::<L>() {
                Ok(None) => return,
                Ok(Some(chunk)) => self.start(chunk),
                Err(error) => Err(chunk_failure(&self.place, &error)),
            };
            let is_last = flight.is_err();
            if self.flights.send(flight).is_err() || is_last {
                return;
            }
        }
    }

    fn start(&self, chunk: Chunk) -> Result<Flight, Failure> {
        let bytes = chunk.bytes.len();
        // A chunk larger than all the memory waits until it is alone.
        let share = u32::try_from(bytes.min(MEMORY_BYTES)).unwrap_or(u32::MAX);
        let memory = self.runtime.block_on(Arc::clone(&self.memory).acquire_many_owned(share));
        let memory = memory.map_err(|error| Failure::internal(&error.to_string()))?;
        let work = Arc::clone(&self.work);
        let task = self.runtime.spawn(async move { work.run(&chunk).await });
        Ok(Flight { task, bytes, _memory: memory })
    }
}

/// How many bytes of rows are under way. What they come to is about five times as much.
const MEMORY_BYTES: usize = 2 << 20;

/// How many chunks are under way. More than cores, since some wait for keys.
const FLIGHTS_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::table::chunks::Sizes;
    use crate::table::csv::CsvLayout;
    use crate::table::rows::Direction;
    use crate::table::rows::tests::{csv_layout, factory, kms, runtime};

    /// A reader that breaks off behind these rows.
    struct Broken<'a>(&'a [u8]);

    impl Read for Broken<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            assert!(!self.0.is_empty(), "broken");
            self.0.read(buffer)
        }
    }

    #[test]
    fn a_reader_that_breaks_off_is_no_end_of_the_input() {
        let runtime = runtime();
        let work = Work {
            layout: csv_layout(),
            direction: Direction::Encrypt,
            factory: factory(),
            kms: kms(),
            keep_going: true,
            allow_sealed: false,
            row_bytes_max: usize::MAX,
        };
        let rows = b"1,2,3\n".repeat(100);
        let rows: &'static [u8] = rows.leak();
        let sizes = Sizes { chunk_bytes: 60, row_bytes_max: 100 };
        let (chunks, _mark) = Chunks::begin(Broken(rows), sizes).unwrap();
        let mut on_done: Box<OnDone<'_>> = Box::new(|_, _| Ok(()));
        let failure = run::<CsvLayout>(&runtime, chunks, work, "in.csv", &mut *on_done).unwrap_err();
        assert_eq!(failure.exit(), Exit::Internal);
    }
}
