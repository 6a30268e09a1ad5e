//! What the crate promises about memory, forks and stacks, checked on the running system.

#![expect(unsafe_code, reason = "inspects raw memory, forks, and takes rights away from itself")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may fail loudly, its helpers too"
)]

mod failures;
mod fork;
mod limits;
mod mapping;
mod process;
mod slots;
mod stack;
