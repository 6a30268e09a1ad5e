//! Known vulnerabilities of what we depend on, from a database that somebody has fetched: nothing here goes
//! to the network.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::{env, fs};

use tempfile::TempDir;

use crate::Result;
use crate::needs::Tools;
use crate::process::Process;
use crate::workspace::Workspace;

/// What a run says, and ends with, that has checked nothing.
pub(crate) const NOT_CHECKED: &str = "advisories were NOT checked: there is no database; fetch it with \
     git clone https://github.com/RustSec/advisory-db, and give it as --db PATH";

/// Finds the database that was given, else the one that cargo-deny fetched last, if it did.
pub(crate) fn find(given: Option<PathBuf>) -> Option<PathBuf> {
    let cargo_home = || {
        let home = || env::home_dir().map(|home| home.join(".cargo"));
        env::var_os("CARGO_HOME").map(PathBuf::from).or_else(home)
    };
    let fetched = || cargo_home().map(|home| home.join("advisory-dbs").join(FOLDER));
    given.or_else(|| fetched().filter(|path| path.is_dir()))
}

/// Checks the lock file against this database. One that nobody has updated for 90 days is an error, and so
/// is one that cannot be read, or has nothing in it.
pub(crate) fn check(workspace: &Workspace, tools: &Tools, database: &Path) -> Result<()> {
    check_with(&tools.cargo_deny, &workspace.root, database)
}

fn check_with(cargo_deny: &Path, root: &Path, database: &Path) -> Result<()> {
    let crates = database.join("crates");
    if !fs::read_dir(&crates).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(format!("{} has no advisories: it is no database of RustSec", database.display()).into());
    }
    // Where cargo-deny looks for a database when it may not fetch it.
    let folder = tempfile::tempdir()?;
    symlink(database.canonicalize()?, folder.path().join(FOLDER))?;
    let settings = fs::read_to_string(root.join("deny.toml"))?;
    let (before, after) = settings.split_once(SECTION).ok_or("deny.toml says nothing of advisories")?;
    let config = folder.path().join("deny.toml");
    fs::write(
        &config,
        format!("{before}{SECTION}db-path = {:?}\ndb-urls = [{URL:?}]\n{after}", folder.path()),
    )?;
    let (manifest, config) = (root.join("Cargo.toml"), config.to_string_lossy());
    let of = ["--manifest-path", &manifest.to_string_lossy(), "--workspace", "--all-features"];
    let by = ["--offline", "--config", &config, "check", "advisories"];
    Process::new(cargo_deny, &[&of[..], &by[..]].concat()).run()
}

/// Checks that the check finds what is there and nothing else: an advisory against a crate of the lock file,
/// and one against none. What cargo-deny makes of a folder may change with its version.
pub(crate) fn prove(workspace: &Workspace, tools: &Tools) -> Result<()> {
    let of = |package: &str| {
        let database = made_up(package)?;
        check(workspace, tools, database.path())
    };
    of("not-a-crate-of-ours")?;
    match of("ring") {
        Ok(()) => Err("an advisory against ring was not found".into()),
        Err(error) => {
            println!("found, as it should be: {error}");
            Ok(())
        }
    }
}

/// Makes a database with one advisory, against all versions of this crate.
fn made_up(package: &str) -> Result<TempDir> {
    let database = tempfile::tempdir()?;
    let folder = database.path().join("crates").join(package);
    fs::create_dir_all(&folder)?;
    let advisory = format!(
        "```toml\n[advisory]\nid = \"RUSTSEC-2000-0001\"\npackage = \"{package}\"\ndate = \"2000-01-01\"\n\
         [versions]\npatched = []\n```\n\n# Made up\n\nIt is found or not.\n"
    );
    fs::write(folder.join("RUSTSEC-2000-0001.md"), advisory)?;
    let git = |args: &[&str]| Process::new("git", args).in_folder(database.path()).output().map(drop);
    git(&["init", "--quiet", "--initial-branch=main"])?;
    git(&["add", "."])?;
    git(&[
        "-c",
        "user.name=xtask",
        "-c",
        "user.email=xtask@localhost",
        "commit",
        "--quiet",
        "--message=all",
    ])?;
    Ok(database)
}

const SECTION: &str = "[advisories]\n";

/// The database that cargo-deny has advisories from unless told.
const URL: &str = "https://github.com/RustSec/advisory-db";

/// Where cargo-deny keeps it: the last part of the address, and a hash of it all.
const FOLDER: &str = "advisory-db-3157b0e258782691";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A program in place of cargo-deny that takes its word from what it is given.
    fn stand_in(folder: &Path, script: &str) -> PathBuf {
        let path = folder.join("cargo-deny");
        fs::write(&path, format!("#!/bin/sh\nset -e\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn root() -> PathBuf {
        Workspace::find().unwrap().root
    }

    #[test]
    fn the_given_database_is_the_one_that_is_checked_by_our_own_settings() {
        let folder = tempfile::tempdir().unwrap();
        let crates = folder.path().join("crates/some-crate");
        fs::create_dir_all(&crates).unwrap();
        fs::write(crates.join("RUSTSEC-2026-0001.md"), "").unwrap();
        let script = format!(
            "test $5 = --offline; root=$(sed -n 's/^db-path = \"\\(.*\\)\"/\\1/p' $7); \
             test -f $root/{FOLDER}/crates/some-crate/RUSTSEC-2026-0001.md; grep -q 'yanked = \"deny\"' $7"
        );
        let program = stand_in(folder.path(), &script);
        check_with(&program, &root(), folder.path()).unwrap();
        let program = stand_in(folder.path(), "exit 1");
        assert!(check_with(&program, &root(), folder.path()).is_err());
    }

    #[test]
    fn a_folder_without_advisories_is_no_database() {
        let folder = tempfile::tempdir().unwrap();
        let program = stand_in(folder.path(), "exit 0");
        for path in [folder.path(), Path::new("/nonexistent")] {
            let error = check_with(&program, &root(), path).unwrap_err().to_string();
            assert!(error.contains("is no database of RustSec"), "{error}");
        }
        fs::create_dir(folder.path().join("crates")).unwrap();
        assert!(check_with(&program, &root(), folder.path()).is_err(), "an empty one proves nothing");
    }
}
