//! What `--kms` and its like may say where.

use std::fmt;
use std::path::Path;

use clap::builder::ValueParserFactory;
use claviger_open::{KmsSpec, KmsTable, SpecError};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::exit::Failure;
use crate::explain;
use crate::given::{Given, GivenParser, Guarded};

/// A master key as the command line, a variable or the configuration file describes it.
#[derive(Clone, Debug)]
pub(crate) enum KmsGiven {
    Text(Given),
    /// A table of the configuration file.
    Table(KmsTable),
    /// The table, read.
    Spec(KmsSpec),
}

impl KmsGiven {
    pub(crate) fn resolve(self, option: &Guarded) -> Result<KmsSpec, Failure> {
        match self {
            Self::Text(given) => {
                KmsSpec::from_text(&given.reveal(option)?, option.flag).map_err(explain::kms::spec)
            }
            Self::Table(table) => table.read().map_err(explain::kms::spec),
            Self::Spec(spec) => Ok(spec),
        }
    }

    /// Returns the file that describes it, if it is `@FILE`.
    pub(crate) fn file(&self) -> Option<&Path> {
        match self {
            Self::Text(given) => given.file(),
            _ => None,
        }
    }

    /// Returns the configuration file that describes it, if it is `config:FILE`.
    pub(crate) fn config(&self) -> Option<&Path> {
        match self {
            Self::Text(given) => given.after("config:").map(Path::new),
            _ => None,
        }
    }

    /// Reads a table, as long as it is known where it stands.
    pub(crate) fn read_table(self) -> Result<Self, SpecError> {
        match self {
            Self::Table(table) => table.read().map(Self::Spec),
            other => Ok(other),
        }
    }

    pub(crate) fn has_secret(&self) -> bool {
        match self {
            Self::Text(given) => given.has_secret(&KMS),
            Self::Table(_) => false,
            Self::Spec(spec) => spec.has_secret(),
        }
    }
}

pub(crate) const KMS: Guarded = Guarded {
    flag: "--kms",
    content: "what --kms would say",
    secret: "the secret",
    has_secret: KmsSpec::text_has_secret,
    refusal: REFUSAL,
};

pub(crate) const FROM: Guarded = Guarded {
    flag: "--from",
    content: "what --from would say",
    secret: "the secret",
    has_secret: KmsSpec::text_has_secret,
    refusal: REFUSAL,
};

const REFUSAL: &str = "\
     a secret of the master key on the command line can be seen by every user of the machine, in the process list; \
     give a static key as static:@FILE, the PIN of a token as pin-source=file:PATH or in the variable \
     CLAVIGER_PKCS11_PIN, Vault's token as token=@FILE or in VAULT_TOKEN and its secret id as secret-id=@FILE or in \
     VAULT_SECRET_ID; or all of it in the variable CLAVIGER_KMS, as kms in the configuration file, or with --kms @FILE";

impl From<Given> for KmsGiven {
    fn from(given: Given) -> Self {
        Self::Text(given)
    }
}

impl ValueParserFactory for KmsGiven {
    type Parser = GivenParser<Self>;

    fn value_parser() -> GivenParser<Self> {
        GivenParser::NEW
    }
}

impl<'de> Deserialize<'de> for KmsGiven {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrTable;

        impl<'de> Visitor<'de> for TextOrTable {
            type Value = KmsGiven;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a table")
            }

            fn visit_str<E>(self, text: &str) -> Result<KmsGiven, E> {
                Ok(KmsGiven::Text(Given::in_config(text.to_owned())))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<KmsGiven, A::Error> {
                KmsTable::from_map(map).map(KmsGiven::Table)
            }
        }

        deserializer.deserialize_any(TextOrTable)
    }
}

#[cfg(test)]
mod tests;
