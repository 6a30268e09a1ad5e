//! We and other implementations, live on one metastore: each reads what the others write, and
//! follows their rotations and revocations.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper fails its test by panicking")]

mod clauses;
mod dynamodb;
mod far_ahead;
mod guard;
mod mariadb;
mod moving;
mod peer;
mod postgres;
mod soak;
mod sqlite;
mod world;
