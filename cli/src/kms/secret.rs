//! A secret that opens a service: in a file, in a variable, or where the whole description is.

use std::path::{Path, PathBuf};

use secrecy::SecretString;

use crate::exit::{Exit, Failure};
use crate::private;
use crate::variables;

/// Where a secret is.
#[derive(Clone, Debug)]
pub(super) enum Secret {
    Here(SecretString),
    /// In a file that only its owner may read.
    File(PathBuf),
    Variable(&'static str),
}

impl Secret {
    /// Reads `@FILE` or the secret itself; with neither it is in the variable.
    pub(super) fn new(text: Option<String>, variable: &'static str) -> Self {
        match text {
            None => Self::Variable(variable),
            Some(text) => match text.strip_prefix('@') {
                Some(file) => Self::File(file.into()),
                None => Self::Here(text.into()),
            },
        }
    }

    pub(super) const fn is_here(&self) -> bool {
        matches!(self, Self::Here(_))
    }

    pub(super) fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            _ => None,
        }
    }

    /// `what` names it, as in "the PIN"; `otherwise` says how else to give it.
    pub(super) fn reveal(&self, what: &str, otherwise: &str) -> Result<SecretString, Failure> {
        match self {
            Self::Here(secret) => Ok(secret.clone()),
            Self::File(path) => read(path, what),
            Self::Variable(name) => variables::text(name).map(SecretString::from).ok_or_else(|| {
                Failure::new(
                    Exit::Config,
                    format!("{what} is missing; set the variable {name}, or say {otherwise}"),
                )
            }),
        }
    }
}

fn read(path: &Path, what: &str) -> Result<SecretString, Failure> {
    let bytes = private::read(path, what, SECRET_BYTES_MAX, &format!("change {what}"))?;
    // A line feed at its end is an editor's.
    private::line(&bytes).map(SecretString::from).map_err(|why| {
        Failure::new(Exit::Config, format!("{} is not one line with {what}: it {why}", path.display()))
    })
}

const SECRET_BYTES_MAX: usize = 8 << 10;
