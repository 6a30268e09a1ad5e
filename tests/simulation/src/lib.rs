//! Whole fleets in one thread and in virtual time: several factories as processes over one simulated store and one
//! simulated KMS, with an operator beside them. A seed decides everything: what is done when, how long each call
//! takes, which fail and how, whose clock is wrong, who crashes. So what a seed finds it finds again.
//!
//! Oracles watch each answer: what the promises of `docs/design/semantics.md` (T6) allow, by what the store held at
//! each moment and by what each process was told. A seed that breaks one is shrunk to the steps that matter, and kept
//! as a test.
//!
//! # Why not turmoil, madsim or shuttle
//! tokio's paused clock is enough. The core touches nothing global: clock, randomness, runtime and back ends are
//! arguments, and it has no unbiased `select!`. A factory over plug-in traits has no sockets, so there is no network
//! for turmoil to simulate; madsim replaces tokio itself by a fork of it, and would test another program; shuttle and
//! loom explore the interleavings of threads, of which there is one here. They are for the locks and atomics below.
//!
//! # What it does not show
//! The threads of one process: that is for the tests under threads. A runtime that is shut down while others go on:
//! a second one cannot share the virtual time. A crash drops all of a process at one moment, its memory included.

mod calls;
mod clock;
mod dice;
mod finish;
mod flood;
mod life;
mod link;
mod machine;
mod operator;
mod oracle;
mod plan;
mod run;
mod settings;
mod shrink;
mod table;
mod world;

use claviger::KeyMeta;

pub use flood::flood;
pub use plan::Plan;
pub use run::{Report, run};
pub use settings::Settings;
pub use shrink::shrink;
pub use world::Violation;

const SERVICE: &str = "s";
const PRODUCT: &str = "d";

/// Returns a key's name as histories write it.
fn short(key: &KeyMeta) -> String {
    format!("{}@{}", key.id(), key.created())
}
