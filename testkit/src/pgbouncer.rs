//! PgBouncer.

mod newer;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use tempfile::TempDir;

use crate::program::{self, find, unprivileged};
use crate::scratch;
use crate::server::Server;
use crate::{Postgres, postgres};

/// When PgBouncer takes a connection to the server back from a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "PgBouncer has three")]
pub enum PoolMode {
    /// When the client has closed its own.
    Session,
    /// After each transaction.
    Transaction,
    /// After each statement; it allows no transaction of several.
    Statement,
}

/// A PgBouncer in front of a PostgreSQL. It forwards all databases and knows one user, the superuser
/// with its password.
///
/// Its settings are PgBouncer's own where a test says nothing else.
#[derive(Debug)]
pub struct PgBouncer {
    server: Server,
    upstream: Arc<Upstream>,
    _folder: TempDir,
}

/// What is behind it, and how that is reached.
#[derive(Debug)]
struct Upstream {
    /// Of the server behind it.
    port: AtomicU16,
    bin: PathBuf,
    password: String,
    folder: PathBuf,
    settings: String,
}

impl PgBouncer {
    /// Returns `true` if there is a PgBouncer on this machine.
    #[must_use]
    pub fn is_installed() -> bool {
        find_program().is_some()
    }

    /// Returns `true` if there is one that [`start_newer`](Self::start_newer) can start, on this machine
    /// or in this folder of tools.
    #[must_use]
    pub fn is_newer_installed(tools: &Path) -> bool {
        newer::find(tools).is_some()
    }

    /// Where a newer one is in a folder of tools, unless the machine's is new enough.
    #[must_use]
    pub fn newer_program_in(tools: &Path) -> PathBuf {
        tools.join("pgbouncer-trixie/pgbouncer")
    }

    /// Starts one with settings as in the section `[pgbouncer]` of `pgbouncer.ini`.
    #[must_use]
    pub fn start(upstream: &Postgres, mode: PoolMode, settings: &[(&str, &str)]) -> Self {
        let program = find_program().unwrap_or_else(|| program::missing("PgBouncer"));
        Self::start_program(program, upstream, mode, settings)
    }

    /// The same, of a version that knows `max_prepared_statements`: 1.21 or later.
    #[must_use]
    pub fn start_newer(upstream: &Postgres, mode: PoolMode, settings: &[(&str, &str)]) -> Self {
        Self::start_program(newer::program(), upstream, mode, settings)
    }

    fn start_program(
        program: PathBuf,
        upstream: &Postgres,
        mode: PoolMode,
        settings: &[(&str, &str)],
    ) -> Self {
        let folder = scratch::folder("pgbouncer");
        let mode = match mode {
            PoolMode::Session => "session",
            PoolMode::Transaction => "transaction",
            PoolMode::Statement => "statement",
        };
        let always = [("pool_mode", mode), ("auth_type", "scram-sha-256"), ("admin_users", "postgres")];
        // Of a setting given twice the later one holds.
        let settings =
            always.iter().chain(settings).map(|(name, value)| format!("{name} = {value}\n")).collect();
        let upstream = Arc::new(Upstream {
            port: AtomicU16::new(upstream.port()),
            bin: upstream.bin().to_owned(),
            password: upstream.password().to_owned(),
            folder: folder.path().to_owned(),
            settings,
        });
        fs::write(upstream.users(), format!("\"postgres\" \"{}\"\n", upstream.password)).unwrap();
        let launch = {
            let upstream = upstream.clone();
            move |port: u16| {
                upstream.configure(port);
                let mut command = unprivileged(&program);
                command.arg(upstream.configuration());
                command
            }
        };
        // It says so once it listens.
        let is_ready = |_: u16, log: &str| log.contains("process up");
        let server = Server::start("PgBouncer", folder.path(), launch, is_ready);
        Self { server, upstream, _folder: folder }
    }

    /// Returns the superuser's URL of a database, through it.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres:{}@127.0.0.1:{}/{database}", self.upstream.password, self.port())
    }

    /// Returns the port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.server.port()
    }

    /// Sets which port of loopback it forwards to, that of another server with the same password
    /// (a standby, a proxy), as an operator does after a fail-over.
    ///
    /// New transactions go there in [`PoolMode::Transaction`]; in [`PoolMode::Session`] a client
    /// stays where it is until it is gone.
    pub fn set_upstream(&self, port: u16) {
        self.upstream.port.store(port, Ordering::SeqCst);
        self.upstream.configure(self.port());
        self.admin("RELOAD");
    }

    /// Runs a command of its console (`SHOW SERVERS`, `PAUSE`) and returns what it brought: a line per
    /// row, `|` between columns.
    pub fn admin(&self, command: &str) -> String {
        self.psql("pgbouncer", command)
    }

    /// Runs SQL through it as superuser and returns what it brought: a line per row, `|` between
    /// columns.
    pub fn psql(&self, database: &str, sql: &str) -> String {
        postgres::psql(&self.upstream.bin, self.port(), &self.upstream.password, database, sql)
    }

    /// Kills it, in whatever it does.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Starts it again on the same port, with no connection to the server.
    pub fn restart(&mut self) {
        self.server.restart();
    }

    /// Stops it where it is: it answers nothing, and no socket of it is closed.
    pub fn pause(&self) {
        self.server.pause();
    }

    /// Lets it go on after [`pause`](Self::pause).
    pub fn resume(&self) {
        self.server.resume();
    }
}

impl Upstream {
    fn users(&self) -> PathBuf {
        self.folder.join("users")
    }

    fn configuration(&self) -> PathBuf {
        self.folder.join("pgbouncer.ini")
    }

    fn configure(&self, port: u16) {
        let Self { settings, .. } = self;
        let (users, upstream) = (self.users(), self.port.load(Ordering::SeqCst));
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={upstream}\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_file = {}\n{settings}",
            users.display()
        );
        fs::write(self.configuration(), text).unwrap();
    }
}

fn find_program() -> Option<PathBuf> {
    find("pgbouncer", "CLAVIGER_PGBOUNCER_BIN", &["/usr/sbin"].map(PathBuf::from))
}
