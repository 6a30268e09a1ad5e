//! One protected value, and the cell of a region in which it lies.

#![expect(unsafe_code, reason = "puts values into mapped memory and wipes them")]

use std::{fmt, marker::PhantomData, ptr::NonNull, sync::Arc};

use crate::{arena::Shared, error::Wiped, stack::fence, sys::ProcessId};

/// How large a protected value may be.
pub const SLOT_BYTES: usize = STRIDE - size_of::<u64>();

/// How strictly a protected value may be aligned.
pub const SLOT_ALIGN: usize = 64;

/// A value in protected memory, wiped when dropped.
///
/// A slot keeps its arena's memory mapped and may outlive the [`Arena`](crate::Arena).
///
/// In a forked child [`Slot::get`] answers [`Wiped`], and dropping the slot there is
/// harmless.
pub struct Slot<T> {
    place: Place,
    value: PhantomData<T>,
}

// SAFETY: a slot owns its value, as a `Box<T>` does, and its bookkeeping is an `Arc` of
// shared state behind a mutex.
unsafe impl<T: Send> Send for Slot<T> {}
// SAFETY: `&Slot<T>` gives out `&T` and nothing else.
unsafe impl<T: Sync> Sync for Slot<T> {}

impl<T> Slot<T> {
    /// Wraps a place that holds a value.
    ///
    /// # Safety
    /// A valid `T` was written to `place`, and `T` needs no drop.
    pub(crate) unsafe fn holding(place: Place) -> Self {
        Self { place, value: PhantomData }
    }

    /// Returns the value.
    ///
    /// Do not carry the reference across a `fork`: a child would read zeros through it.
    ///
    /// # Errors
    /// [`Wiped`] in a forked child of the process that made the slot.
    #[inline]
    pub fn get(&self) -> Result<&T, Wiped> {
        if self.place.is_wiped() {
            return Err(Wiped);
        }
        // SAFETY: `holding` was promised a valid `T`, which nothing changes before `drop`
        // but a fork, and the check above has just ruled that out.
        Ok(unsafe { self.place.cell.start.cast().as_ref() })
    }
}

impl<T> fmt::Debug for Slot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Slot([REDACTED])")
    }
}

/// A cell taken from the arena; wiped and put back when dropped.
pub(crate) struct Place {
    cell: Cell,
    arena: Arc<Shared>,
    pub(crate) region: usize,
    pub(crate) index: u32,
    owner: Option<ProcessId>,
}

impl Place {
    pub(crate) fn new(
        cell: Cell,
        arena: Arc<Shared>,
        (region, index): (usize, u32),
        owner: Option<ProcessId>,
    ) -> Self {
        cell.mark();
        Self { cell, arena, region, index, owner }
    }

    /// Moves `value` into the cell.
    pub(crate) fn write<T>(&mut self, value: T) {
        const {
            assert!(size_of::<T>() <= SLOT_BYTES, "the value is larger than a slot");
            assert!(align_of::<T>() <= SLOT_ALIGN, "the value is aligned more than a slot");
            assert!(!std::mem::needs_drop::<T>(), "a slot wipes its value, it does not drop it");
        }
        // SAFETY: the cell is exclusively ours, and large and aligned enough, as checked.
        unsafe { self.cell.start.cast().write(value) };
    }

    /// Returns whether this process is a forked child of the one that took the cell.
    #[inline]
    pub(crate) fn is_wiped(&self) -> bool {
        !self.cell.is_marked() || self.owner.is_some_and(|owner| owner != ProcessId::current())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let is_wiped = self.is_wiped();
        // In a child the kernel has wiped it, unless it cannot, or a value was written
        // since; and the arena's mutex may be held by a thread that exists no more.
        self.cell.wipe();
        if !is_wiped {
            self.arena.put_back(self.region, self.index);
        }
    }
}

/// The memory of one slot: the value, then the canary.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell {
    start: NonNull<u8>,
}

impl Cell {
    /// # Safety
    /// `start` is aligned to [`SLOT_ALIGN`] and begins [`STRIDE`] bytes of mapped, writable
    /// memory that stay so, and are nobody else's, while the cell is in use.
    pub(crate) const unsafe fn new(start: NonNull<u8>) -> Self {
        Self { start }
    }

    fn mark(self) {
        // SAFETY: the canary lies in the cell, by `new`, and `STRIDE` and `SLOT_BYTES` are
        // multiples of its alignment.
        unsafe { self.start.add(SLOT_BYTES).cast::<u64>().write_volatile(CANARY) };
    }

    #[inline]
    fn is_marked(self) -> bool {
        // SAFETY: as in `mark`. It is volatile because a fork changes it, of which the
        // compiler knows nothing.
        unsafe { self.start.add(SLOT_BYTES).cast::<u64>().read_volatile() == CANARY }
    }

    fn wipe(self) {
        // SAFETY: the cell is `STRIDE` bytes, by `new`, and its user is being dropped.
        unsafe { self.start.write_bytes(0, STRIDE) };
        fence(self.start.as_ptr());
    }
}

/// From one slot to the next: room for ring's AES-256-GCM key (544 bytes) and the canary
/// in whole cache lines.
pub(crate) const STRIDE: usize = 576;

/// Reads as itself until a fork has zeroed the page or the slot was dropped.
const CANARY: u64 = 0x5afe_5107_ca9a_47e5;

const _: () = assert!(STRIDE.is_multiple_of(SLOT_ALIGN) && SLOT_BYTES.is_multiple_of(align_of::<u64>()));
