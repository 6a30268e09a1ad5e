//! Key management services for [claviger](https://docs.rs/claviger): they hold the master key.
//!
//! Each service is a cargo feature, and none is on by default:
//!
//! | feature | service |
//! |---|---|
//! | `local` | `LocalKms`: a master key in a file of this machine; `PrivateFile`: such files of others, and those whose word is taken |
//! | `aws` | `AwsKms`: AWS KMS, in one region or several |
//! | `pkcs11` | `Pkcs11Kms`: a hardware security module, by its PKCS#11 library |
//! | `vault` | `VaultTransitKms`: the transit engine of HashiCorp Vault or OpenBao |
//! | `any-of` | `AnyOfKms`: several services, each of which unwraps alone |
//! | `k-of-n` | `KofNKms`: several services, some of which must unwrap together |

#[cfg(feature = "any-of")]
mod any_of;
#[cfg(feature = "aws")]
mod aws;
mod check;
#[cfg(any(feature = "any-of", feature = "k-of-n"))]
mod clv1;
#[cfg(feature = "_copies")]
mod copies;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "k-of-n")]
mod k_of_n;
#[cfg(feature = "local")]
mod local;
#[cfg(any(feature = "any-of", feature = "k-of-n"))]
mod members;
#[cfg(any(feature = "aws", feature = "vault"))]
mod object;
#[cfg(feature = "pkcs11")]
mod pkcs11;
#[cfg(feature = "local")]
mod private;
#[cfg(feature = "vault")]
mod vault;

#[cfg(feature = "any-of")]
pub use any_of::{AnyOfKms, AnyOfKmsBuilder};
#[cfg(feature = "aws")]
pub use aws::builder::AwsKmsBuilder;
#[cfg(feature = "aws")]
pub use aws::{AwsKms, AwsKmsError, AwsKmsFault};
pub use check::{CopyCheck, check};
#[cfg(feature = "_copies")]
pub use copies::{CopyFailure, CopyFailures};
#[cfg(feature = "k-of-n")]
pub use k_of_n::{KofNKms, KofNKmsBuilder};
#[cfg(feature = "local")]
pub use local::{LocalKms, LocalKmsBuilder, LocalKmsError};
#[cfg(feature = "pkcs11")]
pub use pkcs11::{Pkcs11Kms, Pkcs11KmsBuilder, Pkcs11Mechanism};
#[cfg(feature = "local")]
pub use private::{Exposure, Place, PrivateFile};
#[cfg(feature = "vault")]
pub use vault::builder::VaultTransitKmsBuilder;
#[cfg(feature = "vault")]
pub use vault::{VaultAuth, VaultTransitError, VaultTransitKms};
