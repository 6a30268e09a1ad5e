//! The PgBouncer of Debian 13, where the system has an older one.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::Result;
use crate::process::Process;

/// It, and every library that it loads: those of an older system may be too old for it.
const PACKAGES: &[&str] = &[
    "pgbouncer",
    "libaudit1",
    "libc6",
    "libcap-ng0",
    "libcap2",
    "libcares2",
    "libevent-2.1-7t64",
    "libpam0g",
    "libssl3t64",
    "libsystemd0",
    "libzstd1",
    "zlib1g",
];

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Starts it with its own loader and libraries, wherever the folder is.
const PROGRAM: &str = r#"#!/bin/sh
root=$(dirname "$0")/root
exec "$root"/usr/lib/*/ld-linux-*.so.* --library-path "$(echo "$root"/usr/lib/*-linux-gnu)" \
    "$root/usr/sbin/pgbouncer" "$@"
"#;

/// Unpacks it into the folder of `program`. Nothing of the system is changed, so that it takes no
/// root.
pub(crate) fn install(program: &Path) -> Result<()> {
    let folder = program.parent().ok_or("no folder for PgBouncer")?;
    if Process::new("apt-get", &["--version"]).probe().is_none() || !Path::new(KEYRING).is_file() {
        return Err("install PgBouncer 1.21 or later by hand, and name its folder in \
                    CLAVIGER_PGBOUNCER_NEWER_BIN; its package of Debian 13 takes apt-get and the \
                    package debian-archive-keyring"
            .into());
    }
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    let packages = download(&folder.join("download"))?;
    let root = folder.join("root");
    fs::create_dir_all(&root)?;
    for package in fs::read_dir(packages)? {
        let package = package?.path();
        let args = ["--extract", &package.to_string_lossy(), &root.to_string_lossy()];
        Process::new("dpkg-deb", &args).run()?;
    }
    fs::remove_dir_all(folder.join("download"))?;
    fs::write(program, PROGRAM)?;
    fs::set_permissions(program, Permissions::from_mode(0o755))?;
    Ok(())
}

/// Downloads the packages and returns the folder that they are in.
fn download(folder: &Path) -> Result<PathBuf> {
    let at = |name: &str| folder.join(name).to_string_lossy().into_owned();
    for name in ["lists/partial", "cache/archives/partial", "packages"] {
        fs::create_dir_all(at(name))?;
    }
    let source = format!("deb [signed-by={KEYRING}] http://deb.debian.org/debian trixie main\n");
    fs::write(at("sources.list"), source)?;
    let options = [
        format!("--option=Dir::Etc::SourceList={}", at("sources.list")),
        "--option=Dir::Etc::SourceParts=/dev/null".to_owned(),
        format!("--option=Dir::State::Lists={}", at("lists")),
        // What is installed here is no candidate.
        "--option=Dir::State::Status=/dev/null".to_owned(),
        format!("--option=Dir::Cache={}", at("cache")),
        "--option=Acquire::Languages=none".to_owned(),
        // The user whom apt downloads as may not come here.
        "--option=APT::Sandbox::User=root".to_owned(),
        "--quiet=2".to_owned(),
    ];
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    let packages = folder.join("packages");
    let apt = |args: &[&str]| {
        let args = [options.as_slice(), args].concat();
        Process::new("apt-get", &args).in_folder(&packages).run()
    };
    apt(&["update"])?;
    apt(&[&["download"], PACKAGES].concat())?;
    Ok(packages)
}
