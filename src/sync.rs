//! What threads share: the standard library's atomics and locks, tokio's `Notify`, arc-swap's pointer.
//!
//! Under `--cfg claviger_loom` they are loom's, so that [`models`](crate::models) can try every schedule of
//! the very code that uses them. `Arc` and `Weak` are the standard library's in both: loom has no `Weak`.

#[cfg(claviger_loom)]
mod doubles;

#[cfg(not(claviger_loom))]
pub(crate) use std::sync::{
    Mutex, MutexGuard, OnceLock,
    atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize},
};

#[cfg(not(claviger_loom))]
pub(crate) use arc_swap::{ArcSwap, Guard};
#[cfg(not(claviger_loom))]
pub(crate) use tokio::sync::Notify;

#[cfg(claviger_loom)]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize},
};

#[cfg(claviger_loom)]
pub(crate) use doubles::{ArcSwap, Guard, Notify, OnceLock};
