//! Which master key is meant.

#[cfg_attr(not(feature = "aws"), allow(dead_code, reason = "it is read, and not opened"))]
mod aws;
pub(crate) mod commands;
mod fields;
mod key_file;
pub(crate) mod open;
#[cfg_attr(not(feature = "pkcs11"), allow(dead_code, reason = "it is read, and not opened"))]
mod pkcs11;
#[cfg_attr(
    not(any(feature = "pkcs11", feature = "vault")),
    allow(dead_code, reason = "only some services need it")
)]
mod secret;
mod several;
pub(crate) mod text;
#[cfg_attr(not(feature = "vault"), allow(dead_code, reason = "it is read, and not opened"))]
mod vault;
pub(crate) mod watched;

use std::path::{Path, PathBuf};

use crate::exit::{Exit, Failure};
use crate::files::{Role, Used};
use crate::kms::aws::AwsChoice;
use crate::kms::fields::{Fields, Wrong};
use crate::kms::pkcs11::Pkcs11Choice;
use crate::kms::several::{AnyOfChoice, KofNChoice, Member};
use crate::kms::vault::VaultChoice;

/// A master key and who keeps it, not opened yet.
#[derive(Clone, Debug)]
pub(crate) enum KmsChoice {
    /// `master.key` in claviger's own folder.
    Embedded(PathBuf),
    Local(PathBuf),
    Static(PathBuf),
    #[cfg_attr(not(feature = "aws"), allow(dead_code, reason = "it is read, and not opened"))]
    Aws(AwsChoice),
    Pkcs11(Pkcs11Choice),
    Vault(VaultChoice),
    AnyOf(AnyOfChoice),
    KofN(KofNChoice),
}

impl KmsChoice {
    /// Reads the text of `flag`. What is not understood is not repeated, since it may be a secret.
    fn from_text(text: &str, flag: &str) -> Result<Self, Failure> {
        let wrong = |message: &str| Failure::new(Exit::Config, format!("{flag} {message}"));
        let Some((kind, rest)) = text.split_once(':') else { return Err(wrong(UNKNOWN)) };
        let read = match kind {
            "local" if rest.is_empty() => return Err(wrong("local: lacks its path; say local:PATH")),
            "local" => Ok(Self::Local(rest.into())),
            "static" => return static_key(rest).map_err(wrong),
            "aws" => aws::fields(rest).and_then(AwsChoice::read).map(Self::Aws),
            "pkcs11" => pkcs11::fields(rest).and_then(Pkcs11Choice::read).map(Self::Pkcs11),
            "vault" => vault::fields(rest).and_then(VaultChoice::read).map(Self::Vault),
            _ => return Err(wrong(UNKNOWN)),
        };
        read.map_err(|error| error.into_failure().at(&format!("{flag} {kind}")))
    }

    /// Reads a table of the configuration file.
    fn from_table(mut fields: Fields) -> Result<Self, Wrong> {
        let kind = fields.need("type", KINDS)?;
        match &*kind {
            "local" | "static" => {
                let name = if kind == "local" { "path" } else { "file" };
                let path = PathBuf::from(fields.need(name, "name a file")?);
                fields.finish()?;
                Ok(if kind == "local" { Self::Local(path) } else { Self::Static(path) })
            }
            "aws" => AwsChoice::read(fields).map(Self::Aws),
            "pkcs11" => Pkcs11Choice::read(fields).map(Self::Pkcs11),
            "vault" => VaultChoice::read(fields).map(Self::Vault),
            "any-of" => AnyOfChoice::read(fields).map(Self::AnyOf),
            "k-of-n" => KofNChoice::read(fields).map(Self::KofN),
            _ => Err(fields.wrong(&format!("it is of a type that is not known; {KINDS}"))),
        }
    }

    /// Those it is made of: itself, or its members.
    fn parts(&self) -> Vec<&Self> {
        match self {
            Self::AnyOf(choice) => choice.members.iter().flat_map(|member| member.kms.parts()).collect(),
            Self::KofN(choice) => choice.members.iter().flat_map(|member| member.kms.parts()).collect(),
            one => vec![one],
        }
    }

    /// The file it is, if it is one and has no members.
    pub(crate) fn file(&self) -> Option<&Path> {
        match self {
            Self::Embedded(path) | Self::Local(path) => Some(path),
            _ => None,
        }
    }

    /// The files that hold master keys, its members' as well.
    pub(crate) fn files(&self) -> Vec<&Path> {
        self.parts().into_iter().filter_map(Self::file).collect()
    }

    /// All files that it is made of, and its members are: with keys, with secrets, with descriptions.
    pub(crate) fn used(&self) -> Vec<Used> {
        let members = match self {
            Self::AnyOf(choice) => &*choice.members,
            Self::KofN(choice) => &*choice.members,
            Self::Embedded(path) | Self::Local(path) | Self::Static(path) => {
                return vec![Used::new(Role::MasterKey, path)];
            }
            Self::Pkcs11(choice) => return Used::all(Role::Secret, choice.files()),
            Self::Vault(choice) => return Used::all(Role::Secret, choice.files()),
            Self::Aws(_) => return Vec::new(),
        };
        let of_member = |member: &Member| {
            let mut used = member.kms.used();
            used.extend(member.file.iter().map(|file| Used::new(Role::Option, file)));
            used
        };
        members.iter().flat_map(of_member).collect()
    }

    /// Tells whether a secret stands in the text or table itself.
    fn has_secret(&self) -> bool {
        self.parts().iter().any(|part| match part {
            Self::Pkcs11(choice) => choice.has_secret(),
            Self::Vault(choice) => choice.has_secret(),
            _ => false,
        })
    }
}

fn static_key(rest: &str) -> Result<KmsChoice, &'static str> {
    match rest.strip_prefix('@') {
        Some("") => Err("static:@ lacks its file; say static:@FILE"),
        Some(file) => Ok(KmsChoice::Static(file.into())),
        None => Err(
            "static: takes no key, which every user of the machine would see in the process list; write its 64 hex \
             digits to a file that only you may read and say static:@FILE",
        ),
    }
}

const KINDS: &str = "say local, static, aws, pkcs11, vault, any-of or k-of-n";

const UNKNOWN: &str = "names no master key that claviger knows; say local:PATH, static:@FILE, aws:REGION=ARN, \
                       pkcs11:token=…, vault:https://…, or @FILE for a file that says it";

#[cfg(test)]
mod tests;
