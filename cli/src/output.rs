//! Where results go: a file that appears whole or not at all, or a stream.

mod file;
mod target;
mod temporary;
mod unnamed;

use std::fs::File;
use std::io::{IsTerminal as _, Stdout, Write as _};
use std::os::fd::AsFd as _;
use std::path::Path;

use crate::cleanup::Cleanup;
use crate::exit::Failure;
use crate::output::file::NewFile;
pub(crate) use crate::output::file::Privacy;
pub(crate) use crate::output::target::Target;
use crate::output::target::{Kind, open_special};
use crate::streams::Waiting;

/// A place to write to. Dropped without [`commit`](Self::commit), a file leaves no trace.
#[derive(Debug)]
pub(crate) struct Output {
    sink: Sink,
    /// For messages.
    name: String,
}

#[derive(Debug)]
enum Sink {
    Stdout(Waiting<Stdout>),
    /// Written to as it is.
    Stream(Waiting<File>),
    File(NewFile),
}

impl Output {
    /// Opens what is written to as it is, and begins what is made or replaced.
    pub(crate) fn create(target: Target, privacy: Privacy, cleanup: &Cleanup) -> Result<Self, Failure> {
        let Target { kind, name } = target;
        let stream = |file| Sink::Stream(Waiting::file(file));
        let sink = match kind {
            Kind::Stdout => Sink::Stdout(Waiting::stdout("name OUT with -o, which may be /dev/null")?),
            Kind::Descriptor(file) => stream(file),
            Kind::Special(entry) => stream(open_special(&entry, &name)?),
            Kind::File(entry) => NewFile::create(entry, privacy, cleanup)
                .map(Sink::File)
                .map_err(|error| Failure::create(Path::new(&name), &error))?,
        };
        Ok(Self { sink, name })
    }

    /// Tells whether who started the run sees what is written.
    pub(crate) fn is_terminal(&self) -> bool {
        match &self.sink {
            Sink::Stdout(stdout) => stdout.as_fd().is_terminal(),
            Sink::Stream(stream) => stream.as_fd().is_terminal(),
            Sink::File(_) => false,
        }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = match &mut self.sink {
            Sink::Stdout(stdout) => stdout.write_all(bytes),
            Sink::Stream(stream) => stream.write_all(bytes),
            Sink::File(file) => file.file().write_all(bytes),
        };
        written.map_err(|error| Failure::write(&self.name, &error))
    }

    /// Makes what was written last: on the disk, and under its own name.
    pub(crate) fn commit(self) -> Result<(), Failure> {
        match self.sink {
            Sink::Stdout(_) | Sink::Stream(_) => Ok(()),
            Sink::File(file) => file.commit(&self.name),
        }
    }
}
