//! claviger

mod aead;
mod clock;
mod error;
mod key;
mod kms;
mod metastore;
mod partition;
mod policy;
mod random;
mod record;

pub use clock::{Clock, SystemClock};
pub use error::{BackendError, Error, FailureClass};
pub use key::SecretKey;
pub use kms::static_key::StaticKms;
pub use kms::{BoxedKms, KeyManagementService, WrapHealth, WrappedKey};
pub use metastore::memory::InMemoryMetastore;
pub use metastore::{
    BoxedMetastore, Consistency, Insert, Metastore, MetastoreAdmin, is_reserved_id,
};
pub use partition::ReadableSuffixes;
pub use policy::{Capacity, CryptoPolicy, Limits, RevokedDecrypt, Span};
pub use random::{RandomError, SecureRandom, SystemRandom};
pub use record::{Created, DataRowRecord, EnvelopeKeyRecord, KeyId, KeyMeta, MalformedRecord};

/// A future that plug-in traits return behind `dyn`.
type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;
