//! Files that cannot be read, or are written to in another way.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, symlink};

use crate::kit::{CLAVIGER, Kit, bound_by_modes};

const OPTIONS: [&str; 4] = ["--partition-field", "id", "--fields", "mail"];
const CSV: &str = "id,mail\n1,a\n";

fn chmod(kit: &Kit, name: &str, mode: u32) {
    fs::set_permissions(kit.path(name), fs::Permissions::from_mode(mode)).unwrap();
}

fn mode(kit: &Kit, name: &str) -> u32 {
    fs::metadata(kit.path(name)).unwrap().permissions().mode() & 0o777
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
