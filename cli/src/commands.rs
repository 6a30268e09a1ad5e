//! What each command does: one file for each group of them.

mod completions;
mod crypt;
mod kms;
mod schema;

use crate::args::Command;
use crate::exit::{Exit, Failure};
use crate::print::Printer;

/// Does what a command says, and returns how it ended.
pub(crate) fn run(command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Encrypt(options) => crypt::encrypt(options),
        Command::Decrypt(options) => crypt::decrypt(options),
        Command::Schema(command) => schema::run(command, Printer::open()?),
        Command::Kms(command) => kms::run(command, Printer::open()?),
        Command::Completions { shell } => completions::run(shell, Printer::open()?),
    }
}
