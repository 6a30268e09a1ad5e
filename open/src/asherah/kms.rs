//! Who Asherah's configuration says holds the master key.

use super::implementation::Asherah;
use crate::error::SpecError;
use crate::fields::Fields;
use crate::kms::{KmsSpec, StaticKey, StaticSpec};
use crate::secret::SecretSource;

pub(super) fn read(fields: &mut Fields, by: Asherah) -> Result<KmsSpec, SpecError> {
    let kind = match (fields.text("KMS")?, by) {
        (Some(kind), _) => kind,
        (None, Asherah::Go) => "aws".to_owned(),
        (None, _) => return Err(fields.wrong(&format!("lacks its KMS; {KINDS}"))),
    };
    let hex = fields.text("StaticMasterKeyHex")?;
    // All of them are read, so that the other services' names are known too.
    let (vault, aws) = (vault(fields)?, aws(fields)?);
    let is_secrets_manager = fields.text("SecretsManagerSecretId")?.is_some();
    match &*kind {
        "static" if by == Asherah::Go => Ok(static_key(StaticKey::AsherahsTestKey)),
        "test-debug-static" => Ok(static_key(StaticKey::AsherahsTestKey)),
        "static" => match hex {
            Some(hex) => Ok(static_key(StaticKey::Hex(SecretSource::new(hex)))),
            None => {
                Err(fields.wrong("lacks its StaticMasterKeyHex; say the 64 hex digits of the master key"))
            }
        },
        "aws" => KmsSpec::from_fields(aws).map_err(of_aws),
        "vault" | "vault-transit" => KmsSpec::from_fields(vault).map_err(of_vault),
        "secrets-manager" => Err(fields.wrong(NO_SECRETS_MANAGER)),
        _ if is_secrets_manager => Err(fields.wrong(NO_SECRETS_MANAGER)),
        _ => Err(fields.wrong(&format!("has a KMS that is not known; {KINDS}"))),
    }
}

fn static_key(key: StaticKey) -> KmsSpec {
    KmsSpec::Static(StaticSpec(key))
}

fn of_aws(error: SpecError) -> SpecError {
    error.within("RegionMap or PreferredRegion: ")
}

fn of_vault(error: SpecError) -> SpecError {
    error.within("Vault: ")
}

fn aws(fields: &mut Fields) -> Result<Fields, SpecError> {
    let mut regions = region_map(fields)?;
    if let Some(arn) = fields.text("KmsKeyId")?.filter(|_| regions.is_empty()) {
        let Some(region) = arn.split(':').nth(3).filter(|region| !region.is_empty()) else {
            return Err(fields.wrong("has a KmsKeyId that is no ARN; say arn:aws:kms:REGION:…, or RegionMap"));
        };
        regions.push((region.to_owned(), arn));
    }
    if fields.text("AwsProfileName")?.is_some() {
        return Err(fields.wrong("has an AwsProfileName; leave it out, and set the variable AWS_PROFILE"));
    }
    let mut table = Fields::default();
    table.add("type", "aws");
    let key = |(region, arn): (String, String)| {
        let mut key = Fields::default();
        key.add("key", &arn);
        (region, key)
    };
    table.add_tables("regions", regions.into_iter().map(key).collect());
    fields.text("PreferredRegion")?.into_iter().for_each(|region| table.add("preferred", &region));
    Ok(table)
}

/// A table of ARNs, or `REGION=ARN,…` or JSON where there is text alone.
fn region_map(fields: &mut Fields) -> Result<Vec<(String, String)>, SpecError> {
    let Some(text) = fields.word("RegionMap") else {
        let tables = fields.tables("RegionMap", "key")?.into_iter();
        return tables
            .map(|(region, mut table)| Ok((region, table.need("key", "say the ARN of its key")?)))
            .collect();
    };
    fields.drop("RegionMap");
    if text.trim_start().starts_with('{') {
        let mut json = serde_json::Deserializer::from_str(&text);
        let read = crate::describe::fields::<crate::fields::read::Plain, _>(&mut json);
        let inner = read.map_err(|_unread| fields.wrong("has a RegionMap that is no JSON object"))?;
        let regions: Vec<String> = inner.names().map(str::to_owned).collect();
        return regions.into_iter().map(|region| Ok((region.clone(), inner.any_text(&region)?))).collect();
    }
    let wrong =
        || fields.wrong("has a RegionMap that is none; say REGION=ARN, and more with commas between them");
    let part = |part: &str| {
        let (region, arn) = part.split_once('=').ok_or_else(wrong)?;
        Ok((region.trim().to_owned(), arn.trim().to_owned()))
    };
    text.split(',').filter(|part| !part.trim().is_empty()).map(part).collect()
}

fn vault(fields: &mut Fields) -> Result<Fields, SpecError> {
    let mut table = Fields::default();
    table.add("type", "vault");
    let auth = fields.text("VaultAuthMethod")?;
    if auth.as_deref() == Some("cert") {
        return Err(fields.wrong(
            "has the VaultAuthMethod cert, which claviger has not; there are token, approle, kubernetes",
        ));
    }
    let given = [
        ("VaultAddr", "address"),
        ("VaultTransitKey", "key"),
        ("VaultTransitMount", "mount"),
        ("VaultToken", "token"),
        ("VaultAuthRole", "role"),
        ("VaultAuthMount", "auth-mount"),
        ("VaultApproleRoleId", "role-id"),
        ("VaultApproleSecretId", "secret-id"),
        ("VaultK8sTokenPath", "token-path"),
    ];
    for (name, ours) in given {
        fields.text(name)?.into_iter().for_each(|value| table.add(ours, &value));
    }
    auth.into_iter().for_each(|auth| table.add("auth", &auth));
    for name in ["VaultClientCert", "VaultClientKey"] {
        if fields.text(name)?.is_some() {
            return Err(fields.wrong(&format!("has a {name}, which claviger has not; leave it out")));
        }
    }
    Ok(table)
}

const KINDS: &str = "say aws, static, test-debug-static or vault";

const NO_SECRETS_MANAGER: &str =
    "has its master key in AWS Secrets Manager, where claviger takes none; wrap it by AWS KMS, or say static";
