//! What the tests and checks need besides Rust, and how it gets here.

use std::path::{Path, PathBuf};

use claviger_testkit::{Dynalite, Galera, LocalStack, MariaDb, Moto, PgBouncer, Postgres, SoftHsm};

use crate::process::Process;
use crate::workspace::Workspace;
use crate::{Result, apt, pgbouncer, python};

/// The other implementations that the interoperability tests run, Python packages: one with Rust
/// inside, one with Go.
const ASHERAH_RUST: &str = "0.5.56";
const ASHERAH_GO: &str = "0.3.9";
/// Written against this one; a newer one may warn about more.
const CARGO_DENY: &str = "0.20.2";

/// What LocalStack's KMS imports besides, each below the version that breaks it.
const LOCALSTACK_NEEDS: &[&str] =
    &["moto-ext<5.2", "cryptography<47", "pyopenssl<26", "cbor2<6", "service_identity"];

/// What is missing, in the order it must be installed.
pub(crate) struct Needs {
    tools: Tools,
    missing: Vec<Need>,
}

/// The programs that are there once the needs are met.
#[derive(Clone)]
pub(crate) struct Tools {
    pub(crate) folder: PathBuf,
    /// A Python that has [`ASHERAH_RUST`].
    pub(crate) asherah_python: PathBuf,
    /// A Python that has [`ASHERAH_GO`].
    pub(crate) asherah_go_python: PathBuf,
    pub(crate) dynalite: PathBuf,
    pub(crate) moto: PathBuf,
    /// A Python that has LocalStack.
    pub(crate) localstack: PathBuf,
    pub(crate) cargo_deny: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    CCompiler,
    CxxCompiler,
    Postgres,
    PgBouncer,
    NewerPgBouncer,
    MariaDb,
    Galera,
    OpenSsl,
    Node,
    Dynalite,
    Python,
    AsherahRust,
    AsherahGo,
    Moto,
    /// It installs LocalStack, and we cannot install it.
    Python312,
    LocalStack,
    SoftHsm,
    Promtool,
    CargoDeny,
}

/// Finds out what of this is missing.
pub(crate) fn of(workspace: &Workspace, wanted: impl IntoIterator<Item = Need>) -> Needs {
    let tools = Tools::below(workspace.tools());
    let wanted: Vec<_> = wanted.into_iter().collect();
    let missing = missing(&wanted, |need| need.is_met(&tools));
    Needs { tools, missing }
}

/// Lists what is not met, and what it takes to install that if it is not met either.
fn missing(wanted: &[Need], is_met: impl Fn(Need) -> bool) -> Vec<Need> {
    let mut missing: Vec<_> = wanted.iter().copied().filter(|need| !is_met(*need)).collect();
    let installers: Vec<_> = missing.iter().filter_map(|need| need.installer()).collect();
    missing.extend(installers.into_iter().filter(|need| !is_met(*need)));
    Need::IN_ORDER.into_iter().filter(|need| missing.contains(need)).collect()
}

impl Tools {
    fn below(folder: PathBuf) -> Self {
        Self {
            // The version is part of the path, so that a new one finds no old one.
            asherah_python: folder.join(format!("asherah-python-{ASHERAH_RUST}/bin/python")),
            asherah_go_python: folder.join(format!("asherah-python-{ASHERAH_GO}/bin/python")),
            dynalite: Dynalite::program_in(&folder),
            moto: Moto::program_in(&folder),
            localstack: LocalStack::program_in(&folder),
            cargo_deny: folder.join("bin/cargo-deny"),
            folder,
        }
    }

    /// Tells tests where those are that they run.
    pub(crate) fn known_to(&self, process: Process) -> Process {
        let newer = PgBouncer::newer_program_in(&self.folder);
        // Without it the machine's own is new enough.
        let newer = newer.parent().filter(|_| newer.is_file());
        let process = process
            .env("CLAVIGER_ASHERAH_PYTHON", &self.asherah_python)
            .env("CLAVIGER_ASHERAH_GO_PYTHON", &self.asherah_go_python)
            .env("CLAVIGER_DYNALITE_BIN", &self.dynalite)
            .env("CLAVIGER_MOTO_BIN", &self.moto)
            .env("CLAVIGER_LOCALSTACK_PYTHON", &self.localstack);
        newer.into_iter().fold(process, |process, folder| process.env("CLAVIGER_PGBOUNCER_NEWER_BIN", folder))
    }
}

impl Needs {
    /// Says what is missing and installs it, or with `install` unset refuses.
    pub(crate) fn provide(self, install: bool) -> Result<Tools> {
        if self.missing.is_empty() {
            println!("Everything needed is installed.");
            return Ok(self.tools);
        }
        // At once, not when minutes were spent on the others.
        let is_by_hand = self.missing.contains(&Need::Python312);
        let installs = install && !is_by_hand;
        println!("{}", self.announcement(if installs { "Installing" } else { "Missing" }));
        if is_by_hand {
            return Err(python::NO_3_12.into());
        }
        if !install {
            return Err("something is missing and --no-install was given".into());
        }
        for need in &self.missing {
            need.install(&self.tools)?;
        }
        Ok(self.tools)
    }

    fn announcement(&self, verb: &str) -> String {
        let item = |need: &Need| format!("  {}", need.describe(&self.tools));
        let items: Vec<_> = self.missing.iter().map(item).collect();
        format!("{verb}:\n{}", items.join("\n"))
    }
}

impl Need {
    /// In the order in which they are installed.
    const IN_ORDER: [Self; 19] = [
        Self::CCompiler,
        Self::CxxCompiler,
        Self::Postgres,
        Self::PgBouncer,
        Self::NewerPgBouncer,
        Self::MariaDb,
        Self::Galera,
        Self::OpenSsl,
        Self::Node,
        Self::Dynalite,
        Self::Python,
        Self::AsherahRust,
        Self::AsherahGo,
        Self::Moto,
        Self::Python312,
        Self::LocalStack,
        Self::SoftHsm,
        Self::Promtool,
        Self::CargoDeny,
    ];

    /// What the benchmarks run.
    pub(crate) const FOR_BENCHES: [Self; 4] =
        [Self::CCompiler, Self::Postgres, Self::MariaDb, Self::Dynalite];

    /// What fuzz targets are built with.
    pub(crate) const FOR_FUZZING: [Self; 2] = [Self::CCompiler, Self::CxxCompiler];

    /// What installs it, and is not needed where it is there.
    const fn installer(self) -> Option<Self> {
        match self {
            Self::Dynalite => Some(Self::Node),
            Self::AsherahRust | Self::AsherahGo | Self::Moto => Some(Self::Python),
            Self::LocalStack => Some(Self::Python312),
            _ => None,
        }
    }

    fn is_met(self, tools: &Tools) -> bool {
        let runs = |program: &str, args: &[&str]| Process::new(program, args).probe().is_some();
        match self {
            Self::CCompiler => runs("cc", &["--version"]),
            Self::CxxCompiler => runs("c++", &["--version"]),
            Self::Postgres => Postgres::is_installed(),
            Self::PgBouncer => PgBouncer::is_installed(),
            Self::NewerPgBouncer => PgBouncer::is_newer_installed(&tools.folder),
            Self::MariaDb => MariaDb::is_installed(),
            Self::Galera => Galera::is_installed(),
            Self::OpenSsl => runs("openssl", &["version"]),
            Self::Node => runs("node", &["--version"]) && runs("npm", &["--version"]),
            Self::Dynalite => Process::new(&tools.dynalite, &["--help"]).probe().is_some(),
            Self::Python => python::serves(),
            Self::AsherahRust => python::has(&tools.asherah_python, "asherah", "asherah", ASHERAH_RUST),
            Self::AsherahGo => python::has(&tools.asherah_go_python, "asherah", "asherah", ASHERAH_GO),
            Self::Moto => Process::new(&tools.moto, &["--help"]).probe().is_some(),
            Self::Python312 => python::find_3_12().is_some(),
            Self::LocalStack => python::has(
                &tools.localstack,
                "localstack.runtime, moto",
                "localstack-core",
                LocalStack::VERSION,
            ),
            Self::SoftHsm => SoftHsm::is_installed(),
            Self::Promtool => runs("promtool", &["--version"]),
            Self::CargoDeny => Process::new(&tools.cargo_deny, &["--version"])
                .probe()
                .is_some_and(|version| version == format!("cargo-deny {CARGO_DENY}")),
        }
    }

    /// The packages of Debian that bring it, if those do.
    fn apt_packages(self) -> &'static [&'static str] {
        match self {
            Self::CCompiler => &["gcc", "libc6-dev"],
            Self::CxxCompiler => &["g++"],
            Self::Postgres => &["postgresql"],
            Self::PgBouncer => &["pgbouncer"],
            Self::MariaDb => &["mariadb-server", "tzdata"],
            Self::Galera => &["galera-4"],
            Self::OpenSsl => &["openssl"],
            Self::Node => &["nodejs", "npm"],
            Self::Python => &["python3", "python3-venv"],
            Self::SoftHsm => &["softhsm2"],
            Self::Promtool => &["prometheus"],
            _ => &[],
        }
    }

    fn describe(self, tools: &Tools) -> String {
        let folder = tools.folder.display();
        let apt = self.apt_packages().join(", ");
        match self {
            Self::CCompiler => {
                format!("a C compiler, for ring, SQLite and tests of HSMs: apt packages {apt}")
            }
            Self::CxxCompiler => format!("a C++ compiler, for libFuzzer: apt package {apt}"),
            Self::Postgres => format!("PostgreSQL, not started: apt package {apt}"),
            Self::PgBouncer => format!("PgBouncer, not started: apt package {apt}"),
            Self::NewerPgBouncer => format!(
                "PgBouncer 1.21 or later, for its prepared statements: Debian 13's package and what it \
                 needs, unpacked into {folder}"
            ),
            Self::MariaDb => format!("MariaDB, not started: apt packages {apt}"),
            Self::Galera => format!("Galera, for clusters of MariaDB: apt package {apt}"),
            Self::OpenSsl => format!("the program openssl, for certificates of tests: apt package {apt}"),
            Self::Node => format!("Node.js, for dynalite: apt packages {apt}"),
            Self::Dynalite => {
                format!("dynalite {}, a DynamoDB for tests: npm, into {folder}", Dynalite::VERSION)
            }
            Self::Python => format!("Python 3.9 or later with venv: apt packages {apt}"),
            Self::AsherahRust => format!(
                "Python package asherah=={ASHERAH_RUST}, for the tests of interoperability: pip, into {folder}"
            ),
            Self::AsherahGo => {
                format!("Python package asherah=={ASHERAH_GO}, the same with Go inside: pip, into {folder}")
            }
            Self::Moto => {
                format!("Python package moto=={}, an AWS for tests: pip, into {folder}", Moto::VERSION)
            }
            Self::Python312 => "Python 3.12 with venv, for LocalStack: to be installed by hand".to_owned(),
            Self::LocalStack => format!(
                "Python package localstack-core=={}, an AWS KMS for tests: pip, into {folder}",
                LocalStack::VERSION
            ),
            Self::SoftHsm => format!("SoftHSM, an HSM for tests: apt package {apt}"),
            Self::Promtool => {
                format!("promtool, which checks metrics and alarms: apt package {apt}, not started")
            }
            Self::CargoDeny => format!(
                "cargo-deny {CARGO_DENY}, for licences and bans: cargo install, into {folder} (minutes)"
            ),
        }
    }

    fn install(self, tools: &Tools) -> Result<()> {
        let pip = |program: &Path, packages: &[&str]| python::install("python3".as_ref(), program, packages);
        match self {
            Self::CCompiler
            | Self::CxxCompiler
            | Self::Postgres
            | Self::PgBouncer
            | Self::MariaDb
            | Self::Galera
            | Self::OpenSsl
            | Self::Node
            | Self::Python
            | Self::SoftHsm
            | Self::Promtool => apt::install(self.apt_packages())?,
            Self::NewerPgBouncer => pgbouncer::install(&PgBouncer::newer_program_in(&tools.folder))?,
            Self::Dynalite => install_dynalite(&tools.dynalite)?,
            Self::AsherahRust => pip(&tools.asherah_python, &[&format!("asherah=={ASHERAH_RUST}")])?,
            Self::AsherahGo => pip(&tools.asherah_go_python, &[&format!("asherah=={ASHERAH_GO}")])?,
            // What its extra `server` would bring besides is for services that we do not use.
            Self::Moto => {
                pip(
                    &tools.moto,
                    &[&format!("moto[dynamodb,kms]=={}", Moto::VERSION), "flask", "flask-cors"],
                )?;
            }
            Self::Python312 => return Err(python::NO_3_12.into()),
            Self::LocalStack => {
                let python = python::find_3_12().ok_or(python::NO_3_12)?;
                let package = format!("localstack-core[base-runtime]=={}", LocalStack::VERSION);
                python::install(&python, &tools.localstack, &[&[&*package], LOCALSTACK_NEEDS].concat())?;
            }
            Self::CargoDeny => {
                let root = tools.folder.to_string_lossy();
                let spec = format!("cargo-deny@{CARGO_DENY}");
                let args = ["install", "--locked", "--force", "--root", &root, &spec];
                Process::cargo(Path::new("."), &args).run()?;
            }
        }
        if self.is_met(tools) {
            Ok(())
        } else {
            Err(format!("{self:?} was installed but does not work").into())
        }
    }
}

fn install_dynalite(program: &Path) -> Result<()> {
    let folder = program.ancestors().nth(3).ok_or("no folder for dynalite")?.to_string_lossy();
    let package = format!("dynalite@{}", Dynalite::VERSION);
    Process::new("npm", &["install", "--silent", "--no-audit", "--no-fund", "--prefix", &folder, &package])
        .run()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(missing: &[Need]) -> Needs {
        Needs { tools: Tools::below("/t/tools".into()), missing: missing.to_vec() }
    }

    #[test]
    fn without_install_what_is_missing_is_refused_and_named() {
        let needs = needs(&Need::IN_ORDER);
        let announcement = needs.announcement("Missing");
        for name in [
            "gcc",
            "postgresql",
            "package pgbouncer",
            "PgBouncer 1.21",
            "mariadb-server",
            "galera-4",
            "openssl",
            "npm",
            "dynalite",
            "python3-venv",
            "asherah==0.5.56",
            "asherah==0.3.9",
            "moto",
            "Python 3.12",
            "localstack-core==4.13.1",
            "softhsm2",
            "package prometheus",
        ] {
            assert!(announcement.contains(name), "{name}: {announcement}");
        }
        assert!(needs.provide(false).is_err());
    }

    #[test]
    fn nothing_missing_is_provided_without_installing() {
        let tools = needs(&[]).provide(false).unwrap();
        assert_eq!(tools.asherah_python, Path::new("/t/tools/asherah-python-0.5.56/bin/python"));
    }

    #[test]
    fn what_only_installs_others_is_dropped_with_them() {
        assert_eq!(
            missing(&[Need::Dynalite, Need::Moto], |_| false),
            [Need::Node, Need::Dynalite, Need::Python, Need::Moto]
        );
        assert_eq!(
            missing(&[Need::Dynalite, Need::Moto], |need| need == Need::Dynalite),
            [Need::Python, Need::Moto]
        );
    }

    #[test]
    fn what_no_wanted_part_runs_is_not_missed() {
        assert_eq!(missing(&[Need::CCompiler], |_| false), [Need::CCompiler]);
        assert!(missing(&[], |_| false).is_empty());
    }

    #[test]
    fn without_python_3_12_nothing_is_installed() {
        // Were it to begin, it would run npm first.
        let folder = tempfile::tempdir().unwrap();
        let missing = vec![Need::Dynalite, Need::Python312, Need::LocalStack];
        let needs = Needs { tools: Tools::below(folder.path().join("tools")), missing };
        let announcement = needs.announcement("Missing");
        assert!(announcement.contains("Python 3.12"), "{announcement}");
        let error = needs.provide(true).err().unwrap().to_string();
        assert!(error.contains("uv python install 3.12") && error.contains("nothing was"), "{error}");
        assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none());
    }

    #[test]
    fn python_3_12_is_not_missed_where_localstack_is_there() {
        let wanted = [Need::Moto, Need::LocalStack];
        assert_eq!(missing(&wanted, |need| matches!(need, Need::LocalStack | Need::Python)), [Need::Moto]);
    }

    #[test]
    fn everything_is_installed_after_what_installs_it() {
        let all = missing(&Need::IN_ORDER, |_| false);
        let place = |need| all.iter().position(|other| *other == need).unwrap();
        for need in Need::IN_ORDER {
            assert!(need.installer().is_none_or(|installer| place(installer) < place(need)), "{need:?}");
        }
    }
}
