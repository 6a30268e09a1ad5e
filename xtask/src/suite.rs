//! The test suite: one cargo invocation, and what came of it; and the benchmarks.

use std::fs;
use std::ops::AddAssign;

use crate::Result;
use crate::needs::Tools;
use crate::servers::Servers;
use crate::workspace::Workspace;

/// How many tests there were, over all test binaries and doc tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    passed: u64,
    failed: u64,
    ignored: u64,
    /// A binary that crashes, or has a main of its own, counts no tests.
    cargo_failed: bool,
}

/// Runs the tests that `cargo_args` select, all of the workspace if there are none.
pub(crate) fn run(workspace: &Workspace, tools: &Tools, cargo_args: &[String]) -> Result<Summary> {
    let mut args = vec!["test", "--all-features", "--no-fail-fast"];
    if !selects_package(cargo_args) {
        args.push("--workspace");
    }
    args.extend(cargo_args.iter().map(String::as_str));
    let servers = Servers::start(tools);
    let mut cargo = servers
        .known_to(workspace.cargo(&args))
        .env("CLAVIGER_ASHERAH_PYTHON", &tools.asherah_python)
        .env("CLAVIGER_ASHERAH_GO_PYTHON", &tools.asherah_go_python);
    if cargo_args.is_empty() {
        // The test of docs/guarantees.md would run cargo for this by itself; the binaries are the
        // same, so here it costs nothing more.
        let names = workspace.cargo(&["test", "--all-features", "--workspace", "--", "--list"]).output()?;
        let file = tools.folder.join("test-names.txt");
        fs::create_dir_all(&tools.folder)?;
        fs::write(&file, names)?;
        cargo = cargo.env("CLAVIGER_TEST_NAMES", &file);
    }

    let mut summary = Summary::default();
    let succeeded = cargo.watch(|line| {
        if let Some(binary) = Summary::parse(line) {
            summary += binary;
        }
    })?;
    summary.cargo_failed = !succeeded;
    Ok(summary)
}

/// Runs the benchmarks that `cargo_args` select, all of the workspace if there are none.
pub(crate) fn bench(workspace: &Workspace, tools: &Tools, cargo_args: &[String]) -> Result<()> {
    let servers = Servers::start(tools);
    servers.known_to(workspace.cargo(&bench_args(cargo_args))).run()
}

fn bench_args(cargo_args: &[String]) -> Vec<&str> {
    let mut args = vec!["bench", "--all-features"];
    if !selects_package(cargo_args) {
        args.push("--workspace");
    }
    // Unit tests are targets of `cargo bench`, too, and do not know the benchmarks' options.
    if !cargo_args.iter().any(|arg| arg.starts_with("--bench")) {
        args.push("--bench=*");
    }
    args.extend(cargo_args.iter().map(String::as_str));
    args
}

fn selects_package(cargo_args: &[String]) -> bool {
    cargo_args.iter().any(|arg| arg.starts_with("-p") || arg.starts_with("--package"))
}

impl Summary {
    /// Prints the sum, alone on a line, and errs unless all tests ran and passed.
    pub(crate) fn verdict(self) -> Result<()> {
        println!("\n{} passed, {} failed", self.passed, self.failed);
        if self.cargo_failed || self.failed > 0 {
            return Err("tests failed".into());
        }
        match (self.passed, self.ignored) {
            (0, _) => Err("no test ran".into()),
            (_, 0) => Ok(()),
            (_, ignored) => Err(format!("{ignored} tests are ignored; no test may be").into()),
        }
    }

    /// Reads the line that a test binary closes with.
    fn parse(line: &str) -> Option<Self> {
        let mut summary = Self::default();
        let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
        for count in counts.split("; ") {
            match count.split_once(' ') {
                Some((number, "passed")) => summary.passed = number.parse().ok()?,
                Some((number, "failed")) => summary.failed = number.parse().ok()?,
                Some((number, "ignored")) => summary.ignored = number.parse().ok()?,
                _ => {}
            }
        }
        Some(summary)
    }
}

impl AddAssign for Summary {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.cargo_failed |= other.cargo_failed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(passed: u64, failed: u64, ignored: u64) -> Summary {
        Summary { passed, failed, ignored, cargo_failed: false }
    }

    #[test]
    fn closing_lines_are_summed() {
        let lines = "running 2 tests\n\
            test result: ok. 7 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
            test result: FAILED. 20 passed; 3 failed; 1 ignored; 0 measured; 5 filtered out; finished in 0.64s";
        let mut sum = Summary::default();
        lines.lines().filter_map(Summary::parse).for_each(|binary| sum += binary);
        assert_eq!(sum, summary(27, 3, 1));
    }

    #[test]
    fn benches_are_those_of_the_workspace_unless_others_are_named() {
        let args = |line: &str| {
            let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
            bench_args(&words).join(" ")
        };
        assert_eq!(args(""), "bench --all-features --workspace --bench=*");
        assert_eq!(args("-p a -- --quick"), "bench --all-features --bench=* -p a -- --quick");
        assert_eq!(args("-p a --bench b"), "bench --all-features -p a --bench b");
    }

    #[test]
    fn only_a_run_in_which_all_tests_ran_and_passed_is_good() {
        assert!(summary(1, 0, 0).verdict().is_ok());
        for bad in [
            summary(0, 0, 0),
            summary(1, 1, 0),
            summary(1, 0, 1),
            Summary { cargo_failed: true, ..summary(1, 0, 0) },
        ] {
            assert!(bad.verdict().is_err(), "{bad:?}");
        }
    }
}
