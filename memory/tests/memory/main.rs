//! What the crate promises about memory, forks and stacks, checked on the running system.
//!
//! Under a sanitizer: `RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address
//! ASAN_OPTIONS=detect_stack_use_after_return=0 cargo test -p claviger-memory --test memory
//! --target x86_64-unknown-linux-gnu`. The option keeps local arrays on the stack, where the
//! tests look for them, and not on the sanitizer's heap.

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
