//! Leaves no temporary file behind when a signal ends the program.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tempfile::NamedTempFile;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

/// The temporary files there are. The lock is held while one is made, renamed or removed, so that
/// a signal finds each of them either listed or gone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cleanup(Arc<Mutex<Vec<PathBuf>>>);

impl Cleanup {
    /// Removes the files and exits with 128 + its number when SIGHUP, SIGINT or SIGTERM comes. A
    /// signal that was ignored when the program began (`nohup`) stays ignored.
    pub(crate) fn on_signals(&self, runtime: &Runtime) -> io::Result<()> {
        let _context = runtime.enter();
        let ignored = ignored_signals();
        for kind in [SignalKind::hangup(), SignalKind::interrupt(), SignalKind::terminate()] {
            let number = kind.as_raw_value();
            if number > 0 && ignored >> (number - 1) & 1 == 1 {
                continue;
            }
            let mut signals = signal(kind)?;
            let cleanup = self.clone();
            runtime.spawn(async move {
                if signals.recv().await.is_some() {
                    cleanup.remove_and_exit(128 + number);
                }
            });
        }
        Ok(())
    }

    /// Makes a temporary file and lists it.
    pub(crate) fn guard(
        &self,
        make: impl FnOnce() -> io::Result<NamedTempFile>,
    ) -> io::Result<NamedTempFile> {
        let mut paths = self.lock();
        let file = make()?;
        paths.push(file.path().to_owned());
        Ok(file)
    }

    /// Renames a temporary file through `rename` and takes it off the list.
    pub(crate) fn release<T>(&self, path: &Path, rename: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let mut paths = self.lock();
        let renamed = rename()?;
        paths.retain(|listed| listed != path);
        Ok(renamed)
    }

    fn remove_and_exit(&self, code: i32) -> ! {
        let paths = self.lock();
        for path in &*paths {
            // One that is gone already is what we want; about another nothing can be done any more.
            drop(fs::remove_file(path));
        }
        process::exit(code)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        // A list of paths is whole at every moment, so a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The set of ignored signals, bit n - 1 for signal n; none where the kernel does not tell.
fn ignored_signals() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
}
