//! The variables of Asherah's servers and of its Rust library.

use crate::environment::Environment;
use crate::error::SpecError;
use crate::fields::Fields;
use crate::nearest::nearest;

/// Reads what Asherah's servers read.
pub(super) fn of_server(environment: &Environment) -> Result<Fields, SpecError> {
    let known = SERVER.iter().map(|(variable, _)| *variable).chain(SERVERS_OWN);
    // What they all begin with makes none of them nearer.
    let known: Vec<&str> = known.filter_map(|variable| variable.strip_prefix(PREFIX)).collect();
    for name in environment.names(PREFIX) {
        let called = name.strip_prefix(PREFIX).unwrap_or_default();
        if !known.contains(&called) {
            let meant = nearest(called, &known).map(|name| format!("; did you mean {PREFIX}{name}?"));
            let meant = meant.unwrap_or_else(|| "; leave it out".to_owned());
            return Err(SpecError::wrong(&format!("the variable {name} is not known{meant}")));
        }
    }
    Ok(of(environment, SERVER))
}

/// Reads what Asherah's Rust library reads.
pub(super) fn of_library(environment: &Environment) -> Result<Fields, SpecError> {
    let mut fields = of(environment, LIBRARY);
    let kinds = [
        ("SQLITE_PATH", "sqlite"),
        ("DDB_TABLE", "dynamodb"),
        ("POSTGRES_URL", "rdbms"),
        ("MYSQL_URL", "rdbms"),
    ];
    let mut set = kinds.iter().filter(|(variable, _)| environment.text(variable).is_some());
    let Some((variable, kind)) = set.next() else { return Ok(fields) };
    // Asherah takes one of them, by an order of its own.
    let two = |other: &str| {
        let message = format!("the variables {variable} and {other} name two metastores; leave one out");
        Err(SpecError::wrong(&message))
    };
    if let Some((other, _)) = set.next() {
        return two(other);
    }
    match fields.word("Metastore") {
        Some(said) if said.trim_start_matches("test-debug-") != *kind => two("Metastore"),
        Some(_) => Ok(fields),
        None => {
            fields.add_called("Metastore", variable, kind);
            Ok(fields)
        }
    }
}

fn of(environment: &Environment, variables: &[(&'static str, &'static str)]) -> Fields {
    let mut fields = Fields::default();
    for (variable, name) in variables {
        // Of several variables for one thing the first that is set counts.
        if let Some(value) = environment.text(variable).filter(|_| !fields.has(name)) {
            let value = if *name == REGION_SUFFIX { truth(&value) } else { value };
            fields.add_called(name, variable, &value);
        }
    }
    fields
}

/// The words that Asherah takes for true and false.
fn truth(word: &str) -> String {
    let truth = match word.to_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => "true",
        "0" | "false" | "no" | "off" => "false",
        _ => word,
    };
    truth.to_owned()
}

const REGION_SUFFIX: &str = "EnableRegionSuffix";

/// What the variables of a server begin with.
const PREFIX: &str = "ASHERAH_";

const SERVER: &[(&str, &str)] = &[
    ("ASHERAH_SERVICE_NAME", "ServiceName"),
    ("ASHERAH_PRODUCT_NAME", "ProductID"),
    ("ASHERAH_EXPIRE_AFTER", "ExpireAfter"),
    ("ASHERAH_CHECK_INTERVAL", "CheckInterval"),
    ("ASHERAH_METASTORE_MODE", "Metastore"),
    ("ASHERAH_CONNECTION_STRING", "ConnectionString"),
    ("ASHERAH_REPLICA_READ_CONSISTENCY", "ReplicaReadConsistency"),
    ("ASHERAH_DYNAMODB_ENDPOINT", "DynamoDBEndpoint"),
    ("ASHERAH_DYNAMODB_REGION", "DynamoDBRegion"),
    ("ASHERAH_DYNAMODB_TABLE_NAME", "DynamoDBTableName"),
    ("ASHERAH_SESSION_CACHE_MAX_SIZE", "SessionCacheMaxSize"),
    ("ASHERAH_SESSION_CACHE_DURATION", "SessionCacheDuration"),
    ("ASHERAH_KMS_MODE", "KMS"),
    ("ASHERAH_REGION_MAP", "RegionMap"),
    ("ASHERAH_PREFERRED_REGION", "PreferredRegion"),
    ("ASHERAH_ENABLE_REGION_SUFFIX", REGION_SUFFIX),
    ("ASHERAH_ENABLE_SESSION_CACHING", "EnableSessionCaching"),
    ("ASHERAH_VERBOSE", "Verbose"),
    ("ASHERAH_AWS_PROFILE_NAME", "AwsProfileName"),
    ("ASHERAH_CONFIG_DRIFT_FORCE_RUN", "ConfigDriftForceRun"),
    ("ASHERAH_CONFIG_DRIFT_FORCE_UPDATE", "ConfigDriftForceUpdate"),
    ("ASHERAH_POOL_MAX_OPEN", "PoolMaxOpen"),
    ("ASHERAH_POOL_SIZE", "PoolMaxOpen"),
    ("ASHERAH_POOL_MAX_IDLE", "PoolMaxIdle"),
    ("ASHERAH_POOL_MAX_LIFETIME", "PoolMaxLifetime"),
    ("ASHERAH_POOL_MAX_IDLE_TIME", "PoolMaxIdleTime"),
];

/// Where a server listens, and how it ends.
const SERVERS_OWN: [&str; 4] =
    ["ASHERAH_SOCKET", "ASHERAH_SOCKET_FILE", "ASHERAH_SOCKET_MODE", "ASHERAH_SHUTDOWN_DRAIN_TIMEOUT"];

const LIBRARY: &[(&str, &str)] = &[
    ("SERVICE_NAME", "ServiceName"),
    ("PRODUCT_ID", "ProductID"),
    ("REGION_SUFFIX", "RegionSuffix"),
    ("Metastore", "Metastore"),
    ("KMS", "KMS"),
    ("STATIC_MASTER_KEY_HEX", "StaticMasterKeyHex"),
    ("SQLITE_PATH", "ConnectionString"),
    ("MYSQL_URL", "ConnectionString"),
    ("POSTGRES_URL", "ConnectionString"),
    ("MYSQL_TLS_MODE", "MysqlTlsMode"),
    ("DDB_TABLE", "DynamoDBTableName"),
    ("DDB_REGION_SUFFIX", REGION_SUFFIX),
    ("AWS_REGION", "DynamoDBRegion"),
    ("AWS_ENDPOINT_URL", "DynamoDBEndpoint"),
    ("REGION_MAP", "RegionMap"),
    ("PREFERRED_REGION", "PreferredRegion"),
    ("KMS_KEY_ID", "KmsKeyId"),
    ("VAULT_ADDR", "VaultAddr"),
    ("VAULT_TOKEN", "VaultToken"),
    ("VAULT_AUTH_METHOD", "VaultAuthMethod"),
    ("VAULT_AUTH_ROLE", "VaultAuthRole"),
    ("VAULT_AUTH_MOUNT", "VaultAuthMount"),
    ("VAULT_APPROLE_ROLE_ID", "VaultApproleRoleId"),
    ("VAULT_APPROLE_SECRET_ID", "VaultApproleSecretId"),
    ("VAULT_CLIENT_CERT", "VaultClientCert"),
    ("VAULT_CLIENT_KEY", "VaultClientKey"),
    ("VAULT_K8S_TOKEN_PATH", "VaultK8sTokenPath"),
    ("VAULT_TRANSIT_KEY", "VaultTransitKey"),
    ("VAULT_TRANSIT_MOUNT", "VaultTransitMount"),
    ("SECRETS_MANAGER_SECRET_ID", "SecretsManagerSecretId"),
    ("EXPIRE_AFTER_SECS", "ExpireAfter"),
    ("REVOKE_CHECK_INTERVAL_SECS", "CheckInterval"),
    ("SESSION_CACHE", "EnableSessionCaching"),
    ("SESSION_CACHE_MAX_SIZE", "SessionCacheMaxSize"),
    ("SESSION_CACHE_DURATION_SECS", "SessionCacheDuration"),
    ("CREATE_DATE_PRECISION_SECS", "CreateDatePrecision"),
    ("CACHE_SYSTEM_KEYS", "CacheSystemKeys"),
    ("CACHE_INTERMEDIATE_KEYS", "CacheIntermediateKeys"),
    ("INTERMEDIATE_KEY_CACHE_MAX_SIZE", "IntermediateKeyCacheMaxSize"),
    ("SHARED_INTERMEDIATE_KEY_CACHE", "SharedIntermediateKeyCache"),
    ("REPLICA_READ_CONSISTENCY", "ReplicaReadConsistency"),
    ("ASHERAH_POOL_MAX_OPEN", "PoolMaxOpen"),
    ("ASHERAH_POOL_SIZE", "PoolMaxOpen"),
    ("ASHERAH_POOL_MAX_IDLE", "PoolMaxIdle"),
    ("ASHERAH_POOL_MAX_LIFETIME", "PoolMaxLifetime"),
    ("ASHERAH_POOL_MAX_IDLE_TIME", "PoolMaxIdleTime"),
];
