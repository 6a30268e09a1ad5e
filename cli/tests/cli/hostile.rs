//! Hostile surroundings: what a system may refuse, and how a run may be ended.

mod authors;
mod descriptors;
mod disks;
mod folders;
mod names;
mod others;
mod owners;
mod roles;
mod signals;
mod streams;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::kit::{CLAVIGER, Kit, Run, finish};

const OPTIONS: [&str; 4] = ["--partition-field", "id", "--fields", "mail"];
const CSV: &str = "id,mail\n1,a\n";

const EPERM: i32 = 1;
const EIO: i32 = 5;
const EACCES: i32 = 13;
const EINVAL: i32 = 22;
const ENOSYS: i32 = 38;
const EOPNOTSUPP: i32 = 95;

/// Runs a shell's script in the kit's folder, with `$C` the binary.
fn shell(kit: &Kit, script: &str) -> Run {
    finish(kit.program("sh").args(["-c", script]).env("C", CLAVIGER))
}

/// Makes some of a command's calls fail; `hostile.c` has the names and what they do.
fn failing(command: &mut Command, calls: &[(&str, i32)]) {
    command.env("LD_PRELOAD", library());
    for (call, error) in calls {
        command.env(format!("HOSTILE_{call}"), error.to_string());
    }
}

/// Compiles `hostile.c`, once.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/hostile/hostile.c");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        // Several test programs may do so at once.
        let made = folder.join(format!("hostile-{}.so", std::process::id()));
        let mut cc = Command::new("cc");
        cc.args(["-Wall", "-Werror", "-shared", "-fPIC", "-o"]).arg(&made).arg(source).arg("-ldl");
        assert!(cc.status().unwrap().success(), "these tests need a C compiler, as the build does");
        let library = folder.join("hostile.so");
        fs::rename(made, &library).unwrap();
        library
    })
}
