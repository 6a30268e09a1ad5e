//! MariaDB.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::program::{self, find, unprivileged};
use crate::scratch::Place;
use crate::server::Server;
use crate::{port, scratch};

/// A MariaDB server with the user `claviger`, who has a password and every right.
///
/// It reads no option file of the machine. It does not sync to disk: what it answered outlives its
/// own death, not the machine's.
#[derive(Debug)]
pub struct MariaDb {
    server: Server,
    client: PathBuf,
    socket: PathBuf,
    password: String,
    place: Place,
}

impl MariaDb {
    /// Returns `true` if there is a MariaDB on this machine, with its clients and the time zones.
    #[must_use]
    pub fn is_installed() -> bool {
        PROGRAMS.iter().all(|name| find_program(name).is_some()) && Path::new(ZONES).is_dir()
    }

    /// Starts one.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with arguments of `mariadbd`.
    #[must_use]
    pub fn start_with(args: &[&str]) -> Self {
        Self::start_in("UTC", args)
    }

    /// Starts one with arguments, as on a machine in a time zone: the one it calls `SYSTEM`.
    #[must_use]
    pub fn start_in(system_zone: &str, args: &[&str]) -> Self {
        Self::start_at(Place::new("mariadb"), system_zone, args)
    }

    /// Starts one whose data are on a disk of its own, of so many mebibytes. It takes root.
    #[must_use]
    pub fn start_on_small_disk(mebibytes: u32) -> Self {
        Self::start_at(Place::on_small_disk("mariadb", mebibytes), "UTC", &[])
    }

    /// Fills the small disk but for so many bytes.
    pub fn fill_disk(&self, left: u64) {
        self.place.fill(left);
    }

    /// Makes room again after [`fill_disk`](Self::fill_disk).
    pub fn free_disk(&self) {
        self.place.free();
    }

    pub(crate) fn start_at(place: Place, system_zone: &str, args: &[&str]) -> Self {
        copy_data(&Self::empty_data(), &place);
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        let mariadb = Self::start_on_data(place, port::password(), system_zone, args, |_| Vec::new());
        mariadb.sql(
            "",
            &format!(
                "CREATE USER claviger@127.0.0.1 IDENTIFIED BY '{}'; \
                 GRANT ALL ON *.* TO claviger@127.0.0.1 WITH GRANT OPTION",
                mariadb.password
            ),
        );
        mariadb
    }

    /// Starts one on the data that its place has, whose user has this password. Each time it is about
    /// to be started `further` is given the command, and says what arguments it needs besides.
    pub(crate) fn start_on_data(
        place: Place,
        password: String,
        system_zone: &str,
        args: Vec<String>,
        further: impl Fn(Command) -> Vec<String> + Send + Sync + 'static,
    ) -> Self {
        let socket = place.path().join("socket");
        let client = program("mariadb");
        let launch = {
            let (program, socket) = (program("mariadbd"), socket.clone());
            let (data, own) = (data_in(&place), place.path().to_owned());
            let system_zone = system_zone.to_owned();
            let command = move |port: u16| {
                let mut command = server_in(&own, &program);
                command.env("TZ", &system_zone);
                command.args(["--no-defaults", "--skip-name-resolve", "--bind-address=127.0.0.1"]);
                command.arg(format!("--port={port}")).arg(format!("--socket={}", socket.display()));
                command.arg(format!("--datadir={}", data.display()));
                command.args(ALWAYS).args(&args);
                command
            };
            move |port: u16| {
                let further = further(command(port));
                let mut command = command(port);
                command.args(further);
                command
            }
        };
        let is_ready = {
            let (client, socket) = (client.clone(), socket.clone());
            move |_: u16, _: &str| {
                // The program `mariadb` takes longer to start than the server to listen.
                std::os::unix::net::UnixStream::connect(&socket).is_ok()
                    && as_root(&client, &socket)
                        .arg("--execute=DO 0")
                        .output()
                        .is_ok_and(|output| output.status.success())
            }
        };
        let server = Server::start("MariaDB", place.path(), launch, is_ready);
        Self { server, client, socket, password, place }
    }

    /// Returns a data folder with the system's tables and the time zones, which each server begins
    /// with a copy of: making one takes seconds.
    #[must_use]
    pub fn empty_data() -> PathBuf {
        static DATA: OnceLock<TempDir> = OnceLock::new();
        if let Some(data) = env::var_os("CLAVIGER_MARIADB_EMPTY") {
            return data.into();
        }
        let folder = DATA.get_or_init(|| {
            let folder = scratch::folder("mariadb-empty");
            let datadir = format!("--datadir={}", folder.path().join("data").display());
            let mut install = server_in(folder.path(), &program("mariadb-install-db"));
            // Whoever reaches the socket, which is in a folder of ours, may be root.
            install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
            program::run(with(install, &datadir), b"");
            let mut zones = Command::new(program("mariadb-tzinfo-to-sql"));
            zones.arg(ZONES);
            let zones = format!("USE mysql;\n{}", program::run(zones, b""));
            let mut bootstrap = server_in(folder.path(), &program("mariadbd"));
            bootstrap.args(["--no-defaults", "--bootstrap"]).args(ALWAYS);
            program::run(with(bootstrap, &datadir), zones.as_bytes());
            folder
        });
        folder.path().join("data")
    }

    /// Returns the URL of a database, without the last part if it is empty.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("mysql://claviger:{}@127.0.0.1:{}/{database}", self.password, self.port())
    }

    /// Returns the port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.server.port()
    }

    /// Kills it, in whatever it does.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Starts it again on the same port and data.
    pub fn restart(&mut self) {
        self.server.restart();
    }

    /// Stops it where it is: it answers nothing, and no socket of it is closed.
    ///
    /// The system goes on accepting connections for it, so that a client waits and is not refused.
    pub fn pause(&self) {
        self.server.pause();
    }

    /// Lets it go on after [`pause`](Self::pause).
    pub fn resume(&self) {
        self.server.resume();
    }

    /// Returns `true` if it was started, and neither killed nor paused since.
    pub(crate) fn answers(&self) -> bool {
        self.server.answers()
    }

    /// Has it end in good order, and returns its data.
    pub(crate) fn shut_down(&mut self) -> PathBuf {
        self.sql("", "SHUTDOWN");
        self.server.wait_until_ended();
        data_in(&self.place)
    }

    pub(crate) fn password(&self) -> &str {
        &self.password
    }

    /// Runs SQL as root, in no database if it is empty, and returns what it brought: a line per row,
    /// a tab between columns.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        let mut client = as_root(&self.client, &self.socket);
        client.args(["--batch", "--skip-column-names", "--raw"]).arg(format!("--database={database}"));
        program::run(client, sql.as_bytes())
    }

    /// Creates an empty database, with a character set and collation as in
    /// `latin1 COLLATE latin1_swedish_ci`.
    pub fn create_database(&self, name: &str, charset_and_collation: &str) {
        self.sql("", &format!("CREATE DATABASE `{name}` CHARACTER SET {charset_and_collation}"));
    }
}

const PROGRAMS: [&str; 4] = ["mariadbd", "mariadb", "mariadb-install-db", "mariadb-tzinfo-to-sql"];
const ZONES: &str = "/usr/share/zoneinfo";

/// For all servers. To it a commit is durable, and no file is ever synced.
const ALWAYS: &[&str] = &["--innodb-flush-method=nosync", "--innodb-log-file-size=8M", "--log-warnings=1"];

/// Where a server whose place this is has its data.
pub(crate) fn data_in(place: &Place) -> PathBuf {
    place.path().join("data")
}

pub(crate) fn copy_data(from: &Path, place: &Place) {
    let mut copy = unprivileged(Path::new("cp"));
    // Without holes, for which a full disk has no room.
    copy.args(["--archive", "--sparse=never"]).arg(from).arg(data_in(place));
    program::run(copy, b"");
}

/// A server that keeps temporary files in a folder of its own: one that starts removes those that it
/// finds in the common one, another's too.
fn server_in(folder: &Path, program: &Path) -> Command {
    let mut command = unprivileged(program);
    command.env("TMPDIR", folder);
    command
}

fn as_root(client: &Path, socket: &Path) -> Command {
    let mut command = Command::new(client);
    command.args(["--no-defaults", "--user=root", "--default-character-set=utf8mb4"]);
    command.arg(format!("--socket={}", socket.display()));
    command
}

fn with(mut command: Command, argument: &str) -> Command {
    command.arg(argument);
    command
}

fn program(name: &str) -> PathBuf {
    find_program(name).unwrap_or_else(|| program::missing("MariaDB"))
}

fn find_program(name: &str) -> Option<PathBuf> {
    let usual = ["/usr/sbin", "/usr/bin", "/usr/local/sbin"].map(PathBuf::from);
    find(name, "CLAVIGER_MARIADB_BIN", &usual)
}
