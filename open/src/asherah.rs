//! Asherah's configurations: its JSON, and the environments of its servers and of its Rust library.

mod dsn;
mod environment;
mod implementation;
mod kms;
mod libpq;
mod span;
mod store;

use crate::describe::of_json;
use crate::environment::Environment;
use crate::error::SpecError;
use crate::factory::{FactorySpec, Spans};
use crate::fields::Fields;
use crate::nearest::plain;
use crate::store::StoreSpec;
pub use implementation::Asherah;
use implementation::Unit;
use span::Span;

impl FactorySpec {
    /// Reads Asherah's configuration in JSON, in the names of 0.3 (`service_name`) and of 0.5 (`ServiceName`).
    ///
    /// What claviger does by itself is accepted and does nothing: `EnableSessionCaching`, `Verbose`,
    /// `DisableZeroCopy`, `NullDataCheck`, `EnableCanaries`, `SelfHealRecoveredKeys` and the pool's times. What it
    /// cannot do is refused.
    ///
    /// ```
    /// use claviger_open::{Asherah, FactorySpec};
    ///
    /// let json = r#"{ "ServiceName": "checkout", "ProductID": "payments", "Metastore": "memory", "KMS": "static",
    ///                 "ExpireAfter": 7776000 }"#;
    /// // In Go's nanoseconds it would be 8 ms, and every key expired at once.
    /// let error = FactorySpec::from_asherah_json(json, Asherah::Go).unwrap_err();
    /// assert!(error.to_string().contains("nanoseconds"));
    /// ```
    ///
    /// # Errors
    /// For a name that is not known, with the nearest one; for a time that is not from 1 s to 100 years, with what
    /// it comes to. No secret is in it.
    pub fn from_asherah_json(json: &str, by: Asherah) -> Result<Self, SpecError> {
        read(of_json(json)?, by, by.unit())
    }

    /// Reads the variables `ASHERAH_…` that Asherah's servers read, whose times are Go's (`1h30m`).
    ///
    /// # Errors
    /// As for [`from_asherah_json`](Self::from_asherah_json); also for a variable that begins so and is not known.
    pub fn from_asherah_server(environment: &Environment, by: Asherah) -> Result<Self, SpecError> {
        read(environment::of_server(environment)?, by, Unit::Written)
    }

    /// Reads the plain variables that Rust's Asherah reads: `SERVICE_NAME`, `EXPIRE_AFTER_SECS` and so on.
    ///
    /// # Errors
    /// As for [`from_asherah_json`](Self::from_asherah_json).
    pub fn from_asherah_environment(environment: &Environment) -> Result<Self, SpecError> {
        read(environment::of_library(environment)?, Asherah::Rust, Unit::Seconds)
    }
}

fn read(mut fields: Fields, by: Asherah, unit: Unit) -> Result<FactorySpec, SpecError> {
    fields.respell(KNOWN, |given, known| plain(given) == plain(known))?;
    let service = fields.need("ServiceName", "say whose the keys are")?;
    let product = fields.need("ProductID", "say what the keys are for")?;
    let metastore = store::read(&mut fields)?;
    let mut region_suffix = fields.text("RegionSuffix")?;
    if fields.truth("EnableRegionSuffix")? == Some(true) && region_suffix.is_none() {
        region_suffix = Some(region(&metastore).ok_or_else(|| {
            fields.wrong("has EnableRegionSuffix and no region; say DynamoDBRegion, with Metastore dynamodb")
        })?);
    }
    let kms = kms::read(&mut fields, by)?;
    let mut span = |name, zero| Span { by, unit, zero }.read(&mut fields, name);
    let spans = Spans {
        expire_after: span("ExpireAfter", None)?,
        check_interval: span("CheckInterval", Some(span::CHECK_INTERVAL_ZERO))?,
        idle_timeout: span("SessionCacheDuration", None)?,
        creation_precision: span("CreateDatePrecision", None)?,
        cache: None,
    };
    // Of both the keys' own cache is meant.
    let sessions = fields.number("SessionCacheMaxSize")?;
    let spans = Spans { cache: fields.number("IntermediateKeyCacheMaxSize")?.or(sessions), ..spans };
    let readable = fields.texts("RecoveryRegionSuffixes")?;
    let readable_suffixes = Some(readable).filter(|suffixes| !suffixes.is_empty());
    for name in ["ConfigDriftForceRun", "ConfigDriftForceUpdate"] {
        if fields.truth(name)? == Some(true) {
            return Err(fields.wrong(&format!("has {name}, which claviger has not; leave it out")));
        }
    }
    for name in WITHOUT_EFFECT {
        fields.drop(name);
    }
    fields.finish()?;
    Ok(FactorySpec { service, product, region_suffix, readable_suffixes, metastore, kms, spans })
}

fn region(metastore: &StoreSpec) -> Option<String> {
    match metastore {
        StoreSpec::DynamoDb(spec) => spec.region.clone(),
        _ => None,
    }
}

/// Claviger caches keys and not sessions, for all sessions, wipes by itself, writes nothing when it reads, and its
/// pools see to their connections.
const WITHOUT_EFFECT: [&str; 12] = [
    "CacheIntermediateKeys",
    "CacheSystemKeys",
    "EnableSessionCaching",
    "SharedIntermediateKeyCache",
    "Verbose",
    "DisableZeroCopy",
    "NullDataCheck",
    "EnableCanaries",
    "SelfHealRecoveredKeys",
    "PoolMaxIdle",
    "PoolMaxLifetime",
    "PoolMaxIdleTime",
];

/// The names of Asherah's JSON, of all versions, and of what only its environment says.
const KNOWN: &[&str] = &[
    "AwsProfileName",
    "CacheIntermediateKeys",
    "CacheSystemKeys",
    "CheckInterval",
    "ConfigDriftForceRun",
    "ConfigDriftForceUpdate",
    "ConnectionString",
    "CreateDatePrecision",
    "DisableZeroCopy",
    "DynamoDBEndpoint",
    "DynamoDBRegion",
    "DynamoDBSigningRegion",
    "DynamoDBTableName",
    "EnableCanaries",
    "EnableRegionSuffix",
    "EnableSessionCaching",
    "ExpireAfter",
    "IntermediateKeyCacheMaxSize",
    "KMS",
    "KmsKeyId",
    "Metastore",
    "MysqlTlsMode",
    "NullDataCheck",
    "PoolMaxIdle",
    "PoolMaxIdleTime",
    "PoolMaxLifetime",
    "PoolMaxOpen",
    "PreferredRegion",
    "ProductID",
    "RecoveryRegionSuffixes",
    "RegionMap",
    "RegionSuffix",
    "ReplicaReadConsistency",
    "SQLMetastoreDBType",
    "SecretsManagerSecretId",
    "SelfHealRecoveredKeys",
    "ServiceName",
    "SessionCacheDuration",
    "SessionCacheMaxSize",
    "SharedIntermediateKeyCache",
    "StaticMasterKeyHex",
    "VaultAddr",
    "VaultApproleRoleId",
    "VaultApproleSecretId",
    "VaultAuthMethod",
    "VaultAuthMount",
    "VaultAuthRole",
    "VaultClientCert",
    "VaultClientKey",
    "VaultK8sTokenPath",
    "VaultToken",
    "VaultTransitKey",
    "VaultTransitMount",
    "Verbose",
];
