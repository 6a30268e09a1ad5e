//! What tests of claviger and of its back ends need: fakes that fail on command, and the contract
//! suites that every metastore and KMS passes.
//!
//! It is here for the `dev-dependencies` of back ends, behind the feature `testing`. Nothing in it
//! belongs in a service.

mod fakes;
mod faults;

pub use fakes::{FailingRandom, FixedClock, SeededRandom};
pub use faults::{Call, Fault, Faults, FaultyKms, FaultyMetastore, Operation};
