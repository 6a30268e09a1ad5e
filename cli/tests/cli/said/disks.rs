//! A key store's disk that is full or takes no writes.

use std::fs;

use super::{CELL, EVE};
use crate::kit::{Kit, with_mount};

/// A kit whose key store is in a folder of its own, for a file system to be mounted on.
fn with_store_in(folder: &str) -> Kit {
    let kit = Kit::new();
    fs::create_dir(kit.path(folder)).unwrap();
    kit.write("claviger.toml", format!("metastore = \"sqlite:{folder}/keys.db\"\n"));
    kit.write("payload", CELL);
    kit.ok(&["encrypt", "payload", "-p", EVE, "-o", "record", "--config", "claviger.toml"]);
    kit
}

const BIND_READ_ONLY: &str = "mount --bind \"$D\" \"$D\" && mount -o remount,bind,ro \"$D\"";

#[test]
fn a_key_store_on_a_read_only_disk_decrypts_and_is_told_of_with_77_when_it_is_to_take_a_key() {
    let kit = with_store_in("store");
    let config = ["--config", "claviger.toml"];
    let folder = kit.path("store");
    let decrypt = [&["decrypt", "record", "-p", EVE, "-o", "back"][..], &config].concat();
    let run = with_mount(&kit, BIND_READ_ONLY, &folder, &decrypt);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_eq!(kit.read("back"), CELL.as_bytes());
    let encrypt = [&["encrypt", "payload", "-p", "new"][..], &config].concat();
    let run = with_mount(&kit, BIND_READ_ONLY, &folder, &encrypt);
    run.assert_failed(77);
    assert!(run.stderr.contains("have its disk mounted so"), "{}", run.stderr);
    assert!(!run.stderr.contains("SQLite file"), "{}", run.stderr);
    // What stands in the log alone could not be read there.
    fs::write(kit.path("store/keys.db-wal"), "x").unwrap();
    let run = with_mount(&kit, BIND_READ_ONLY, &folder, &decrypt);
    run.assert_failed(77);
    assert!(run.stderr.contains("-wal"), "{}", run.stderr);
}

#[test]
fn a_key_store_on_a_full_disk_is_told_of_with_74() {
    let kit = with_store_in("store");
    fs::rename(kit.path("store"), kit.path("origin")).unwrap();
    fs::create_dir(kit.path("store")).unwrap();
    let full = "mount -t tmpfs -o size=256k tmpfs \"$D\" && cp \"$D/../origin/keys.db\" \"$D\" \
                && { cat /dev/zero > \"$D/filler\" 2>/dev/null || true; }";
    let encrypt = ["encrypt", "payload", "-p", "new", "--config", "claviger.toml"];
    let run = with_mount(&kit, full, &kit.path("store"), &encrypt);
    run.assert_failed(74);
    assert!(run.stderr.contains("make room"), "{}", run.stderr);
    assert!(!run.stderr.contains("SQLite file"), "{}", run.stderr);
}

#[test]
fn a_key_store_that_is_no_database_is_told_of_as_such() {
    let kit = with_store_in("store");
    kit.write(
        "store/keys.db",
        "no database at all, but long enough to have a header of one hundred bytes ".repeat(9),
    );
    let run = kit.run(&["decrypt", "record", "-p", EVE, "--config", "claviger.toml"]);
    run.assert_failed(69);
    assert!(
        run.stderr.contains("check that it is a SQLite file, or restore it from a copy"),
        "{}",
        run.stderr
    );
}
