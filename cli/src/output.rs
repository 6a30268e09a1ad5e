//! Where results go: a file that appears whole or not at all, or a stream.

use std::fs::{self, File, Permissions};
use std::io::{self, IsTerminal as _, Stdout, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::cleanup::Cleanup;
use crate::exit::Failure;
use crate::streams::Waiting;

/// A place to write to. Dropped without [`commit`](Self::commit), a file leaves no trace.
#[derive(Debug)]
pub(crate) struct Output {
    target: Target,
    /// For messages.
    name: String,
}

#[derive(Debug)]
enum Target {
    Stdout(Waiting<Stdout>),
    /// A device or a named pipe: it cannot be replaced, so it is written to as it is.
    Special(Waiting<File>),
    File {
        temporary: NamedTempFile,
        path: PathBuf,
        cleanup: Cleanup,
    },
}

impl Output {
    /// Opens standard output for `None` and `-`, else a temporary file beside `path`.
    pub(crate) fn create(path: Option<&Path>, cleanup: &Cleanup) -> Result<Self, Failure> {
        let Some(path) = path.filter(|path| *path != Path::new("-")) else {
            let stdout = Waiting::stdout("name OUT with -o, which may be /dev/null")?;
            return Ok(Self { target: Target::Stdout(stdout), name: "standard output".to_owned() });
        };
        let target = open(path, cleanup).map_err(|error| Failure::create(path, &error))?;
        Ok(Self { target, name: path.display().to_string() })
    }

    /// Tells whether who started the run sees what is written.
    pub(crate) fn is_terminal(&self) -> bool {
        match &self.target {
            Target::Stdout(stdout) => stdout.as_fd().is_terminal(),
            Target::Special(file) => file.as_fd().is_terminal(),
            Target::File { .. } => false,
        }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = match &mut self.target {
            Target::Stdout(stdout) => stdout.write_all(bytes),
            Target::Special(file) => file.write_all(bytes),
            Target::File { temporary, .. } => temporary.as_file_mut().write_all(bytes),
        };
        written.map_err(|error| Failure::write(&self.name, &error))
    }

    /// Makes what was written last: on the disk, and under its own name.
    pub(crate) fn commit(self) -> Result<(), Failure> {
        let committed = match self.target {
            Target::Stdout(_) | Target::Special(_) => Ok(()),
            Target::File { temporary, path, cleanup } => persist(temporary, &path, &cleanup),
        };
        committed.map_err(|error| Failure::write(&self.name, &error))
    }
}

fn open(path: &Path, cleanup: &Cleanup) -> io::Result<Target> {
    // Through a symbolic link the file it names is replaced, not the link.
    let path = match fs::canonicalize(path) {
        Ok(path) => path,
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        Err(error) => return Err(error),
    };
    let existing = fs::metadata(&path).ok();
    if let Some(existing) = &existing {
        if existing.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if !existing.is_file() {
            return Ok(Target::Special(Waiting::file(File::options().write(true).open(&path)?)));
        }
    }
    let temporary = cleanup.guard(|| {
        tempfile::Builder::new()
            .prefix(".claviger-")
            .suffix(".tmp")
            // As for any new file, the umask takes its part of it.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(folder(&path))
    })?;
    if let Some(existing) = existing {
        temporary.as_file().set_permissions(existing.permissions())?;
    }
    Ok(Target::File { temporary, path, cleanup: cleanup.clone() })
}

fn persist(temporary: NamedTempFile, path: &Path, cleanup: &Cleanup) -> io::Result<()> {
    temporary.as_file().sync_all()?;
    let guarded = temporary.path().to_owned();
    cleanup.release(&guarded, || temporary.persist(path).map_err(|error| error.error))?;
    // Without this a power cut could bring the old folder back.
    File::open(folder(path))?.sync_all()
}

/// The folder that `path` is in; a bare name is in the current one.
fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
