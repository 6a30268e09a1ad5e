//! A secret that opens a service: in a file, in a variable, or where the whole description is.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use crate::environment::Environment;
use crate::error::SpecError;
use crate::private;

/// Where a secret is.
#[derive(Clone, Debug)]
pub(crate) enum SecretSource {
    Here(SecretString),
    /// In a file that only its owner may read.
    File(PathBuf),
    Variable(Cow<'static, str>),
}

impl SecretSource {
    /// Reads `@FILE`, `env:NAME` or the secret itself.
    pub(crate) fn new(text: String) -> Self {
        if let Some(file) = text.strip_prefix('@') {
            return Self::File(file.into());
        }
        match text.strip_prefix(VARIABLE) {
            Some(name) => Self::Variable(name.to_owned().into()),
            None => Self::Here(text.into()),
        }
    }

    /// The same; with no text it is in the variable.
    pub(crate) fn or_variable(text: Option<String>, variable: &'static str) -> Self {
        text.map_or(Self::Variable(variable.into()), Self::new)
    }

    pub(crate) const fn is_here(&self) -> bool {
        matches!(self, Self::Here(_))
    }

    pub(crate) fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            _ => None,
        }
    }

    /// `what` names it, as in "the PIN"; `otherwise` says how else to give it.
    pub(crate) fn reveal(
        &self,
        environment: &Environment,
        what: &str,
        otherwise: &str,
    ) -> Result<SecretString, SpecError> {
        match self {
            Self::Here(secret) => Ok(secret.clone()),
            Self::File(path) => read(path, what),
            Self::Variable(name) => environment.text(name).map(SecretString::from).ok_or_else(|| {
                SpecError::wrong(&format!("{what} is missing; set the variable {name}, or say {otherwise}"))
            }),
        }
    }
}

/// Returns `true` if a text of a description is the secret itself, and no file or variable. Of a URL its escapes
/// count as what they stand for.
pub(crate) fn is_secret(text: &str) -> bool {
    let elsewhere = ["@", "%40", VARIABLE, "env%3A", "env%3a"];
    !text.is_empty() && !elsewhere.iter().any(|begin| text.starts_with(begin))
}

/// What the name of a variable stands behind.
pub(crate) const VARIABLE: &str = "env:";

fn read(path: &Path, what: &str) -> Result<SecretString, SpecError> {
    let bytes = private::read(path, what, SECRET_BYTES_MAX, &format!("change {what}"))?;
    // A line feed at its end is an editor's.
    private::line(&bytes)
        .map(SecretString::from)
        .map_err(|why| SpecError::wrong(&format!("{} is not one line with {what}: it {why}", path.display())))
}

const SECRET_BYTES_MAX: usize = 8 << 10;
