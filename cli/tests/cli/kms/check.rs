//! What `claviger kms check` finds of a master key, and of what is under it.

use std::fs;

use serde_json::Value;

use super::{is_rfc_3339, json, there_and_back, with_mode};
use crate::kit::{Kit, finish};

#[test]
fn a_local_or_static_master_key_is_checked_and_never_made() {
    let kit = Kit::new();
    for arguments in [&["kms", "check"][..], &["kms", "check", "--kms", "local:a.key"]] {
        kit.fails(66, arguments);
    }
    assert!(kit.files().is_empty() && !kit.path("home").exists());
    let keys = ["--kms", "local:a.key", "--metastore", "sqlite:keys.db"];
    there_and_back(&kit, &keys);
    let check = ["kms", "check", "--kms", "local:a.key"];
    let run = kit.ok(&check);
    let words: Vec<&str> = run.text().split_whitespace().collect();
    assert!(matches!(words[..], ["local:", "wrap", _, "ms,", "unwrap", _, "ms"]), "{}", run.text());
    let run = kit.ok(&[&check[..], &["--format", "json"]].concat());
    let report = json(&run);
    assert_eq!(run.text().lines().count(), 1);
    assert_eq!((&report["good"], &report["copies"][0]["name"]), (&true.into(), &"local".into()));
    assert_eq!(report["keys"], Value::Null);
    for call in ["wrap", "unwrap"] {
        assert!(report["copies"][0][call]["ms"].as_f64().unwrap() >= 0.0, "{report}");
    }
    with_mode(&kit, "static.hex", &"0123456789abcdef".repeat(4), 0o600);
    assert!(kit.ok(&["kms", "check", "--kms", "static:@static.hex"]).text().starts_with("static: wrap "));
}

#[test]
fn check_unwraps_what_the_key_store_holds_when_given_one() {
    let kit = Kit::new();
    let keys = ["--kms", "local:a.key", "--metastore", "sqlite:keys.db"];
    let check = [&["kms", "check"][..], &keys].concat();
    there_and_back(&kit, &keys);
    let text = kit.ok(&check);
    let line = text.text().lines().nth(1).unwrap();
    let time =
        line.strip_prefix("_SK_claviger_default of ").and_then(|line| line.split_once(": as it should be"));
    assert!(time.is_some_and(|(time, _)| is_rfc_3339(time)), "{line}");
    let report = json(&kit.ok(&[&check[..], &["--format", "json"]].concat()));
    let key = &report["keys"][0];
    assert_eq!((&report["good"], &report["store"]), (&true.into(), &"keys.db".into()));
    assert_eq!((&key["id"], &key["outcome"]), (&"_SK_claviger_default".into(), &"up-to-date".into()));
    assert!(key["created"].is_i64() && is_rfc_3339(key["created_at"].as_str().unwrap()), "{report}");
    // By variable and by file as well, and for others' keys.
    let variable =
        finish(kit.command(&["kms", "check", "--kms", "local:a.key"]).env("CLAVIGER_METASTORE", keys[3]));
    kit.write("claviger.toml", "kms = \"local:a.key\"\nmetastore = \"sqlite:keys.db\"\n");
    let file = kit.ok(&["kms", "check", "--config", "claviger.toml"]);
    assert!([variable, file].iter().all(|run| run.text().contains("as it should be\n")));
    let none = kit.ok(&[&check[..], &["--service", "other"]].concat());
    assert!(none.text().ends_with("\nkeys.db: no system keys to unwrap\n"), "{}", none.text());
    assert!(
        kit.ok(&[&check[..], &["--service", "other", "--all"]].concat())
            .text()
            .contains("_SK_claviger_default")
    );
    // One that is given must be there; the default one belongs to the default master key alone.
    let missing = ["kms", "check", "--kms", "local:a.key", "--metastore", "sqlite:none.db"];
    assert!(kit.fails(66, &missing).stderr.contains("there is no key store at none.db"));
    assert!(!kit.path("none.db").exists());
    there_and_back(&kit, &[]);
    assert!(kit.ok(&["kms", "check"]).text().contains("as it should be"));
    assert_eq!(kit.ok(&["kms", "check", "--kms", "local:a.key"]).text().lines().count(), 1);
    let mut homeless = kit.command(&["kms", "check", "--kms", "local:a.key"]);
    let homeless =
        finish(homeless.env_remove("CLAVIGER_HOME").env_remove("HOME").env_remove("XDG_DATA_HOME"));
    assert_eq!(homeless.code, Some(0), "{}", homeless.stderr);
}

#[test]
fn a_wholly_wrong_master_key_is_told_by_check_and_by_repair() {
    let kit = Kit::new();
    there_and_back(&kit, &["--kms", "local:a.key", "--metastore", "sqlite:keys.db"]);
    with_mode(&kit, "wrong.hex", &"0123456789abcdef".repeat(4), 0o600);
    let wrong = ["--kms", "static:@wrong.hex", "--metastore", "sqlite:keys.db"];
    let before = kit.read("keys.db");
    for command in [&["kms", "check"][..], &["kms", "repair"], &["kms", "repair", "--dry-run"]] {
        let run = kit.run(&[command, &wrong].concat());
        assert_eq!(run.code, Some(3), "{command:?}: {}{}", run.text(), run.stderr);
        assert!(
            run.text().contains(": failed: the master key does not open the system key"),
            "{}",
            run.text()
        );
        let run = kit.run(&[command, &wrong, &["--format", "json"]].concat());
        assert_eq!((run.code, &json(&run)["keys"][0]["outcome"]), (Some(3), &"failed".into()));
        assert_ne!(json(&run)["good"], Value::Bool(true));
    }
    assert_eq!(kit.read("keys.db"), before);
    // The default one, too, put beside another's keys.
    let other = Kit::new();
    for kit in [&kit, &other] {
        there_and_back(kit, &[]);
    }
    fs::copy(other.path("home/master.key"), kit.path("home/master.key")).unwrap();
    assert_eq!(kit.run(&["kms", "check"]).code, Some(3));
    assert_eq!(kit.run(&["kms", "repair", "--all"]).code, Some(3));
}

#[test]
fn check_tells_a_system_key_that_lacks_a_copy() {
    let kit = Kit::new();
    let members = |names: &[&str]| {
        let members = names
            .iter()
            .map(|name| format!("[[kms.members]]\nname = \"{name}\"\nkms = \"local:{name}.key\"\n"));
        let kms = "[kms]\ntype = \"any-of\"\nasherah-compatible = false\n";
        kit.write(
            "claviger.toml",
            format!("metastore = \"sqlite:keys.db\"\n{kms}{}", members.collect::<String>()),
        );
    };
    let config = ["--config", "claviger.toml"];
    members(&["a"]);
    there_and_back(&kit, &config);
    there_and_back(&kit, &["--metastore", "sqlite:b.db", "--kms", "local:b.key"]);
    members(&["a", "b"]);
    let run = kit.run(&[&["kms", "check", "--format", "json"][..], &config].concat());
    assert_eq!(run.code, Some(3), "{}", run.stderr);
    let report = json(&run);
    assert!(report["copies"].as_array().unwrap().iter().all(|copy| copy["good"] == true), "{report}");
    assert_eq!((&report["good"], &report["keys"][0]["missing"][0]), (&false.into(), &"b".into()));
}
