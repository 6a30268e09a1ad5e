//! Where data comes from.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::exit::Failure;

/// An open input.
pub(crate) struct Input {
    pub(crate) reader: Box<dyn Read + Send>,
    /// For messages.
    pub(crate) name: String,
    /// How long it is, if it tells.
    pub(crate) bytes: Option<u64>,
}

impl Input {
    /// Opens standard input for `None` and `-`.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path.filter(|path| *path != Path::new("-")) else {
            return Ok(Self {
                reader: Box::new(io::stdin()),
                name: "standard input".to_owned(),
                bytes: None,
            });
        };
        let name = path.display().to_string();
        let opened = File::open(path).and_then(|file| Ok((file.metadata()?, file)));
        let (metadata, file) = opened.map_err(|error| Failure::read(&name, &error))?;
        if metadata.is_dir() {
            return Err(Failure::read(&name, &io::ErrorKind::IsADirectory.into()));
        }
        let bytes = metadata.is_file().then_some(metadata.len());
        Ok(Self { reader: Box::new(file), name, bytes })
    }
}
