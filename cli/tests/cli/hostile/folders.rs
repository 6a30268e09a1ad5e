//! Folders that cannot be synced or read, and outputs that cannot be replaced.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::{CSV, EACCES, EINVAL, EIO, EOPNOTSUPP, EPERM, OPTIONS, failing};
use crate::kit::{CLAVIGER, Kit, bound_by_modes, finish, with_mount};

fn chmod(kit: &Kit, name: &str, mode: u32) {
    fs::set_permissions(kit.path(name), fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_folder_that_cannot_be_synced_is_told_once_and_fails_nothing() {
    for error in [EINVAL, EOPNOTSUPP, EACCES, EIO] {
        let kit = Kit::new();
        kit.write("in.csv", CSV);
        let arguments = [["encrypt", "in.csv", "-o", "sealed.csv"], OPTIONS].concat();
        // The master key's folder as well, at first use and later; but for a device that fails.
        let with_keys = error != EIO;
        if !with_keys {
            kit.pipe(&["encrypt", "-p", "1"], b"x");
            fs::remove_file(kit.path("home/master.key")).unwrap();
            kit.write("static.hex", "8f".repeat(31) + "01");
            chmod(&kit, "static.hex", 0o600);
        }
        let keys: &[&str] =
            if with_keys { &[] } else { &["--kms", "static:@static.hex", "--metastore", "sqlite:s.db"] };
        for is_first in [true, false] {
            let mut command = kit.command(&[&arguments[..], keys].concat());
            failing(&mut command, &[("FOLDER_SYNC", error)]);
            let run = finish(&mut command);
            assert_eq!(run.code, Some(0), "{error}: {}", run.stderr);
            assert_eq!(
                run.stderr.matches("cannot be synced").count(),
                1,
                "{error} {is_first}: {}",
                run.stderr
            );
        }
        let back = kit.ok(&[&["decrypt", "sealed.csv"][..], &OPTIONS, keys].concat());
        assert_eq!(back.stdout, CSV.as_bytes());
    }
}

#[test]
fn a_file_that_fails_to_be_synced_ends_a_run_with_74_and_one_that_cannot_be_does_not() {
    let kit = Kit::new();
    kit.write("in.csv", CSV);
    kit.write("old.csv", "old");
    kit.pipe(&["encrypt", "-p", "1"], b"x");
    let run = |output: &str, error| {
        let mut command = kit.command(&[["encrypt", "in.csv", "-o", output], OPTIONS].concat());
        failing(&mut command, &[("UNNAMED_SYNC", error)]);
        finish(&mut command)
    };
    for output in ["new.csv", "old.csv"] {
        run(output, EIO).assert_failed(74);
        assert_eq!(kit.files(), ["in.csv", "old.csv"]);
    }
    assert_eq!(kit.read("old.csv"), b"old");
    for error in [EINVAL, EOPNOTSUPP] {
        let run = run("new.csv", error);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        assert!(run.stderr.contains("cannot sync"), "{}", run.stderr);
        assert_eq!(kit.ok(&[["decrypt", "new.csv"].as_slice(), &OPTIONS].concat()).stdout, CSV.as_bytes());
    }
}

#[test]
fn a_folder_that_may_be_written_to_and_not_read_serves() {
    let kit = Kit::new();
    kit.write("in.csv", CSV);
    for folder in ["out", "home"] {
        fs::create_dir(kit.path(folder)).unwrap();
        chmod(&kit, folder, 0o300);
    }
    for input in
        [["encrypt", "in.csv", "-o", "out/sealed.csv"], ["decrypt", "out/sealed.csv", "-o", "out/back.csv"]]
    {
        for _again in [false, true] {
            let run = bound_by_modes(&kit, &[input, OPTIONS].concat());
            assert_eq!(run.code, Some(0), "{}", run.stderr);
            assert_eq!(run.stderr.matches("cannot be synced").count(), 1, "{}", run.stderr);
        }
    }
    for folder in ["out", "home"] {
        chmod(&kit, folder, 0o700);
    }
    assert_eq!(kit.read("out/back.csv"), CSV.as_bytes());
}

#[test]
fn a_path_that_names_a_folder_that_is_not_there_is_told_before_any_work() {
    let kit = Kit::new();
    kit.write("in.csv", CSV);
    for output in
        ["newdir/", "newdir/.", "newdir/..", ".", "..", "/", "missing/out.csv", "in.csv/", "in.csv/x"]
    {
        kit.fails(73, &[["encrypt", "in.csv", "-o", output], OPTIONS].concat());
        kit.fails(
            73,
            &[&["encrypt", "in.csv", "-o", "o", "--keep-going", "--errors", output][..], &OPTIONS].concat(),
        );
    }
    assert_eq!(kit.files(), ["in.csv"]);
    assert!(!kit.path("home").exists(), "keys were made");
}

#[test]
fn a_file_that_is_a_mount_point_is_told_before_any_work() {
    let kit = Kit::new();
    kit.write("in.csv", CSV);
    kit.write("bound.csv", "old");
    let outputs = [["-o", "bound.csv"].as_slice(), &["-o", "o", "--keep-going", "--errors", "bound.csv"]];
    for output in outputs {
        let run = with_mount(
            &kit,
            "mount --bind \"$D\" \"$D\"",
            &kit.path("bound.csv"),
            &[&["encrypt", "in.csv"][..], output, &OPTIONS].concat(),
        );
        run.assert_failed(73);
        assert!(run.stderr.contains("mount point"), "{}", run.stderr);
    }
    assert_eq!(kit.read("bound.csv"), b"old");
    assert_eq!(kit.files(), ["bound.csv", "in.csv"]);
    assert!(!kit.path("home").exists(), "keys were made");
}

#[test]
fn an_errors_file_that_cannot_be_made_is_told_before_keys_are() {
    let kit = Kit::new();
    kit.write("in.csv", CSV);
    fs::create_dir(kit.path("closed")).unwrap();
    chmod(&kit, "closed", 0o500);
    let run = bound_by_modes(
        &kit,
        &[&["encrypt", "in.csv", "-o", "o", "--keep-going", "--errors", "closed/list"][..], &OPTIONS]
            .concat(),
    );
    run.assert_failed(73);
    assert_eq!(kit.files(), ["closed", "in.csv"]);
    assert!(!kit.path("home").exists(), "keys were made");
}

#[test]
fn an_output_is_whole_and_has_its_rights_by_whatever_way_it_gets_its_name() {
    let kit = Kit::new();
    kit.write("in.csv", CSV);
    let encrypt = format!("umask 026; exec \"$C\" encrypt in.csv -o sealed.csv {}", OPTIONS.join(" "));
    // As the kernel has it, where nothing may be linked, and where there are no files without a name; the last
    // of them on a file system that keeps no rights.
    let ways: [(&[(&str, i32)], bool); 5] = [
        (&[], true),
        (&[("LINK", EPERM)], true),
        (&[("TMPFILE", EOPNOTSUPP)], true),
        (&[("TMPFILE", EINVAL)], true),
        (&[("TMPFILE", EOPNOTSUPP), ("CHMOD", EPERM)], false),
    ];
    for (calls, keeps_rights) in ways {
        for replaced in [None, Some(0o664)] {
            let _gone = fs::remove_file(kit.path("sealed.csv"));
            if let Some(mode) = replaced {
                kit.write("sealed.csv", "old");
                chmod(&kit, "sealed.csv", mode);
            }
            let mut command = kit.program("sh");
            command.args(["-c", &encrypt]).env("C", CLAVIGER);
            failing(&mut command, calls);
            let run = finish(&mut command);
            assert_eq!(run.code, Some(0), "{calls:?} {replaced:?}: {}", run.stderr);
            let is_told = run.stderr.contains("its rights could not be kept");
            assert_eq!(is_told, !keeps_rights && replaced.is_some(), "{}", run.stderr);
            kit.ok(&[["decrypt", "sealed.csv", "-o", "back.csv"], OPTIONS].concat());
            assert_eq!(kit.read("back.csv"), CSV.as_bytes());
            let mode = fs::metadata(kit.path("sealed.csv")).unwrap().permissions().mode() & 0o7777;
            let expected = if keeps_rights { replaced.unwrap_or(0o640) } else { 0o600 };
            assert_eq!(mode, expected, "{calls:?} {replaced:?}");
            assert_eq!(kit.files(), ["back.csv", "in.csv", "sealed.csv"]);
        }
    }
}

#[test]
fn what_replaces_a_private_file_is_private_where_rights_cannot_be_set() {
    let kit = Kit::new();
    kit.write("in.csv", CSV);
    kit.write("sealed.csv", "old");
    chmod(&kit, "sealed.csv", 0o600);
    for calls in [&[("CHMOD", EPERM)][..], &[("CHMOD", EPERM), ("TMPFILE", EOPNOTSUPP)]] {
        let mut command = kit.program("sh");
        let encrypt = format!("umask 0; exec \"$C\" encrypt in.csv -o sealed.csv {}", OPTIONS.join(" "));
        command.args(["-c", &encrypt]).env("C", CLAVIGER);
        failing(&mut command, calls);
        assert_eq!(finish(&mut command).code, Some(0));
        assert_eq!(fs::metadata(kit.path("sealed.csv")).unwrap().permissions().mode() & 0o7777, 0o600);
    }
}
