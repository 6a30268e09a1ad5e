//! Protected memory for keys.
//!
//! A key that is in use lies in a [`Slot`] of an [`Arena`]: locked in RAM, fenced by guard
//! pages, left out of core dumps, zeroed by the kernel in a forked child, and wiped when
//! dropped. What a computation with a key leaves on the stack is wiped by
//! [`on_wiped_stack`].
//!
//! ```
//! use claviger_memory::{Arena, LockPolicy};
//!
//! let arena = Arena::new(LockPolicy::Prefer);
//! let slot = arena.try_init(|| Ok::<_, std::convert::Infallible>([7_u8; 32]))?;
//! assert_eq!(slot.get()?, &[7_u8; 32]);
//! assert_eq!(arena.stats().slots, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What it protects from, and what not
//! Keys in slots do not reach swap space or core dumps, other threads' overruns stop at the
//! guard pages, and a forked child neither has the keys nor takes the zeros for keys. Who can
//! read the memory of the running process, as root or as a debugger can, reads the keys. So
//! does hibernation, which writes locked pages too. Registers are cleared on x86-64 alone. What a
//! signal's frame holds of them is wiped, but for one on a stack of its own.
//!
//! # When the system refuses
//! No failure panics, exits or blocks. "Refused" below is an error of
//! [`LockPolicy::Require`] and an entry in the [`Stats`] and, once, in the log for the others.
//! The tests are in `tests/memory`.
//!
//! | call | if it fails | test |
//! |---|---|---|
//! | `mmap` | [`MemoryError::Map`]; no key is made, others stay usable | `failures::a_refused_mmap_makes_no_key_and_keeps_the_others` |
//! | `mprotect` | [`MemoryError::Guard`]; no key is made | `failures::a_refused_mprotect_makes_no_key` |
//! | `mlock` | a smaller region is tried, then refused: [`MemoryError::Lock`] | `failures::a_refused_mlock_stops_require_only`, `limits::*` |
//! | `madvise(MADV_DONTDUMP)` | refused: [`MemoryError::ExcludeFromDumps`] | `failures::a_refused_dump_exclusion_stops_require_only` |
//! | `madvise(MADV_WIPEONFORK)` | refused: [`MemoryError::WipeOnFork`]; the others compare process ids at each use, and the child wipes its copy when it drops the slot | `failures::a_refused_fork_wipe_stops_require_only`, `fork::without_wipe_on_fork_a_child_is_known_by_its_process_id` |
//! | `munmap` | logged; the region, wiped, stays counted and is used again | `failures::a_refused_munmap_keeps_the_region_in_use` |
//!
//! # Platforms
//! Linux gives all of the above. macOS has neither `MADV_DONTDUMP` nor a wipe on fork: there
//! keys may be in core dumps, a child has a copy of them until it drops the slots, and is told
//! apart by its process id, one system call for each use. `Require` cannot ask for what a
//! platform does not have. Other platforms are refused at compile time.
//!
//! # Forks
//! In a child [`Slot::get`] answers [`Wiped`], a new key in the parent's arena is refused with
//! [`MemoryError::Forked`], and dropping what came from the parent is harmless. None of these
//! takes a lock, which a thread that the child does not have might hold. A new [`Arena`]
//! works. `vfork` and `clone(CLONE_VM)` share the parent's memory, and so its keys.

mod arena;
mod error;
mod region;
mod sentinel;
mod slot;
mod stack;
mod sys;

pub use crate::arena::{Arena, LockPolicy, Stats};
pub use crate::error::{InitError, MemoryError, OsError, Wiped};
pub use crate::sentinel::ForkSentinel;
pub use crate::slot::{SLOT_ALIGN, SLOT_BYTES, Slot};
pub use crate::stack::{StackWipe, WIPED_BYTES, on_wiped_stack, wipe};

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
compile_error!(
    "claviger-memory protects keys on Linux and macOS only: elsewhere it knows no way to lock them in RAM or to recognise a forked process"
);
