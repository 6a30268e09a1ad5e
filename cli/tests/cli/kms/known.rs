//! A master key that has become known to somebody.

use serde_json::Value;

use super::{json, with_mode};
use crate::kit::Kit;

#[test]
fn keys_of_a_known_master_key_move_revoked_and_later_ones_are_left_out_and_told() {
    let kit = Kit::new();
    with_mode(&kit, "old.hex", &"0123456789abcdef".repeat(4), 0o600);
    with_mode(&kit, "new.hex", &"fedcba9876543210".repeat(4), 0o600);
    kit.write("payload", "x");
    let store = ["--metastore", "sqlite:keys.db"];
    let new = ["--kms", "static:@new.hex"];
    let old = ["--kms", "static:@old.hex"];
    kit.ok(&[&["encrypt", "payload", "-p", "me", "-o", "record"][..], &store, &old].concat());
    let rewrap = |more: &[&str]| {
        let move_ = ["kms", "rewrap", "--from", "static:@old.hex", "--revoke", "--format", "json"];
        let run = kit.ok(&[&move_[..], &store, &new, more].concat());
        json(&run)["keys"].as_array().unwrap().iter().map(|key| key["outcome"].clone()).collect::<Vec<_>>()
    };
    for time in ["2020-01-31T12:00:00Z", "2020-01-31T13:00:00+01:00", "1580472000"] {
        assert_eq!(rewrap(&["--created-up-to", time]), ["left-out"], "{time}");
    }
    let text = ["kms", "rewrap", "--from", "static:@old.hex", "--created-up-to", "1580472000"];
    let text = kit.ok(&[&text[..], &store, &new].concat());
    assert!(text.text().ends_with(": left out, since it was created later\n"), "{}", text.text());
    for wrong in ["yesterday", "0", "-5", "2020-01-31"] {
        let option = format!("--created-up-to={wrong}");
        let run = kit.run(&[&["kms", "rewrap", &option][..], &store, &new].concat());
        assert_eq!(run.code, Some(2), "{wrong}");
    }
    assert_eq!(rewrap(&["--created-up-to", "2999-01-01T00:00:00Z"]), ["rewrapped"]);
    assert_eq!(rewrap(&[]), ["up-to-date"]);
    // What is there decrypts, and the next row is under another system key.
    assert_eq!(kit.ok(&[&["decrypt", "record", "-p", "me"][..], &store, &new].concat()).text(), "x");
    kit.ok(&[&["encrypt", "payload", "-p", "me", "-o", "record"][..], &store, &new].concat());
    let check = json(&kit.ok(&[&["kms", "check", "--format", "json"][..], &store, &new].concat()));
    assert_eq!(check["keys"].as_array().map(Vec::len), Some(2), "{check}");
    assert_eq!(check["good"], Value::from(true));
}
