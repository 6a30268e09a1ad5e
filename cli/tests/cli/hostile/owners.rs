//! Files of other users. Only root can make them: these tests fail for anybody else.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::process::Command;

use super::{CSV, OPTIONS};
use crate::kit::{CLAVIGER, Kit, Run, finish, is_root};

const ALICE: u32 = 65_533;
const BOB: u32 = 65_534;

fn kit() -> Kit {
    assert!(is_root(), "this test gives files to other users: run it as root");
    let kit = Kit::new();
    kit.write("in.csv", CSV);
    kit.pipe(&["encrypt", "-p", "1"], b"x");
    kit
}

/// Runs as root without these rights.
fn without(kit: &Kit, capabilities: &str, output: &str) -> Run {
    let mut command = kit.program("setpriv");
    command.args(["--bounding-set", capabilities, CLAVIGER, "encrypt", "in.csv", "-o", output]).args(OPTIONS);
    finish(&mut command)
}

fn owned(kit: &Kit, name: &str, owner: u32, group: u32, mode: u32) {
    let path = kit.path(name);
    if !path.exists() {
        fs::write(&path, "old").unwrap();
    }
    chown(&path, Some(owner), Some(group)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

fn owners(kit: &Kit, name: &str) -> (u32, u32, u32) {
    let file = fs::metadata(kit.path(name)).unwrap();
    (file.uid(), file.gid(), file.mode() & 0o7777)
}

#[test]
fn a_replaced_file_stays_its_groups() {
    let kit = kit();
    for (mode, kept) in [(0o640, 0o640), (0o600, 0o600), (0o6755, 0o755), (0o444, 0o444)] {
        owned(&kit, "out.csv", 0, BOB, mode);
        let run = kit.ok(&[["encrypt", "in.csv", "-o", "out.csv"], OPTIONS].concat());
        assert_eq!(owners(&kit, "out.csv"), (0, BOB, kept));
        assert_eq!(run.stderr, "");
    }
    // In place, and rows that cannot be encrypted go to a list that is kept likewise.
    owned(&kit, "list", 0, ALICE, 0o600);
    kit.ok(
        &[&["encrypt", "in.csv", "-o", "out.csv", "--keep-going", "--errors", "list"][..], &OPTIONS].concat()
    );
    assert_eq!(owners(&kit, "list"), (0, ALICE, 0o600));
}

#[test]
fn where_a_group_cannot_be_kept_it_is_told_and_nobody_gets_a_right_by_it() {
    let kit = kit();
    for (mode, kept) in [(0o640, 0o600), (0o664, 0o644), (0o666, 0o666), (0o4750, 0o700)] {
        owned(&kit, "out.csv", 0, BOB, mode);
        let run = without(&kit, "-chown", "out.csv");
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        assert!(run.stderr.contains("its owner and group could not be kept"), "{}", run.stderr);
        assert_eq!(owners(&kit, "out.csv"), (0, 0, kept));
    }
}

#[test]
fn roots_file_in_ones_own_folder_is_replaced_and_what_is_decrypted_takes_no_right_of_it_over() {
    let kit = kit();
    fs::set_permissions(kit.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(kit.path("alices")).unwrap();
    owned(&kit, "alices", ALICE, ALICE, 0o755);
    let as_alice = |command: &str, input: &str, expected: (u32, u32, u32), told: &str| {
        owned(&kit, "alices/out.csv", 0, ALICE, 0o644);
        let mut run = kit.program("setpriv");
        run.args(["--reuid", "65533", "--regid", "65533", "--clear-groups", CLAVIGER, command, input]);
        run.args(["-o", "alices/out.csv"]).args(OPTIONS).env("CLAVIGER_HOME", kit.path("alices/home"));
        let run = finish(&mut run);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        assert!(run.stderr.contains(told), "{}", run.stderr);
        assert_eq!(owners(&kit, "alices/out.csv"), expected);
    };
    as_alice("encrypt", "in.csv", (ALICE, ALICE, 0o644), "its owner could not be kept");
    fs::copy(kit.path("alices/out.csv"), kit.path("sealed.csv")).unwrap();
    as_alice("decrypt", "sealed.csv", (ALICE, ALICE, 0o600), "it is its owner's alone");
}

#[test]
fn who_may_give_files_away_and_not_act_for_their_owners_still_gets_an_output() {
    let kit = kit();
    owned(&kit, "out.csv", 0, BOB, 0o640);
    let run = without(&kit, "-fowner", "out.csv");
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let (_, _, mode) = owners(&kit, "out.csv");
    assert_eq!(mode & !0o640, 0);
    kit.ok(&[["decrypt", "out.csv", "-o", "back.csv"], OPTIONS].concat());
    assert_eq!(kit.files(), ["back.csv", "in.csv", "out.csv"]);
}

#[test]
fn others_files_in_a_sticky_folder_are_told_before_any_work_and_ones_own_are_replaced() {
    let kit = kit();
    fs::remove_dir_all(kit.path("home")).unwrap();
    fs::create_dir(kit.path("sticky")).unwrap();
    owned(&kit, "sticky", BOB, BOB, 0o1777);
    owned(&kit, "sticky/theirs.csv", ALICE, ALICE, 0o666);
    let run = without(&kit, "-fowner", "sticky/theirs.csv");
    run.assert_failed(73);
    assert!(run.stderr.contains("belongs to another user"), "{}", run.stderr);
    assert!(!kit.path("home").exists(), "keys were made");
    assert_eq!(kit.read("sticky/theirs.csv"), b"old");

    owned(&kit, "sticky/ours.csv", 0, 0, 0o600);
    assert_eq!(without(&kit, "-fowner", "sticky/ours.csv").code, Some(0));
    assert_eq!(without(&kit, "-fowner", "sticky/new.csv").code, Some(0));
}

#[test]
fn a_file_that_may_only_be_appended_to_is_told_before_any_work() {
    let kit = kit();
    fs::remove_dir_all(kit.path("home")).unwrap();
    for attribute in ["a", "i"] {
        kit.write("out.csv", "old");
        let chattr = |sign: &str| {
            let mut command = Command::new("chattr");
            command.arg(format!("{sign}{attribute}")).arg(kit.path("out.csv"));
            assert!(command.status().unwrap().success(), "this test needs a file system with attributes");
        };
        chattr("+");
        let run = kit.run(&[["encrypt", "in.csv", "-o", "out.csv"], OPTIONS].concat());
        chattr("-");
        run.assert_failed(73);
        assert!(run.stderr.contains("lsattr"), "{}", run.stderr);
        assert!(!kit.path("home").exists(), "keys were made");
        assert_eq!(kit.files(), ["in.csv", "out.csv"]);
    }
}
