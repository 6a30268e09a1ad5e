//! Vault or OpenBao: `vault:https://HOST:8200/MOUNT/KEY?auth=approle&role-id=ID&secret-id=@FILE`.

use std::path::{Path, PathBuf};
use std::time::Duration;

#[cfg(feature = "vault")]
use claviger_kms::{VaultAuth, VaultTransitKms};
#[cfg(feature = "vault")]
use secrecy::ExposeSecret as _;
use url::{Url, form_urlencoded};

use crate::endpoint::endpoint;
#[cfg(feature = "vault")]
use crate::environment::Environment;
#[cfg(feature = "vault")]
use crate::error::OpenError;
use crate::error::SpecError;
use crate::fields::Fields;
#[cfg(feature = "vault")]
use crate::private;
use crate::secret::{SecretSource, is_secret};

/// A key of a transit engine, not opened yet.
#[derive(Clone, Debug)]
pub struct VaultSpec {
    address: String,
    mount: Option<String>,
    key: String,
    auth: Auth,
    namespace: Option<String>,
    ca: Option<PathBuf>,
    pub(super) call_deadline: Option<Duration>,
    danger_http: Option<bool>,
}

/// How to log in, and where such logins are mounted.
#[derive(Clone, Debug)]
enum Auth {
    Token(SecretSource),
    AppRole { mount: Option<String>, role_id: SecretSource, secret_id: SecretSource },
    Kubernetes { mount: Option<String>, role: String, token_path: Option<PathBuf> },
}

/// Takes the URL apart: what is behind its last slash is the key, what is before it the mount.
pub(super) fn fields(text: &str) -> Result<Fields, SpecError> {
    let wrong = |why: &str| SpecError::wrong(&format!("{why}; {USAGE}"));
    let url = Url::parse(text).map_err(|_unreadable| wrong("has a URL that cannot be read"))?;
    if !matches!(url.scheme(), "https" | "http") || url.host_str().is_none() {
        return Err(wrong("has a URL of another kind"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("names a user, which Vault has not; leave it out"));
    }
    if url.fragment().is_some() {
        return Err(wrong("has a #, which is %23 if it is meant"));
    }
    let path = url.path().trim_start_matches('/');
    let Some((mount, key)) =
        path.rsplit_once('/').filter(|(mount, key)| !mount.is_empty() && !key.is_empty())
    else {
        return Err(wrong("lacks its mount or its key"));
    };
    let mut fields = Fields::default();
    fields.add("address", &url.origin().ascii_serialization());
    fields.add("mount", mount);
    fields.add("key", key);
    for (name, value) in form_urlencoded::parse(url.query().unwrap_or_default().as_bytes()) {
        // Said once, in the path.
        let is_of_path = matches!(&*name, "address" | "mount" | "key");
        fields.add(if is_of_path { "" } else { &name }, &value);
    }
    Ok(fields)
}

/// Returns `true` if a token or a secret id stands in the text.
pub(super) fn has_secret(text: &str) -> bool {
    let has_secret = |part: &str| match part.split_once('=') {
        Some(("token" | "secret-id", value)) => is_secret(value),
        _ => false,
    };
    let has_password = Url::parse(text).is_ok_and(|url| url.password().is_some());
    has_password || text.split(['?', '&', ';']).any(has_secret)
}

impl VaultSpec {
    pub(super) fn read(mut fields: Fields) -> Result<Self, SpecError> {
        let choice = Self {
            address: endpoint(&mut fields, "address")?
                .ok_or_else(|| fields.wrong("lacks its address; say such as https://vault.example:8200"))?,
            mount: fields.text("mount")?,
            key: fields.need("key", "say the name of the transit key")?,
            auth: Auth::read(&mut fields)?,
            namespace: fields.text("namespace")?,
            ca: fields.text("ca")?.map(PathBuf::from),
            call_deadline: fields.time("call-deadline")?,
            danger_http: fields.truth("danger-http")?,
        };
        fields.finish()?;
        Ok(choice)
    }

    pub(super) const fn has_secret(&self) -> bool {
        match &self.auth {
            Auth::Token(token) => token.is_here(),
            Auth::AppRole { secret_id, .. } => secret_id.is_here(),
            Auth::Kubernetes { .. } => false,
        }
    }

    /// The files it is made of.
    pub(super) fn files(&self) -> Vec<&Path> {
        self.auth.files().chain(self.ca.as_deref()).collect()
    }

    #[cfg(feature = "vault")]
    pub(super) async fn open(&self, environment: &Environment) -> Result<VaultTransitKms, OpenError> {
        let builder = VaultTransitKms::builder(&self.address, &self.key).auth(self.auth.reveal(environment)?);
        let mut builder = builder.danger_http(self.danger_http.unwrap_or_default());
        if let Some(mount) = &self.mount {
            builder = builder.mount(mount);
        }
        let variable = || environment.text("VAULT_NAMESPACE");
        if let Some(namespace) = self.namespace.clone().or_else(variable) {
            builder = builder.namespace(namespace);
        }
        if let Some(file) = &self.ca {
            private::check_author_of(file, "the file of Vault's certificates")?;
            builder = builder.ca_file(file);
        }
        Ok(Box::pin(builder.open()).await?)
    }
}

impl Auth {
    fn read(fields: &mut Fields) -> Result<Self, SpecError> {
        match fields.text("auth")?.as_deref() {
            None | Some("token") => {
                Ok(Self::Token(SecretSource::or_variable(fields.text("token")?, "VAULT_TOKEN")))
            }
            Some("approle") => Ok(Self::AppRole {
                mount: fields.text("auth-mount")?,
                role_id: SecretSource::or_variable(fields.text("role-id")?, "VAULT_ROLE_ID"),
                secret_id: SecretSource::or_variable(fields.text("secret-id")?, "VAULT_SECRET_ID"),
            }),
            Some("kubernetes") => Ok(Self::Kubernetes {
                mount: fields.text("auth-mount")?,
                role: fields.need("role", "say the role that Vault knows")?,
                token_path: fields.text("token-path")?.map(PathBuf::from),
            }),
            Some(_) => {
                Err(fields.wrong("has an auth that is not known; there are token, approle, kubernetes"))
            }
        }
    }

    fn files(&self) -> impl Iterator<Item = &Path> {
        let files = match self {
            Self::Token(token) => [token.file(), None],
            Self::AppRole { role_id, secret_id, .. } => [role_id.file(), secret_id.file()],
            Self::Kubernetes { token_path, .. } => [token_path.as_deref(), None],
        };
        files.into_iter().flatten()
    }
}

#[cfg(feature = "vault")]
impl Auth {
    fn reveal(&self, environment: &Environment) -> Result<VaultAuth, SpecError> {
        let (auth, mount) = match self {
            Self::Token(token) => {
                (VaultAuth::token(token.reveal(environment, "Vault's token", "token=@FILE")?), &None)
            }
            Self::AppRole { mount, role_id, secret_id } => {
                let role_id = role_id.reveal(environment, "Vault's role id", "role-id=ID")?;
                let secret_id = secret_id.reveal(environment, "Vault's secret id", "secret-id=@FILE")?;
                (VaultAuth::app_role(role_id.expose_secret(), secret_id), mount)
            }
            Self::Kubernetes { mount, role, token_path } => {
                let auth = VaultAuth::kubernetes(role);
                (token_path.iter().fold(auth, VaultAuth::token_file), mount)
            }
        };
        Ok(mount.iter().fold(auth, VaultAuth::at))
    }
}

const USAGE: &str = "say vault:https://HOST:8200/MOUNT/KEY";
