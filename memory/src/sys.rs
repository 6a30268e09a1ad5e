//! The system calls, each wrapped once, on memory that this crate mapped itself.

#![expect(unsafe_code, reason = "system calls on raw memory")]

use std::{ffi::c_void, ptr, ptr::NonNull};

#[cfg(target_os = "linux")]
use rustix::mm::{Advice, madvise};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mlock, mmap_anonymous, mprotect, munmap};

use crate::error::{MemoryError, OsError};

/// Anonymous private pages, inaccessible until [`Mapping::open`].
///
/// Dropping it leaks the pages; only [`Mapping::unmap`] returns them.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
}

/// A page-aligned part of a [`Mapping`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) offset: usize,
    pub(crate) bytes: usize,
}

/// Whether this platform can do what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Support {
    Done,
    /// There is no such call here, so that no policy can ask for it.
    #[cfg_attr(target_os = "linux", expect(dead_code, reason = "Linux has them all"))]
    Absent,
}

// SAFETY: a mapping is an address range and owned by this value alone; the system calls
// on it may come from any thread.
unsafe impl Send for Mapping {}
// SAFETY: as above; `&Mapping` gives out no reference to the pages' content.
unsafe impl Sync for Mapping {}

impl Mapping {
    pub(crate) fn reserve(bytes: usize) -> Result<Self, MemoryError> {
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches no
        // memory that is in use.
        let mapped = unsafe { mmap_anonymous(ptr::null_mut(), bytes, ProtFlags::empty(), MapFlags::PRIVATE) };
        let base = mapped.map_err(|errno| MemoryError::Map(errno.into()))?;
        let base = NonNull::new(base.cast()).ok_or(MemoryError::Map(OsError::NO_MEMORY))?;
        Ok(Self { base, bytes })
    }

    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Makes the span readable and writable.
    pub(crate) fn open(&self, span: Span) -> Result<(), MemoryError> {
        let (start, bytes) = self.locate(span);
        // SAFETY: the span lies in our mapping and loses no permission.
        unsafe { mprotect(start, bytes, MprotectFlags::READ | MprotectFlags::WRITE) }
            .map_err(|errno| MemoryError::Guard(errno.into()))
    }

    pub(crate) fn lock(&self, span: Span) -> Result<(), MemoryError> {
        let (start, bytes) = self.locate(span);
        // SAFETY: the span lies in our mapping; locking does not change its content.
        unsafe { mlock(start, bytes) }.map_err(|errno| MemoryError::Lock(errno.into()))
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn exclude_from_dumps(&self, span: Span) -> Result<Support, MemoryError> {
        let (start, bytes) = self.locate(span);
        // SAFETY: the span lies in our mapping; the advice does not change its content.
        unsafe { madvise(start, bytes, Advice::LinuxDontDump) }
            .map(|()| Support::Done)
            .map_err(|errno| MemoryError::ExcludeFromDumps(errno.into()))
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn wipe_on_fork(&self, span: Span) -> Result<Support, MemoryError> {
        let (start, bytes) = self.locate(span);
        // SAFETY: the span lies in our mapping, which is private and anonymous; what the
        // child reads there (zeros) is told apart by the canaries in it.
        unsafe { madvise(start, bytes, Advice::LinuxWipeOnFork) }
            .map(|()| Support::Done)
            .map_err(|errno| MemoryError::WipeOnFork(errno.into()))
    }

    #[cfg(not(target_os = "linux"))]
    #[expect(clippy::unnecessary_wraps, reason = "one signature on all platforms")]
    pub(crate) fn exclude_from_dumps(&self, _: Span) -> Result<Support, MemoryError> {
        Ok(Support::Absent)
    }

    /// macOS has `minherit`, but not its `INHERIT_ZERO` of the BSDs; `VM_INHERIT_NONE`
    /// would turn each use in a child into a SIGSEGV.
    #[cfg(not(target_os = "linux"))]
    #[expect(clippy::unnecessary_wraps, reason = "one signature on all platforms")]
    pub(crate) fn wipe_on_fork(&self, _: Span) -> Result<Support, MemoryError> {
        Ok(Support::Absent)
    }

    /// Returns the address `offset` bytes into the mapping, or its end if beyond it.
    pub(crate) fn at(&self, offset: usize) -> NonNull<u8> {
        let offset = offset.min(self.bytes);
        // SAFETY: the offset is at most the mapping's length, so that the result lies in
        // the mapping or one past its end.
        unsafe { self.base.add(offset) }
    }

    /// Returns the pages to the system.
    ///
    /// # Errors
    /// Gives the mapping back, unchanged, if the system refuses; splitting an area that
    /// the kernel had merged takes memory and can fail.
    ///
    /// # Safety
    /// Nothing may use an address in the mapping afterwards.
    pub(crate) unsafe fn unmap(self) -> Result<(), (Self, OsError)> {
        // SAFETY: the range is the one we mapped; the caller vouches for its users.
        match unsafe { munmap(self.base.as_ptr().cast(), self.bytes) } {
            Ok(()) => Ok(()),
            Err(errno) => Err((self, errno.into())),
        }
    }

    fn locate(&self, span: Span) -> (*mut c_void, usize) {
        let offset = span.offset.min(self.bytes);
        let bytes = span.bytes.min(self.bytes - offset);
        (self.at(offset).as_ptr().cast(), bytes)
    }
}

pub(crate) fn page_bytes() -> usize {
    rustix::param::page_size()
}

/// Identifies the process, where the kernel does not mark a child for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProcessId(i32);

impl ProcessId {
    pub(crate) fn current() -> Self {
        Self(rustix::process::getpid().as_raw_pid())
    }
}
