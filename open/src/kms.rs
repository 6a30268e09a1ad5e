//! Which master key is meant.

#[cfg_attr(not(feature = "aws"), expect(dead_code, reason = "it is read, and not opened"))]
mod aws;
pub(crate) mod open;
#[cfg_attr(not(feature = "pkcs11"), expect(dead_code, reason = "it is read, and not opened"))]
mod pkcs11;
mod static_key;
#[cfg_attr(not(feature = "vault"), expect(dead_code, reason = "it is read, and not opened"))]
mod vault;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::environment::Environment;
use crate::error::SpecError;
use crate::fields::{Fields, TextOrTable};
use crate::private::by_reference;
use crate::secret::SecretSource;
pub use aws::AwsSpec;
pub use pkcs11::Pkcs11Spec;
pub(crate) use static_key::StaticKey;
pub use vault::VaultSpec;

/// A master key and who keeps it, not opened yet.
///
/// It is read from a text such as `aws:us-east-1=ARN`, or from a table in any format that serde reads:
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use claviger_open::KmsSpec;
///
/// let text = KmsSpec::from_text("vault:https://vault.example:8200/transit/claviger", "kms")?;
/// let table: KmsSpec = serde_json::from_str(
///     r#"{ "type": "vault", "address": "https://vault.example:8200", "mount": "transit", "key": "claviger" }"#,
/// )?;
/// assert_eq!(format!("{text:?}"), format!("{table:?}"));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum KmsSpec {
    /// A file that claviger makes.
    Local(PathBuf),
    /// A key of the caller's own.
    Static(StaticSpec),
    /// AWS KMS.
    Aws(AwsSpec),
    /// A hardware security module.
    Pkcs11(Pkcs11Spec),
    /// HashiCorp Vault or OpenBao.
    Vault(VaultSpec),
    /// Several, each of which unwraps alone.
    AnyOf(AnyOfSpec),
    /// Several, some of which must unwrap together.
    KofN(KofNSpec),
}

/// A static master key, not read yet.
#[derive(Clone, Debug)]
pub struct StaticSpec(pub(crate) StaticKey);

/// Services each of which unwraps alone, not opened yet.
#[derive(Clone, Debug)]
#[cfg_attr(not(feature = "any-of"), expect(dead_code, reason = "it is read, and not opened"))]
pub struct AnyOfSpec {
    members: Vec<Member>,
    asherah_compatible: Option<bool>,
    min_copies: Option<usize>,
    hedge_after: Option<Duration>,
    call_deadline: Option<Duration>,
}

/// Services some of which must unwrap together, not opened yet.
#[derive(Clone, Debug)]
#[cfg_attr(not(feature = "k-of-n"), expect(dead_code, reason = "it is read, and not opened"))]
pub struct KofNSpec {
    k: u8,
    members: Vec<Member>,
    asherah_compatible: Option<bool>,
    min_shares: Option<usize>,
    previous_k: Option<u8>,
    legacy_members: Vec<String>,
    call_deadline: Option<Duration>,
}

#[derive(Clone, Debug)]
#[cfg_attr(
    not(any(feature = "any-of", feature = "k-of-n")),
    expect(dead_code, reason = "it is read, and not opened")
)]
struct Member {
    name: String,
    kms: KmsSpec,
    /// The file that describes it, if one does.
    file: Option<PathBuf>,
}

/// What a file of a master key's description is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KmsFile {
    /// A master key that claviger makes.
    LocalKey,
    /// A master key of the caller's own.
    StaticKey,
    /// A PIN, a token, a certificate, a module.
    Secret,
    /// The description of a member.
    Description,
}

impl KmsSpec {
    /// Reads a text. `called` is the name that users know it by, such as `--kms`, for messages.
    ///
    /// # Errors
    /// If it names no master key. What is not understood is not repeated, since it may be a secret.
    pub fn from_text(text: &str, called: &str) -> Result<Self, SpecError> {
        let wrong = |message: &str| SpecError::wrong(&format!("{called} {message}"));
        let Some((kind, rest)) = text.split_once(':') else { return Err(wrong(UNKNOWN)) };
        let read = match kind {
            "local" if rest.is_empty() => return Err(wrong("local: lacks its path; say local:PATH")),
            "local" => Ok(Self::Local(rest.into())),
            "static" => return static_key(rest).map_err(wrong),
            "aws" => aws::fields(rest).and_then(AwsSpec::read).map(Self::Aws),
            "pkcs11" => pkcs11::fields(rest).and_then(Pkcs11Spec::read).map(Self::Pkcs11),
            "vault" => vault::fields(rest).and_then(VaultSpec::read).map(Self::Vault),
            _ => return Err(wrong(UNKNOWN)),
        };
        read.map_err(|error| error.within(&format!("{called} {kind}: ")))
    }

    /// Reads a text, or the file that it names as `@FILE`, which only its owner may read.
    ///
    /// # Errors
    /// As for [`from_text`](Self::from_text), and as the file cannot be read.
    pub fn from_reference(text: &str, called: &str) -> Result<Self, SpecError> {
        let content = format!("what {called} would say");
        by_reference(text, called, (&content, "change the secret"), Self::from_text)
    }

    /// Reads the variable `CLAVIGER_KMS`; `None` if it is not set.
    ///
    /// # Errors
    /// As for [`from_reference`](Self::from_reference).
    pub fn from_environment(environment: &Environment) -> Result<Option<Self>, SpecError> {
        let text = environment.text(VARIABLE);
        text.map(|text| Self::from_reference(&text, VARIABLE)).transpose()
    }

    /// Reads a table, or a text in its place, which users know by the name `called`.
    pub(crate) fn from_text_or_table(given: TextOrTable, called: &str) -> Result<Self, SpecError> {
        given.read(|text| Self::from_reference(text, called), Self::from_fields)
    }

    pub(crate) fn from_fields(mut fields: Fields) -> Result<Self, SpecError> {
        let kind = fields.need("type", KINDS)?;
        match &*kind {
            "local" => {
                let path = fields.need("path", "name a file")?;
                fields.finish()?;
                Ok(Self::Local(path.into()))
            }
            "static" => StaticSpec::read(fields).map(Self::Static),
            "aws" => AwsSpec::read(fields).map(Self::Aws),
            "pkcs11" => Pkcs11Spec::read(fields).map(Self::Pkcs11),
            "vault" => VaultSpec::read(fields).map(Self::Vault),
            "any-of" => AnyOfSpec::read(fields).map(Self::AnyOf),
            "k-of-n" => KofNSpec::read(fields).map(Self::KofN),
            _ => Err(fields.wrong(&format!("it is of a type that is not known; {KINDS}"))),
        }
    }

    /// Those it is made of: itself, or its members.
    fn parts(&self) -> Vec<&Self> {
        match self {
            Self::AnyOf(spec) => spec.members.iter().flat_map(|member| member.kms.parts()).collect(),
            Self::KofN(spec) => spec.members.iter().flat_map(|member| member.kms.parts()).collect(),
            one => vec![one],
        }
    }

    /// Returns the file that it is, if it is a local master key and has no members.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Local(path) => Some(path),
            _ => None,
        }
    }

    /// Returns all files that it is made of, and its members are, with what each is for.
    #[must_use]
    pub fn files(&self) -> Vec<(KmsFile, &Path)> {
        let secrets = |files: Vec<_>| files.into_iter().map(|file| (KmsFile::Secret, file)).collect();
        let members = match self {
            Self::Local(path) => return vec![(KmsFile::LocalKey, path)],
            Self::Static(key) => {
                return key.0.file().map(|file| (KmsFile::StaticKey, file)).into_iter().collect();
            }
            Self::Pkcs11(spec) => return secrets(spec.files()),
            Self::Vault(spec) => return secrets(spec.files()),
            Self::Aws(_) => return Vec::new(),
            Self::AnyOf(spec) => &*spec.members,
            Self::KofN(spec) => &*spec.members,
        };
        let mut files = Vec::new();
        for member in members {
            files.extend(member.kms.files());
            files.extend(member.file.as_deref().map(|file| (KmsFile::Description, file)));
        }
        files
    }

    /// Returns how long a call to it may take, if it says so; of one with members that does not say it itself, the
    /// longest of theirs. It is for [`Limits::kms_deadline`](claviger::Limits::kms_deadline) and for operators'
    /// calls: services have no deadline of their own, and several share the time of one call.
    #[must_use]
    pub fn call_deadline(&self) -> Option<Duration> {
        match self {
            Self::Local(_) | Self::Static(_) => None,
            Self::Aws(spec) => spec.call_deadline,
            Self::Pkcs11(spec) => spec.call_deadline,
            Self::Vault(spec) => spec.call_deadline,
            Self::AnyOf(spec) => spec.call_deadline.or_else(|| longest(&spec.members)),
            Self::KofN(spec) => spec.call_deadline.or_else(|| longest(&spec.members)),
        }
    }

    /// Returns `true` if a secret stands in the text or table itself, and not in a file or variable.
    #[must_use]
    pub fn has_secret(&self) -> bool {
        self.parts().iter().any(|part| match part {
            Self::Static(key) => key.0.has_secret(),
            Self::Pkcs11(spec) => spec.has_secret(),
            Self::Vault(spec) => spec.has_secret(),
            _ => false,
        })
    }

    /// Returns `true` if a secret stands in a text for [`from_text`](Self::from_text), also in one that cannot be
    /// read.
    #[must_use]
    pub fn text_has_secret(text: &str) -> bool {
        match text.split_once(':') {
            Some(("static", rest)) => !rest.is_empty() && !rest.starts_with('@'),
            Some(("pkcs11", rest)) => pkcs11::has_secret(rest),
            Some(("vault", rest)) => vault::has_secret(rest),
            _ => false,
        }
    }
}

fn longest(members: &[Member]) -> Option<Duration> {
    members.iter().filter_map(|member| member.kms.call_deadline()).max()
}

impl StaticSpec {
    fn read(mut fields: Fields) -> Result<Self, SpecError> {
        let source = match (fields.text("file")?, fields.text("key")?) {
            (Some(_), Some(_)) => return Err(fields.wrong("has both file and key; keep one")),
            (Some(file), None) => SecretSource::File(file.into()),
            (None, Some(key)) => SecretSource::new(key),
            (None, None) => return Err(fields.wrong("lacks its file; name a file")),
        };
        fields.finish()?;
        Ok(Self(StaticKey::Hex(source)))
    }
}

impl AnyOfSpec {
    fn read(mut fields: Fields) -> Result<Self, SpecError> {
        let choice = Self {
            members: members(&mut fields)?,
            asherah_compatible: fields.truth("asherah-compatible")?,
            min_copies: fields.number("min-copies")?,
            hedge_after: fields.time("hedge-after")?,
            call_deadline: fields.time("call-deadline")?,
        };
        fields.finish()?;
        Ok(choice)
    }
}

impl KofNSpec {
    fn read(mut fields: Fields) -> Result<Self, SpecError> {
        let k = fields.number("k")?;
        let choice = Self {
            k: k.ok_or_else(|| fields.wrong("lacks its k; say how many members must unwrap together"))?,
            members: members(&mut fields)?,
            asherah_compatible: fields.truth("asherah-compatible")?,
            min_shares: fields.number("min-shares")?,
            previous_k: fields.number("previous-k")?,
            legacy_members: fields.texts("legacy-members")?,
            call_deadline: fields.time("call-deadline")?,
        };
        fields.finish()?;
        Ok(choice)
    }
}

fn members(fields: &mut Fields) -> Result<Vec<Member>, SpecError> {
    let members: Vec<Member> =
        fields.list("members")?.into_iter().map(Member::read).collect::<Result<_, _>>()?;
    if members.is_empty() {
        return Err(fields.wrong("lacks its members; say [[kms.members]] with name and kms for each"));
    }
    Ok(members)
}

impl Member {
    fn read(mut fields: Fields) -> Result<Self, SpecError> {
        let name = fields.need("name", "say how copies are to be called")?;
        let (kms, file) = match fields.text_or_table("kms", "say what --kms would say, or a table")? {
            TextOrTable::Table(table) => (KmsSpec::from_fields(table)?, None),
            TextOrTable::Text(at, text) => {
                let file = text.strip_prefix('@').map(PathBuf::from);
                let kms = KmsSpec::from_reference(&text, NAME).map_err(|error| error.or_at(at))?;
                (kms, file)
            }
        };
        fields.finish()?;
        Ok(Self { name, kms, file })
    }
}

fn static_key(rest: &str) -> Result<KmsSpec, &'static str> {
    match rest.strip_prefix('@') {
        Some("") => Err("static:@ lacks its file; say static:@FILE"),
        Some(file) => Ok(KmsSpec::Static(StaticSpec(StaticKey::Hex(SecretSource::File(file.into()))))),
        None => Err(
            "static: takes no key, which every user of the machine would see in the process list; write its 64 hex \
             digits to a file that only you may read and say static:@FILE",
        ),
    }
}

/// What a description calls it.
pub(crate) const NAME: &str = "kms";

const VARIABLE: &str = "CLAVIGER_KMS";

const KINDS: &str = "say local, static, aws, pkcs11, vault, any-of or k-of-n";

const UNKNOWN: &str = "names no master key that claviger knows; say local:PATH, static:@FILE, aws:REGION=ARN, \
                       pkcs11:token=…, vault:https://…, or @FILE for a file that says it";

#[cfg(test)]
mod tests;
