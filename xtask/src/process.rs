//! Running other programs: each is printed before it runs, and its failure is an error.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read as _, Seek as _};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use crate::Result;

pub(crate) struct Process {
    command: Command,
    line: String,
}

impl Process {
    pub(crate) fn new(program: impl AsRef<OsStr>, args: &[&str]) -> Self {
        let program = program.as_ref();
        let name = Path::new(program).file_name().unwrap_or(program).to_string_lossy();
        let line = format!("{name} {}", args.join(" "));
        let mut command = Command::new(program);
        command.args(args);
        Self { command, line }
    }

    /// Runs a program that is killed when we end, however we end, and with it what it has started.
    pub(crate) fn mortal(program: &Path, args: &[&str]) -> Self {
        let line = Self::new(program, args).line;
        let mut command = claviger_testkit::mortal(program);
        command.args(args);
        Self { command, line }
    }

    /// Runs the cargo that runs us, as if it were started by hand.
    pub(crate) fn cargo(root: &Path, args: &[&str]) -> Self {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut process = Self::new(cargo, args);
        process.command.current_dir(root);
        // What cargo sets for the program it runs would reach build scripts that watch these
        // (ring's does), and rebuild them and everything above, back and forth.
        for (name, _) in std::env::vars_os() {
            if name
                .to_str()
                .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
            {
                process.command.env_remove(name);
            }
        }
        process
    }

    pub(crate) fn in_folder(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.line = format!("{name}={} {}", value.as_ref().to_string_lossy(), self.line);
        self.command.env(name, value);
        self
    }

    /// The same for what is not to be printed: a password may be in it.
    pub(crate) fn secret_env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs it with our own output.
    pub(crate) fn run(mut self) -> Result<()> {
        self.announce();
        let status = self.command.status().map_err(|error| self.cannot_run(&error))?;
        self.succeeded(status)
    }

    /// Runs it and hands each line of its output to `see`, and on to ours. Returns how it
    /// ended.
    pub(crate) fn watch(mut self, mut see: impl FnMut(&str)) -> Result<ExitStatus> {
        self.announce();
        let child = self.command.stdout(Stdio::piped()).spawn();
        let mut child = child.map_err(|error| self.cannot_run(&error))?;
        if let Some(stdout) = child.stdout.take() {
            for line in BufReader::new(stdout).split(b'\n') {
                // A test may print anything; only UTF-8 can be a line we look for.
                let line = line?;
                let line = String::from_utf8_lossy(&line);
                println!("{line}");
                see(&line);
            }
        }
        Ok(child.wait()?)
    }

    /// Runs it to its end and returns all that it wrote, and how it ended. A program from
    /// [`mortal`](Self::mortal) ends with the thread that calls this.
    pub(crate) fn record(mut self) -> Result<(String, ExitStatus)> {
        let mut file = tempfile::tempfile()?;
        self.command.stdout(file.try_clone()?).stderr(file.try_clone()?).stdin(Stdio::null());
        let status = self.command.status().map_err(|error| self.cannot_run(&error))?;
        file.rewind()?;
        let mut written = Vec::new();
        file.read_to_end(&mut written)?;
        Ok((String::from_utf8_lossy(&written).into_owned(), status))
    }

    /// Runs it in silence and returns its output.
    pub(crate) fn output(mut self) -> Result<String> {
        let output = self.command.stderr(Stdio::inherit()).output();
        let output = output.map_err(|error| self.cannot_run(&error))?;
        self.succeeded(output.status)?;
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Runs it in silence and returns its output, if it succeeded.
    pub(crate) fn probe(mut self) -> Option<String> {
        let output = self.command.stdin(Stdio::null()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn announce(&self) {
        println!("\n$ {}", self.line);
    }

    fn succeeded(&self, status: ExitStatus) -> Result<()> {
        if status.success() { Ok(()) } else { Err(format!("{} failed: {status}", self.line).into()) }
    }

    fn cannot_run(&self, error: &io::Error) -> String {
        format!("cannot run {}: {error}", self.line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_is_an_error_that_names_the_command() {
        let error = Process::new("sh", &["-c", "exit 3"]).run().unwrap_err().to_string();
        assert!(error.contains("sh -c exit 3") && error.contains('3'), "{error}");
        assert!(Process::new("no-such-program", &[]).output().is_err());
        assert!(Process::new("no-such-program", &[]).probe().is_none());
    }

    #[test]
    fn output_is_handed_on_line_by_line() {
        let mut lines = Vec::new();
        let script = "echo one; printf '\\377two\\n'; exit 1";
        let status = Process::new("sh", &["-c", script]).watch(|line| lines.push(line.to_owned())).unwrap();
        assert_eq!((status.code(), &lines[..]), (Some(1), &["one".to_owned(), "\u{fffd}two".to_owned()][..]));
    }

    #[test]
    fn both_outputs_are_recorded_in_the_order_in_which_they_were_written() {
        let script = "echo one; echo two >&2; echo three; exit 1";
        let (written, status) = Process::new("sh", &["-c", script]).record().unwrap();
        assert_eq!((&*written, status.code()), ("one\ntwo\nthree\n", Some(1)));
    }

    #[test]
    fn secret_variable_is_set_and_not_printed() {
        let process = Process::new("sh", &["-c", "test $A$B = yes"]).env("A", "y").secret_env("B", "es");
        assert_eq!(process.line, "A=y sh -c test $A$B = yes");
        process.run().unwrap();
    }

    #[test]
    fn cargo_does_not_see_the_variables_of_this_package() {
        let process = Process::cargo(Path::new("."), &[]);
        let removed: Vec<_> = process.command.get_envs().filter(|(_, value)| value.is_none()).collect();
        assert!(removed.iter().any(|(name, _)| *name == "CARGO_PKG_NAME"));
        assert!(removed.iter().any(|(name, _)| *name == "CARGO_MANIFEST_DIR"));
    }
}
