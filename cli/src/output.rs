//! Where results go: a file that appears whole or not at all, or a stream.

mod file;
mod target;
mod unnamed;

use std::fs::File;
use std::io::{self, Stdout, Write as _};
use std::path::Path;

use crate::cleanup::Cleanup;
use crate::exit::Failure;
use crate::output::file::NewFile;
use crate::output::target::Kind;
pub(crate) use crate::output::target::Target;

/// A place to write to. Dropped without [`commit`](Self::commit), a file leaves no trace.
#[derive(Debug)]
pub(crate) struct Output {
    sink: Sink,
    /// For messages.
    name: String,
}

#[derive(Debug)]
enum Sink {
    Stdout(Stdout),
    /// Written to as it is.
    Stream(File),
    File(NewFile),
}

impl Output {
    /// Opens what is written to as it is, and begins what is made or replaced.
    pub(crate) fn create(target: Target, cleanup: &Cleanup) -> Result<Self, Failure> {
        let Target { kind, name } = target;
        let sink = match kind {
            Kind::Stdout => Ok(Sink::Stdout(io::stdout())),
            Kind::Descriptor(file) => Ok(Sink::Stream(file)),
            Kind::Special(path) => File::options().write(true).open(path).map(Sink::Stream),
            Kind::File(path) => NewFile::create(path, cleanup).map(Sink::File),
        };
        let sink = sink.map_err(|error| Failure::create(Path::new(&name), &error))?;
        Ok(Self { sink, name })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = match &mut self.sink {
            Sink::Stdout(stdout) => stdout.lock().write_all(bytes),
            Sink::Stream(stream) => stream.write_all(bytes),
            Sink::File(file) => file.file().write_all(bytes),
        };
        written.map_err(|error| Failure::write(&self.name, &error))
    }

    /// Makes what was written last: on the disk, and under its own name.
    pub(crate) fn commit(self) -> Result<(), Failure> {
        let committed = match self.sink {
            Sink::Stdout(stdout) => stdout.lock().flush(),
            Sink::Stream(mut stream) => stream.flush(),
            Sink::File(file) => file.commit(),
        };
        committed.map_err(|error| Failure::write(&self.name, &error))
    }
}
