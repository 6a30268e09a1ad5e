//! Certificates that the program `openssl` makes.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;

use crate::program::{find_on_path, missing};
use crate::scratch;

/// A certificate authority that nobody trusts but who is told to.
#[derive(Debug)]
pub struct TestCa {
    folder: TempDir,
}

/// A server's certificate and its key.
pub struct TestCertificate {
    certificate: PathBuf,
    key: PathBuf,
}

impl TestCa {
    /// Makes one.
    #[must_use]
    pub fn new() -> Self {
        let folder = scratch::folder("ca");
        let (certificate, key) = (folder.path().join("ca.crt"), folder.path().join("ca.key"));
        let mut openssl = request("/CN=claviger test CA", &key);
        openssl.args(["-x509", "-days", "2", "-addext", "keyUsage=critical,keyCertSign"]);
        run(openssl.arg("-out").arg(&certificate));
        Self { folder }
    }

    /// Returns where its certificate is, in PEM.
    #[must_use]
    pub fn pem(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    /// Makes a certificate for a server of this name: `IP:127.0.0.1`, `DNS:localhost`.
    #[must_use]
    pub fn issue(&self, name: &str) -> TestCertificate {
        let folder = self.folder.path();
        let file = |kind: &str| folder.join(format!("{}.{kind}", name.replace(':', "-")));
        let (certificate, key, csr, extensions) = (file("crt"), file("key"), file("csr"), file("ext"));
        run(request("/CN=server", &key).arg("-out").arg(&csr));
        fs::write(&extensions, format!("subjectAltName={name}\nbasicConstraints=critical,CA:FALSE\n"))
            .unwrap();
        let mut sign = openssl(&["x509", "-req", "-days", "2", "-CAcreateserial"]);
        let paths: [(&str, &Path); 5] = [
            ("-in", &csr),
            ("-CA", &self.pem()),
            ("-CAkey", &folder.join("ca.key")),
            ("-extfile", &extensions),
            ("-out", &certificate),
        ];
        for (option, path) in paths {
            sign.arg(option).arg(path);
        }
        run(&mut sign);
        TestCertificate { certificate, key }
    }
}

impl Default for TestCa {
    fn default() -> Self {
        Self::new()
    }
}

impl TestCertificate {
    pub(crate) fn server_config(&self) -> Arc<ServerConfig> {
        let chain = vec![CertificateDer::from_pem_file(&self.certificate).unwrap()];
        let key = PrivateKeyDer::from_pem_file(&self.key).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        Arc::new(builder.unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap())
    }
}

impl fmt::Debug for TestCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestCertificate").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

fn request(subject: &str, key: &Path) -> Command {
    let mut command = openssl(&["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
    command.args(["-subj", subject, "-keyout"]).arg(key);
    command
}

fn openssl(arguments: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new(find_on_path("openssl").unwrap_or_else(|| missing("openssl")));
    command.args(arguments);
    command
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
