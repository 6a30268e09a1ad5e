//! Fuzzing: builds the targets of `fuzz/` with the compiler that is there, and runs them.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;

use toml::{Table, Value};

use crate::Result;
use crate::process::Process;
use crate::workspace::Workspace;

/// How long all targets together run where nothing else is said, as in CI.
pub(crate) const SECONDS: u64 = 300;

/// What cargo-fuzz passes without a sanitizer: all of it is stable. It is compared with version 0.13.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
                     -Cllvm-args=-sanitizer-coverage-pc-table \
                     -Cllvm-args=-sanitizer-coverage-trace-compares \
                     -Cllvm-args=-simplifycfg-branch-fold-threshold=0 \
                     -Cllvm-args=-sanitizer-coverage-stack-depth \
                     --cfg fuzzing -Cdebug-assertions -Ccodegen-units=1";

/// How many targets run at once.
const AT_ONCE: usize = 2;

/// What one input may take. No parser here needs a tenth of either.
const RSS_MB_MAX: u32 = 1024;
const INPUT_SECONDS_MAX: u32 = 20;

/// Longer inputs find little more, and are slower.
const INPUT_BYTES_MAX: u32 = 4096;

/// Fuzzes the targets, or all of them, for so many seconds divided among them. Fails for each input that breaks
/// what its target holds, and says how to run it again.
pub(crate) fn run(workspace: &Workspace, seconds: u64, targets: &[String]) -> Result<()> {
    let known = names(&workspace.root)?;
    if let Some(unknown) = targets.iter().find(|target| !known.contains(target)) {
        return Err(format!("there is no target {unknown}; there are {}", known.join(", ")).into());
    }
    let targets = if targets.is_empty() { &known } else { targets };
    let places =
        Places { root: workspace.root.clone(), target: workspace.target.join("fuzz"), triple: host()? };
    build(workspace, &places, targets)?;
    let each = share(seconds, targets.len());
    println!("\n{} targets, {each} s each, {AT_ONCE} at once", targets.len());
    println!("{}", Outcome::HEADING);
    let (waiting, failed) = (Mutex::new(targets.iter()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(target) = next(&waiting) {
                    match fuzz(&places, target, each) {
                        Ok(outcome) => println!("{target:<20} {outcome}"),
                        Err(error) => {
                            println!("{target:<20} FAILED");
                            failed.lock().unwrap_or_else(PoisonError::into_inner).push(error.to_string());
                        }
                    }
                }
            });
        }
    });
    crate::checks::none(failed.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn next<'a>(waiting: &Mutex<impl Iterator<Item = &'a String>>) -> Option<&'a String> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner).next()
}

/// How long each target runs, so that all of them end after `seconds`.
fn share(seconds: u64, targets: usize) -> u64 {
    let rounds = targets.div_ceil(AT_ONCE).max(1);
    (seconds / u64::try_from(rounds).unwrap_or(u64::MAX)).max(1)
}

struct Places {
    root: PathBuf,
    target: PathBuf,
    triple: String,
}

impl Places {
    fn program(&self, target: &str) -> PathBuf {
        self.target.join(&self.triple).join("release").join(target)
    }

    /// What is kept of earlier runs.
    fn corpus(&self, target: &str) -> PathBuf {
        self.target.join("corpus").join(target)
    }

    fn seeds(&self, target: &str) -> PathBuf {
        self.root.join("fuzz/seeds").join(target)
    }

    /// Where inputs that fail are kept.
    fn failures(&self, target: &str) -> PathBuf {
        self.target.join("failures").join(target)
    }
}

/// Reads what the targets are called.
fn names(root: &Path) -> Result<Vec<String>> {
    let manifest: Table = fs::read_to_string(root.join("fuzz/Cargo.toml"))?.parse()?;
    let targets = manifest.get("bin").and_then(Value::as_array).into_iter().flatten();
    let name = |target: &Value| Some(target.get("name")?.as_str()?.to_owned());
    Ok(targets.filter_map(name).collect())
}

/// Asks the compiler for what it builds: only with a target of its own do flags not reach build scripts.
fn host() -> Result<String> {
    let version = Process::new("rustc", &["-vV"]).output()?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.ok_or("rustc -vV names no host")?.to_owned())
}

fn build(workspace: &Workspace, places: &Places, targets: &[String]) -> Result<()> {
    let folder = places.target.to_string_lossy();
    let mut args = vec!["build", "--release", "--locked", "--manifest-path=fuzz/Cargo.toml"];
    args.extend(["--target", &places.triple, "--target-dir", &folder]);
    args.extend(targets.iter().flat_map(|target| ["--bin", target.as_str()]));
    workspace.cargo(&args).env("RUSTFLAGS", FLAGS).run()
}

/// Runs a target, from its seeds and what was kept of earlier runs.
fn fuzz(places: &Places, target: &str, seconds: u64) -> Result<Outcome> {
    let (corpus, failures) = (places.corpus(target), places.failures(target));
    for folder in [&corpus, &failures] {
        fs::create_dir_all(folder)?;
    }
    let args = [
        // The first folder takes what is found.
        corpus.display().to_string(),
        places.seeds(target).display().to_string(),
        format!("-max_total_time={seconds}"),
        format!("-rss_limit_mb={RSS_MB_MAX}"),
        format!("-timeout={INPUT_SECONDS_MAX}"),
        format!("-max_len={INPUT_BYTES_MAX}"),
        // A folder, by the slash at its end.
        format!("-artifact_prefix={}/", failures.display()),
        "-print_final_stats=1".to_owned(),
    ];
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let program = places.program(target);
    let (written, status) = Process::mortal(&program, &args).record()?;
    let outcome = Outcome::read(&written);
    match outcome {
        Some(outcome) if status.success() => Ok(outcome),
        _ => Err(failure(target, &program, &written).into()),
    }
}

/// How a run went, as libFuzzer counts.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    executions: u64,
    per_second: u64,
    /// Edges of the program that were reached.
    edges: u64,
    inputs: u64,
    rss_mb: u64,
}

impl Outcome {
    const HEADING: &str = "target               executions   per s   edges  inputs  RSS in MB";

    /// Reads it from what a run wrote; `None` if it did not come to its end.
    fn read(written: &str) -> Option<Self> {
        let statistic = |name: &str| {
            let line = written.lines().rev().find_map(|line| line.strip_prefix(name))?;
            line.trim_start_matches(':').trim().parse().ok()
        };
        // `#1024 DONE cov: 77 ft: 120 corp: 12/345b …`
        let state = written.lines().rev().find(|line| line.starts_with('#') && line.contains(" cov: "))?;
        let word = |name| state.split_whitespace().skip_while(|word| *word != name).nth(1);
        Some(Self {
            executions: statistic("stat::number_of_executed_units")?,
            per_second: statistic("stat::average_exec_per_sec")?,
            edges: word("cov:")?.parse().ok()?,
            inputs: word("corp:")?.split('/').next()?.parse().ok()?,
            rss_mb: statistic("stat::peak_rss_mb")?,
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { executions, per_second, edges, inputs, rss_mb } = self;
        write!(f, "{executions:>10} {per_second:>7} {edges:>7} {inputs:>7} {rss_mb:>10}")
    }
}

/// Says what broke, by which input, and how to run it again.
fn failure(target: &str, program: &Path, written: &str) -> String {
    let kept = written.lines().find_map(|line| line.split("Test unit written to ").nth(1));
    let Some(kept) = kept else { return format!("{target} did not end well:\n{}", end_of(written)) };
    let hex = fs::read(kept).map(|input| hex(&input)).unwrap_or_default();
    format!(
        "{target} found an input that breaks what it holds:\n{}\nthe input: {hex}\nit is kept: {kept}\nagain: {} {kept}\n\
         Mend the parser, and put the input to fuzz/seeds/{target}.",
        end_of(written),
        program.display(),
    )
}

/// The last lines, without libFuzzer's own progress.
fn end_of(written: &str) -> String {
    let lines: Vec<_> = written.lines().filter(|line| !line.starts_with('#')).collect();
    lines.get(lines.len().saturating_sub(LINES_SHOWN)..).unwrap_or_default().join("\n")
}

fn hex(input: &[u8]) -> String {
    input.iter().map(|byte| format!("{byte:02x}")).collect()
}

const LINES_SHOWN: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
#2\tINITED cov: 30 ft: 31 corp: 1/1b exec/s: 0 rss: 31Mb
#1024\tDONE   cov: 77 ft: 120 corp: 12/345b lim: 4 exec/s: 512 rss: 33Mb
Done 1024 runs in 2 second(s)
stat::number_of_executed_units: 1024
stat::average_exec_per_sec:     512
stat::new_units_added:          11
stat::slowest_unit_time_sec:    0
stat::peak_rss_mb:              33
";

    #[test]
    fn what_a_run_counted_is_read() {
        let outcome = Outcome { executions: 1024, per_second: 512, edges: 77, inputs: 12, rss_mb: 33 };
        assert_eq!(Outcome::read(GOOD), Some(outcome));
        for cut in ["stat::number_of_executed_units", "DONE   cov: 77", "stat::peak_rss_mb"] {
            let part = GOOD.split(cut).next().unwrap();
            assert_eq!(Outcome::read(part), None, "{cut}");
        }
    }

    #[test]
    fn a_failure_names_its_input_and_how_to_run_it_again() {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("crash-1");
        fs::write(&kept, [0, 255]).unwrap();
        let written = format!("#9 NEW cov: 1\nit panicked\nTest unit written to {}\n", kept.display());
        let said = failure("records", Path::new("/t/records"), &written);
        let again = format!("again: /t/records {}", kept.display());
        for part in ["records found", "it panicked", "the input: 00ff", &again, "fuzz/seeds/records"] {
            assert!(said.contains(part), "{said}");
        }
        assert!(!said.contains("#9"), "{said}");
        assert!(failure("records", Path::new("/t/records"), "killed").contains("did not end well:\nkilled"));
    }

    #[test]
    fn all_targets_together_take_the_time() {
        for (seconds, targets, each) in [(300, 10, 60), (300, 9, 60), (300, 1, 300), (300, 2, 300), (1, 9, 1)]
        {
            assert_eq!(share(seconds, targets), each);
        }
    }

    #[test]
    fn each_target_has_its_program_and_seeds_and_nothing_else_has() {
        let root = Workspace::find().unwrap().root;
        let named = |folder: &str| {
            let entries = fs::read_dir(root.join(folder)).unwrap();
            let stem = |entry: fs::DirEntry| entry.path().file_stem().unwrap().to_str().unwrap().to_owned();
            let mut names: Vec<_> = entries.map(|entry| stem(entry.unwrap())).collect();
            names.sort();
            names
        };
        let mut targets = names(&root).unwrap();
        targets.sort();
        assert!(targets.len() > 2, "{targets:?}");
        assert_eq!(named("fuzz/fuzz_targets"), targets);
        assert_eq!(named("fuzz/seeds"), targets);
        for target in &targets {
            let seeds = root.join("fuzz/seeds").join(target);
            let sizes: Vec<_> =
                fs::read_dir(seeds).unwrap().map(|seed| seed.unwrap().metadata().unwrap().len()).collect();
            assert!((1..=200).contains(&sizes.len()), "{target} has {} seeds", sizes.len());
            assert!(sizes.iter().sum::<u64>() <= 300 << 10, "the seeds of {target} are too large");
        }
    }
}
