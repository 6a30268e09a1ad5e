//! One mapping with its guard pages, cut into slots.

#![expect(unsafe_code, reason = "unmaps memory once no slot of it is in use")]

use crate::{
    arena::LockPolicy,
    error::{MemoryError, OsError},
    slot::{Cell, STRIDE},
    sys::{Mapping, ProcessId, Span, Support, page_bytes},
};

/// `guard page | slots, the last bytes unused | guard page`.
#[derive(Debug)]
pub(crate) struct Region {
    mapping: Mapping,
    data: Span,
    protection: Protection,
    /// Slots not in use, the next one last. It never grows, so that freeing cannot fail.
    free: Vec<u32>,
    slots: usize,
}

/// What the system granted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Protection {
    pub(crate) locked: bool,
    pub(crate) refused: Refusals,
    /// The process whose slots these are, where the kernel does not wipe a child's.
    pub(crate) owner: Option<ProcessId>,
}

/// Which protections the system refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Refusals {
    pub(crate) lock: Option<OsError>,
    pub(crate) dump_exclusion: Option<OsError>,
    pub(crate) fork_wipe: Option<OsError>,
}

impl Region {
    /// Maps a region with room for `data_bytes` of slots.
    pub(crate) fn map(data_bytes: usize, policy: LockPolicy) -> Result<Self, MemoryError> {
        let page = page_bytes();
        let data = Span { offset: page, bytes: data_bytes.next_multiple_of(page) };
        let mapping = Mapping::reserve(data.bytes + 2 * page)?;
        match protect(&mapping, data, policy) {
            Ok(protection) => {
                let slots = data.bytes / STRIDE;
                let free = (0..u32::try_from(slots).unwrap_or(u32::MAX)).rev().collect();
                Ok(Self { mapping, data, protection, free, slots })
            }
            Err(error) => {
                // SAFETY: no address in the mapping was given to anyone. If the system
                // refuses, address space is lost, but no secret and no memory in use.
                drop(unsafe { mapping.unmap() });
                Err(error)
            }
        }
    }

    pub(crate) fn take(&mut self) -> Option<(u32, Cell)> {
        let index = self.free.pop()?;
        Some((index, self.cell(index)))
    }

    /// Takes back a slot that [`Region::take`] gave out.
    pub(crate) fn put_back(&mut self, index: u32) {
        self.free.push(index);
    }

    pub(crate) fn is_full(&self) -> bool {
        self.free.is_empty()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.free.len() == self.slots
    }

    pub(crate) const fn protection(&self) -> Protection {
        self.protection
    }

    pub(crate) const fn data_bytes(&self) -> usize {
        self.data.bytes
    }

    pub(crate) const fn mapped_bytes(&self) -> usize {
        self.mapping.bytes()
    }

    /// Returns the memory to the system; leaks it if a slot is in use, which no caller does.
    ///
    /// # Errors
    /// Gives the region back if the system refuses, still usable.
    pub(crate) fn unmap(self) -> Result<(), (Self, OsError)> {
        if !self.is_empty() {
            return Ok(());
        }
        let Self { mapping, data, protection, free, slots } = self;
        // SAFETY: every slot that was taken has been put back, and a caller that puts a slot back
        // has done with its address.
        match unsafe { mapping.unmap() } {
            Ok(()) => Ok(()),
            Err((mapping, error)) => Err((Self { mapping, data, protection, free, slots }, error)),
        }
    }

    fn cell(&self, index: u32) -> Cell {
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        let start = self.mapping.at(self.data.offset + index * STRIDE);
        // SAFETY: `index` came from `free`, so that the cell lies in the open pages, whose
        // start is page-aligned; it is in use by one taker until it is put back, and until
        // then the region is not unmapped.
        unsafe { Cell::new(start) }
    }
}

/// Opens the pages between the guards and asks for each protection that `policy` wants.
fn protect(mapping: &Mapping, data: Span, policy: LockPolicy) -> Result<Protection, MemoryError> {
    mapping.open(data)?;
    let mut protection = Protection::default();
    match mapping.exclude_from_dumps(data) {
        Ok(_) => {}
        Err(MemoryError::ExcludeFromDumps(error)) if policy != LockPolicy::Require => {
            protection.refused.dump_exclusion = Some(error);
        }
        Err(error) => return Err(error),
    }
    match mapping.wipe_on_fork(data) {
        Ok(Support::Done) => {}
        Ok(Support::Absent) => protection.owner = Some(ProcessId::current()),
        Err(MemoryError::WipeOnFork(error)) if policy != LockPolicy::Require => {
            protection.owner = Some(ProcessId::current());
            protection.refused.fork_wipe = Some(error);
        }
        Err(error) => return Err(error),
    }
    if policy == LockPolicy::Off {
        return Ok(protection);
    }
    match mapping.lock(data) {
        Ok(()) => protection.locked = true,
        Err(MemoryError::Lock(error)) if policy != LockPolicy::Require => {
            protection.refused.lock = Some(error);
        }
        Err(error) => return Err(error),
    }
    Ok(protection)
}
