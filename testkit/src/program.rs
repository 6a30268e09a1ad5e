//! Programs: where they are, as whom they run, and that they die with us.

use std::env;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc::{self, Sender, SyncSender};
use std::sync::{LazyLock, OnceLock};
use std::{fs, io, thread};

/// Finds a program in the folder that `variable` names, or without it in `folders` or on `PATH`.
pub(crate) fn find(name: &str, variable: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    let program_in = |folder: &Path| Some(folder.join(name)).filter(|program| program.is_file());
    match env::var_os(variable) {
        Some(folder) => program_in(Path::new(&folder)),
        None => folders.iter().find_map(|folder| program_in(folder)).or_else(|| find_on_path(name)),
    }
}

pub(crate) fn find_on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// Where `cargo xtask test` installs tools to.
pub(crate) fn tools() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target")).join("tools")
}

/// Says how to get what is missing.
pub(crate) fn missing(what: &str) -> ! {
    panic!("{what} is missing: run `cargo xtask test`, which installs it")
}

/// The user and group that servers run as, if we are root, whom Postgres refuses to run as.
pub(crate) fn server_user() -> Option<(u32, u32)> {
    static USER: OnceLock<Option<(u32, u32)>> = OnceLock::new();
    *USER.get_or_init(|| {
        let is_root = rustix::process::geteuid().is_root();
        is_root.then(|| {
            let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
            users.lines().find_map(nobody).unwrap_or_else(|| panic!("/etc/passwd has no user nobody"))
        })
    })
}

fn nobody(line: &str) -> Option<(u32, u32)> {
    let mut fields = line.strip_prefix("nobody:")?.split(':').skip(1);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// Returns a command that is killed when the thread ends that starts it, however that ends.
#[must_use]
pub fn mortal(program: &Path) -> Command {
    setpriv(&[], program)
}

/// The same, as the servers' user.
pub(crate) fn unprivileged(program: &Path) -> Command {
    let user = server_user()
        .map(|(uid, gid)| [format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".to_owned()]);
    setpriv(user.as_ref().map_or(&[], |user| &user[..]), program)
}

fn setpriv(options: &[String], program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(options).args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

type Order = (Command, SyncSender<io::Result<Child>>);

/// Starts a program from a thread that lives as long as the process: `pdeathsig` follows the
/// *thread* that started it, and a test's ends with the test.
pub(crate) fn spawn(command: Command) -> Child {
    static SPAWNER: LazyLock<Sender<Order>> = LazyLock::new(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        let work = move || {
            for (mut command, answer) in inbox {
                // The caller waits for it.
                drop(answer.send(command.spawn()));
            }
        };
        thread::Builder::new().name("servers".into()).spawn(work).unwrap();
        orders
    });
    let name = format!("{:?}", command.get_program());
    let (answer, child) = mpsc::sync_channel(1);
    SPAWNER.send((command, answer)).unwrap();
    child.recv().unwrap().unwrap_or_else(|error| {
        panic!("{name} cannot be started: {error} (setpriv is in Debian's package util-linux)")
    })
}

/// Runs it to its end with `input`, and returns what it wrote; panics with what it wrote if it
/// failed.
pub(crate) fn run(mut command: Command, input: &[u8]) -> String {
    // Files, not pipes: nobody has to read one while the other is written.
    let file = || tempfile::tempfile().unwrap();
    let (mut stdin, mut stdout, mut stderr) = (file(), file(), file());
    stdin.write_all(input).unwrap();
    stdin.rewind().unwrap();
    command.stdin(stdin);
    command.stdout(stdout.try_clone().unwrap()).stderr(stderr.try_clone().unwrap());
    let name = format!("{:?} {:?}", command.get_program(), command.get_args().collect::<Vec<_>>());
    let status = spawn(command).wait().unwrap();
    let read = |file: &mut fs::File| {
        let mut text = Vec::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).trim_end().to_owned()
    };
    let output = read(&mut stdout);
    assert!(status.success(), "{name}: {status}\n{output}\n{}", read(&mut stderr));
    output
}
