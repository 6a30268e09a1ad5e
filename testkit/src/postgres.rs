//! PostgreSQL.

mod standby;

use std::cmp::Reverse;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::port;
use crate::program::{self, find, unprivileged};
use crate::scratch::Place;
use crate::server::Server;

/// A PostgreSQL server with the superuser `postgres`, who needs a password.
///
/// It does not sync to disk: what it answered outlives its own death, not the machine's.
#[derive(Debug)]
pub struct Postgres {
    server: Server,
    bin: PathBuf,
    password: String,
    settings: Vec<String>,
    place: Place,
}

impl Postgres {
    /// Returns `true` if there is a PostgreSQL on this machine.
    #[must_use]
    pub fn is_installed() -> bool {
        bin().is_some()
    }

    /// Starts one.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with settings as in `postgresql.conf`.
    #[must_use]
    pub fn start_with(settings: &[(&str, &str)]) -> Self {
        Self::start_at(Place::new("postgres"), settings)
    }

    /// Starts one whose data are on a disk of its own, of so many mebibytes. It takes root.
    #[must_use]
    pub fn start_on_small_disk(mebibytes: u32) -> Self {
        Self::start_at(Place::on_small_disk("postgres", mebibytes), &[])
    }

    /// Fills the small disk but for so many bytes.
    pub fn fill_disk(&self, left: u64) {
        self.place.fill(left);
    }

    /// Makes room again after [`fill_disk`](Self::fill_disk).
    pub fn free_disk(&self) {
        self.place.free();
    }

    fn start_at(place: Place, settings: &[(&str, &str)]) -> Self {
        let bin = bin().unwrap_or_else(|| program::missing("PostgreSQL"));
        let data = place.path().join("data");
        let password = port::password();
        initialise(&bin, place.path(), &data, &password);
        // Of a setting given twice the later one holds.
        let settings = ALWAYS.iter().chain(settings).map(|(name, value)| format!("{name}={value}")).collect();
        Self::start_on_data(place, bin, password, settings)
    }

    /// Starts it on the data that its place has.
    fn start_on_data(place: Place, bin: PathBuf, password: String, settings: Vec<String>) -> Self {
        let data = place.path().join("data");
        let program = bin.join("postgres");
        let arguments = settings.clone();
        let launch = move |port: u16| {
            let mut command = unprivileged(&program);
            command.arg("-D").arg(&data).args(["-p", &port.to_string()]);
            command.args(arguments.iter().flat_map(|setting| ["-c", setting]));
            command
        };
        let is_ready_program = bin.join("pg_isready");
        let is_ready = move |port: u16, _: &str| {
            let mut command = Command::new(&is_ready_program);
            command.args(["--quiet", "--host=127.0.0.1", &format!("--port={port}")]);
            command.status().is_ok_and(|status| status.success())
        };
        let server = Server::start("PostgreSQL", place.path(), launch, is_ready);
        Self { server, bin, password, settings, place }
    }

    /// Returns the superuser's URL of a database.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres:{}@127.0.0.1:{}/{database}", self.password, self.port())
    }

    /// Returns the port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.server.port()
    }

    /// Returns the folder of its programs.
    pub(crate) fn bin(&self) -> &Path {
        &self.bin
    }

    pub(crate) fn password(&self) -> &str {
        &self.password
    }

    /// Kills all its processes at once, in whatever they do.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Starts it again on the same port and data.
    pub fn restart(&mut self) {
        self.server.restart();
    }

    /// Stops all its processes where they are: it answers nothing, and no socket of it is closed.
    ///
    /// The system goes on accepting connections for it, so that a client waits and is not refused.
    pub fn pause(&self) {
        self.server.pause();
    }

    /// Lets it go on after [`pause`](Self::pause).
    pub fn resume(&self) {
        self.server.resume();
    }

    /// Changes a setting as `ALTER SYSTEM` does, and waits until it is in force.
    ///
    /// It must be one that needs no restart and that the server was not started with. A standby made
    /// from now on begins with it, too.
    pub fn set(&self, name: &str, value: &str) {
        let loaded = || self.psql("postgres", "SELECT pg_conf_load_time()");
        let before = loaded();
        let value = value.replace('\'', "''");
        self.psql("postgres", &format!("ALTER SYSTEM SET {name} = '{value}';\nSELECT pg_reload_conf()"));
        wait_until("a setting is read", || loaded() != before);
        let is_set = format!(
            "SELECT NOT pending_restart AND sourcefile LIKE '%.auto.conf' FROM pg_settings \
             WHERE name = lower('{name}')"
        );
        assert_eq!(self.psql("postgres", &is_set), "t", "{name} is not in force");
        // Synchronous replication is switched on and off by the process that makes checkpoints: it
        // reads the settings before it makes this one.
        self.psql("postgres", "CHECKPOINT");
    }

    /// Runs SQL as superuser and returns what it brought: a line per row, `|` between columns.
    pub fn psql(&self, database: &str, sql: &str) -> String {
        psql(&self.bin, self.port(), &self.password, database, sql)
    }

    /// Creates an empty database.
    pub fn create_database(&self, name: &str) {
        self.psql("postgres", &format!("CREATE DATABASE \"{name}\""));
    }
}

/// For all servers.
const ALWAYS: [(&str, &str); 6] = [
    ("listen_addresses", "127.0.0.1"),
    ("unix_socket_directories", ""),
    ("fsync", "off"),
    ("timezone", "UTC"),
    ("max_connections", "200"),
    // A standby whose primary was down would look again every five seconds only.
    ("wal_retrieve_retry_interval", "100ms"),
];

/// How long a server may take to do as it was told, on the slowest machine.
const WAIT_MAX: Duration = Duration::from_secs(60);

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < WAIT_MAX, "PostgreSQL: not within {WAIT_MAX:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Runs SQL as the superuser of whatever listens on the port.
pub(crate) fn psql(bin: &Path, port: u16, password: &str, database: &str, sql: &str) -> String {
    let mut psql = Command::new(bin.join("psql"));
    psql.args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1"]);
    psql.args(["--host=127.0.0.1", "--username=postgres", &format!("--dbname={database}")]);
    psql.arg(format!("--port={port}")).env("PGPASSWORD", password);
    program::run(psql, sql.as_bytes())
}

/// Makes an empty data folder.
fn initialise(bin: &Path, folder: &Path, data: &Path, password: &str) {
    let password_file = folder.join("password");
    fs::write(&password_file, password).unwrap();
    let mut initdb = unprivileged(&bin.join("initdb"));
    initdb.args(["--no-sync", "--username=postgres", "--encoding=UTF8", "--locale=C"]);
    initdb.args(["--auth=scram-sha-256", "--no-instructions"]);
    initdb.arg(format!("--pwfile={}", password_file.display())).arg(data);
    program::run(initdb, b"");
}

/// The folder of the programs, of the latest version there is.
fn bin() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut bins: Vec<_> = versions.map(|version| version.path().join("bin")).collect();
    let number = |bin: &PathBuf| -> Option<u32> { bin.parent()?.file_name()?.to_str()?.parse().ok() };
    bins.sort_by_key(|bin| Reverse(number(bin)));
    Some(find("postgres", "CLAVIGER_POSTGRES_BIN", &bins)?.parent()?.to_owned())
}
