//! Tells a forked child from its parent without a system call.

#![expect(unsafe_code, reason = "reads a word of a mapped page")]

use std::{fmt, ptr::NonNull};

use crate::{
    error::MemoryError,
    sys::{Mapping, ProcessId, Span, Support, page_bytes},
};

/// Returns `true` if this process is a forked child of the one that made the sentinel.
///
/// It holds one page that the kernel zeroes in a child, so that asking costs one load.
/// Where the kernel cannot do that (macOS; Linux before 4.14) it compares process ids,
/// one system call each time.
///
/// ```
/// let sentinel = claviger_memory::ForkSentinel::new()?;
/// assert!(!sentinel.is_forked());
/// # Ok::<(), claviger_memory::MemoryError>(())
/// ```
pub struct ForkSentinel {
    mark: Mark,
}

enum Mark {
    /// `word` is in `mapping` and reads [`PRESENT`] in the process that wrote it.
    Page {
        word: NonNull<u64>,
        mapping: Option<Mapping>,
    },
    Process(ProcessId),
}

// SAFETY: the word is written before the sentinel is shared and only read afterwards; a
// fork changes it in the child's own copy, before any code of the child runs.
unsafe impl Send for ForkSentinel {}
// SAFETY: as above.
unsafe impl Sync for ForkSentinel {}

impl ForkSentinel {
    /// Makes a sentinel for the calling process.
    ///
    /// # Errors
    /// [`MemoryError::Map`] or [`MemoryError::Guard`] if the system grants no page.
    pub fn new() -> Result<Self, MemoryError> {
        let span = Span { offset: 0, bytes: page_bytes() };
        let mapping = Mapping::reserve(span.bytes)?;
        let mark = match mapping.open(span).and_then(|()| mapping.wipe_on_fork(span)) {
            Ok(Support::Done) => {
                let word = mapping.at(0).cast::<u64>();
                // SAFETY: the page is mapped, writable, aligned and known to us alone.
                unsafe { word.write(PRESENT) };
                Mark::Page { word, mapping: Some(mapping) }
            }
            refused => {
                release(mapping);
                match refused {
                    Err(error @ MemoryError::Guard(_)) => return Err(error),
                    _ => Mark::Process(ProcessId::current()),
                }
            }
        };
        Ok(Self { mark })
    }

    /// Returns whether this process is a child of the one that made the sentinel.
    #[inline]
    #[must_use]
    pub fn is_forked(&self) -> bool {
        match self.mark {
            // SAFETY: the page stays mapped as long as `self` lives, in a child too. The
            // read is volatile because its value changes across a fork, of which the
            // compiler knows nothing.
            Mark::Page { word, .. } => unsafe { word.read_volatile() != PRESENT },
            Mark::Process(process) => process != ProcessId::current(),
        }
    }
}

impl fmt::Debug for ForkSentinel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForkSentinel").field("is_forked", &self.is_forked()).finish()
    }
}

impl Drop for ForkSentinel {
    fn drop(&mut self) {
        if let Mark::Page { mapping, .. } = &mut self.mark
            && let Some(mapping) = mapping.take()
        {
            release(mapping);
        }
    }
}

/// Unmaps a page; if the system refuses, the page, which holds no secret, stays.
fn release(mapping: Mapping) {
    // SAFETY: both callers own the only pointer into the mapping and give it up.
    drop(unsafe { mapping.unmap() });
}

const PRESENT: u64 = 0x7a31_c0de_5e47_1e11;
