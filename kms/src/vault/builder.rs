//! How a [`VaultTransitKms`] is configured.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use claviger::{BackendError, Clock, SystemClock};
use hyper::header::HeaderValue;
use hyper_rustls::ConfigBuilderExt as _;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use crate::vault::address::{Address, PlainHttp, check_path, is_name};
use crate::vault::auth::VaultAuth;
use crate::vault::client::Client;
use crate::vault::fault::VaultTransitError;
use crate::vault::login::{self, Login};
use crate::vault::{Urls, VaultTransitKms};

/// Configures a [`VaultTransitKms`].
#[must_use]
pub struct VaultTransitKmsBuilder {
    address: String,
    key: String,
    auth: Option<VaultAuth>,
    mount: String,
    namespace: Option<String>,
    ca_file: Option<PathBuf>,
    plain: PlainHttp,
    clock: Arc<dyn Clock>,
}

impl VaultTransitKms {
    /// Begins with the server's address, `https://host:8200`, and the name of the transit key.
    pub fn builder(address: impl Into<String>, key_name: impl Into<String>) -> VaultTransitKmsBuilder {
        VaultTransitKmsBuilder::new(address.into(), key_name.into())
    }
}

impl VaultTransitKmsBuilder {
    pub(super) fn new(address: String, key: String) -> Self {
        Self {
            address,
            key,
            auth: None,
            mount: "transit".to_owned(),
            namespace: None,
            ca_file: None,
            plain: PlainHttp::Loopback,
            clock: Arc::new(SystemClock::new()),
        }
    }

    /// Sets how the service logs in to Vault. There is no default.
    pub fn auth(mut self, auth: VaultAuth) -> Self {
        self.auth = Some(auth);
        self
    }

    /// Sets where the transit engine is mounted, `transit` by default.
    pub fn mount(mut self, mount: impl Into<String>) -> Self {
        self.mount = mount.into();
        self
    }

    /// Sets the [namespace](https://developer.hashicorp.com/vault/docs/enterprise/namespaces) that
    /// the engine and the login are in, the root by default.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// Trusts the certificate authorities of this PEM file, and no others; by default those of the
    /// system.
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(path.into());
        self
    }

    /// Allows `http://` to other machines: whoever is on the way sees keys and tokens.
    pub fn danger_http(mut self, allow: bool) -> Self {
        self.plain = if allow { PlainHttp::Anywhere } else { PlainHttp::Loopback };
        self
    }

    /// Takes the time for leases from `clock` instead of the system.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Checks the configuration and reads the certificates; Vault is asked nothing yet.
    ///
    /// # Errors
    /// A permanent error of [`VaultTransitError`] when the configuration cannot work, or a file
    /// cannot be read.
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn open(self) -> Result<VaultTransitKms, BackendError> {
        let address = Address::parse(&self.address, self.plain)?;
        let urls = self.urls(&address)?;
        let auth_urls = self.login_urls(&address)?;
        let namespace = self.namespace_header()?;
        let auth = self.auth.ok_or(VaultTransitError::Config("it is not said how to log in"))?;
        let ca_file = self.ca_file;
        let is_https = address.is_https();
        let tls = tokio::task::spawn_blocking(move || tls(is_https, ca_file.as_deref())).await;
        let tls = tls.map_err(|stopped| VaultTransitError::Tls(stopped.into()))??;
        let shown = address.as_str().to_owned();
        Ok(VaultTransitKms {
            client: Client::new(address, namespace, tls),
            login: Login::new(auth, auth_urls, self.clock),
            urls,
            address: shown,
            key: format!("{}/{}", self.mount.trim_matches('/'), self.key),
        })
    }

    fn urls(&self, address: &Address) -> Result<Urls, VaultTransitError> {
        let mount = check_path(&self.mount, "the mount is no path of letters, digits, - _ and .")?;
        if !is_name(&self.key) {
            return Err(VaultTransitError::Config("the key's name is not of letters, digits, - _ and ."));
        }
        let url = |operation| address.api(&format!("{mount}/{operation}/{}", self.key));
        Ok(Urls { encrypt: url("encrypt")?, decrypt: url("decrypt")?, rewrap: url("rewrap")? })
    }

    fn login_urls(&self, address: &Address) -> Result<login::Urls, VaultTransitError> {
        let what = "the login's mount is no path of letters, digits, - _ and .";
        let mount = self.auth.as_ref().and_then(VaultAuth::mount);
        let mount = mount.map(|mount| check_path(mount, what)).transpose()?;
        let login = mount.map(|mount| address.api(&format!("auth/{mount}/login"))).transpose()?;
        let (look_up, renew) =
            (address.api("auth/token/lookup-self")?, address.api("auth/token/renew-self")?);
        Ok(login::Urls { login, look_up, renew })
    }

    fn namespace_header(&self) -> Result<Option<HeaderValue>, VaultTransitError> {
        let what = "the namespace is no path of letters, digits, - _ and .";
        let Some(namespace) = &self.namespace else { return Ok(None) };
        let namespace = check_path(namespace, what)?;
        HeaderValue::try_from(namespace).map(Some).map_err(|_invalid| VaultTransitError::Config(what))
    }
}

impl fmt::Debug for VaultTransitKmsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the address: it is not checked yet, and may hold a password.
        f.debug_struct("VaultTransitKmsBuilder")
            .field("mount", &self.mount)
            .field("key", &self.key)
            .field("auth", &self.auth)
            .finish_non_exhaustive()
    }
}

/// Trusts the file's certificates alone, or else the system's. Plain HTTP trusts none.
fn tls(is_https: bool, ca_file: Option<&Path>) -> Result<ClientConfig, VaultTransitError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| VaultTransitError::Tls(error.into()))?;
    let builder = match ca_file {
        Some(path) => builder.with_root_certificates(read_roots(path)?),
        None if is_https => {
            builder.with_native_roots().map_err(|error| VaultTransitError::Tls(error.into()))?
        }
        None => builder.with_root_certificates(RootCertStore::empty()),
    };
    Ok(builder.with_no_client_auth())
}

fn read_roots(path: &Path) -> Result<RootCertStore, VaultTransitError> {
    let file = |source: io::Error| VaultTransitError::File { path: path.to_owned(), source };
    let content = || VaultTransitError::Content { path: path.to_owned(), what: "certificates in PEM" };
    let pem = fs::read(path).map_err(file)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|_malformed| content())?;
        roots.add(certificate).map_err(|_malformed| content())?;
    }
    if roots.is_empty() { Err(content()) } else { Ok(roots) }
}
