//! The models of schedules: `src/models.rs` of the core, under loom.

use crate::Result;
use crate::process::Process;
use crate::workspace::Workspace;

/// What they are called among the parts of the tests.
pub(crate) const PART: &str = "loom";

const ARGS: [&str; 5] = ["--profile", "model", "-p", "claviger", "--lib"];

/// Runs cargo as the models are built: with loom's types, and so in a folder of their own.
fn cargo(workspace: &Workspace, args: &[&str]) -> Process {
    let target = workspace.target.join(PART);
    workspace.cargo(args).env("RUSTFLAGS", "--cfg claviger_loom").env("CARGO_TARGET_DIR", target)
}

/// Returns what runs the models, or those that `cargo_args` select.
pub(crate) fn test(workspace: &Workspace, cargo_args: &[String]) -> Process {
    let args = ["test"].into_iter().chain(ARGS).chain(["models::"]);
    cargo(workspace, &args.chain(cargo_args.iter().map(String::as_str)).collect::<Vec<_>>())
}

/// Lists the models as test programs do.
pub(crate) fn list(workspace: &Workspace) -> Result<String> {
    let args = ["test"].into_iter().chain(ARGS).chain(["models::", "--", "--list"]);
    cargo(workspace, &args.collect::<Vec<_>>()).output()
}

/// Looks at what other builds leave out.
pub(crate) fn lints(workspace: &Workspace) -> Result<()> {
    let args = ["clippy"].into_iter().chain(ARGS).chain(["--tests", "--", "-Dwarnings"]);
    cargo(workspace, &args.collect::<Vec<_>>()).run()
}
