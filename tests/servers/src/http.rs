//! What speaks AWS's protocols: dynalite for DynamoDB, moto for that and KMS.

use std::env;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::program::{self, find, mortal};
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
    /// Starts one. Tables are made and deleted at once.
    #[must_use]
    pub fn start() -> Self {
        let program = program("dynalite", "CLAVIGER_DYNALITE_BIN", "node_modules/.bin");
        let folder = scratch::folder("dynalite");
        let data = folder.path().join("data");
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
}

impl Moto {
    /// Starts one.
    #[must_use]
    pub fn start() -> Self {
        let program = program("moto_server", "CLAVIGER_MOTO_BIN", "moto/bin");
        let folder = scratch::folder("moto");
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

/// The variable names the program itself.
fn program(name: &str, variable: &str, tools_folder: &str) -> PathBuf {
    let named = env::var_os(variable).map(PathBuf::from);
    let usual = [program::tools().join(tools_folder)];
    named
        .or_else(|| find(name, "", &usual))
        .filter(|program: &PathBuf| Path::is_file(program))
        .unwrap_or_else(|| program::missing(name))
}
