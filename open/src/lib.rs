//! Opens [claviger](https://docs.rs/claviger)'s metastores and key management services from a description: a text
//! such as `postgres://…` or `aws:…`, a table of TOML or JSON, the environment, or a configuration of Asherah's.
//!
//! A description becomes a [`StoreSpec`] and a [`KmsSpec`], or a [`FactorySpec`] with both. Each is opened to a boxed
//! service, with what operators need: the store's admin and the check of its table, the check of a KMS's copies. What
//! is not understood is an error: a name that is not known, with the nearest one; a time out of range, with what it
//! comes to. A secret stands in a file (`@FILE`), in a variable (`env:NAME`) or in the description itself, and no error
//! and no `Debug` shows it.
//!
//! Each service is a cargo feature, and none is on by default; what was left out is an error that names its feature.
//! Master keys in files of this machine (`local:`, `static:`) and the store in memory are always there.
//!
//! | feature | opens |
//! |---|---|
//! | `sqlite` | `sqlite:PATH` |
//! | `postgres` | `postgres://USER@HOST/DATABASE` |
//! | `mysql` | `mysql://USER@HOST/DATABASE` |
//! | `dynamodb` | `dynamodb://TABLE?region=REGION` |
//! | `aws` | `aws:REGION=ARN,…` |
//! | `pkcs11` | `pkcs11:token=LABEL;object=LABEL?module-path=PATH` |
//! | `vault` | `vault:https://HOST:8200/MOUNT/KEY` |
//! | `any-of`, `k-of-n` | a table with several of these |

mod asherah;
mod describe;
mod endpoint;
mod environment;
mod error;
mod factory;
mod fields;
mod kms;
mod nearest;
pub mod private;
mod secret;
mod store;

pub use asherah::Asherah;
pub use describe::KmsTable;
pub use environment::Environment;
pub use error::{OpenError, SpecError, SpecFault};
pub use factory::FactorySpec;
pub use kms::open::{Absent, KmsOptions, Making, OpenKms};
pub use kms::{AnyOfSpec, AwsSpec, KmsFile, KmsSpec, KofNSpec, Pkcs11Spec, StaticSpec, VaultSpec};
pub use store::open::OpenStore;
pub use store::options::StoreOptions;
pub use store::{DynamoDbSpec, SqlSpec, StoreSpec};

/// A future that traits return behind `dyn`.
type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;
