//! The test suite, whole or in parts, and what came of it; and the benchmarks.

use crate::needs::Tools;
use crate::parts::Part;
use crate::process::Process;
use crate::programs::ALL;
use crate::servers::Servers;
use crate::summary::Summary;
use crate::workspace::Workspace;
use crate::{Result, loom, programs};

/// Runs all tests of the workspace, on servers that they share.
pub(crate) fn run_all(workspace: &Workspace, tools: &Tools) -> Result<Summary> {
    let servers = Servers::start(tools);
    let prepare = |process| servers.known_to(tools.known_to(process));
    let mut summary = programs::run(workspace, ALL, prepare)?;
    summary += run_cargo(tools.known_to(loom::test(workspace, &[])))?;
    Ok(summary)
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
        summary += if part.name == loom::PART {
            run_cargo(tools.known_to(loom::test(workspace, cargo_args)))?
        } else if cargo_args.is_empty() {
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

fn test(workspace: &Workspace, scope: &[&str], cargo_args: &[String]) -> Process {
    let mut args = vec!["test", "--no-fail-fast"];
    args.extend(scope);
    args.extend(cargo_args.iter().map(String::as_str));
    workspace.cargo(&args)
}

fn run_cargo(cargo: Process) -> Result<Summary> {
    let mut summary = Summary::default();
    let status = cargo.watch(|line| {
        if let Some(program) = Summary::parse(line) {
            summary += program;
        }
    })?;
    Ok(summary.ended("cargo test", status))
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
