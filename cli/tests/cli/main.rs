//! Drives the built binary as a user does.
//!
//! Some tests mount file systems of their own and drop capabilities: they need `unshare`, `mount`
//! and `setpriv` (Debian's util-linux), and root or user namespaces; those about other users' files need root
//! and `chattr`, and those that make calls fail a C compiler. They fail where those lack.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on fails")]

mod config;
mod csv;
mod damage;
mod files;
mod hostile;
mod jsonl;
mod kit;
mod kms;
mod limits;
mod lost;
mod payload;
mod said;
mod schema;
mod secrets;
#[cfg(any(feature = "postgres", feature = "mysql", feature = "dynamodb"))]
mod servers;
mod store;
mod usage;
