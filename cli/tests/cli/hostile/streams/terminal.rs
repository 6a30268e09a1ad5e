//! What a person at a terminal sees.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::{FIELDS, kit};
use crate::kit::Kit;

/// A terminal: the side of the person, and that of programs.
fn terminal() -> (File, OwnedFd) {
    let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&person).unwrap();
    unlockpt(&person).unwrap();
    let name = ptsname(&person, Vec::new()).unwrap();
    let programs = open(&name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    (person.into(), programs)
}

/// A terminal whose window was closed.
pub(super) fn hung_up() -> OwnedFd {
    terminal().1
}

/// Runs with standard error on a terminal, and standard output where it is; returns what is seen
/// there, and the exit code.
fn watch(mut command: Command, (mut person, programs): (File, OwnedFd)) -> (String, Option<i32>) {
    let mut child = command.stderr(programs).spawn().unwrap();
    // The terminal's end comes when nobody holds the other side of it any more.
    drop(command);
    let mut seen = Vec::new();
    // The end of it is an error.
    drop(person.read_to_end(&mut seen));
    (String::from_utf8(seen).unwrap(), child.wait().unwrap().code())
}

/// What is seen of standard error alone in a run that does well.
fn seen(mut command: Command) -> String {
    command.stdout(Stdio::null());
    let (seen, code) = watch(command, terminal());
    assert_eq!(code, Some(0), "{seen:?}");
    seen
}

fn encrypt(kit: &Kit, input: &str, more: &[&str]) -> Command {
    kit.command(&[["encrypt", input].as_slice(), more, &FIELDS].concat())
}

/// What is left of a line when the bar was drawn over and taken away.
fn last_line(seen: &str) -> &str {
    let line = seen.trim_end().rsplit(['\n', '\r']).next().unwrap();
    line.rsplit("\u{1b}[2K").next().unwrap()
}

/// Tells whether it ends with seconds, and returns what is before.
fn before_seconds(line: &str) -> &str {
    let (before, seconds) = line.rsplit_once(" in ").unwrap();
    assert!(seconds.strip_suffix(" s").unwrap().parse::<f64>().is_ok(), "{line}");
    before
}

#[test]
fn a_summary_ends_a_run_that_a_person_watches() {
    let kit = kit();
    kit.write("one.csv", "id,mail\n1,a\n");
    kit.write("blank.csv", "\nid,mail\n\n1,a\n\n\n2,\"b\nb\"\n");
    for (input, count) in [("one.csv", "1 row"), ("blank.csv", "2 rows"), ("whole.csv", "2 rows")] {
        let seen = seen(encrypt(&kit, input, &["-o", "out"]));
        let told = before_seconds(last_line(&seen)).to_owned();
        assert_eq!(told, format!("claviger: encrypted {count} of {input}"), "{seen:?}");
    }
    let seen_of = |arguments: &[&str]| seen(kit.command(arguments));
    let seen = seen_of(&["decrypt", "record", "-p", "a", "-o", "out"]);
    assert_eq!(before_seconds(last_line(&seen)), "claviger: decrypted record");
    let seen = seen_of(&["decrypt", "record", "-p", "a"]);
    assert_eq!(before_seconds(last_line(&seen)), "claviger: decrypted record");
}

#[test]
fn a_summary_counts_what_was_not_left_out() {
    let kit = kit();
    let (seen, code) = watch(encrypt(&kit, "in.csv", &["-o", "out", "--keep-going"]), terminal());
    assert_eq!(code, Some(1));
    assert!(seen.contains("claviger: left out 1 row of in.csv, listed in out.errors.jsonl"), "{seen}");
    assert_eq!(before_seconds(last_line(&seen)), "claviger: encrypted 2 rows of in.csv");
}

#[test]
fn nothing_is_told_of_a_good_run_where_nobody_watches() {
    let kit = kit();
    let run = kit.ok(&[["encrypt", "whole.csv", "-o", "out"].as_slice(), &FIELDS].concat());
    assert_eq!(run.stderr, "");
    assert_eq!(kit.ok(&["decrypt", "record", "-p", "a"]).stderr, "");
}

#[test]
fn a_bar_is_drawn_where_the_rows_go_elsewhere() {
    let kit = kit();
    for more in [["-o", "out"], ["-o", "-"]] {
        let seen = seen(encrypt(&kit, "whole.csv", &more));
        assert!(seen.contains("rows/s") && seen.contains('%'), "{seen:?}");
    }
}

#[test]
fn nothing_comes_between_rows_that_are_written_to_the_terminal() {
    let kit = kit();
    kit.write("long.csv", "id,mail\n".to_owned() + &"1,a\n".repeat(2000));
    kit.ok(&[["encrypt", "long.csv", "-o", "sealed"].as_slice(), &FIELDS].concat());
    let rows = String::from_utf8(kit.read("long.csv")).unwrap().replace('\n', "\r\n");
    let decrypt = |more: &[&str]| kit.command(&[["decrypt", "sealed"].as_slice(), more, &FIELDS].concat());
    for more in [[].as_slice(), &["-o", "-"]] {
        let (person, programs) = terminal();
        let mut command = decrypt(more);
        command.stdout(programs.try_clone().unwrap());
        let (seen, code) = watch(command, (person, programs));
        assert!(seen == rows && code == Some(0), "{code:?}");
    }
    let (person, programs) = terminal();
    let name = ptsname(&person, Vec::new()).unwrap().into_string().unwrap();
    let (seen, code) = watch(decrypt(&["-o", &name]), (person, programs));
    assert!(seen == rows && code == Some(0), "{code:?}");
}

#[test]
fn nothing_comes_between_rows_that_are_typed_or_listed_on_the_terminal() {
    let kit = kit();
    let (mut person, programs) = terminal();
    // Control-D ends what is typed.
    person.write_all(b"id,mail\n1,a\n\x04").unwrap();
    let mut command = encrypt(&kit, "-", &["-o", "out"]);
    command.stdin(programs.try_clone().unwrap());
    let (seen, code) = watch(command, (person, programs));
    assert_eq!(before_seconds(last_line(&seen)), "claviger: encrypted 1 row of standard input");
    assert!(!seen.contains('\u{1b}') && code == Some(0), "{seen:?}");

    let (person, programs) = terminal();
    let name = ptsname(&person, Vec::new()).unwrap().into_string().unwrap();
    let command = encrypt(&kit, "in.csv", &["-o", "out", "--keep-going", "--errors", &name]);
    let (seen, code) = watch(command, (person, programs));
    assert!(seen.starts_with("{\"line\":4,") && !seen.contains('\u{1b}') && code == Some(1), "{seen:?}");
}

#[test]
fn a_terminal_that_was_closed_ends_no_run() {
    let kit = kit();
    let status = encrypt(&kit, "whole.csv", &["-o", "out"]).stderr(hung_up()).status().unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(kit.path("out").exists());
}
