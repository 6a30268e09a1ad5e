//! The simulation of whole fleets, optimised.

use crate::Result;
use crate::workspace::Workspace;

/// How many seeds everything that must hold before a change includes, and how many partitions a flood has.
const SEEDS: &str = "10000";
const FLOOD: &str = "1000000";

/// Runs `simulate` with these arguments.
pub(crate) fn run(workspace: &Workspace, args: &[String]) -> Result<()> {
    let program =
        ["run", "--profile", "model", "--package", "claviger-simulation", "--bin", "simulate", "--"];
    let args: Vec<&str> = program.into_iter().chain(args.iter().map(String::as_str)).collect();
    workspace.cargo(&args).run()
}

/// Runs so many seeds as a change must stand.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    run(workspace, &["--seeds", SEEDS].map(str::to_owned))?;
    run(workspace, &["--flood", FLOOD].map(str::to_owned))
}
