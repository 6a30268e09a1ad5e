//! One server: started on a free port, waited for, killed with all its processes.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::{family, port, program};

/// How long a server may take to answer, on the slowest machine.
const START_MAX: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// How often another process may take a port in the moment in which it is free.
const PORTS_MAX: u32 = 10;

/// Tells of a port and of what was logged whether the server is ready.
type IsReady = dyn Fn(u16, &str) -> bool + Send + Sync;

pub(crate) struct Server {
    name: &'static str,
    port: u16,
    log: PathBuf,
    launch: Box<dyn Fn(u16) -> Command + Send + Sync>,
    is_ready: Box<IsReady>,
    process: Option<Child>,
    is_paused: AtomicBool,
}

impl Server {
    /// Starts what `launch` makes for a port, and waits until `is_ready` says so of the port and of
    /// what the server has logged.
    pub(crate) fn start(
        name: &'static str,
        folder: &Path,
        launch: impl Fn(u16) -> Command + Send + Sync + 'static,
        is_ready: impl Fn(u16, &str) -> bool + Send + Sync + 'static,
    ) -> Self {
        let log = folder.join("server.log");
        let (launch, is_ready) = (Box::new(launch), Box::new(is_ready));
        let is_paused = AtomicBool::new(false);
        let mut server = Self { name, port: 0, log, launch, is_ready, process: None, is_paused };
        for _ in 0..PORTS_MAX {
            server.port = port::free();
            match server.launch() {
                Ok(()) => return server,
                Err(log) if is_port_taken(&log) => {}
                Err(log) => panic!("{name} did not start:\n{log}"),
            }
        }
        panic!("{name} lost {PORTS_MAX} ports to others")
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Kills the server and all processes that it started, and waits until they are gone.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            family::kill(&mut process);
        }
    }

    /// Returns `true` if it was started, and neither killed nor paused since.
    pub(crate) fn answers(&self) -> bool {
        self.process.is_some() && !self.is_paused.load(Ordering::SeqCst)
    }

    /// Waits until it has ended by itself, as it was told to.
    pub(crate) fn wait_until_ended(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        let begin = Instant::now();
        while process.try_wait().unwrap().is_none() {
            if begin.elapsed() > START_MAX {
                family::kill(&mut process);
                panic!("{} did not end within {START_MAX:?}:\n{}", self.name, self.logged());
            }
            thread::sleep(LOOK_AGAIN);
        }
    }

    /// Stops all its processes where they are. Its sockets stay open, and the system accepts
    /// connections for it.
    pub(crate) fn pause(&self) {
        family::pause(self.running());
        self.is_paused.store(true, Ordering::SeqCst);
    }

    /// Lets it go on after [`pause`](Self::pause).
    pub(crate) fn resume(&self) {
        family::resume(self.running());
        self.is_paused.store(false, Ordering::SeqCst);
    }

    fn running(&self) -> &Child {
        self.process.as_ref().unwrap_or_else(|| panic!("{} does not run", self.name))
    }

    /// Starts it again on the same port and data, after killing it if it runs.
    pub(crate) fn restart(&mut self) {
        self.kill();
        if let Err(log) = self.launch() {
            panic!("{} did not start again on port {}:\n{log}", self.name, self.port);
        }
    }

    /// Errs with the server's log if it ends instead of getting ready.
    fn launch(&mut self) -> Result<(), String> {
        let log = File::create(&self.log).unwrap();
        let mut command = (self.launch)(self.port);
        command.stdin(std::process::Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut process = program::spawn(command);
        let begin = Instant::now();
        loop {
            let log = self.logged();
            if (self.is_ready)(self.port, &log) {
                break;
            }
            if process.try_wait().unwrap().is_some() {
                return Err(self.logged());
            }
            if begin.elapsed() > START_MAX {
                family::kill(&mut process);
                panic!("{} did not answer within {START_MAX:?}:\n{log}", self.name);
            }
            thread::sleep(LOOK_AGAIN);
        }
        self.process = Some(process);
        self.is_paused.store(false, Ordering::SeqCst);
        Ok(())
    }

    fn logged(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

fn is_port_taken(log: &str) -> bool {
    ["already in use", "EADDRINUSE"].iter().any(|sign| log.contains(sign))
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("name", &self.name).field("port", &self.port).finish_non_exhaustive()
    }
}
