//! The life cycle of a key, row by row: the tables T1 to T5 on a clock that is told the time, with
//! a metastore and a KMS that fail on command, and every combination of what is cached and stored.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]
#![expect(clippy::indexing_slicing, reason = "a test may fail loudly")]

mod at_hand;
#[path = "../common/clock.rs"]
mod clock;
mod failover;
mod flights;
mod folded;
mod home;
mod invalidate;
mod kms_calls;
mod lost;
mod oracle;
mod promises;
#[path = "../common/runtime.rs"]
mod runtime;
mod states;
mod support;
mod t1;
mod t1_age;
mod t2;
mod t3;
mod t4;
mod t5;
mod t5_replicas;
mod warm_up;
mod writes;

use claviger::RevokedDecrypt;
