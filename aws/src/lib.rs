//! What the AWS back ends of [claviger] share: `AwsKms` of `claviger-kms` and `DynamoDbMetastore` of
//! `claviger-metastore`.
//!
//! It is theirs: not for use by itself, and without a stable interface. Any version may change any of
//! it.

mod config;
mod credentials;
mod endpoint;
mod failure;

pub use aws_config::SdkConfig;

pub use config::{START_WAIT, load};
pub use credentials::SharedCredentialLoad;
pub use endpoint::{Endpoint, InTheClear, Service};
pub use failure::Failure;
