//! Folders that other users may write to, and what they put there. Only root can make their files: these
//! tests fail for anybody else.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{EOPNOTSUPP, EPERM, OPTIONS, failing};
use crate::kit::{CLAVIGER, Kit, Run, finish, is_root, list};

const ALICE: u32 = 65_533;
const SECRET: &str = "id,mail\n1,in-the-clear\n";

/// By what ways an output gets its name.
const WAYS: [&[(&str, i32)]; 3] = [&[], &[("LINK", EPERM)], &[("TMPFILE", EOPNOTSUPP)]];

/// A sealed file of [`SECRET`], and a folder `shared` that is as `/tmp`.
fn kit() -> Kit {
    assert!(is_root(), "this test gives files to other users: run it as root");
    let kit = Kit::new();
    fs::set_permissions(kit.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    kit.write("in.csv", SECRET);
    kit.ok(&[["encrypt", "in.csv", "-o", "sealed.csv"], OPTIONS].concat());
    fs::create_dir(kit.path("shared")).unwrap();
    mode(&kit.path("shared"), 0o1777);
    kit
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

/// Makes a file of Alice's that everybody may read and write.
fn alices(path: &Path) {
    fs::write(path, "alice's").unwrap();
    mode(path, 0o666);
    chown(path, Some(ALICE), Some(ALICE)).unwrap();
}

fn alices_link(target: &str, link: &Path) {
    symlink(target, link).unwrap();
    lchown(link, Some(ALICE), Some(ALICE)).unwrap();
}

/// A run that has begun its output, and waits for the rest of its input.
struct Running {
    child: Child,
    output: PathBuf,
}

impl Running {
    fn begin(kit: &Kit, direction: &str, calls: &[(&str, i32)]) -> Self {
        let mut command =
            kit.command(&[&[direction, "--format", "csv", "-o", "shared/out.csv"], &OPTIONS[..]].concat());
        failing(&mut command, calls);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let input = kit.read(if direction == "encrypt" { "in.csv" } else { "sealed.csv" });
        // The end of a pipe that is not closed yet.
        child.stdin.as_mut().unwrap().write_all(&input).unwrap();
        let listed = PathBuf::from(format!("/proc/{}/fd", child.id()));
        let folder = fs::canonicalize(kit.path("shared")).unwrap();
        let output = loop {
            let mut open = list(&listed).into_iter().map(|number| listed.join(number));
            let is_output = |open: &PathBuf| {
                let target = fs::read_link(open).unwrap_or_default();
                target.starts_with(&folder) && fs::metadata(open).is_ok_and(|it| it.is_file())
            };
            match open.find(is_output) {
                Some(output) => break output,
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        Self { child, output }
    }

    fn finish(mut self) -> Run {
        drop(self.child.stdin.take());
        self.child.wait_with_output().unwrap().into()
    }
}

/// What Alice can read in a folder, by any name there.
fn seen_by_alice(folder: &Path) -> String {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65533", "--regid", "65533", "--clear-groups", "sh", "-c"]);
    command.arg("cd \"$1\" && for f in * .c*; do cat \"$f\" 2>/dev/null; done; true").arg("sh").arg(folder);
    finish(&mut command).text().to_owned()
}

#[test]
fn nobody_else_can_open_an_output_before_it_is_whole_nor_what_is_decrypted_afterwards() {
    for calls in WAYS {
        for replaced in [None, Some(0o600), Some(0o666)] {
            let kit = kit();
            let (folder, out) = (kit.path("shared"), kit.path("shared/out.csv"));
            if let Some(bits) = replaced {
                fs::write(&out, "old").unwrap();
                mode(&out, bits);
            }
            let old = seen_by_alice(&folder);
            // And where it is synced it is still its owner's alone.
            let running = Running::begin(&kit, "decrypt", &[calls, &[("OPEN_SYNC", EPERM)]].concat());
            assert_eq!(mode_of(&running.output), 0o600, "{calls:?} {replaced:?}");
            assert_eq!(seen_by_alice(&folder), old, "{calls:?} {replaced:?}");
            let run = running.finish();
            assert_eq!(run.code, Some(0), "{}", run.stderr);
            assert_eq!(fs::read_to_string(&out).unwrap(), SECRET);
            assert_eq!(mode_of(&out), replaced.unwrap_or(0o600), "{calls:?}");
            assert_eq!(list(&folder), ["out.csv"]);
        }
    }
}

#[test]
fn what_is_decrypted_is_its_owners_alone_whatever_the_umask_and_what_is_encrypted_as_the_umask_says() {
    let kit = kit();
    for calls in WAYS {
        for (direction, input, umask, expected) in [
            ("decrypt", "sealed.csv", "0", 0o600),
            ("decrypt", "sealed.csv", "077", 0o600),
            ("encrypt", "in.csv", "027", 0o640),
            ("encrypt", "in.csv", "0", 0o666),
        ] {
            drop(fs::remove_file(kit.path("out.csv")));
            let mut command = kit.program("sh");
            let run =
                format!("umask {umask}; exec \"$C\" {direction} {input} -o out.csv {}", OPTIONS.join(" "));
            command.args(["-c", &run]).env("C", CLAVIGER);
            failing(&mut command, calls);
            let run = finish(&mut command);
            assert_eq!(run.code, Some(0), "{}", run.stderr);
            assert_eq!(mode_of(&kit.path("out.csv")), expected, "{direction} {umask} {calls:?}");
        }
    }
    kit.pipe(&["encrypt", "-p", "1", "-o", "record"], b"payload");
    kit.ok(&["decrypt", "record", "-p", "1", "-o", "payload"]);
    assert_eq!(mode_of(&kit.path("payload")), 0o600);
}

/// What another user may have put in the way of an output.
#[test]
fn what_another_user_put_there_is_refused_before_any_work_and_left_as_it_is() {
    let kit = kit();
    let victim = kit.write("victim", "victim's");
    fs::create_dir(kit.path("elsewhere")).unwrap();
    fs::remove_dir_all(kit.path("home")).unwrap();
    let fifo = kit.path("shared/pipe");
    assert!(Command::new("mkfifo").arg("-m666").arg(&fifo).status().unwrap().success());
    chown(&fifo, Some(ALICE), Some(ALICE)).unwrap();
    alices(&kit.path("shared/file"));
    alices_link("../victim", &kit.path("shared/link"));
    alices_link("../new", &kit.path("shared/dangling"));
    alices_link("../elsewhere", &kit.path("shared/folder"));
    symlink("shared/link", kit.path("ours")).unwrap();
    for (output, told) in [
        ("shared/pipe", "it belongs to another user"),
        ("shared/file", "it belongs to another user"),
        ("shared/link", "shared/link is another user's; name the file itself"),
        ("shared/dangling", "shared/dangling is another user's"),
        ("shared/folder/out.csv", "shared/folder is another user's"),
        ("ours", "shared/link is another user's"),
    ] {
        for options in [
            vec!["encrypt", "in.csv", "-o", output],
            vec!["decrypt", "sealed.csv", "-o", output],
            vec!["encrypt", "in.csv", "-o", "o", "--keep-going", "--errors", output],
        ] {
            let run = kit.fails(73, &[&options[..], &OPTIONS].concat());
            assert!(run.stderr.contains(told), "{output}: {}", run.stderr);
        }
    }
    assert_eq!(fs::read(victim).unwrap(), b"victim's");
    assert_eq!(kit.read("shared/file"), b"alice's");
    assert!(list(&kit.path("elsewhere")).is_empty() && !kit.path("new").exists());
    assert!(!kit.path("home").exists(), "keys were made");
}

#[test]
fn what_is_ones_own_or_roots_there_is_used() {
    let kit = kit();
    for (target, link) in [("../out.csv", "shared/link"), ("../new.csv", "shared/dangling")] {
        symlink(target, kit.path(link)).unwrap();
        kit.ok(&[["decrypt", "sealed.csv", "-o", link], OPTIONS].concat());
        assert_eq!(kit.read(&target[3..]), SECRET.as_bytes());
        assert!(kit.path(link).is_symlink());
    }
    // A folder of another user's is one that was named, and what is made in it is still one's own.
    fs::create_dir(kit.path("alices")).unwrap();
    chown(kit.path("alices"), Some(ALICE), Some(ALICE)).unwrap();
    kit.ok(&[["decrypt", "sealed.csv", "-o", "alices/out.csv"], OPTIONS].concat());
    assert_eq!(seen_by_alice(&kit.path("alices")), "");
    // The terminal of the one who became root is still his.
    kit.ok(&[["decrypt", "sealed.csv", "-o", "/dev/null"], OPTIONS].concat());
}

#[test]
fn a_file_that_another_user_puts_there_meanwhile_is_not_taken_for_ours() {
    for calls in WAYS {
        for direction in ["encrypt", "decrypt"] {
            let kit = kit();
            let (folder, out) = (kit.path("shared"), kit.path("shared/out.csv"));
            let running = Running::begin(&kit, direction, calls);
            alices(&out);
            let run = running.finish();
            run.assert_failed(73);
            assert!(run.stderr.contains("belongs to another user"), "{}", run.stderr);
            assert_eq!(seen_by_alice(&folder), "alice's", "{direction} {calls:?}");
            assert_eq!(list(&folder), ["out.csv"]);
        }
    }
}

#[test]
fn a_link_that_another_user_puts_there_meanwhile_is_not_followed() {
    for calls in WAYS {
        let kit = kit();
        let victim = kit.write("victim", "victim's");
        let running = Running::begin(&kit, "decrypt", calls);
        alices_link("../victim", &kit.path("shared/out.csv"));
        running.finish().assert_failed(73);
        assert_eq!(fs::read(victim).unwrap(), b"victim's");
        assert_eq!(list(&kit.path("shared")), ["out.csv"]);
    }
}

#[test]
fn an_output_is_made_in_the_folder_that_was_judged_whatever_has_its_name_by_then() {
    for calls in WAYS {
        let kit = kit();
        fs::create_dir(kit.path("elsewhere")).unwrap();
        let running = Running::begin(&kit, "decrypt", calls);
        fs::rename(kit.path("shared"), kit.path("moved")).unwrap();
        alices_link("elsewhere", &kit.path("shared"));
        assert_eq!(running.finish().code, Some(0));
        assert_eq!(kit.read("moved/out.csv"), SECRET.as_bytes(), "{calls:?}");
        assert_eq!(list(&kit.path("moved")), ["out.csv"]);
        assert_eq!(list(&kit.path("elsewhere")), [""; 0]);
    }
}

#[test]
fn a_run_that_is_stopped_removes_its_file_from_the_folder_it_made_it_in() {
    let kit = kit();
    let running = Running::begin(&kit, "decrypt", &[("TMPFILE", EOPNOTSUPP)]);
    fs::rename(kit.path("shared"), kit.path("moved")).unwrap();
    assert_eq!(list(&kit.path("moved")).len(), 1);
    let mut kill = Command::new("kill");
    assert!(kill.arg(running.child.id().to_string()).status().unwrap().success());
    let run: Run = running.child.wait_with_output().unwrap().into();
    assert_eq!(run.code, Some(143));
    assert_eq!(list(&kit.path("moved")), [""; 0]);
}

#[test]
fn a_pipe_of_ones_own_is_written_to() {
    let kit = kit();
    let fifo = kit.path("shared/pipe");
    assert!(Command::new("mkfifo").arg("-m600").arg(&fifo).status().unwrap().success());
    let reader = std::thread::spawn(move || fs::read(fifo).unwrap());
    kit.ok(&[["encrypt", "in.csv", "-o", "shared/pipe"], OPTIONS].concat());
    assert!(reader.join().unwrap().starts_with(b"id,mail\n"));
}
