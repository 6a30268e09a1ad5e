//! Where data comes from.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read};
use std::os::fd::AsFd as _;
use std::path::Path;

use crate::descriptor::Access;
use crate::exit::Failure;
use crate::identity::Identity;
use crate::named::Named;
use crate::streams::Waiting;

/// An open input.
pub(crate) struct Input {
    pub(crate) reader: Box<dyn Read + Send>,
    /// For messages.
    pub(crate) name: String,
    /// How long it is, if it tells.
    pub(crate) bytes: Option<u64>,
    /// Which file it is, if it is one.
    pub(crate) identity: Option<Identity>,
    /// Somebody types it.
    pub(crate) is_terminal: bool,
}

impl Input {
    /// Opens standard input for `None`, `-` and its names in the file system.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path.filter(|path| *path != Path::new("-")) else {
            return Self::standard("standard input".to_owned());
        };
        let name = path.display().to_string();
        let opened = match Named::by(path) {
            Ok(Named::Descriptor(descriptor)) if descriptor.is_standard_input() => {
                return Self::standard(name);
            }
            Ok(Named::Descriptor(descriptor)) => descriptor.open(Access::Read),
            // What cannot be found is told by what opens it.
            _ => File::open(path),
        };
        let opened = opened.and_then(|file| Ok((file.metadata()?, file)));
        let (metadata, file) = opened.map_err(|error| Failure::read(&name, &error))?;
        if metadata.is_dir() {
            return Err(Failure::read(&name, &io::ErrorKind::IsADirectory.into()));
        }
        let bytes = metadata.is_file().then_some(metadata.len());
        let (identity, is_terminal) = (Identity::of_open(&file), file.is_terminal());
        Ok(Self { reader: Box::new(Waiting::file(file)), name, bytes, identity, is_terminal })
    }

    fn standard(name: String) -> Result<Self, Failure> {
        let stdin = Waiting::stdin()?;
        let (identity, is_terminal) = (Identity::of_open(io::stdin()), stdin.as_fd().is_terminal());
        Ok(Self { reader: Box::new(stdin), name, bytes: None, identity, is_terminal })
    }
}
