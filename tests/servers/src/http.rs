//! What speaks AWS's protocols: dynalite for DynamoDB, moto for that and KMS.

use std::env;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};

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

fn answers(port: u16) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
        let mut start = [0; 5];
        stream.read_exact(&mut start).ok()?;
        (&start == b"HTTP/").then_some(())
    };
    ask().is_some()
}

/// Finds what the variable names, else what is among the tools, else what is on `PATH`.
fn program(name: &str, variable: &str, among: impl Fn(&Path) -> PathBuf) -> PathBuf {
    let named = env::var_os(variable).map(PathBuf::from);
    let candidates = [named, Some(among(&program::tools()))];
    let is_there = |program: &PathBuf| program.is_file();
    candidates
        .into_iter()
        .flatten()
        .find(is_there)
        .or_else(|| find_on_path(name))
        .unwrap_or_else(|| program::missing(name))
}
