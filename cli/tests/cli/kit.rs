//! A folder of its own for each test, and the binary run in it.

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

pub(crate) const CLAVIGER: &str = env!("CARGO_BIN_EXE_claviger");

pub(crate) struct Kit {
    folder: tempfile::TempDir,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Kit {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    /// What is in the folder besides the keys.
    pub(crate) fn files(&self) -> Vec<String> {
        list(self.folder.path()).into_iter().filter(|name| name != "home").collect()
    }

    /// A program in the folder, with none of the caller's settings and the keys in `home`.
    pub(crate) fn program(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        for name in std::env::vars_os().map(|(name, _)| name) {
            if name.to_string_lossy().starts_with("CLAVIGER_") {
                command.env_remove(name);
            }
        }
        command.env("CLAVIGER_HOME", self.path("home"));
        command
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.program(CLAVIGER);
        command.args(arguments);
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        finish(&mut self.command(arguments))
    }

    /// Runs and requires success.
    pub(crate) fn ok(&self, arguments: &[&str]) -> Run {
        let run = self.run(arguments);
        assert_eq!(run.code, Some(0), "{arguments:?}: {}", run.stderr);
        run
    }

    /// Runs and requires a failure with this code and one sentence on standard error.
    pub(crate) fn fails(&self, code: i32, arguments: &[&str]) -> Run {
        let run = self.run(arguments);
        run.assert_failed(code);
        run
    }

    pub(crate) fn pipe(&self, arguments: &[&str], input: &[u8]) -> Run {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_owned();
        // A run that fails early closes its end; what it did is in its output.
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        output.into()
    }
}

impl Run {
    pub(crate) fn assert_failed(&self, code: i32) {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        // That keys were made is told before, and true whatever comes after.
        let mut lines = self.stderr.lines().filter(|line| !line.starts_with("claviger: made "));
        assert!(lines.next().is_some_and(|line| line.starts_with("claviger: ")), "{}", self.stderr);
        assert_eq!(lines.next(), None, "one sentence: {}", self.stderr);
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        let stderr = String::from_utf8(output.stderr).unwrap();
        Self { code: output.status.code(), stdout: output.stdout, stderr }
    }
}

pub(crate) fn finish(command: &mut Command) -> Run {
    command.output().unwrap().into()
}

pub(crate) fn list(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

pub(crate) fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap().split_whitespace().nth(1) == Some("0")
}

/// Runs the binary with a file system of its own, which `mount` mounts on `$D`, and returns what is
/// left in it on standard output behind the run's own.
pub(crate) fn with_mount(kit: &Kit, mount: &str, folder: &Path, arguments: &[&str]) -> Run {
    let script = format!(
        "D=\"$1\"; shift; {mount} || {{ echo 'cannot mount' >&2; exit 99; }}; \"$@\"; code=$?; ls -A \"$D\"; exit $code"
    );
    let mut command = kit.program("unshare");
    if !is_root() {
        command.arg("--map-root-user");
    }
    command.args(["--mount", "sh", "-c", &script, "sh"]).arg(folder).arg(CLAVIGER).args(arguments);
    let run = finish(&mut command);
    assert_ne!(
        run.code,
        Some(99),
        "this test must mount file systems: run it as root or allow user namespaces"
    );
    run
}

/// Runs the binary so that file modes bind it, which root ignores.
pub(crate) fn bound_by_modes(kit: &Kit, arguments: &[impl AsRef<OsStr>]) -> Run {
    finish(without(kit, "-dac_override,-dac_read_search", CLAVIGER).args(arguments))
}

/// Runs the binary so that it can lock no memory.
pub(crate) fn without_locking(kit: &Kit, arguments: &[impl AsRef<OsStr>]) -> Run {
    let mut command = without(kit, "-ipc_lock", "sh");
    finish(command.args(["-c", "ulimit -l 0 && exec \"$@\"", "sh", CLAVIGER]).args(arguments))
}

/// A command without these capabilities, which only root has to begin with.
fn without(kit: &Kit, capabilities: &str, program: &str) -> Command {
    if !is_root() {
        return kit.program(program);
    }
    let mut command = kit.program("setpriv");
    command.args(["--bounding-set", capabilities, program]);
    command
}
