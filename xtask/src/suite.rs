//! The test suite, whole or in parts, and what came of it; and the benchmarks.

use std::ops::AddAssign;

use crate::needs::Tools;
use crate::parts::Part;
use crate::process::Process;
use crate::servers::Servers;
use crate::workspace::Workspace;
use crate::{Result, programs};

/// How many tests there were, over all test programs and doc tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    passed: u64,
    failed: u64,
    ignored: u64,
    /// One that crashes, or has a main of its own, counts no tests.
    a_program_failed: bool,
}

/// Runs all tests of the workspace, on servers that they share.
pub(crate) fn run_all(workspace: &Workspace, tools: &Tools) -> Result<Summary> {
    let servers = Servers::start(tools);
    let prepare = |process| servers.known_to(tools.known_to(process));
    programs::run(workspace, ALL, prepare)
}

/// Runs these parts, each on servers that its tests start by themselves.
pub(crate) fn run_parts(
    workspace: &Workspace,
    tools: &Tools,
    parts: &[Part],
    cargo_args: &[String],
) -> Result<Summary> {
    let mut summary = Summary::default();
    for part in parts {
        let args: Vec<_> = part.cargo_args().collect();
        summary += if cargo_args.is_empty() {
            programs::run(workspace, &args, |process| tools.known_to(process))?
        } else {
            run_cargo(tools.known_to(test(workspace, &args, cargo_args)))?
        };
    }
    Ok(summary)
}

/// Runs the tests that `cargo_args` select among all.
pub(crate) fn run_some(workspace: &Workspace, tools: &Tools, cargo_args: &[String]) -> Result<Summary> {
    let scope = if selects_package(cargo_args) { &["--all-features"][..] } else { ALL };
    run_cargo(tools.known_to(test(workspace, scope, cargo_args)))
}

/// What selects all tests.
pub(crate) const ALL: &[&str] = &["--workspace", "--all-features"];

fn test(workspace: &Workspace, scope: &[&str], cargo_args: &[String]) -> Process {
    let mut args = vec!["test", "--no-fail-fast"];
    args.extend(scope);
    args.extend(cargo_args.iter().map(String::as_str));
    workspace.cargo(&args)
}

fn run_cargo(cargo: Process) -> Result<Summary> {
    let mut summary = Summary::default();
    let succeeded = cargo.watch(|line| {
        if let Some(program) = Summary::parse(line) {
            summary += program;
        }
    })?;
    summary.a_program_failed = !succeeded;
    Ok(summary)
}

/// Runs the benchmarks that `cargo_args` select, all of the workspace if there are none.
pub(crate) fn bench(workspace: &Workspace, tools: &Tools, cargo_args: &[String]) -> Result<()> {
    tools.known_to(workspace.cargo(&bench_args(cargo_args))).run()
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
        if self.a_program_failed || self.failed > 0 {
            return Err("tests failed".into());
        }
        match (self.passed, self.ignored) {
            (0, _) => Err("no test ran".into()),
            (_, 0) => Ok(()),
            (_, ignored) => Err(format!("{ignored} tests are ignored; no test may be").into()),
        }
    }

    /// Sums what a test program wrote.
    pub(crate) fn of(written: &str, succeeded: bool) -> Self {
        let mut summary = Self { a_program_failed: !succeeded, ..Self::default() };
        written.lines().filter_map(Self::parse).for_each(|part| summary += part);
        summary
    }

    /// Reads the line that a test program closes with.
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
        self.a_program_failed |= other.a_program_failed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(passed: u64, failed: u64, ignored: u64) -> Summary {
        Summary { passed, failed, ignored, a_program_failed: false }
    }

    #[test]
    fn closing_lines_are_summed() {
        let lines = "running 2 tests\n\
            test result: ok. 7 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
            test result: FAILED. 20 passed; 3 failed; 1 ignored; 0 measured; 5 filtered out; finished in 0.64s";
        assert_eq!(Summary::of(lines, true), summary(27, 3, 1));
        assert_eq!(Summary::of("", false), Summary { a_program_failed: true, ..summary(0, 0, 0) });
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
            Summary { a_program_failed: true, ..summary(1, 0, 0) },
        ] {
            assert!(bad.verdict().is_err(), "{bad:?}");
        }
    }
}
