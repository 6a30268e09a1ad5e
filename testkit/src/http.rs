//! What speaks AWS's protocols: dynalite for DynamoDB, moto for that and KMS, LocalStack for KMS as
//! faithfully as can be had.

use std::env;
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::program::{self, find_on_path, mortal};
use crate::scratch;
use crate::server::Server;

/// A DynamoDB of npm's `dynalite`. Its tables outlive its death.
#[derive(Debug)]
pub struct Dynalite {
    server: Server,
    _folder: TempDir,
}

/// DynamoDB and KMS of pip's `moto`. It forgets everything when it dies.
#[derive(Debug)]
pub struct Moto {
    server: Server,
    _folder: TempDir,
}

/// KMS of pip's `localstack-core`: keys that are disabled, pending deletion or another's are refused
/// as AWS refuses them, which moto does not do. It forgets everything when it dies.
#[derive(Debug)]
pub struct LocalStack {
    server: Server,
    _folder: TempDir,
}

impl Dynalite {
    /// The version that `cargo xtask test` installs.
    pub const VERSION: &str = "4.0.0";

    /// Starts one. Tables are made and deleted at once.
    #[must_use]
    pub fn start() -> Self {
        Self::start_program(&program("dynalite", "CLAVIGER_DYNALITE_BIN", Self::program_in))
    }

    /// Starts the one that is installed as `program`.
    #[must_use]
    pub fn start_program(program: &Path) -> Self {
        let folder = scratch::folder("dynalite");
        let (program, data) = (program.to_owned(), folder.path().join("data"));
        let launch = move |port: u16| {
            let mut command = mortal(&program);
            command.args(["--host", "127.0.0.1", "--port", &port.to_string(), "--path"]).arg(&data);
            command.args(["--createTableMs", "0", "--deleteTableMs", "0", "--updateTableMs", "0"]);
            command
        };
        // Another's server may answer on the port, so its own word is wanted, too.
        let is_ready = |port: u16, log: &str| log.contains("listening at") && answers(port);
        let server = Server::start("dynalite", folder.path(), launch, is_ready);
        Self { server, _folder: folder }
    }

    /// Where it is in a folder of tools. The version is part of the path, so that a new one finds
    /// no old one.
    #[must_use]
    pub fn program_in(tools: &Path) -> PathBuf {
        tools.join(format!("dynalite-{}/node_modules/.bin/dynalite", Self::VERSION))
    }
}

impl Moto {
    /// The version that `cargo xtask test` installs.
    pub const VERSION: &str = "5.2.1";

    /// Starts one.
    #[must_use]
    pub fn start() -> Self {
        Self::start_program(&program("moto_server", "CLAVIGER_MOTO_BIN", Self::program_in))
    }

    /// Starts the one that is installed as `program`.
    #[must_use]
    pub fn start_program(program: &Path) -> Self {
        let folder = scratch::folder("moto");
        let program = program.to_owned();
        let launch = move |port: u16| {
            let mut command = mortal(&program);
            command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
            // What it prints reaches the log at once.
            command.env("PYTHONUNBUFFERED", "1");
            command
        };
        let is_ready = |port: u16, log: &str| log.contains("Running on") && answers(port);
        let server = Server::start("moto", folder.path(), launch, is_ready);
        Self { server, _folder: folder }
    }

    /// Where it is in a folder of tools.
    #[must_use]
    pub fn program_in(tools: &Path) -> PathBuf {
        tools.join(format!("moto-{}/bin/moto_server", Self::VERSION))
    }
}

impl LocalStack {
    /// The version that `cargo xtask test` installs.
    pub const VERSION: &str = "4.13.1";

    /// Starts one.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with variables of its configuration.
    #[must_use]
    pub fn start_with(variables: &[(&str, &str)]) -> Self {
        Self::start_configured(&Self::python(), variables)
    }

    /// Returns the Python that it is a package of; boto3 and cryptography are others.
    #[must_use]
    pub fn python() -> PathBuf {
        let python = installed("CLAVIGER_LOCALSTACK_PYTHON", Self::program_in);
        python.unwrap_or_else(|| program::missing("LocalStack"))
    }

    /// Starts the one that is among the packages of a Python.
    #[must_use]
    pub fn start_program(python: &Path) -> Self {
        Self::start_configured(python, &[])
    }

    fn start_configured(python: &Path, variables: &[(&str, &str)]) -> Self {
        let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        let variables: Vec<_> = variables.iter().map(owned).collect();
        let folder = scratch::folder("localstack");
        let (python, own) = (python.to_owned(), folder.path().to_owned());
        let launch = move |port: u16| {
            let mut command = mortal(&python);
            command.args(["-m", "localstack.runtime.main"]).current_dir(&own).env("HOME", &own);
            // In a container it would write to the system's folders, which others share.
            command.env("OVERRIDE_IN_DOCKER", "0").env("FILESYSTEM_ROOT", own.join("files"));
            // Its default server listens to the whole network.
            command.env("GATEWAY_SERVER", "hypercorn").env("GATEWAY_LISTEN", format!("127.0.0.1:{port}"));
            command.env("SERVICES", "kms").env("DNS_ADDRESS", "0");
            // It asks nobody for anything, and tells nobody that it was started.
            command.env("SKIP_SSL_CERT_DOWNLOAD", "1").env("DISABLE_EVENTS", "1");
            command.env("PYTHONUNBUFFERED", "1").envs(variables.iter().cloned());
            command
        };
        // It loads its KMS for the first who asks, which takes longer than tests wait for an answer.
        let is_ready = |port: u16, log: &str| log.contains("Running on") && says(port, LIST_KEYS, "\"Keys\"");
        let server = Server::start("LocalStack", folder.path(), launch, is_ready);
        Self { server, _folder: folder }
    }

    /// Where the Python with its packages is in a folder of tools.
    #[must_use]
    pub fn program_in(tools: &Path) -> PathBuf {
        tools.join(format!("localstack-{}/bin/python", Self::VERSION))
    }
}

macro_rules! http_server {
    ($name:ident) => {
        impl $name {
            /// Returns where it is: `http://127.0.0.1:PORT`.
            #[must_use]
            pub fn endpoint(&self) -> String {
                format!("http://127.0.0.1:{}", self.server.port())
            }

            /// Kills it, in whatever it does.
            pub fn kill(&mut self) {
                self.server.kill();
            }

            /// Starts it again on the same port.
            pub fn restart(&mut self) {
                self.server.restart();
            }
        }
    };
}
http_server!(Dynalite);
http_server!(Moto);
http_server!(LocalStack);

/// The least that a KMS answers something to.
const LIST_KEYS: &str = "POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
    X-Amz-Target: TrentService.ListKeys\r\nContent-Type: application/x-amz-json-1.1\r\n\
    Content-Length: 2\r\n\r\n{}";

/// How long one answer may take: a server that is asked while it starts may never answer that.
const ANSWER_MAX: Duration = Duration::from_secs(20);

fn answers(port: u16) -> bool {
    says(port, "GET / HTTP/1.0\r\n\r\n", "HTTP/")
}

/// Returns `true` if the answer to a request holds something.
fn says(port: u16, request: &str, something: &str) -> bool {
    let ask = || -> io::Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        stream.write_all(request.as_bytes())?;
        io::read_to_string(stream)
    };
    ask().is_ok_and(|answer| answer.contains(something))
}

/// Finds what the variable names, else what is among the tools, else what is on `PATH`.
fn program(name: &str, variable: &str, among: impl Fn(&Path) -> PathBuf) -> PathBuf {
    let program = installed(variable, among).or_else(|| find_on_path(name));
    program.unwrap_or_else(|| program::missing(name))
}

fn installed(variable: &str, among: impl Fn(&Path) -> PathBuf) -> Option<PathBuf> {
    let named = env::var_os(variable).map(PathBuf::from);
    [named, Some(among(&program::tools()))].into_iter().flatten().find(|program| program.is_file())
}
