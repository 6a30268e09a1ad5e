//! What the tests and checks need besides Rust, and how it gets here.

use std::path::{Path, PathBuf};

use crate::Result;
use crate::process::Process;
use crate::workspace::Workspace;

/// The other implementation that the interoperability tests run, a Python package with Rust inside.
pub(crate) const ASHERAH: &str = "0.5.56";
/// Written against this one; a newer one may warn about more.
const CARGO_DENY: &str = "0.20.2";

/// What is missing, in the order it must be installed.
pub(crate) struct Needs {
    tools: Tools,
    missing: Vec<Need>,
}

/// The programs that are there once the needs are met.
#[derive(Clone)]
pub(crate) struct Tools {
    pub(crate) folder: PathBuf,
    /// A Python that has [`ASHERAH`].
    pub(crate) asherah_python: PathBuf,
    pub(crate) cargo_deny: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    CCompiler,
    Python,
    AsherahPython,
    CargoDeny,
}

pub(crate) fn for_tests(workspace: &Workspace) -> Needs {
    let tools = Tools::below(workspace.tools());
    let mut missing = Vec::new();
    if Process::new("cc", &["--version"]).probe().is_none() {
        missing.push(Need::CCompiler);
    }
    if !has_asherah(&tools.asherah_python) {
        if Process::new("python3", &["-c", PYTHON_SERVES]).probe().is_none() {
            missing.push(Need::Python);
        }
        missing.push(Need::AsherahPython);
    }
    Needs { tools, missing }
}

pub(crate) fn for_ci(workspace: &Workspace) -> Needs {
    let mut needs = for_tests(workspace);
    let version = Process::new(&needs.tools.cargo_deny, &["--version"]).probe();
    if version.as_deref() != Some(&format!("cargo-deny {CARGO_DENY}")) {
        needs.missing.push(Need::CargoDeny);
    }
    needs
}

impl Tools {
    fn below(folder: PathBuf) -> Self {
        Self {
            // The version is part of the path, so that a new one finds no old one.
            asherah_python: folder.join(format!("asherah-python-{ASHERAH}/bin/python")),
            cargo_deny: folder.join("bin/cargo-deny"),
            folder,
        }
    }
}

impl Needs {
    /// Says what is missing and installs it, or with `install` unset refuses.
    pub(crate) fn provide(self, install: bool) -> Result<Tools> {
        if self.missing.is_empty() {
            println!("Everything needed is installed.");
            return Ok(self.tools);
        }
        println!("{}", self.announcement(if install { "Installing" } else { "Missing" }));
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
    fn describe(self, tools: &Tools) -> String {
        let folder = tools.folder.display();
        match self {
            Self::CCompiler => "a C compiler, for ring and SQLite: apt packages gcc, libc6-dev".into(),
            Self::Python => "Python 3.9 or later with venv: apt packages python3, python3-venv".into(),
            Self::AsherahPython => format!(
                "Python package asherah=={ASHERAH}, for the tests of interoperability: pip, into {folder}"
            ),
            Self::CargoDeny => format!(
                "cargo-deny {CARGO_DENY}, for licences and bans: cargo install, into {folder} (minutes)"
            ),
        }
    }

    fn install(self, tools: &Tools) -> Result<()> {
        match self {
            Self::CCompiler => apt_install(&["gcc", "libc6-dev"]),
            Self::Python => apt_install(&["python3", "python3-venv"]),
            Self::AsherahPython => install_asherah(&tools.asherah_python),
            Self::CargoDeny => {
                let root = tools.folder.to_string_lossy();
                let spec = format!("cargo-deny@{CARGO_DENY}");
                Process::cargo(Path::new("."), &["install", "--locked", "--force", "--root", &root, &spec])
                    .run()
            }
        }
    }
}

fn apt_install(packages: &[&str]) -> Result<()> {
    let is_root = Process::new("id", &["-u"]).probe().is_some_and(|id| id == "0");
    if !is_root || Process::new("apt-get", &["--version"]).probe().is_none() {
        let packages = packages.join(", ");
        return Err(format!("install it by hand (Debian: {packages}); that takes root and apt-get").into());
    }
    let apt = |args: &[&str]| Process::new("apt-get", args).env("DEBIAN_FRONTEND", "noninteractive").run();
    apt(&["update"])?;
    apt(&[&["install", "--yes", "--no-install-recommends"], packages].concat())
}

fn install_asherah(python: &Path) -> Result<()> {
    let folder = python.parent().and_then(Path::parent).ok_or("no folder for the Python package")?;
    // --clear: an earlier run may have been interrupted.
    Process::new("python3", &["-m", "venv", "--clear", &folder.to_string_lossy()]).run()?;
    let package = format!("asherah=={ASHERAH}");
    let pip =
        ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:", &package];
    Process::new(python, &pip).run()?;
    if has_asherah(python) { Ok(()) } else { Err("asherah was installed but does not import".into()) }
}

fn has_asherah(python: &Path) -> bool {
    Process::new(python, &["-c", ASHERAH_VERSION]).probe().is_some_and(|version| version == ASHERAH)
}

const PYTHON_SERVES: &str = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 9))";
const ASHERAH_VERSION: &str = "import asherah, importlib.metadata as m; print(m.version('asherah'))";

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(missing: &[Need]) -> Needs {
        Needs { tools: Tools::below("/t/tools".into()), missing: missing.to_vec() }
    }

    #[test]
    fn without_install_what_is_missing_is_refused_and_named() {
        let needs = needs(&[Need::CCompiler, Need::AsherahPython]);
        let announcement = needs.announcement("Missing");
        assert!(announcement.contains("gcc") && announcement.contains("asherah==0.5.56"), "{announcement}");
        assert!(needs.provide(false).is_err());
    }

    #[test]
    fn nothing_missing_is_provided_without_installing() {
        let tools = needs(&[]).provide(false).unwrap();
        assert_eq!(tools.asherah_python, Path::new("/t/tools/asherah-python-0.5.56/bin/python"));
    }

    #[test]
    fn python_without_the_package_is_missing() {
        assert!(!has_asherah(Path::new("/no/such/python")));
    }
}
