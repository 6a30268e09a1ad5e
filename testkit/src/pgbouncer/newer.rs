//! A PgBouncer that is newer than the one of Debian 12.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

use super::{PgBouncer, find_program};
use crate::program::{self, server_user, tools};
use crate::scratch;

/// The first that knows `max_prepared_statements`.
const FIRST: (u32, u32) = (1, 21);

/// Finds what the variable names, else the machine's if it is new enough, else what is in a folder of
/// tools.
pub(crate) fn find(tools: &Path) -> Option<PathBuf> {
    if let Some(folder) = env::var_os("CLAVIGER_PGBOUNCER_NEWER_BIN") {
        return Some(Path::new(&folder).join("pgbouncer")).filter(|program| is_new(program));
    }
    let candidates = [find_program(), Some(PgBouncer::newer_program_in(tools))];
    candidates.into_iter().flatten().find(|program| is_new(program))
}

/// The program, where the servers' user can run it.
pub(crate) fn program() -> PathBuf {
    static COPY: OnceLock<TempDir> = OnceLock::new();
    let program = find(&tools()).unwrap_or_else(|| program::missing("a newer PgBouncer"));
    let is_of_the_machine = find_program().is_some_and(|machines| machines == program);
    let Some(folder) = program.parent().filter(|_| server_user().is_some() && !is_of_the_machine) else {
        return program;
    };
    // Tools may be where only root comes. It needs what is in its folder.
    let copy = COPY.get_or_init(|| {
        let copy = scratch::folder("pgbouncer-newer");
        let mut command = Command::new("cp");
        command.arg("--recursive").arg(folder.join(".")).arg(copy.path());
        program::run(command, b"");
        copy
    });
    copy.path().join("pgbouncer")
}

fn is_new(program: &Path) -> bool {
    let Ok(output) = Command::new(program).arg("--version").output() else { return false };
    let version = || {
        let text = String::from_utf8(output.stdout).ok()?;
        let mut numbers = text.strip_prefix("PgBouncer ")?.split('.').map(|number| number.parse().ok());
        Some((numbers.next()??, numbers.next()??))
    };
    version().is_some_and(|version| version >= FIRST)
}
