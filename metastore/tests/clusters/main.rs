//! Set-ups that services have: poolers, standbys, fail-overs, clusters, balancers, with real servers.
//!
//! Each test has a short form, which every run makes. The long ones take as long, and run as often, as
//! `CLAVIGER_CLUSTER_SECONDS` and `CLAVIGER_CLUSTER_RUNS` say: see `docs/metastores.md`.

#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]
#![expect(clippy::disallowed_methods, reason = "a test is told by its environment how long to go on")]

mod abandoned;
mod failover;
mod galera;
mod hosts;
mod load;
mod pooler;
mod replica;
mod soak;
mod writes;

use claviger::{Created, EnvelopeKeyRecord, KeyId, KeyMeta};

/// A key record that no factory made.
fn record(id: &str, second: i64) -> EnvelopeKeyRecord {
    let meta = |id: &str, second| KeyMeta::new(KeyId::new(id), Created::new(1_700_000_000 + second).unwrap());
    EnvelopeKeyRecord::new(meta(id, second), b"wrapped".to_vec(), Some(meta("_SK_svc_prod", 0)))
}
