#![doc = include_str!("../README.md")]

mod aead;
mod aging;
mod breaker;
mod clock;
mod envelope;
mod error;
mod events;
mod factory;
mod gate;
mod hierarchy;
mod invalidation;
mod key;
mod keyring;
mod kms;
mod metastore;
mod partition;
mod plaintext;
mod policy;
mod random;
mod record;
mod rewrap;
mod session;
mod status;
mod tasks;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use breaker::{Breaker, BreakerOpen};
pub use claviger_memory::{LockPolicy, MemoryError, Stats as MemoryStats};
pub use clock::{Clock, SystemClock};
pub use error::{BackendError, Dependency, Error, ErrorChain, FailureClass, FailureKind};
pub use events::Event;
pub use factory::{SessionFactory, SessionFactoryBuilder};
pub use invalidation::{Invalidation, InvalidationSource};
pub use key::SecretKey;
pub use keyring::orphans::{Orphan, OrphanCause};
pub use kms::static_key::StaticKms;
pub use kms::{BoxedKms, KeyManagementService, WrapHealth, WrappedKey};
pub use metastore::admin::BoxedMetastoreAdmin;
pub use metastore::memory::{InMemoryFault, InMemoryMetastore};
pub use metastore::{
    BoxedMetastore, Consistency, DamagedRow, Insert, Latest, Metastore, MetastoreAdmin, Page, is_reserved_id,
};
pub use partition::ReadableSuffixes;
pub use plaintext::Plaintext;
pub use policy::{Capacity, CryptoPolicy, Limits, RevokedDecrypt, Span};
pub use random::{RandomError, SecureRandom, SystemRandom};
pub use record::{Created, DataRowRecord, EnvelopeKeyRecord, KeyId, KeyMeta, MalformedRecord};
pub use rewrap::{Rewrap, RewrapOptions, RewrapReport, repair_system_keys, rewrap_system_keys};
pub use session::{Persistence, Session};
pub use status::{CloseReport, DegradedKey, LostRow, Status, WarmUp};

/// A future that plug-in traits return behind `dyn`.
type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;
