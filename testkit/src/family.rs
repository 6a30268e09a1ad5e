//! A process and its children, which are killed, stopped and continued together.
//!
//! They are no process group: each of Postgres's makes its own.

use std::fs;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long the system may take to carry out a signal.
const SIGNAL_MAX: Duration = Duration::from_secs(60);

/// Kills a process and its children, and waits until they are gone.
pub(crate) fn kill(process: &mut Child) {
    let children = stop(Pid::from_child(process));
    for child in &children {
        let _ = kill_process(*child, Signal::KILL);
    }
    // An error means that it has ended already.
    drop(process.kill());
    process.wait().unwrap();
    // A new server refuses the data while an old process has them open.
    for child in children {
        wait_until(|| matches!(state(child), None | Some('Z' | 'X')));
    }
}

/// Stops a process and its children, and waits until none of them runs.
pub(crate) fn pause(process: &Child) {
    for child in stop(Pid::from_child(process)) {
        let _ = kill_process(child, Signal::STOP);
        wait_until(|| is_stopped(child));
    }
}

/// Lets a process and its children go on.
pub(crate) fn resume(process: &Child) {
    let pid = Pid::from_child(process);
    for child in children(pid) {
        let _ = kill_process(child, Signal::CONT);
    }
    let _ = kill_process(pid, Signal::CONT);
}

/// Stops a process, which then starts no more children, and returns those it has. It may have ended
/// by itself.
fn stop(pid: Pid) -> Vec<Pid> {
    let _ = kill_process(pid, Signal::STOP);
    wait_until(|| is_stopped(pid));
    children(pid)
}

fn wait_until(is_so: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < SIGNAL_MAX, "a killed or stopped server still runs");
        thread::sleep(Duration::from_millis(1));
    }
}

fn is_stopped(pid: Pid) -> bool {
    !matches!(state(pid), Some('R' | 'S' | 'D'))
}

fn state(pid: Pid) -> Option<char> {
    let (state, _) = state_and_parent(&pid.as_raw_nonzero().to_string())?;
    Some(state)
}

fn children(parent: Pid) -> Vec<Pid> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if state_and_parent(name).is_some_and(|(_, of)| of == parent.as_raw_nonzero().get()) {
            children.extend(name.parse().ok().and_then(Pid::from_raw));
        }
    }
    children
}

/// Reads `/proc/PID/stat`: after the name in brackets, in which anything can be.
fn state_and_parent(pid: &str) -> Option<(char, i32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}
