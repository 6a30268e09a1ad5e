//! The standard streams as whoever started the program left them: closed, open the wrong way, or
//! set to answer at once.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat, stat};
use rustix::io::Errno;

use crate::exit::{Exit, Failure};

/// A stream that is waited for, also where another program set it not to wait: it is one stream
/// with those that this program shares it with, so the setting is theirs and stays.
///
/// Bytes go to the system as they are handed over: nothing is kept here that could be lost, or be
/// written twice.
#[derive(Debug)]
pub(crate) struct Waiting<S>(S);

impl Waiting<io::Stdin> {
    /// Standard input, if there is one.
    pub(crate) fn stdin() -> Result<Self, Failure> {
        let stdin = io::stdin();
        check(stdin.as_fd(), OFlags::RDONLY).map_err(|fault| {
            let what = match fault {
                Fault::Closed => "is closed, or is /dev/null open for writing too",
                Fault::OneWay => "is not open for reading",
            };
            let advice = "name INPUT, which may be /dev/null";
            Failure::new(Exit::Io, format!("standard input {what}; {advice}"))
        })?;
        Ok(Self(stdin))
    }
}

impl Waiting<io::Stdout> {
    /// Standard output, if there is one; `advice` says how to do with or without.
    pub(crate) fn stdout(advice: &str) -> Result<Self, Failure> {
        let stdout = io::stdout();
        check(stdout.as_fd(), OFlags::WRONLY).map_err(|fault| {
            let what = match fault {
                Fault::Closed => "is closed, or is /dev/null open for reading too",
                Fault::OneWay => "is not open for writing",
            };
            Failure::new(Exit::Io, format!("standard output {what}; {advice}"))
        })?;
        Ok(Self(stdout))
    }
}

impl Waiting<io::StderrLock<'static>> {
    /// Standard error, whatever it is: nobody could be told that it is closed.
    pub(crate) fn stderr() -> Self {
        Self(io::stderr().lock())
    }
}

impl Waiting<File> {
    pub(crate) const fn file(file: File) -> Self {
        Self(file)
    }
}

impl<S: AsFd> AsFd for Waiting<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl<S: AsFd> Read for Waiting<S> {
    // Not through `std::io::Stdin`, to which a stream that cannot be read is an empty one.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        waiting(self.as_fd(), PollFlags::IN, || rustix::io::read(&self.0, &mut *buffer))
    }
}

impl<S: AsFd> Write for Waiting<S> {
    // Not through `std::io::Stdout`, to which one that cannot be written is an endless one.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        waiting(self.as_fd(), PollFlags::OUT, || rustix::io::write(&self.0, bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes a call, and again once the stream is ready, as long as it answers that it is not.
///
/// A signal is an error of its own, after which the callers of `read` and `write` call again.
fn waiting(
    stream: BorrowedFd<'_>,
    ready: PollFlags,
    mut call: impl FnMut() -> rustix::io::Result<usize>,
) -> io::Result<usize> {
    loop {
        match call() {
            Err(Errno::AGAIN) => poll(&mut [PollFd::from_borrowed_fd(stream, ready)], None)?,
            done => return Ok(done?),
        };
    }
}

/// Why a standard stream cannot be used.
enum Fault {
    Closed,
    /// It is open, and only the other way.
    OneWay,
}

/// Looks whether a standard stream is open for this access.
///
/// A stream that was closed is none by now: Rust's runtime opened `/dev/null` in its place, for
/// reading and writing. Shells and most programs that mean `/dev/null` open it one way. Of those
/// that open it both ways the same is to be said: an empty payload is sealed, and a result thrown
/// away, only for who says so.
fn check(stream: BorrowedFd<'_>, access: OFlags) -> Result<(), Fault> {
    let Ok(flags) = fcntl_getfl(stream) else { return Err(Fault::Closed) };
    match flags & OFlags::RWMODE {
        OFlags::RDWR if is_null(stream) => Err(Fault::Closed),
        open if open == OFlags::RDWR || open == access => Ok(()),
        _ => Err(Fault::OneWay),
    }
}

fn is_null(stream: BorrowedFd<'_>) -> bool {
    let (Ok(found), Ok(null)) = (fstat(stream), stat("/dev/null")) else { return false };
    FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice && found.st_rdev == null.st_rdev
}
