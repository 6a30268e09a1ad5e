//! Envelope encryption for services: each customer's, tenant's or user's data under a key of its own, all keys
//! wrapped up to one master key that never leaves your KMS.
//!
//! ```
//! use std::time::Duration;
//! use claviger::{InMemoryMetastore, SecretKey, SessionFactory, StaticKms, SystemRandom};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let kms = StaticKms::new(&SecretKey::generate(&SystemRandom::new())?)?;
//! let factory =
//!     SessionFactory::builder(InMemoryMetastore::new(), kms).service("checkout").product("payments").build()?;
//! let session = factory.session("customer-17")?;
//! let record = session.encrypt(b"4111 1111 1111 1111").await?;
//! assert_eq!(&*session.decrypt(&record).await?, b"4111 1111 1111 1111");
//! let report = factory.close(Duration::from_secs(5)).await?;
//! # assert!(report.is_clean());
//! # Ok(()) }
//! ```
//!
//! # The parts
//! - A [`SessionFactory`] is made once for a service and product. It owns the key cache, the tasks and the ways to the
//!   back ends. [`CryptoPolicy`] says how keys live, [`Limits`] how much of everything there may be.
//! - A [`Session`] is one partition's: a cheap handle, made for each request. It encrypts to a [`DataRowRecord`], which
//!   the service stores, and decrypts to a [`Plaintext`], which is wiped when it is dropped.
//! - A [`Metastore`] keeps wrapped keys. [`InMemoryMetastore`] is for tests; the crate `claviger-metastore` has SQLite,
//!   PostgreSQL, MySQL and MariaDB, and DynamoDB.
//! - A [`KeyManagementService`] holds the master key. [`StaticKms`] is one key that the caller gives; the crate
//!   `claviger-kms` has AWS KMS, PKCS#11, Vault, a file, and several of them together.
//!
//! Both are plain traits of `async fn`s: an implementation depends on this crate alone, and proves that it keeps the
//! contract with the macros of the feature `testing`.
//!
//! # What happens to keys
//! The master key wraps a system key for each service and product, that wraps an intermediate key for each partition,
//! and that wraps a fresh data row key for each record (AES-256-GCM). Keys expire and are replaced by themselves, can be
//! revoked, and old records stay readable. Records and rows are those of GoDaddy's Asherah, byte for byte.
//!
//! With a cached key [`Session::encrypt`] takes no lock and does no I/O. While metastore or KMS are down, cached keys go
//! on for a bounded time. The exact rules are in `docs/design/semantics.md`, the promises with the tests that prove them
//! in `docs/guarantees.md`.
//!
//! # What is seen of it
//! Metrics go to the recorder of the crate `metrics` that is installed when a factory is built ([`telemetry`]), log lines
//! and spans to `tracing`. [`SessionFactory::status`] tells what a factory holds, and [`Status::health`] whether it is
//! well, and why not.
//!
//! # Errors
//! [`Error`] says what is wrong, with which key and which dependency; [`Error::is_retryable`] says whether it may pass.
//! None holds a secret. "Not found", "already exists" and "failed" are three different answers everywhere.

mod aead;
mod aging;
mod breaker;
mod clock;
mod context;
mod core;
mod data_row;
mod error;
mod events;
mod factory;
mod gate;
mod invalidation;
mod key;
mod keyring;
mod keys;
mod kms;
mod metastore;
#[cfg(all(test, claviger_loom))]
mod models;
mod partition;
mod plaintext;
mod policy;
mod random;
mod record;
mod rewrap;
mod secret;
mod session;
mod status;
mod sync;
mod tasks;
pub mod telemetry;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use claviger_memory::{LockPolicy, MemoryError, Stats as MemoryStats};
pub use clock::{Clock, SystemClock};
pub use context::{CallContext, Consistency};
pub use error::{BackendError, Dependency, Error, ErrorChain, FailureClass, FailureKind};
pub use events::Event;
pub use factory::SessionFactory;
pub use factory::builder::SessionFactoryBuilder;
pub use invalidation::{Invalidation, InvalidationSource};
pub use keyring::orphans::{Orphan, OrphanCause};
pub use kms::static_key::StaticKms;
pub use kms::{BoxedKms, KeyManagementService, WrapHealth, WrappedKey};
pub use metastore::boxed::{BoxedMetastore, BoxedMetastoreAdmin};
pub use metastore::memory::{InMemoryFault, InMemoryMetastore};
pub use metastore::{Insert, Latest, Metastore, MetastoreAdmin, Page, Replacement};
pub use partition::ReadableSuffixes;
pub use plaintext::Plaintext;
pub use policy::{Capacity, CryptoPolicy, Lifetime, Limits, RevokedDecrypt};
pub use random::{RandomError, SecureRandom, SystemRandom};
pub use record::{Created, DataRowRecord, EnvelopeKeyRecord, KeyId, KeyMeta, MalformedRecord, RecordFormat};
pub use rewrap::{Rewrap, RewrapOptions, RewrapReport, repair_system_keys, rewrap_system_keys};
pub use secret::SecretKey;
pub use session::{Persistence, Session};
pub use status::{
    CloseReport, Health, HealthReason, HealthState, IncompleteKey, LostRow, Status, WarmUp, WayStatus,
};
pub use telemetry::way::Way;

/// What only authors of metastores and KMSs need, besides the traits and what these speak of.
pub mod backend {
    pub use crate::breaker::{Breaker, BreakerOpen};
    pub use crate::kms::key_wrap::KeyWrap;
    pub use crate::metastore::{DamagedRow, is_reserved_id};
}

/// A future that plug-in traits return behind `dyn`.
type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Has the examples of the README compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
