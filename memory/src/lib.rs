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
pub use crate::stack::{on_wiped_stack, wipe};

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
compile_error!(
    "claviger-memory protects keys on Linux and macOS only: elsewhere it knows no way to lock them in RAM or to recognise a forked process"
);
