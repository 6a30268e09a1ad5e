//! Standard streams that are closed, full, open the wrong way, set not to wait, or a terminal, and
//! readers that end first.

mod terminal;
mod unwilling;

use std::fs::File;
use std::io::{PipeWriter, pipe};
use std::process::{Command, Stdio};

use crate::kit::{CLAVIGER, Kit, Run, finish, list};

const FIELDS: [&str; 6] = ["--format", "csv", "--partition-field", "id", "--fields", "mail"];

/// A kit with keys, and with files sealed under them.
fn kit() -> Kit {
    let kit = Kit::new();
    kit.write("payload", "x");
    kit.write("in.csv", "id,mail\n1,a\n2,b\n,c\n");
    kit.write("whole.csv", "id,mail\n1,a\n2,b\n");
    kit.ok(&["encrypt", "payload", "-o", "record", "-p", "a"]);
    kit.ok(&[["encrypt", "whole.csv", "-o", "sealed.csv"].as_slice(), &FIELDS].concat());
    kit
}

/// Every command whose result is standard output.
fn printing() -> Vec<Vec<&'static str>> {
    let mut commands: Vec<Vec<&str>> = [
        "encrypt payload -p a",
        "decrypt record -p a",
        "schema show --metastore postgres://",
        "schema show --metastore sqlite:new.db",
        "schema apply",
        "schema check",
        "schema check --format json",
        "kms check",
        "kms check --format json",
        "kms repair",
        "kms rewrap --dry-run",
        "completions bash",
        "completions zsh",
        "--help",
        "--version",
        "help kms",
        "decrypt --help",
    ]
    .map(|command| command.split(' ').collect())
    .to_vec();
    if !cfg!(feature = "postgres") {
        commands.retain(|command| !command.contains(&"postgres://"));
    }
    for (command, input) in [("encrypt", "whole.csv"), ("decrypt", "sealed.csv")] {
        commands.push([[command, input].as_slice(), &FIELDS].concat());
    }
    commands
}

/// Every command that reads standard input.
fn reading() -> [Vec<&'static str>; 6] {
    let fields = |command, input| [[command, input, "-o", "out"].as_slice(), &FIELDS].concat();
    [
        vec!["encrypt", "-p", "a", "-o", "out"],
        vec!["encrypt", "/dev/stdin", "-p", "a", "-o", "out"],
        vec!["decrypt", "-", "-p", "a", "-o", "out"],
        fields("encrypt", "-"),
        fields("encrypt", "/dev/fd/0"),
        fields("decrypt", "/proc/self/fd/0"),
    ]
}

/// The program with its streams redirected as a shell does it.
fn redirected(kit: &Kit, redirections: &str, arguments: &[&str]) -> Command {
    let mut command = kit.program("sh");
    let script = format!("exec \"$@\" {redirections}");
    command.args(["-c", &script, "sh", CLAVIGER]).args(arguments);
    command
}

/// The writing end of a pipe that nobody reads.
fn unread() -> PipeWriter {
    pipe().unwrap().1
}

fn full() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

#[test]
fn a_standard_input_that_is_none_is_no_empty_one() {
    // Closed; as Python's DEVNULL has it; as nohup has it at a terminal.
    for redirection in ["<&-", "0<>/dev/null", "0>/dev/null"] {
        for arguments in reading() {
            let kit = Kit::new();
            let run = finish(&mut redirected(&kit, redirection, &arguments));
            run.assert_failed(74);
            assert!(run.stderr.contains("standard input is "), "{}", run.stderr);
            assert!(run.stderr.ends_with("name INPUT, which may be /dev/null\n"), "{}", run.stderr);
            assert_eq!(list(kit.path("").as_path()), Vec::<String>::new(), "{redirection} {arguments:?}");
        }
    }
}

#[test]
fn a_standard_output_that_is_none_loses_no_result_in_silence() {
    for redirection in [">&-", "1<>/dev/null", "1</dev/null"] {
        let kit = kit();
        let before = kit.files();
        for arguments in printing() {
            let run = finish(&mut redirected(&kit, redirection, &arguments));
            run.assert_failed(74);
            assert!(run.stderr.contains("standard output is "), "{arguments:?}: {}", run.stderr);
            assert!(run.stderr.contains("/dev/null\n"), "{}", run.stderr);
        }
        assert_eq!(kit.files(), before);
        let kit = Kit::new();
        kit.write("payload", "x");
        for arguments in [["encrypt", "payload", "-p", "a"].as_slice(), &["schema", "apply"]] {
            finish(&mut redirected(&kit, redirection, arguments)).assert_failed(74);
        }
        assert_eq!(list(kit.path("").as_path()), ["payload"], "nothing is made whose making cannot be told");
    }
}

#[test]
fn dev_null_that_is_meant_is_an_empty_input_or_a_thrown_away_output() {
    let kit = kit();
    for (redirection, arguments) in [
        ("</dev/null", ["encrypt", "-p", "a", "-o", "empty"].as_slice()),
        ("", &["encrypt", "/dev/null", "-p", "a", "-o", "empty"]),
        (">/dev/null", &["decrypt", "record", "-p", "a"]),
        (">/dev/null", &["kms", "check"]),
        ("", &["decrypt", "record", "-p", "a", "-o", "/dev/null"]),
    ] {
        let run = finish(&mut redirected(&kit, redirection, arguments));
        assert_eq!((run.code, run.text()), (Some(0), ""), "{redirection} {arguments:?}: {}", run.stderr);
    }
    assert_eq!(kit.ok(&["decrypt", "empty", "-p", "a"]).text(), "");
}

#[test]
fn standard_input_by_another_name_is_standard_input() {
    let kit = kit();
    for name in ["/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"] {
        assert_eq!(kit.pipe(&["decrypt", name, "-p", "a"], &kit.read("record")).text(), "x", "{name}");
    }
}

#[test]
fn a_closed_stream_that_is_not_used_changes_nothing() {
    let kit = kit();
    let all = "<&- >&- 2>&-";
    let encrypt = [["encrypt", "whole.csv", "-o", "again.csv"].as_slice(), &FIELDS].concat();
    let decrypt = [["decrypt", "again.csv", "-o", "back.csv"].as_slice(), &FIELDS].concat();
    for arguments in [encrypt, decrypt, vec!["encrypt", "payload", "-p", "a", "-o", "again"]] {
        assert_eq!(finish(&mut redirected(&kit, all, &arguments)).code, Some(0), "{arguments:?}");
    }
    assert_eq!(kit.read("back.csv"), kit.read("whole.csv"));
    assert_eq!(finish(&mut redirected(&kit, "<&- 2>&-", &["decrypt", "record", "-p", "a"])).text(), "x");
    assert_eq!(finish(&mut redirected(&kit, ">&-", &["rotate"])).code, Some(2));
}

/// Runs that have something to say on standard error, and how they end.
fn telling() -> Vec<(i32, Vec<&'static str>)> {
    let rows = |arguments: &[&'static str]| [arguments, &FIELDS].concat();
    vec![
        (
            0,
            vec![
                "encrypt",
                "payload",
                "-p",
                "a",
                "-o",
                "made",
                "--metastore",
                "sqlite:new.db",
                "--kms",
                "local:new.key",
            ],
        ),
        (1, rows(&["encrypt", "in.csv", "-o", "out.csv", "--keep-going"])),
        (2, vec!["rotate"]),
        (2, vec!["encrypt", "payload"]),
        (65, rows(&["encrypt", "in.csv", "-o", "out.csv"])),
        (65, vec!["decrypt", "payload", "-p", "a"]),
        (66, vec!["decrypt", "missing", "-p", "a"]),
        (66, vec!["decrypt", "record", "-p", "b"]),
        (66, vec!["schema", "check", "--metastore", "sqlite:missing.db"]),
        (66, vec!["kms", "check", "--kms", "local:missing"]),
        (66, vec!["kms", "repair", "--service", "other"]),
        (73, vec!["encrypt", "payload", "-p", "a", "-o", "missing/out"]),
        (74, vec!["encrypt", "payload", "-p", "a", "-o", "/dev/full"]),
        (78, vec!["encrypt", "payload", "-p", "a", "--metastore", "memory:"]),
    ]
}

#[test]
fn a_run_ends_as_it_would_where_nobody_can_be_told() {
    let kit = kit();
    for (code, arguments) in telling() {
        let run = |command: &mut Command| command.stdout(Stdio::null()).status().unwrap().code();
        let heard = run(kit.command(&arguments).stderr(Stdio::null()));
        let ends = [
            heard,
            run(kit.command(&arguments).stderr(full())),
            run(kit.command(&arguments).stderr(unread())),
            run(kit.command(&arguments).stderr(terminal::hung_up())),
            run(&mut redirected(&kit, "2>&-", &arguments)),
            run(&mut redirected(&kit, "2</dev/null", &arguments)),
        ];
        assert_eq!(ends, [Some(code); 6], "{arguments:?}");
    }
}

#[test]
fn a_result_that_cannot_be_written_ends_a_run_with_74() {
    let kit = kit();
    for arguments in printing() {
        let run = finish(kit.command(&arguments).stdout(full()));
        run.assert_failed(74);
        assert!(run.stderr.contains("cannot write standard output"), "{arguments:?}: {}", run.stderr);
        let deaf = kit.command(&arguments).stdout(full()).stderr(full()).status().unwrap();
        assert_eq!(deaf.code(), Some(74), "{arguments:?}");
    }
}

#[test]
fn a_reader_that_ends_first_ends_a_run_quietly_with_141() {
    let kit = kit();
    let before = kit.files();
    for arguments in printing() {
        let run = finish(kit.command(&arguments).stdout(unread()));
        assert_eq!((run.code, &*run.stderr), (Some(141), ""), "{arguments:?}");
    }
    assert_eq!(kit.files(), before);
    assert_eq!(list(&kit.path("home")), ["keys.db", "master.key"], "the key store is closed");
}

#[test]
fn a_named_pipe_whose_reader_ends_first_ends_a_run_quietly_with_141() {
    let kit = kit();
    kit.write("long.csv", "id,mail\n".to_owned() + &"1,a\n".repeat(50_000) + &",a\n".repeat(50_000));
    let fifo = kit.path("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let before = kit.files();
    for outputs in [["-o", "fifo", "--errors", "/dev/null"], ["-o", "/dev/null", "--errors", "fifo"]] {
        let arguments = [["encrypt", "long.csv", "--keep-going"].as_slice(), &outputs, &FIELDS].concat();
        let child = kit.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(File::open(&fifo).unwrap());
        let run: Run = child.wait_with_output().unwrap().into();
        assert_eq!((run.code, &*run.stderr), (Some(141), ""), "{outputs:?}");
        assert_eq!(kit.files(), before);
    }
}
