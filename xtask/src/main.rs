//! `cargo xtask`: installs what the tests need, runs them, and checks what CI checks.

mod advisories;
mod apt;
mod checks;
mod ci;
mod design;
mod fuzz;
mod law;
mod loom;
mod mutants;
mod needs;
mod parts;
mod pgbouncer;
mod process;
mod programs;
mod published;
mod python;
mod servers;
mod simulation;
mod suite;
mod summary;
mod table;
mod workspace;

use std::path::PathBuf;
use std::process::ExitCode;

use needs::Need;
use parts::{PARTS, Part};
use workspace::Workspace;

const HELP: &str = "\
Installs what claviger's tests need, runs them, and checks what CI checks.

Usage:
  cargo xtask test  [PART..] [--no-install] [-- ARGS]
                                               install what is missing and run every test, or these
                                               parts, which need, build and start no more than their
                                               own; ARGS go to `cargo test`
  cargo xtask bench [--no-install] [-- ARGS]   the same for `cargo bench`
  cargo xtask fuzz [--seconds N] [TARGET..]    fuzz what reads bytes from outside, for so long in all: 300 s
                                               unless told; fuzz/README.md has the targets
  cargo xtask law                              whether the documents and the tests agree: the tests that
                                               docs/guarantees.md, SECURITY.md and docs/design name are
                                               there, and each rule that code names has its row
  cargo xtask mutants [--applies] [NAME..]     applies each kept mutant, or these, to a copy of the
                                               sources and runs the tests that are to catch it, which
                                               takes an hour for all; --applies only looks whether the
                                               patches fit
  cargo xtask ci    [--no-install] [--db PATH] the tests, and format, lints, docs, licences,
                                               dependencies, benches; advisories, if there is a
                                               database of them
  cargo xtask simulate [--seeds N] [--from SEED] [ARG..]
                                               fleets in virtual time over a simulated store and KMS: so
                                               many seeds from this one on, optimised; what breaks a
                                               promise is shrunk and printed. ARGS go to `simulate`:
                                               --history SEED, --plan FILE, --flood N, --until-broken,
                                               --threads N
  cargo xtask advisories [--no-install] [--db PATH]
                                               the advisories alone; without a database it fails
  cargo xtask help                             print this

Parts, and what each is:
{PARTS}
What it would install it says first. Tools go to the target folder; a compiler, Python, Node.js,
PostgreSQL, PgBouncer, MariaDB with Galera and SoftHSM come from apt, where that is there and we are
root, and are not started by it. With --no-install it names what is missing and stops. Where LocalStack is
to be installed, Python 3.12 must be there: without it this stops before it installs anything.

The database is a checkout of https://github.com/RustSec/advisory-db: the given one, else the one that
`cargo deny fetch` has left. Crates that were withdrawn are known from cargo's copy of the index, which is
as old as cargo's last look. Nothing is fetched for either.

The servers (PostgreSQL, MariaDB, a DynamoDB and two KMSs for tests) listen on loopback, on free
ports, with temporary data, and end with this program, however it ends.

Examples:
  cargo xtask test
  cargo xtask test postgres
  cargo xtask test sqlite mysql --no-install
  cargo xtask test core -- --test life_cycle t5
  cargo xtask test --no-install -- -p claviger --test requirements
  cargo xtask bench -- -p claviger-metastore
  cargo xtask fuzz --seconds 28800
  cargo xtask simulate --seeds 1000 --from 50000
";

/// Any failure: a sentence for the caller.
type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

#[derive(Debug, PartialEq, Eq)]
enum Task {
    Test { install: bool, parts: Vec<Part>, cargo_args: Vec<String> },
    Bench { install: bool, cargo_args: Vec<String> },
    Fuzz { seconds: u64, targets: Vec<String> },
    Law,
    Mutants { applies_only: bool, names: Vec<String> },
    Ci { install: bool, database: Option<PathBuf> },
    Simulate { args: Vec<String> },
    Advisories { install: bool, database: Option<PathBuf> },
    Help,
}

fn main() -> ExitCode {
    let outcome = parse(std::env::args().skip(1)).and_then(run);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(args: impl Iterator<Item = String>) -> Result<Task> {
    let mut args = args.peekable();
    let name = args.next();
    if name.as_deref() == Some("fuzz") {
        return parse_fuzz(args);
    }
    let takes_parts = name.as_deref() == Some("test");
    let mut parts = Vec::new();
    let mut install = true;
    while let Some(arg) = args.next_if(|arg| arg == "--no-install" || takes_parts && !arg.starts_with('-')) {
        if arg.starts_with('-') {
            install = false;
        } else {
            parts.push(Part::named(&arg)?);
        }
    }
    // Only where the task takes one: elsewhere it is left, and unexpected.
    let takes_database = matches!(name.as_deref(), Some("ci" | "advisories"));
    let database = match args.next_if(|arg| takes_database && arg == "--db") {
        Some(_) => Some(args.next().map(PathBuf::from).ok_or("--db lacks its path; see cargo xtask help")?),
        None => None,
    };
    let mut cargo_args = || {
        let passes_on = args.next_if(|arg| arg == "--").is_some();
        if passes_on { args.by_ref().collect() } else { Vec::new() }
    };
    let task = match name.as_deref() {
        Some("test") => Task::Test { install, parts, cargo_args: cargo_args() },
        Some("bench") => Task::Bench { install, cargo_args: cargo_args() },
        Some("simulate") => Task::Simulate { args: args.by_ref().collect() },
        Some("law") => Task::Law,
        Some("mutants") => Task::Mutants {
            applies_only: args.next_if(|arg| arg == "--applies").is_some(),
            names: std::iter::from_fn(|| args.next_if(|arg| !arg.starts_with('-'))).collect(),
        },
        Some("ci") => Task::Ci { install, database },
        Some("advisories") => Task::Advisories { install, database },
        None | Some("help" | "--help" | "-h") => Task::Help,
        Some(other) => return Err(format!("unknown task {other}; see cargo xtask help").into()),
    };
    match args.next() {
        Some(arg) => Err(format!("unexpected argument {arg}; see cargo xtask help").into()),
        None => Ok(task),
    }
}

fn parse_fuzz(mut args: impl Iterator<Item = String>) -> Result<Task> {
    let (mut seconds, mut targets) = (fuzz::SECONDS, Vec::new());
    while let Some(arg) = args.next() {
        if arg == "--seconds" {
            let number = args.next().and_then(|number| number.parse().ok());
            seconds = number.ok_or("--seconds lacks its number; see cargo xtask help")?;
        } else if arg.starts_with('-') {
            return Err(format!("unexpected argument {arg}; see cargo xtask help").into());
        } else {
            targets.push(arg);
        }
    }
    Ok(Task::Fuzz { seconds, targets })
}

fn run(task: Task) -> Result<()> {
    match task {
        Task::Help => {
            print!("{}", help());
            Ok(())
        }
        Task::Test { install, parts, cargo_args } => test(install, &parts, &cargo_args),
        Task::Bench { install, cargo_args } => {
            let workspace = Workspace::find()?;
            let tools = needs::of(&workspace, Need::FOR_BENCHES).provide(install)?;
            suite::bench(&workspace, &tools, &cargo_args)
        }
        Task::Fuzz { seconds, targets } => {
            let workspace = Workspace::find()?;
            needs::of(&workspace, Need::FOR_FUZZING).provide(true)?;
            fuzz::run(&workspace, seconds, &targets)
        }
        Task::Simulate { args } => simulation::run(&Workspace::find()?, &args),
        Task::Law => law::check(&Workspace::find()?),
        Task::Mutants { applies_only, names } => mutants::run(&Workspace::find()?, &names, applies_only),
        Task::Ci { install, database } => ci::run(&Workspace::find()?, install, database),
        Task::Advisories { install, database } => {
            let database = advisories::find(database).ok_or(advisories::NOT_CHECKED)?;
            let workspace = Workspace::find()?;
            let tools = needs::of(&workspace, [Need::CargoDeny]).provide(install)?;
            advisories::prove(&workspace, &tools)?;
            advisories::check(&workspace, &tools, &database)
        }
    }
}

fn test(install: bool, parts: &[Part], cargo_args: &[String]) -> Result<()> {
    let workspace = Workspace::find()?;
    let needed = if parts.is_empty() { PARTS } else { parts };
    let tools = needs::of(&workspace, needed.iter().flat_map(|part| part.needs())).provide(install)?;
    if !parts.is_empty() {
        return suite::run_parts(&workspace, &tools, parts, cargo_args)?.verdict();
    }
    if !cargo_args.is_empty() {
        return suite::run_some(&workspace, &tools, cargo_args)?.verdict();
    }
    let summary = suite::run_all(&workspace, &tools)?;
    let law = law::check(&workspace);
    // The last line of all is the tests' own.
    summary.verdict().and(law)
}

fn help() -> String {
    HELP.replace("{PARTS}", &parts::overview())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Task> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn command_lines_are_understood() {
        let test = |install, parts: &[&str], cargo_args: &[&str]| Task::Test {
            install,
            parts: parts.iter().map(|name| Part::named(name).unwrap()).collect(),
            cargo_args: cargo_args.iter().map(|&arg| arg.to_owned()).collect(),
        };
        assert_eq!(parsed("test").unwrap(), test(true, &[], &[]));
        assert_eq!(parsed("test --no-install").unwrap(), test(false, &[], &[]));
        assert_eq!(parsed("test -- -p claviger").unwrap(), test(true, &[], &["-p", "claviger"]));
        assert_eq!(
            parsed("test --no-install -- a -- --no-install").unwrap(),
            test(false, &[], &["a", "--", "--no-install"])
        );
        assert_eq!(parsed("test sqlite core").unwrap(), test(true, &["sqlite", "core"], &[]));
        for line in ["test sqlite --no-install -- a", "test --no-install sqlite -- a"] {
            assert_eq!(parsed(line).unwrap(), test(false, &["sqlite"], &["a"]));
        }
        let args = vec!["-p".to_owned(), "a".to_owned()];
        assert_eq!(parsed("bench -- -p a").unwrap(), Task::Bench { install: true, cargo_args: args });
        let database = || Some(PathBuf::from("db"));
        assert_eq!(parsed("ci").unwrap(), Task::Ci { install: true, database: None });
        assert_eq!(
            parsed("ci --no-install --db db").unwrap(),
            Task::Ci { install: false, database: database() }
        );
        let args = ["--seeds", "5", "--from", "7"].map(str::to_owned).to_vec();
        assert_eq!(parsed("simulate --seeds 5 --from 7").unwrap(), Task::Simulate { args });
        assert_eq!(parsed("law").unwrap(), Task::Law);
        assert_eq!(parsed("fuzz").unwrap(), Task::Fuzz { seconds: 300, targets: Vec::new() });
        let targets = vec!["tables".to_owned(), "key_record".to_owned()];
        assert_eq!(parsed("fuzz --seconds 9 tables key_record").unwrap(), Task::Fuzz { seconds: 9, targets });
        let mutants = |applies_only, names: &[&str]| Task::Mutants {
            applies_only,
            names: names.iter().map(|&name| name.to_owned()).collect(),
        };
        assert_eq!(parsed("mutants").unwrap(), mutants(false, &[]));
        assert_eq!(parsed("mutants --applies").unwrap(), mutants(true, &[]));
        assert_eq!(parsed("mutants a b").unwrap(), mutants(false, &["a", "b"]));
        assert_eq!(parsed("advisories").unwrap(), Task::Advisories { install: true, database: None });
        assert_eq!(
            parsed("advisories --db db").unwrap(),
            Task::Advisories { install: true, database: database() }
        );
        for help in ["", "help", "--help", "-h"] {
            assert_eq!(parsed(help).unwrap(), Task::Help);
        }
    }

    #[test]
    fn mistakes_on_the_command_line_are_errors() {
        for line in [
            "tests",
            "test no-such-part",
            "test --install",
            "bench sqlite",
            "law sqlite",
            "law -- a",
            "mutants a --applies",
            "test -p claviger",
            "bench -p claviger",
            "ci -- -p claviger",
            "ci --install",
            "ci --db",
            "test --db db",
            "advisories db",
            "fuzz --seconds",
            "fuzz --seconds tables",
            "fuzz --minutes 5",
            "--no-install",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }

    #[test]
    fn help_names_every_part_and_its_examples_are_understood() {
        let help = help();
        for part in PARTS {
            assert!(help.contains(&format!("  {} ", part.name)), "{}", part.name);
        }
        let (_, examples) = help.split_once("Examples:").unwrap();
        let programs: Vec<_> = Workspace::find()
            .unwrap()
            .packages
            .into_iter()
            .flat_map(|package| package.test_programs)
            .collect();
        for example in examples.lines().filter_map(|line| line.trim().strip_prefix("cargo xtask ")) {
            parsed(example).unwrap();
            let words: Vec<_> = example.split_whitespace().collect();
            for pair in words.windows(2).filter(|pair| pair[0] == "--test") {
                assert!(programs.iter().any(|program| program.name == pair[1]), "{example}");
            }
        }
    }
}
