//! Everything that must hold before a change is taken.

use std::path::PathBuf;
use std::time::Instant;

use crate::needs::{self, Need, Tools};
use crate::parts::{self, PARTS};
use crate::process::Process;
use crate::suite;
use crate::summary::Summary;
use crate::workspace::Workspace;
use crate::{Result, advisories, checks, fuzz, law, loom, mutants, published, simulation};

/// Runs all checks, and fails at the end if one did, so that one run shows everything wrong.
pub(crate) fn run(workspace: &Workspace, install: bool, database: Option<PathBuf>) -> Result<()> {
    let database = advisories::find(database);
    let needed = PARTS.iter().flat_map(|part| part.needs()).chain([Need::CargoDeny, Need::CxxCompiler]);
    let tools = needs::of(workspace, needed).provide(install)?;
    let mut report = Report::default();
    report.step("lock file", || {
        workspace.cargo(&["metadata", "--locked", "--format-version=1"]).output().map(drop)
    });
    report.step("format", || workspace.cargo(&["fmt", "--all", "--check"]).run());
    report.step("file lengths", || checks::file_lengths(workspace));
    report.step("parts of the tests", || parts::check(workspace));
    report.step("lint tables", || checks::lint_tables(workspace));
    report.step("dependencies", || checks::dependencies(workspace));
    report.step("alert rules", || alert_rules(workspace));
    report.step("published crates", || published::check(workspace));
    report.step("licences and bans", || licences(workspace, &tools));
    report.step("advisories, made up", || advisories::prove(workspace, &tools));
    match &database {
        Some(database) => {
            report.step("advisories", || advisories::check(workspace, &tools, database));
        }
        None => report.left_out("advisories"),
    }
    report.step("mutants apply", || mutants::run(workspace, &[], true));
    let mut summary = Summary::default();
    report.step("tests", || {
        summary = suite::run_all(workspace, &tools)?;
        summary.verdict()
    });
    report.step("law", || law::check(workspace));
    report.step("tests, optimised", || optimised_tests(workspace));
    report.step("fuzz", || fuzz::run(workspace, fuzz::SECONDS, &[]));
    report.step("simulation", || simulation::check(workspace));
    report.step("model", || {
        let args = ["run", "--profile", "model", "--package", "claviger-model", "--example", "bounded"];
        workspace.cargo(&args).run()
    });
    report.step("lints", || {
        workspace
            .cargo(&["clippy", "--workspace", "--all-targets", "--all-features", "--", "-Dwarnings"])
            .run()
    });
    report.step("lints of the models", || loom::lints(workspace));
    report.step("lints per feature", || lints_per_feature(workspace));
    report.step("docs", || {
        let doc = workspace.cargo(&["doc", "--workspace", "--no-deps", "--all-features"]);
        doc.env("RUSTDOCFLAGS", "-Dwarnings").run()
    });
    report.step("benches", || {
        // What is asked is whether they build: link-time optimisation would take most of this step.
        let args = ["bench", "--workspace", "--all-features", "--bench=*", "--no-run", "--profile", "dev"];
        workspace.cargo(&args).run()
    });
    let outcome = report.finish();
    if database.is_none() {
        println!("\n{}", advisories::NOT_CHECKED);
    }
    // The last lines of all are the tests' own.
    let verdict = summary.verdict();
    outcome.and(verdict)
}

/// The tests that look for keys where none may be: what is left on a stack depends on how the program
/// was compiled, and how deep it is wiped is learned in optimised programs only.
fn optimised_tests(workspace: &Workspace) -> Result<()> {
    let test = |package, name| {
        let args = ["test", "--release", "--package", package, "--all-features", "--test", name];
        workspace.cargo(&args).run()
    };
    test("claviger-memory", "memory")?;
    test("claviger-memory", "factory")?;
    test("claviger", "memory_scan")
}

/// Each package by itself, with no feature and with each alone: what the workspace's other members
/// switch on cannot help there, nor, without `--all-targets`, can dev-dependencies. What is never built
/// without those, or was to run this, is not tried so.
fn lints_per_feature(workspace: &Workspace) -> Result<()> {
    let mut failed = Vec::new();
    for package in &workspace.packages {
        let none = String::new();
        let is_for_tests =
            ["claviger-interop", "claviger-model", "claviger-simulation", "claviger-testkit", "xtask"]
                .contains(&&*package.name);
        let targets = [&[][..], &["--all-targets"]];
        for feature in std::iter::once(&none).chain(&package.features) {
            for targets in targets.iter().skip(usize::from(is_for_tests)) {
                let args =
                    ["clippy", "--package", &package.name, "--no-default-features", "--features", feature];
                let lints = workspace.cargo(&[&args[..], targets, &["--", "-Dwarnings"]].concat());
                failed.extend(lints.run().err().map(|error| error.to_string()));
            }
        }
    }
    checks::none(failed)
}

/// What the rules mean is tested beside them; that the metrics they name are there is tested with the example.
fn alert_rules(workspace: &Workspace) -> Result<()> {
    let promtool = |args: &[&str]| {
        Process::new("promtool", args).in_folder(&workspace.root.join("docs/observability")).run()
    };
    promtool(&["check", "rules", "alerts.yml"])?;
    promtool(&["test", "rules", "alerts.test.yml"])
}

fn licences(workspace: &Workspace, tools: &Tools) -> Result<()> {
    let manifest = workspace.root.join("Cargo.toml");
    let deny = tools.cargo_deny.to_string_lossy();
    let args = [
        "--manifest-path",
        &manifest.to_string_lossy(),
        // Else only what the core depends on is looked at.
        "--workspace",
        "--all-features",
        "check",
        "bans",
        "licenses",
        "sources",
    ];
    Process::new(&*deny, &args).run()
}

#[derive(Default)]
struct Report {
    lines: Vec<String>,
    failed: bool,
}

impl Report {
    fn step(&mut self, name: &str, check: impl FnOnce() -> Result<()>) {
        println!("\n== {name}");
        let start = Instant::now();
        let outcome = check();
        if let Err(error) = &outcome {
            println!("{error}");
            self.failed = true;
        }
        let word = if outcome.is_ok() { "ok" } else { "FAILED" };
        self.lines.push(format!("{name:<20} {word:<6} {:>5} s", start.elapsed().as_secs()));
    }

    /// So that nobody takes for checked what was not.
    fn left_out(&mut self, name: &str) {
        self.lines.push(format!("{name:<20} NOT CHECKED"));
    }

    fn finish(self) -> Result<()> {
        println!("\n== all\n{}", self.lines.join("\n"));
        if self.failed { Err("checks failed".into()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failed_step_fails_the_run_and_stops_no_other() {
        let mut report = Report::default();
        let mut ran = 0;
        report.step("bad", || Err("for a reason".into()));
        report.step("good", || {
            ran += 1;
            Ok(())
        });
        assert_eq!((ran, report.lines.len()), (1, 2));
        assert!(report.finish().is_err());
        assert!(Report::default().finish().is_ok());
    }

    #[test]
    fn s2_7_back_ends_are_features_off_by_default_and_each_is_built_alone() {
        let workspace = Workspace::find().unwrap();
        for (name, back_ends) in [
            ("claviger-metastore", &["sqlite", "postgres", "mysql", "dynamodb"][..]),
            ("claviger-kms", &["local", "aws", "pkcs11", "vault", "any-of", "k-of-n"]),
            (
                "claviger-open",
                &["sqlite", "postgres", "mysql", "dynamodb", "aws", "pkcs11", "vault", "any-of", "k-of-n"],
            ),
        ] {
            // `lints_per_feature` builds each package with none and with each of these alone.
            let package = workspace.packages.iter().find(|package| package.name == name).unwrap();
            let is_feature = |back_end: &&str| package.features.iter().any(|feature| feature == back_end);
            assert!(back_ends.iter().all(is_feature), "{name}: {:?}", package.features);
            let manifest = std::fs::read_to_string(&package.manifest).unwrap();
            assert!(!manifest.lines().any(|line| line.starts_with("default")), "{name} has default features");
        }
    }
}
