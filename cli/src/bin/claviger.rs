//! The program `claviger`.

use std::process::ExitCode;

fn main() -> ExitCode {
    claviger_cli::main()
}
