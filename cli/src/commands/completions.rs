//! Prints what a shell completes command lines by.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::args::Cli;
use crate::exit::{Exit, Failure};
use crate::print::Printer;

pub(super) fn run(shell: Shell, printer: Printer) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "claviger", &mut script);
    printer.print_exactly(&String::from_utf8_lossy(&script)).map(|()| Exit::Done)
}
