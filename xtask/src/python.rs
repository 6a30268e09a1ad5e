//! Pythons, and environments with packages of theirs.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::Result;
use crate::process::Process;

/// What is said where LocalStack cannot be installed: no package that we could install brings it.
pub(crate) const NO_3_12: &str = "\
Python 3.12 is missing, and nothing was installed. LocalStack, the AWS KMS of the tests, runs on no \
other version. No `python3.12` on PATH runs with its module venv, nor one in ~/.pyenv/versions. \
Install it by `uv python install 3.12`, `pyenv install 3.12` or your system's packages (Ubuntu 24.04: \
python3.12-venv), and try again.";

/// Returns `true` if `python3` makes environments for the packages that run on many versions.
pub(crate) fn serves() -> bool {
    Process::new("python3", &["-c", SERVES]).probe().is_some()
}

/// Finds a Python 3.12 that makes environments.
pub(crate) fn find_3_12() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&path).map(|folder| folder.join("python3.12"));
    let pyenv = env::var_os("PYENV_ROOT").map(PathBuf::from);
    let pyenv = pyenv.or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".pyenv")));
    let in_pyenv = pyenv.into_iter().flat_map(|root| in_pyenv(&root));
    first_3_12(on_path.chain(in_pyenv))
}

/// Lists the Pythons 3.12 that pyenv has built, the selected one or not.
fn in_pyenv(root: &Path) -> Vec<PathBuf> {
    let versions = fs::read_dir(root.join("versions")).into_iter().flatten().flatten();
    let is_3_12 = |name: &str| name == "3.12" || name.starts_with("3.12.");
    versions
        .filter(|version| version.file_name().to_str().is_some_and(is_3_12))
        .map(|version| version.path().join("bin/python3.12"))
        .collect()
}

/// Returns the first that truly runs: pyenv puts a program on `PATH` that refuses to.
fn first_3_12(mut pythons: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    pythons.find(|python| Process::new(python, &["-c", IS_3_12]).probe().is_some())
}

/// Makes an environment with packages, around a program of its folder `bin`.
pub(crate) fn install(python: &Path, program: &Path, packages: &[&str]) -> Result<()> {
    let folder = program.parent().and_then(Path::parent).ok_or("no folder for the Python packages")?;
    // --clear: an earlier run may have been interrupted.
    Process::new(python, &["-m", "venv", "--clear", &folder.to_string_lossy()]).run()?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"];
    Process::new(folder.join("bin/python"), &[&pip, packages].concat()).run()
}

/// Returns `true` if a Python has a package in this version, and it can be imported.
pub(crate) fn has(python: &Path, module: &str, package: &str, wanted: &str) -> bool {
    let version = format!("import {module}, importlib.metadata as m; print(m.version('{package}'))");
    Process::new(python, &["-c", &version]).probe().is_some_and(|version| version == wanted)
}

const SERVES: &str = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 9))";
const IS_3_12: &str = "import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 12))";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// Writes a program that answers like a Python of this version, or not at all.
    fn python(path: &Path, version: Option<(u8, u8)>) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let script = match version {
            // Our question is put to a version of the test's choice.
            Some((major, minor)) => format!(
                "#!/bin/sh\nexec python3 -c \"import sys; sys.version_info = ({major}, {minor}, 0); $2\"\n"
            ),
            None => "#!/bin/sh\necho 'python3.12: command not found' >&2\nexit 127\n".to_owned(),
        };
        fs::write(path, script).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn python_that_refuses_to_run_or_is_another_version_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        python(&at("shim"), None);
        python(&at("newer"), Some((3, 13)));
        python(&at("good"), Some((3, 12)));
        let found = |names: &[&str]| first_3_12(names.iter().map(|name| at(name)));
        assert_eq!(found(&["no-such-file", "shim", "newer", "good"]), Some(at("good")));
        assert_eq!(found(&["no-such-file", "shim", "newer"]), None);
    }

    #[test]
    fn pyenv_is_looked_into_for_this_version_alone() {
        let folder = tempfile::tempdir().unwrap();
        for version in ["3.1.2", "3.11.7", "3.12.1", "3.13.0", "3.120.0"] {
            python(&folder.path().join(format!("versions/{version}/bin/python3.12")), Some((3, 12)));
        }
        assert_eq!(in_pyenv(folder.path()), [folder.path().join("versions/3.12.1/bin/python3.12")]);
        assert!(in_pyenv(&folder.path().join("none")).is_empty());
    }

    #[test]
    fn python_without_the_package_is_missing() {
        assert!(!has(Path::new("/no/such/python"), "asherah", "asherah", "1"));
        assert!(!has(Path::new("python3"), "sys", "no-such-package", "1"));
    }
}
