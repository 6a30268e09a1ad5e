//! Leaves no temporary file behind when a signal ends the program.

use std::ffi::{OsStr, OsString};
use std::io;
use std::process;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, unlinkat};
use rustix::process::Signal;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::named::Entry;
use crate::status;

/// The temporary files there are, by an entry of their folder and their name. The lock is held while one is made, renamed or removed, so that
/// a signal finds each of them either listed or gone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cleanup(Arc<Mutex<Vec<(Entry, OsString)>>>);

impl Cleanup {
    /// Removes the files and exits with 128 + its number when a signal comes that ends programs. One
    /// that was ignored when the program began (`nohup`) stays ignored. A file over the limit
    /// (`ulimit -f`) is an error of the write instead.
    pub(crate) fn on_signals(&self, runtime: &Runtime) -> io::Result<()> {
        let _context = runtime.enter();
        let ignored = ignored_signals();
        let is_ignored = |number: i32| number > 0 && ignored >> (number - 1) & 1 == 1;
        for number in ENDING.map(Signal::as_raw).into_iter().filter(|number| !is_ignored(*number)) {
            self.exit_on(number, runtime)?;
        }
        for number in more_ending().filter(|number| !is_ignored(*number)) {
            drop(self.exit_on(number, runtime));
        }
        let over_limit = Signal::XFSZ.as_raw();
        if !is_ignored(over_limit) {
            // It stays caught though nobody listens, and the write returns.
            drop(signal(SignalKind::from_raw(over_limit))?);
        }
        Ok(())
    }

    fn exit_on(&self, number: i32, runtime: &Runtime) -> io::Result<()> {
        let mut signals = signal(SignalKind::from_raw(number))?;
        let cleanup = self.clone();
        runtime.spawn(async move {
            if signals.recv().await.is_some() {
                cleanup.remove_and_exit(128 + number);
            }
        });
        Ok(())
    }

    /// Makes a temporary file beside an entry and lists it.
    pub(crate) fn guard<T>(
        &self,
        entry: &Entry,
        name: &OsStr,
        make: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let mut files = self.lock();
        let made = make()?;
        files.push((entry.clone(), name.to_owned()));
        Ok(made)
    }

    /// Renames a temporary file through `rename` and takes it off the list. Its name is one that nothing else
    /// has.
    pub(crate) fn release<T>(&self, name: &OsStr, rename: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let mut files = self.lock();
        let renamed = rename()?;
        files.retain(|(_, listed)| listed != name);
        Ok(renamed)
    }

    fn remove_and_exit(&self, code: i32) -> ! {
        let files = self.lock();
        for (entry, name) in &*files {
            // One that is gone already is what we want; about another nothing can be done any more.
            let _ = unlinkat(entry.folder(), name, AtFlags::empty());
        }
        process::exit(code)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Entry, OsString)>> {
        // A list of names is whole at every moment, so a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What ends a program that does not catch it. A fault of the program's own (`SIGSEGV` and the like) is
/// none of these: it comes again until it has ended it.
const ENDING: [Signal; 11] = [
    Signal::HUP,
    Signal::INT,
    Signal::QUIT,
    Signal::ABORT,
    Signal::USR1,
    Signal::USR2,
    Signal::ALARM,
    Signal::TERM,
    Signal::XCPU,
    Signal::VTALARM,
    Signal::PROF,
];

/// Those that Linux has besides, some of which the C library may keep for itself.
#[cfg(target_os = "linux")]
fn more_ending() -> impl Iterator<Item = i32> {
    let named = [Signal::STKFLT, Signal::IO, Signal::POWER].map(Signal::as_raw);
    named.into_iter().chain(REAL_TIME)
}

#[cfg(target_os = "linux")]
const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;

#[cfg(not(target_os = "linux"))]
fn more_ending() -> impl Iterator<Item = i32> {
    std::iter::empty()
}

/// The set of ignored signals, bit n - 1 for signal n; none where the kernel does not tell.
fn ignored_signals() -> u64 {
    status::field("SigIgn").and_then(|mask| u64::from_str_radix(&mask, 16).ok()).unwrap_or_default()
}
