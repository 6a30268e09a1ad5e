//! Where data comes from.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read};
use std::os::fd::AsFd as _;
use std::path::Path;

use crate::exit::Failure;
use crate::streams::Waiting;

/// An open input.
pub(crate) struct Input {
    pub(crate) reader: Box<dyn Read + Send>,
    /// For messages.
    pub(crate) name: String,
    /// How long it is, if it tells.
    pub(crate) bytes: Option<u64>,
    /// Somebody types it.
    pub(crate) is_terminal: bool,
}

impl Input {
    /// Opens standard input for `None`, `-` and its names in the file system.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path.filter(|path| !STANDARD_INPUT.iter().any(|name| *path == Path::new(name)))
        else {
            let stdin = Waiting::stdin()?;
            return Ok(Self {
                is_terminal: stdin.as_fd().is_terminal(),
                reader: Box::new(stdin),
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
        Ok(Self { is_terminal: file.is_terminal(), reader: Box::new(Waiting::file(file)), name, bytes })
    }
}

/// Opened by its name it would be what Rust put in the place of one that is closed.
const STANDARD_INPUT: [&str; 4] = ["-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"];
