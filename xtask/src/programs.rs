//! Test programs: cargo builds them, and we run them, some at a time.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use serde_json::Value;

use crate::Result;
use crate::process::Process;
use crate::summary::Summary;
use crate::workspace::Workspace;

/// What selects all tests.
pub(crate) const ALL: &[&str] = &["--workspace", "--all-features"];

/// How many run at once. Each runs as many tests at once as there are cores, and servers beside them: two programs
/// on two cores kept each other's calls from their deadlines, and took longer together than one after the other.
const AT_ONCE: usize = 1;

/// The longest, which are begun first, so that none is left for the end.
const LONGEST: &[&str] = &[
    "metastore/tests/faults/main.rs",
    "tests/interop/asherah.rs",
    "metastore/tests/postgres/main.rs",
    "kms/tests/aws/main.rs",
    "kms/tests/drills/main.rs",
    "cli/tests/cli/main.rs",
    "metastore/tests/clusters/main.rs",
    "metastore/tests/dynamodb/main.rs",
    "metastore/tests/mysql/main.rs",
    "tests/isolation/main.rs",
    "tests/requirements/main.rs",
];

/// Builds and runs the tests that cargo's `args` select, doc tests as well.
pub(crate) fn run(
    workspace: &Workspace,
    args: &[&str],
    prepare: impl Fn(Process) -> Process,
) -> Result<Summary> {
    let programs = build(workspace, args)?;
    let mut jobs: Vec<_> = programs
        .iter()
        .map(|program| Job { name: program.name.clone(), process: prepare(program.process(&[])) })
        .collect();
    // A selection of test programs leaves doc tests out, as cargo does.
    let has_doc_tests = workspace.packages.iter().any(|package| {
        package.has_doc_tests && (args.contains(&"--workspace") || args.contains(&&*package.name))
    });
    if has_doc_tests && !args.contains(&"--test") {
        let doc = [&["test", "--doc", "--no-fail-fast"], args].concat();
        jobs.push(Job { name: "doc tests".to_owned(), process: workspace.cargo(&doc) });
    }
    run_jobs(jobs)
}

/// Lists the tests of the workspace, but for doc tests, as test programs do.
pub(crate) fn list(workspace: &Workspace) -> Result<String> {
    build(workspace, ALL)?.iter().map(|program| program.process(&["--list"]).output()).collect()
}

#[derive(Debug, PartialEq, Eq)]
struct Program {
    name: String,
    path: PathBuf,
    /// Its package's, where cargo would run it.
    folder: PathBuf,
}

struct Job {
    name: String,
    process: Process,
}

fn build(workspace: &Workspace, args: &[&str]) -> Result<Vec<Program>> {
    let build = ["test", "--no-run", "--message-format=json-render-diagnostics"];
    let messages = workspace.cargo(&[&build, args].concat()).output()?;
    let mut programs = messages
        .lines()
        .map(|message| Ok(Program::parse(&serde_json::from_str(message)?, &workspace.root)))
        .filter_map(Result::transpose)
        .collect::<Result<Vec<_>>>()?;
    programs.sort_by_key(|program| (program.rank(), program.name.clone()));
    Ok(programs)
}

impl Program {
    /// Reads one message of cargo's; `None` if it is not about a test program.
    fn parse(message: &Value, root: &Path) -> Option<Self> {
        let is_test = message.get("profile")?.get("test")?.as_bool()?;
        let path = message.get("executable")?.as_str().filter(|_| is_test)?;
        let source = Path::new(message.get("target")?.get("src_path")?.as_str()?);
        let folder = Path::new(message.get("manifest_path")?.as_str()?).parent()?;
        let name = source.strip_prefix(root).unwrap_or(source).to_string_lossy().into_owned();
        Some(Self { name, path: path.into(), folder: folder.to_owned() })
    }

    fn process(&self, args: &[&str]) -> Process {
        Process::mortal(&self.path, args).in_folder(&self.folder)
    }

    fn rank(&self) -> usize {
        LONGEST.iter().position(|name| *name == self.name).unwrap_or(LONGEST.len())
    }
}

/// Runs them, some at a time, each with its output in one piece, and names those that failed.
fn run_jobs(jobs: Vec<Job>) -> Result<Summary> {
    let jobs = Mutex::new(jobs.into_iter());
    let work = || {
        let mut summary = Summary::default();
        loop {
            let Some(job) = locked(&jobs).next() else {
                return Ok(summary);
            };
            println!("     Running {}", job.name);
            let (written, status) = job.process.record().map_err(|error| error.to_string())?;
            println!("\n== {}\n{written}", job.name);
            summary += Summary::of(&written).ended(&job.name, status);
        }
    };
    let outcomes: Vec<Result<Summary, String>> = thread::scope(|scope| {
        let lanes: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        let joined = lanes.into_iter().map(|lane| lane.join());
        joined.map(|lane| lane.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    let mut sum = Summary::default();
    for outcome in outcomes {
        sum += outcome?;
    }
    Ok(sum)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};
    use std::time::Duration;
    use std::{env, fs};

    use claviger_testkit::Postgres;
    use serde_json::json;

    use super::*;

    /// What tells a process of the test below which of the two it is, and is in the environment of all that
    /// those start.
    const ROLE: &str = "CLAVIGER_XTASK_KILLED";

    #[test]
    fn whatever_kills_a_run_ends_its_servers_and_those_of_its_tests() {
        let name = "programs::tests::whatever_kills_a_run_ends_its_servers_and_those_of_its_tests";
        let args = ["--exact", name, "--nocapture"];
        let own = env::current_exe().unwrap();
        if let Some(role) = env::var_os(ROLE) {
            let _server = Postgres::start();
            let role = role.into_string().unwrap();
            let Some(file) = role.strip_prefix("run ") else {
                fs::write(role.strip_prefix("test ").unwrap(), "").unwrap();
                loop {
                    thread::park();
                }
            };
            let test = Process::mortal(&own, &args).env(ROLE, format!("test {file}"));
            run_jobs(vec![Job { name: "a test".to_owned(), process: test }]).unwrap();
            return;
        }
        for signal in ["TERM", "INT", "KILL"] {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("started").to_string_lossy().into_owned();
            // Whoever runs us may ignore them.
            let mut run = Command::new("env");
            run.arg("--default-signal=INT,TERM").arg(&own).args(args).env(ROLE, format!("run {file}"));
            let mut run: Child = run.spawn().unwrap();
            wait_until(|| Path::new(&file).exists());
            assert!(processes_with(&file) > 4, "each has servers of its own");
            let kill = Command::new("kill").args([format!("-{signal}"), run.id().to_string()]).status();
            assert!(kill.unwrap().success());
            run.wait().unwrap();
            wait_until(|| processes_with(&file) == 0);
        }
    }

    /// Counts the processes of this machine in whose environment this is.
    fn processes_with(text: &str) -> usize {
        let environments = fs::read_dir("/proc")
            .unwrap()
            .filter_map(|process| fs::read(process.ok()?.path().join("environ")).ok());
        environments.filter(|environment| String::from_utf8_lossy(environment).contains(text)).count()
    }

    fn wait_until(is_so: impl Fn() -> bool) {
        // Up to a minute, on the slowest machine.
        assert!((0..6_000).any(|_| is_so() || {
            thread::sleep(Duration::from_millis(10));
            false
        }));
    }

    #[test]
    fn test_programs_are_told_from_what_else_cargo_makes() {
        let message = |test: bool, executable: Value| {
            json!({
                "reason": "compiler-artifact", "manifest_path": "/w/kms/Cargo.toml",
                "target": { "src_path": "/w/kms/tests/aws/main.rs" }, "profile": { "test": test },
                "executable": executable,
            })
        };
        let program = Program {
            name: "kms/tests/aws/main.rs".to_owned(),
            path: "/t/aws-1".into(),
            folder: "/w/kms".into(),
        };
        let parse = |message| Program::parse(&message, Path::new("/w"));
        assert_eq!(parse(message(true, json!("/t/aws-1"))), Some(program));
        assert_eq!(parse(message(false, json!("/t/claviger"))), None);
        assert_eq!(parse(message(true, Value::Null)), None);
        assert_eq!(parse(json!({ "reason": "build-finished", "success": true })), None);
    }

    #[test]
    fn every_job_is_run_and_a_crash_is_a_failure() {
        let job = |script| Job { name: "a job".to_owned(), process: Process::new("sh", &["-c", script]) };
        let line = "echo 'test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out'";
        let all = (0..5).map(|_| job(line)).collect();
        assert!(run_jobs(all).unwrap().verdict().is_ok());
        assert!(run_jobs(vec![job(line), job("kill -9 $$")]).unwrap().verdict().is_err());
        assert!(run_jobs(Vec::new()).unwrap().verdict().is_err());
    }

    #[test]
    fn longest_are_there() {
        let workspace = Workspace::find().unwrap();
        for name in LONGEST {
            assert!(workspace.root.join(name).is_file(), "{name}");
        }
    }
}
