//! How the service logs in to Vault.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use crate::vault::fault::VaultTransitError;
use crate::vault::message;

/// How the service logs in to Vault.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum VaultAuth {
    /// A token that was made for the service.
    Token(SecretString),
    /// [AppRole](https://developer.hashicorp.com/vault/docs/auth/approle): a role and its secret.
    AppRole {
        /// Where the method is mounted below `auth/`.
        mount: String,
        /// The role.
        role_id: String,
        /// The role's secret; empty if the role needs none.
        secret_id: SecretString,
    },
    /// [Kubernetes](https://developer.hashicorp.com/vault/docs/auth/kubernetes): the pod's service
    /// account.
    Kubernetes {
        /// Where the method is mounted below `auth/`.
        mount: String,
        /// The role that the service account is bound to.
        role: String,
        /// Where the service account's token is. It is read at each login, since Kubernetes replaces
        /// it.
        token_path: PathBuf,
    },
}

/// Where Kubernetes puts it.
const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
/// Service accounts' tokens have about a kibibyte.
const JWT_BYTES_MAX: usize = 64 * 1024;

impl VaultAuth {
    /// Uses a token as it is, renewed while Vault does so.
    pub fn token(token: impl Into<SecretString>) -> Self {
        Self::Token(token.into())
    }

    /// Logs in by the AppRole method at `auth/approle`.
    pub fn app_role(role_id: impl Into<String>, secret_id: impl Into<SecretString>) -> Self {
        Self::AppRole { mount: "approle".to_owned(), role_id: role_id.into(), secret_id: secret_id.into() }
    }

    /// Logs in as the pod's service account by the Kubernetes method at `auth/kubernetes`.
    pub fn kubernetes(role: impl Into<String>) -> Self {
        let token_path = PathBuf::from(TOKEN_PATH);
        Self::Kubernetes { mount: "kubernetes".to_owned(), role: role.into(), token_path }
    }

    /// Logs in at another mount, without the `auth/` before it. A token has none.
    #[must_use]
    pub fn at(mut self, other: impl Into<String>) -> Self {
        match &mut self {
            Self::Token(_) => {}
            Self::AppRole { mount, .. } | Self::Kubernetes { mount, .. } => *mount = other.into(),
        }
        self
    }

    /// Reads the service account's token from another file. Only Kubernetes has one.
    #[must_use]
    pub fn token_file(mut self, path: impl Into<PathBuf>) -> Self {
        if let Self::Kubernetes { token_path, .. } = &mut self {
            *token_path = path.into();
        }
        self
    }

    /// Returns the mount of the method that one logs in by.
    pub(super) fn mount(&self) -> Option<&str> {
        match self {
            Self::Token(_) => None,
            Self::AppRole { mount, .. } | Self::Kubernetes { mount, .. } => Some(mount),
        }
    }

    /// Makes the body of a login.
    ///
    /// See <https://developer.hashicorp.com/vault/api-docs/auth/approle#login-with-approle> and
    /// <https://developer.hashicorp.com/vault/api-docs/auth/kubernetes#login>.
    pub(super) async fn credentials(&self) -> Result<Zeroizing<Vec<u8>>, VaultTransitError> {
        match self {
            Self::Token(_) => Ok(message::object(&[])),
            Self::AppRole { role_id, secret_id, .. } => {
                Ok(message::object(&[("role_id", role_id), ("secret_id", secret_id.expose_secret())]))
            }
            Self::Kubernetes { role, token_path, .. } => {
                let jwt = read_jwt(token_path).await?;
                Ok(message::object(&[("role", role), ("jwt", jwt.trim())]))
            }
        }
    }
}

async fn read_jwt(path: &Path) -> Result<Zeroizing<String>, VaultTransitError> {
    let file = path.to_owned();
    let read = tokio::task::spawn_blocking(move || read_text(&file)).await;
    let text = read.unwrap_or_else(|stopped| Err(io::Error::other(stopped)));
    let text = text.map_err(|source| VaultTransitError::File { path: path.to_owned(), source })?;
    if text.trim().is_empty() {
        return Err(VaultTransitError::Content { path: path.to_owned(), what: "service account's token" });
    }
    Ok(text)
}

fn read_text(path: &Path) -> io::Result<Zeroizing<String>> {
    // Room for all that may come, and for the read that finds no more: what grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(JWT_BYTES_MAX + 64));
    File::open(path)?.take(JWT_BYTES_MAX as u64 + 1).read_to_string(&mut text)?;
    if text.len() > JWT_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is too long for a token"));
    }
    Ok(text)
}
