//! Full and read-only disks, and memory that cannot be locked.

use std::fs;

use super::{CSV, OPTIONS};
use crate::kit::{Kit, Run, with_mount, without_locking};

#[test]
fn a_full_disk_ends_a_run_with_74_and_leaves_nothing() {
    let kit = Kit::new();
    kit.write("payload", vec![b'x'; 2 << 20]);
    kit.write("in.csv", "id,mail\n".to_owned() + &"1,someone@example.com\n".repeat(20_000));
    kit.write("bad.csv", "id,mail\n".to_owned() + &",a\n".repeat(20_000));
    fs::create_dir(kit.path("disk")).unwrap();
    kit.pipe(&["encrypt", "-p", "a"], b"x");
    let tmpfs = "mount -t tmpfs -o size=512k tmpfs \"$D\"";
    let list: &[&str] = &["encrypt", "bad.csv", "-o", "o", "--keep-going", "--errors", "disk/list"];
    let runs = [
        ["encrypt", "payload", "-o", "disk/record", "-p", "a"].to_vec(),
        [["encrypt", "in.csv", "-o", "disk/sealed.csv"], OPTIONS].concat(),
        [list, &OPTIONS].concat(),
    ];
    for arguments in runs {
        let run = with_mount(&kit, tmpfs, &kit.path("disk"), &arguments);
        run.assert_failed(74);
        assert!(run.stderr.contains("make room and run it again"), "{}", run.stderr);
        assert_eq!(run.text(), "", "something was left behind");
        assert_eq!(kit.files(), ["bad.csv", "disk", "in.csv", "payload"]);
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
fn keys_that_cannot_be_locked_in_memory_are_told() {
    let kit = Kit::new();
    kit.write("payload", b"x");
    let told = |run: &Run| run.stderr.contains("could not be locked in memory");
    let run = without_locking(&kit, &["encrypt", "payload", "-o", "record", "-p", "a"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(told(&run), "{}", run.stderr);
    assert!(!told(&kit.ok(&["decrypt", "record", "-o", "again", "-p", "a"])));
}
