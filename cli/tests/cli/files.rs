//! Files that cannot be read or written, and runs that are stopped.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, symlink};
use std::process::{Child, Command, Stdio};

use crate::kit::{CLAVIGER, Kit, bound_by_modes, with_mount, without_locking};

const OPTIONS: [&str; 4] = ["--partition-field", "id", "--fields", "mail"];
const CSV: &str = "id,mail\n1,a\n";

fn chmod(kit: &Kit, name: &str, mode: u32) {
    fs::set_permissions(kit.path(name), fs::Permissions::from_mode(mode)).unwrap();
}

fn mode(kit: &Kit, name: &str) -> u32 {
    fs::metadata(kit.path(name)).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_full_disk_ends_a_run_with_74_and_leaves_nothing() {
    let kit = Kit::new();
    kit.write("payload", vec![b'x'; 2 << 20]);
    kit.write("in.csv", "id,mail\n".to_owned() + &"1,someone@example.com\n".repeat(20_000));
    fs::create_dir(kit.path("disk")).unwrap();
    kit.pipe(&["encrypt", "-p", "a"], b"x");
    let tmpfs = "mount -t tmpfs -o size=512k tmpfs \"$D\"";
    let runs = [
        ["encrypt", "payload", "-o", "disk/record", "-p", "a"].to_vec(),
        [["encrypt", "in.csv", "-o", "disk/sealed.csv"], OPTIONS].concat(),
    ];
    for arguments in runs {
        let run = with_mount(&kit, tmpfs, &kit.path("disk"), &arguments);
        run.assert_failed(74);
        assert!(run.stderr.contains("make room and run it again"), "{}", run.stderr);
        assert_eq!(run.text(), "", "something was left behind");
    }
}

#[test]
fn a_read_only_folder_ends_a_run_with_73() {
    let kit = Kit::new();
    kit.write("in.csv", CSV);
    fs::create_dir(kit.path("disk")).unwrap();
    let run = with_mount(
        &kit,
        "mount -t tmpfs -o ro tmpfs \"$D\"",
        &kit.path("disk"),
        &[["encrypt", "in.csv", "-o", "disk/sealed.csv"], OPTIONS].concat(),
    );
    run.assert_failed(73);
    assert!(run.stderr.contains("choose a folder you may write to"), "{}", run.stderr);
    assert!(!kit.path("home").exists(), "the output is tried before keys are made");
}

#[test]
fn a_read_only_home_ends_the_first_run_with_73() {
    let kit = Kit::new();
    fs::create_dir(kit.path("home")).unwrap();
    let run = with_mount(
        &kit,
        "mount -t tmpfs -o ro,mode=700 tmpfs \"$D\"",
        &kit.path("home"),
        &["encrypt", "-p", "a"],
    );
    run.assert_failed(73);
}

#[test]
fn outputs_that_cannot_be_made_end_a_run_with_73() {
    let kit = Kit::new();
    kit.write("in.csv", CSV);
    fs::create_dir(kit.path("folder")).unwrap();
    for output in ["missing/sealed.csv", "folder", "in.csv/sealed.csv"] {
        kit.fails(73, &[["encrypt", "in.csv", "-o", output], OPTIONS].concat());
    }
    assert_eq!(kit.files(), ["folder", "in.csv"]);
}

#[test]
fn inputs_that_are_not_there_end_a_run_with_66_and_unreadable_ones_with_77() {
    let kit = Kit::new();
    fs::create_dir(kit.path("folder.csv")).unwrap();
    for input in ["missing.csv", "folder.csv"] {
        let run = kit.fails(66, &[["encrypt", input, "-o", "sealed.csv"], OPTIONS].concat());
        assert!(run.stderr.contains(input), "{}", run.stderr);
    }
    kit.write("in.csv", CSV);
    chmod(&kit, "in.csv", 0);
    bound_by_modes(&kit, &[["encrypt", "in.csv", "-o", "sealed.csv"], OPTIONS].concat()).assert_failed(77);
    assert_eq!(kit.files(), ["folder.csv", "in.csv"]);
}

#[test]
fn a_master_key_that_others_can_read_is_refused_with_77() {
    let kit = Kit::new();
    let record = kit.pipe(&["encrypt", "-p", "a"], b"x").stdout;
    kit.write("static.hex", "8f".repeat(31) + "01");
    for others in [0o604, 0o640, 0o666] {
        chmod(&kit, "home/master.key", others);
        let run = kit.pipe(&["decrypt", "-p", "a"], &record);
        run.assert_failed(77);
        assert!(run.stderr.contains("chmod 600"), "{}", run.stderr);
        chmod(&kit, "static.hex", others);
        let arguments = ["encrypt", "-p", "a", "--metastore", "sqlite:a.db", "--kms", "static:@static.hex"];
        assert!(kit.fails(77, &arguments).stderr.contains("can be read by others"));
    }
    chmod(&kit, "home/master.key", 0o600);
    assert_eq!(kit.pipe(&["decrypt", "-p", "a"], &record).text(), "x");
}

#[test]
fn a_master_key_or_key_store_that_cannot_be_read_ends_a_run_with_77() {
    let kit = Kit::new();
    kit.write("record", kit.pipe(&["encrypt", "-p", "a"], b"x").stdout);
    kit.write("static.hex", "8f".repeat(31) + "01");
    let with_static = ["encrypt", "-p", "a", "--metastore", "sqlite:a.db", "--kms", "static:@static.hex"];
    chmod(&kit, "static.hex", 0);
    bound_by_modes(&kit, &with_static).assert_failed(77);
    chmod(&kit, "home/master.key", 0);
    bound_by_modes(&kit, &["decrypt", "record", "-p", "a"]).assert_failed(77);
}

#[test]
fn a_damaged_master_key_or_key_store_is_told() {
    let kit = Kit::new();
    kit.write("record", kit.pipe(&["encrypt", "-p", "a"], b"x").stdout);
    let key = kit.read("home/master.key");
    kit.write("home/master.key", &key[..40]);
    let run = kit.fails(66, &["decrypt", "record", "-p", "a"]);
    assert!(run.stderr.contains("restore it from a copy"), "{}", run.stderr);
    kit.write("home/master.key", key);
    kit.write("home/keys.db", "this is no SQLite file, and long enough to tell".repeat(100));
    kit.fails(69, &["decrypt", "record", "-p", "a"]);
}

#[test]
fn an_output_has_the_mode_of_a_new_file_or_of_the_one_it_replaces() {
    let kit = Kit::new();
    kit.write("in.csv", CSV);
    let arguments = [["encrypt", "in.csv", "-o", "sealed.csv"], OPTIONS].concat();
    let mut command = kit.program("sh");
    command.args(["-c", "umask 027; exec \"$@\"", "sh", CLAVIGER]).args(&arguments);
    assert!(command.status().unwrap().success());
    assert_eq!(mode(&kit, "sealed.csv"), 0o640);
    chmod(&kit, "sealed.csv", 0o600);
    kit.ok(&arguments);
    assert_eq!(mode(&kit, "sealed.csv"), 0o600);
}

#[test]
fn a_link_stays_and_a_device_is_not_replaced() {
    let kit = Kit::new();
    kit.write("in.csv", CSV);
    kit.write("target.csv", "old");
    symlink("target.csv", kit.path("link.csv")).unwrap();
    kit.ok(&[["encrypt", "in.csv", "-o", "link.csv"], OPTIONS].concat());
    assert!(fs::symlink_metadata(kit.path("link.csv")).unwrap().is_symlink());
    assert!(kit.read("target.csv").starts_with(b"id,mail\n1,\"{"));
    kit.ok(&[["encrypt", "in.csv", "-o", "/dev/null"], OPTIONS].concat());
    assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
}

/// Starts a run that waits for its input, and returns once its temporary file is there: its keys
/// are made after that, and it says so.
fn waiting(kit: &Kit, mut command: Command) -> (Child, BufReader<std::process::ChildStderr>) {
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    assert!(line.contains("claviger: made"), "{line}");
    assert!(kit.files().iter().any(|name| name.starts_with(".claviger-")), "{:?}", kit.files());
    (child, stderr)
}

fn send(signal: &str, child: &Child) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
}

#[test]
fn a_signal_leaves_no_temporary_file() {
    for (signal, code) in [("-TERM", 143), ("-INT", 130), ("-HUP", 129)] {
        let kit = Kit::new();
        // The tests themselves may run with signals ignored, in the background of a script, say.
        let mut command = kit.program("env");
        command.args(["--default-signal=HUP,INT,TERM", CLAVIGER, "encrypt", "-", "-o", "sealed.csv"]);
        command.args(OPTIONS).args(["--format", "csv"]);
        let (mut child, _stderr) = waiting(&kit, command);
        child.stdin.as_mut().unwrap().write_all(CSV.as_bytes()).unwrap();
        send(signal, &child);
        assert_eq!(child.wait().unwrap().code(), Some(code));
        assert_eq!(kit.files(), Vec::<String>::new());
    }
}

#[test]
fn a_signal_that_was_ignored_stays_ignored() {
    let kit = Kit::new();
    let mut command = kit.program("sh");
    command.args(["-c", "trap '' HUP; exec \"$@\"", "sh", CLAVIGER, "encrypt", "-", "-o", "sealed.csv"]);
    command.args(OPTIONS).args(["--format", "csv"]);
    let (mut child, _stderr) = waiting(&kit, command);
    send("-HUP", &child);
    child.stdin.take().unwrap().write_all(CSV.as_bytes()).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(kit.files(), ["sealed.csv"]);
}

#[test]
fn keys_that_cannot_be_locked_in_memory_are_told() {
    let kit = Kit::new();
    kit.write("payload", b"x");
    let told = |run: &crate::kit::Run| run.stderr.contains("could not be locked in memory");
    let run = without_locking(&kit, &["encrypt", "payload", "-o", "record", "-p", "a"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(told(&run), "{}", run.stderr);
    assert!(!told(&kit.ok(&["decrypt", "record", "-o", "again", "-p", "a"])));
}
