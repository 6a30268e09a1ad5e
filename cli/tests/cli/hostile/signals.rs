//! Ends of a run that leave no row behind that was decrypted.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};

use super::{EOPNOTSUPP, OPTIONS, failing};
use crate::kit::{CLAVIGER, Kit, Run, finish};

/// Every signal that ends a program which does not catch it, but for those of its own faults:
/// HUP, INT, QUIT, ABRT, USR1, USR2, ALRM, TERM, STKFLT, XCPU, VTALRM, PROF, IO, PWR, and some of those for
/// real time.
const ENDING: [i32; 17] = [1, 2, 3, 6, 10, 12, 14, 15, 16, 24, 26, 27, 29, 30, 34, 37, 64];

const KILL: i32 = 9;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Beside OUT, without a name.
    Unnamed,
    /// Where the system has no files without a name.
    Named,
}

/// A run that has written rows, and waits for more.
struct Waiting {
    child: Child,
    stdin: ChildStdin,
    /// What it writes to.
    temporary: PathBuf,
}

/// A kit with sealed rows, and its keys made.
fn sealed() -> (Kit, Vec<u8>) {
    let kit = Kit::new();
    kit.write("in.csv", "id,mail\n".to_owned() + &"1,SECRET@example.com\n".repeat(1_000));
    kit.ok(&[["encrypt", "in.csv", "-o", "sealed.csv"], OPTIONS].concat());
    let sealed = kit.read("sealed.csv");
    for name in ["in.csv", "sealed.csv"] {
        fs::remove_file(kit.path(name)).unwrap();
    }
    (kit, sealed)
}

fn decrypt(kit: &Kit, place: Place) -> Command {
    // The tests themselves may run with signals ignored, in the background of a script, say.
    let mut command = kit.program("env");
    command.args(["--default-signal", CLAVIGER, "decrypt", "-", "-o", "out.csv", "--format", "csv"]);
    command.args(["--keep-going"]).args(OPTIONS);
    if place == Place::Named {
        failing(&mut command, &[("TMPFILE", EOPNOTSUPP)]);
    }
    command
}

/// Gives it rows, and returns once some of them are written.
fn waiting(kit: &Kit, mut command: Command, rows: &[u8]) -> Waiting {
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(rows).unwrap();
    let descriptors = PathBuf::from(format!("/proc/{}/fd", child.id()));
    let folder = fs::canonicalize(kit.path(".")).unwrap();
    let is_ours = |descriptor: &PathBuf| {
        let leads = fs::read_link(descriptor).unwrap_or_default();
        // The errors file is empty, and the keys are in a folder of their own.
        leads.parent() == Some(&folder) && fs::metadata(descriptor).is_ok_and(|file| file.len() > 100)
    };
    loop {
        let open = fs::read_dir(&descriptors).unwrap().map(|entry| entry.unwrap().path());
        if let Some(temporary) = { open }.find(is_ours) {
            return Waiting { child, stdin, temporary };
        }
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was told to");
        std::thread::yield_now();
    }
}

fn end(mut waiting: Waiting, signal: i32) -> Run {
    send(signal, &waiting.child);
    // The program may not end for want of rows.
    waiting.child.wait().unwrap();
    drop(waiting.stdin);
    waiting.child.wait_with_output().unwrap().into()
}

fn send(signal: i32, child: &Child) {
    let mut kill = Command::new("kill");
    kill.args([format!("-{signal}"), child.id().to_string()]);
    assert!(kill.status().unwrap().success());
}

#[test]
fn no_signal_leaves_a_decrypted_row() {
    let (kit, rows) = sealed();
    for place in [Place::Unnamed, Place::Named] {
        for signal in ENDING {
            let waiting = waiting(&kit, decrypt(&kit, place), &rows);
            let links = fs::metadata(&waiting.temporary).unwrap().nlink();
            assert_eq!(links, u64::from(place == Place::Named), "{place:?}");
            let run = end(waiting, signal);
            assert_eq!(run.code, Some(128 + signal), "{signal} {place:?}: {}", run.stderr);
            assert_eq!(kit.files(), Vec::<String>::new(), "{signal} {place:?}");
        }
    }
}

#[test]
fn a_killed_run_leaves_nothing_or_where_it_must_what_only_its_owner_can_read() {
    let (kit, rows) = sealed();
    let run = end(waiting(&kit, decrypt(&kit, Place::Unnamed), &rows), KILL);
    assert_eq!(run.code, None);
    assert_eq!(kit.files(), Vec::<String>::new());

    let mut command = kit.program("sh");
    command.args(["-c", "umask 0; exec \"$@\"", "sh"]);
    let named = decrypt(&kit, Place::Named);
    command.arg(named.get_program()).args(named.get_args());
    failing(&mut command, &[("TMPFILE", EOPNOTSUPP)]);
    end(waiting(&kit, command, &rows), KILL);
    let left = kit.files();
    assert!(!left.is_empty() && left.iter().all(|name| name.starts_with(".claviger-")), "{left:?}");
    for name in left {
        assert_eq!(fs::metadata(kit.path(&name)).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn a_signal_that_was_ignored_stays_ignored() {
    for (signal, number) in [("HUP", 1), ("USR1", 10), ("XCPU", 24)] {
        let (kit, rows) = sealed();
        let mut command = kit.program("sh");
        command.args(["-c", &format!("trap '' {signal}; exec \"$@\""), "sh", CLAVIGER, "decrypt", "-"]);
        command.args(["-o", "out.csv", "--format", "csv"]).args(OPTIONS);
        let waiting = waiting(&kit, command, &rows);
        send(number, &waiting.child);
        drop(waiting.stdin);
        let run: Run = waiting.child.wait_with_output().unwrap().into();
        assert_eq!(run.code, Some(0), "{signal}: {}", run.stderr);
        assert_eq!(kit.files(), ["out.csv"]);
    }
}

#[test]
fn a_file_over_the_limit_is_a_failure_with_74_and_leaves_nothing() {
    let kit = Kit::new();
    kit.write("in.csv", "id,mail\n".to_owned() + &"1,someone@example.com\n".repeat(20_000));
    kit.pipe(&["encrypt", "-p", "1"], b"x");
    // In units of 512 bytes or more: the key store's files are smaller, and the output is larger.
    let options = OPTIONS.join(" ");
    for (signal, preload) in [("-", false), ("''", false), ("-", true)] {
        let script =
            format!("trap {signal} XFSZ; ulimit -f 512; exec \"$C\" encrypt in.csv -o sealed.csv {options}");
        let mut command = kit.program("sh");
        command.args(["-c", &script]).env("C", CLAVIGER);
        if preload {
            failing(&mut command, &[("TMPFILE", EOPNOTSUPP)]);
        }
        let run = finish(&mut command);
        run.assert_failed(74);
        assert!(run.stderr.contains("ulimit -f"), "{}", run.stderr);
        assert_eq!(kit.files(), ["in.csv"]);
    }
}
