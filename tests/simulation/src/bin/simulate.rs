//! `cargo xtask simulate`: runs seeds, and tells of the first that breaks a rule.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use claviger_simulation::{Plan, Report, flood, run, shrink};

const HELP: &str = "\
Runs fleets over a simulated store and KMS, in virtual time.

  simulate [--seeds N] [--from SEED] [--threads N] [--until-broken]
                            runs so many seeds, 1000 unless told; what fails is shrunk and printed;
                            --until-broken stops at the first seed that breaks a rule
  simulate --history SEED   prints what happens under a seed
  simulate --plan FILE      runs a plan, and prints what happens
  simulate --flood N        so many partitions, once each, through a cache of a hundredth as many keys
";

struct Options {
    seeds: u64,
    from: u64,
    threads: u64,
    until_broken: bool,
    history: Option<u64>,
    plan: Option<String>,
    flood: Option<u64>,
}

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)) {
        Ok(options) => carry_out(&options),
        Err(reason) => {
            eprintln!("{reason}\n\n{HELP}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let threads = thread::available_parallelism().map_or(1, usize::from) as u64;
    let mut options = Options {
        seeds: 1_000,
        from: 0,
        threads,
        until_broken: false,
        history: None,
        plan: None,
        flood: None,
    };
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} lacks its value"));
        let number = |text: String| text.parse().map_err(|error| format!("{text}: {error}"));
        match arg.as_str() {
            "--seeds" => options.seeds = number(value()?)?,
            "--from" => options.from = number(value()?)?,
            "--threads" => options.threads = number(value()?)?.max(1),
            "--until-broken" => options.until_broken = true,
            "--history" => options.history = Some(number(value()?)?),
            "--flood" => options.flood = Some(number(value()?)?),
            "--plan" => options.plan = Some(value()?),
            other => return Err(format!("unexpected argument {other}")),
        }
    }
    Ok(options)
}

fn carry_out(options: &Options) -> ExitCode {
    if let Some(seed) = options.history {
        return show(&Plan::of_seed(seed));
    }
    if let Some(partitions) = options.flood {
        let report = flood(partitions);
        println!("{}", report.history.join("\n"));
        report.violations.iter().for_each(|broken| println!("{}: {}", broken.rule, broken.what));
        return if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    match &options.plan {
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| error.to_string());
            match text.and_then(|text| Plan::from_json(&text).map_err(|error| error.to_string())) {
                Ok(plan) => show(&plan),
                Err(error) => {
                    eprintln!("{path}: {error}");
                    ExitCode::FAILURE
                }
            }
        }
        None => many(options),
    }
}

fn show(plan: &Plan) -> ExitCode {
    let report = run(plan);
    println!("{}", report.history.join("\n"));
    tell(plan.seed, &report);
    if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn tell(seed: u64, report: &Report) {
    for violation in &report.violations {
        println!("seed {seed}: {}: {} (line {})", violation.rule, violation.what, violation.line);
    }
}

/// The first seed that broke each rule, and how many did.
type Broken = BTreeMap<&'static str, (u64, u64)>;

fn many(options: &Options) -> ExitCode {
    let (next, broken) = (AtomicU64::new(options.from), Mutex::new(Broken::new()));
    let [sealed, calls, digest] = [(); 3].map(|()| AtomicU64::new(0));
    let end = options.from.saturating_add(options.seeds);
    let is_done = || options.until_broken && !locked(&broken).is_empty();
    let work = || {
        while !is_done() {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return;
            }
            let report = run(&Plan::of_seed(seed));
            sealed.fetch_add(report.sealed as u64, Ordering::Relaxed);
            calls.fetch_add(report.calls, Ordering::Relaxed);
            digest.fetch_xor(report.digest(), Ordering::Relaxed);
            if let Some(violation) = report.violations.first() {
                tell(seed, &report);
                let mut broken = locked(&broken);
                let (first, count) = broken.entry(violation.rule).or_insert((seed, 0));
                *first = seed.min(*first);
                *count += 1;
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..options.threads {
            scope.spawn(work);
        }
    });
    let seeds = next.load(Ordering::Relaxed).min(end) - options.from;
    let [sealed, calls, digest] = [sealed, calls, digest].map(|count| count.load(Ordering::Relaxed));
    println!("{seeds} seeds from {}: {sealed} records, {calls} calls of back ends", options.from);
    // The same seeds have the same.
    println!("digest of the histories: {digest:016x}");
    let broken = std::mem::take(&mut *locked(&broken));
    for (rule, (first, count)) in &broken {
        println!("{count} broke {rule}, the first is {first}");
    }
    if let Some((rule, (first, _))) = broken.iter().next().filter(|_| !options.until_broken) {
        report_shrunk(rule, *first);
    }
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn locked(broken: &Mutex<Broken>) -> std::sync::MutexGuard<'_, Broken> {
    broken.lock().unwrap_or_else(PoisonError::into_inner)
}

fn report_shrunk(rule: &str, seed: u64) {
    let plan = shrink(&Plan::of_seed(seed), rule, 2_000);
    println!("\nseed {seed}, shrunk; keep it under tests/simulation/kept:\n{}", plan.to_json());
    show(&plan);
}
