//! What can go wrong: a refused system call, or memory that a fork has emptied.

use std::{error::Error, fmt, io};

use rustix::io::Errno;

/// The system refused memory or its protection; the variant names the call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// No address space, or no further mapping, is to be had (`mmap`).
    #[error("cannot map protected memory")]
    Map(#[source] OsError),
    /// The pages between the guard pages cannot be made accessible (`mprotect`).
    #[error("cannot set guard pages")]
    Guard(#[source] OsError),
    /// The pages cannot be locked in RAM (`mlock`), mostly because of `RLIMIT_MEMLOCK`.
    #[error("cannot lock memory")]
    Lock(#[source] OsError),
    /// The pages cannot be kept out of core dumps (`madvise`, `MADV_DONTDUMP`).
    #[error("cannot exclude memory from core dumps")]
    ExcludeFromDumps(#[source] OsError),
    /// The pages would not be zeroed in a forked child (`madvise`, `MADV_WIPEONFORK`).
    #[error("cannot have memory wiped on fork")]
    WipeOnFork(#[source] OsError),
    /// This process is a forked child of the one that made the arena.
    #[error("memory belongs to the parent process")]
    Forked,
}

/// The operating system's error code.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct OsError(i32);

impl OsError {
    /// Returns the raw code (`errno`).
    #[must_use]
    pub const fn code(self) -> i32 {
        self.0
    }
}

impl OsError {
    pub(crate) const NO_MEMORY: Self = Self(Errno::NOMEM.raw_os_error());
}

impl From<Errno> for OsError {
    fn from(errno: Errno) -> Self {
        Self(errno.raw_os_error())
    }
}

impl From<OsError> for io::Error {
    fn from(error: OsError) -> Self {
        Self::from_raw_os_error(error.0)
    }
}

impl fmt::Display for OsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&io::Error::from(*self), f)
    }
}

impl fmt::Debug for OsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&io::Error::from(*self), f)
    }
}

impl Error for OsError {}

/// Why [`Arena::try_init`](crate::Arena::try_init) made no slot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(clippy::exhaustive_enums, reason = "there is no third party to fail")]
pub enum InitError<E> {
    /// There is no protected memory for the value, which was not made.
    #[error("cannot reserve protected memory")]
    Memory(#[source] MemoryError),
    /// The closure that makes the value failed.
    #[error("cannot make the protected value")]
    Make(#[source] E),
}

/// The slot's content is gone: this process is a forked child.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("protected memory was wiped by a fork")]
#[non_exhaustive]
pub struct Wiped;
