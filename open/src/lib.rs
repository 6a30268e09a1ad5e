//! Opens [claviger](https://docs.rs/claviger)'s metastores and key management services from a description: a text
//! such as `postgres://…` or `aws:…`, a table of TOML or JSON, the environment, or a configuration of Asherah's.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! use claviger_open::{Environment, FactorySpec, KmsOptions, StoreOptions};
//!
//! // CLAVIGER_SERVICE=checkout, CLAVIGER_PRODUCT=payments, CLAVIGER_EXPIRE_AFTER=90d,
//! // CLAVIGER_METASTORE=@/run/secrets/metastore, CLAVIGER_KMS=aws:us-east-1=ARN,eu-west-1=ARN
//! let spec = FactorySpec::from_environment(&Environment::of_process())?;
//! let store = spec.metastore().open(&StoreOptions::new()).await?;
//! let kms = spec.kms().open(&KmsOptions::new()).await?;
//! let factory = spec.builder(store.metastore(), kms.kms()).build()?;
//! let record = factory.session("customer-17")?.encrypt(b"4111...").await?;
//! # Ok(()) })
//! # }
//! ```
//!
//! A description becomes a [`StoreSpec`] and a [`KmsSpec`], or a [`FactorySpec`] with both. Each is opened to a boxed
//! service, with what operators need: the store's admin and the check of its table, the check of a KMS's copies. What
//! is not understood is an error: a name that is not known, with the nearest one; a time out of range, with what it
//! comes to. A secret stands in a file (`@FILE`), in a variable (`env:NAME`) or in the description itself, and no error
//! and no `Debug` shows it.
//!
//! Services have no deadline of their own. What a description says of one (`call-deadline`) goes to the limits of the
//! factory ([`FactorySpec::limits`]), and is there for operators' calls ([`KmsSpec::call_deadline`]).
//!
//! # Asherah
//! [`FactorySpec::from_asherah_json`] reads the JSON that Asherah's libraries take, in the names of their versions 0.3
//! (`service_name`) and 0.5 (`ServiceName`), with connection strings of Go and of libpq; [`from_asherah_server`] the `ASHERAH_…`
//! variables of its servers, and [`from_asherah_environment`] the plain ones of its Rust library. The caller says whose
//! it is ([`Asherah`]), since the same number is nanoseconds to one and seconds to the other.
//!
//! [`from_asherah_server`]: FactorySpec::from_asherah_server
//! [`from_asherah_environment`]: FactorySpec::from_asherah_environment
//!
//! # Features
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
