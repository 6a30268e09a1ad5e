//! What clap has to say about a command line.

use std::ffi::OsString;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command};

use crate::escape::line;
use crate::exit::{Exit, Failure};
use crate::print::Printer;
use crate::tell::say;

/// Says it: help and version on standard output, the rest on standard error.
pub(crate) fn answer(
    mut error: clap::Error,
    command: &Command,
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Exit, Failure> {
    if !error.use_stderr() {
        Printer::open()?.print(&error.render().to_string())?;
        return Ok(Exit::Done);
    }
    if error.kind() == ErrorKind::UnknownArgument {
        let arguments = arguments.into_iter().skip(1).map(|argument| argument.to_string_lossy().into_owned());
        advise(&mut error, command, &arguments.collect::<Vec<_>>());
    }
    shown_in_one_line(&mut error);
    say(&error.render().to_string());
    Ok(Exit::Usage)
}

/// An argument may be the name of a file, and must not begin a line of its own.
fn shown_in_one_line(error: &mut clap::Error) {
    let of_text = |(kind, value): (ContextKind, &ContextValue)| match value {
        ContextValue::String(text) => Some((kind, ContextValue::String(line(text)))),
        _ => None,
    };
    for (kind, value) in error.context().filter_map(of_text).collect::<Vec<_>>() {
        error.insert(kind, value);
    }
}

/// Says how what begins with a hyphen is given as a value. Clap takes its first letter for all of
/// it, and says `--`, behind which there are no values of options.
fn advise(error: &mut clap::Error, command: &Command, arguments: &[String]) {
    let Some(ContextValue::String(unknown)) = error.get(ContextKind::InvalidArg) else { return };
    let Some(Found { argument, option, command }) = find(command, arguments, unknown) else { return };
    let shown = line(argument);
    let advice = match (option, command.get_positionals().next()) {
        (Some(option), _) => {
            Some(format!("to pass '{shown}' as the value of '--{option}', use '--{option}={shown}'"))
        }
        (None, Some(positional))
            if positional.get_possible_values().is_empty() && !argument.starts_with("--") =>
        {
            let name = positional.get_id().as_str().to_uppercase();
            Some(format!("to pass '{shown}' as {name}, use '-- {shown}' behind all options"))
        }
        _ => None,
    };
    error.insert(ContextKind::InvalidArg, ContextValue::String(argument.to_owned()));
    error.remove(ContextKind::Suggested);
    if let Some(advice) = advice {
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![StyledStr::from(advice)]));
    }
}

/// The argument that clap did not know.
struct Found<'a> {
    argument: &'a str,
    /// The option before it that wanted a value.
    option: Option<&'a str>,
    /// The command that it was given to.
    command: &'a Command,
}

fn find<'a>(mut command: &'a Command, arguments: &'a [String], unknown: &str) -> Option<Found<'a>> {
    let mut option = None;
    for argument in arguments.iter().take_while(|argument| *argument != "--") {
        if is_it(argument, unknown) {
            return Some(Found { argument, option, command });
        }
        if option.is_none()
            && let Some(subcommand) = command.find_subcommand(argument)
        {
            command = subcommand;
        }
        option = command.get_arguments().find(|arg| is_named(arg, argument)).and_then(Arg::get_long);
    }
    None
}

/// Tells whether clap's word for an argument means this one: it takes the value from a long option, and
/// the first letter from short ones.
fn is_it(argument: &str, unknown: &str) -> bool {
    argument
        .strip_prefix(unknown)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('=') || !unknown.starts_with("--"))
}

/// Tells whether this is the name of an option whose value comes next.
fn is_named(arg: &Arg, argument: &str) -> bool {
    let is_long = argument.strip_prefix("--").is_some_and(|name| arg.get_long() == Some(name));
    let is_short = argument.strip_prefix('-').is_some_and(|name| {
        let mut letters = name.chars();
        letters.next() == arg.get_short() && letters.next().is_none()
    });
    (is_long || is_short) && arg.get_action().takes_values() && !arg.is_require_equals_set()
}
