//! The files of a run, and what each of them is for: none that is written may be another of them.
//!
//! They are compared as files, not by their paths, before any work is done and before anything is made.

use std::io;

use crate::args::Crypt;
use crate::config::Settings;
use crate::exit::{Exit, Failure};
use crate::identity::Identity;
use crate::input::Input;
use crate::output::Target;
use crate::used::{Role, Used};

/// Refuses a run that would write to one of its other files.
pub(crate) fn check(
    crypt: &Crypt,
    settings: &Settings,
    input: &Input,
    output: &Target,
    errors: Option<&Target>,
) -> Result<(), Failure> {
    if errors.is_some() && crypt.errors.is_none() && !output.is_replaced() {
        let message = format!(
            "--keep-going needs a file for the rows left out where OUT is {}; say --errors FILE",
            output.name()
        );
        return Err(Failure::new(Exit::Usage, message));
    }
    let of_target =
        |role, target: &Target| File { role, name: target.name().to_owned(), identity: target.identity() };
    let input = File { role: Role::Input, name: input.name.clone(), identity: input.identity.clone() };
    let used = settings.files().into_iter().map(|used| File {
        role: used.role,
        name: used.path.display().to_string(),
        identity: Identity::of_path(&used.path),
    });
    let mut files: Vec<File> = used.collect();
    files.push(input);
    files.push(of_target(Role::Output { is_replaced: output.is_replaced() }, output));
    files.extend(errors.map(|errors| of_target(Role::Errors, errors)));
    let mut before: Vec<&File> = Vec::new();
    for file in &files {
        if let Some(other) = before.iter().find(|other| file.clashes_with(other, crypt.keep_going)) {
            let File { role, name, .. } = file;
            let when = if is_clash(*role, other.role, false, false) { "" } else { " with --keep-going" };
            let message =
                format!("{name} is {}, so that it cannot be {role} too{when}; name another file", other.role);
            return Err(Failure::new(Exit::Usage, message));
        }
        before.push(file);
    }
    Ok(())
}

/// Refuses to print to a file with keys or secrets, onto which standard output may be redirected.
pub(crate) fn check_printing(used: &[Used]) -> Result<(), Failure> {
    let Some(printed) = Identity::of_open(io::stdout()) else { return Ok(()) };
    match used.iter().find(|used| Identity::of_path(&used.path).as_ref() == Some(&printed)) {
        None => Ok(()),
        Some(used) => {
            let message = format!("standard output is {}; redirect it to another file", used.role);
            Err(Failure::new(Exit::Usage, message))
        }
    }
}

/// A file of this run.
struct File {
    role: Role,
    /// For messages.
    name: String,
    identity: Option<Identity>,
}

impl File {
    fn clashes_with(&self, other: &Self, keep_going: bool) -> bool {
        let Some(identity) = &self.identity else { return false };
        other.identity.as_ref() == Some(identity)
            && is_clash(self.role, other.role, identity.is_stream(), keep_going)
    }
}

/// Tells whether one file cannot be both.
fn is_clash(role: Role, other: Role, is_stream: bool, keep_going: bool) -> bool {
    match (role, other) {
        // What is read from a pipe or a socket is not what is written to it.
        (Role::Output { .. } | Role::Errors, Role::Input) if is_stream => false,
        // The rows left out would be gone for good.
        (Role::Output { is_replaced: true }, Role::Input) => keep_going,
        (Role::Output { .. } | Role::Errors, _) => true,
        // Keys are made where there are none.
        (Role::Input, _) => false,
        (Role::KeyStore | Role::KeyStoreLog, _) | (_, Role::KeyStore | Role::KeyStoreLog) => true,
        // Nothing is written to the rest.
        _ => false,
    }
}
