//! Several master keys at once, which the configuration file describes.

use crate::kit::Kit;

use super::{json, there_and_back};

const CONFIG: [&str; 2] = ["--config", "claviger.toml"];

fn any_of(names: &[&str], more: &str) -> String {
    let member = |name: &&str| format!("[[kms.members]]\nname = \"{name}\"\nkms = \"local:{name}.key\"\n");
    format!(
        "metastore = \"sqlite:keys.db\"\n[kms]\ntype = \"any-of\"\n{more}{}",
        names.iter().map(member).collect::<String>()
    )
}

#[test]
fn a_move_is_a_configuration_change_and_a_rewrap() {
    let kit = Kit::new();
    kit.write("claviger.toml", "metastore = \"sqlite:keys.db\"\nkms = \"local:old.key\"\n");
    there_and_back(&kit, &CONFIG);
    // Both can be read from now on, and the new one wraps.
    kit.write("claviger.toml", any_of(&["new", "old"], ""));
    there_and_back(&kit, &CONFIG);
    let moved = ["kms", "rewrap", "--from", "local:old.key", "--kms", "local:new.key"];
    kit.ok(&[&moved[..], &CONFIG].concat());
    std::fs::remove_file(kit.path("old.key")).unwrap();
    kit.write("claviger.toml", "metastore = \"sqlite:keys.db\"\nkms = \"local:new.key\"\n");
    assert_eq!(kit.ok(&[&["decrypt", "record", "-p", "me"][..], &CONFIG].concat()).text(), "x");
}

#[test]
fn a_member_that_was_added_gets_its_copy_by_repair() {
    let kit = Kit::new();
    kit.write("claviger.toml", any_of(&["a"], "asherah-compatible = false\n"));
    there_and_back(&kit, &CONFIG);
    kit.write("claviger.toml", any_of(&["a", "b"], "asherah-compatible = false\n"));
    // Nobody makes the new member's key but those who encrypt: theirs is a key that lacks a copy.
    let told = kit.ok(&[&["encrypt", "payload", "-p", "me"][..], &CONFIG].concat());
    assert!(told.stderr.contains("made b.key"), "{}", told.stderr);
    assert!(told.stderr.contains("_SK_claviger_default has no copy of b; "), "{}", told.stderr);
    assert!(told.stderr.contains("claviger kms repair makes it"), "{}", told.stderr);
    let repair = [&["kms", "repair", "--format", "json"][..], &CONFIG].concat();
    let dry = kit.run(&[&repair[..], &["--dry-run"]].concat());
    assert_eq!(dry.code, Some(3), "{}", dry.stderr);
    assert_eq!(json(&dry)["keys"][0]["outcome"], "due");
    assert_eq!(json(&dry)["keys"][0]["missing"][0], "b");
    assert_eq!(json(&kit.ok(&repair))["keys"][0]["outcome"], "rewrapped");
    assert_eq!(json(&kit.ok(&repair))["keys"][0]["outcome"], "up-to-date");
    let quiet = kit.ok(&[&["encrypt", "payload", "-p", "me"][..], &CONFIG].concat());
    assert_eq!(quiet.stderr, "");
    // The first is not needed any more.
    kit.write("claviger.toml", any_of(&["b"], "asherah-compatible = false\n"));
    assert_eq!(kit.ok(&[&["decrypt", "record", "-p", "me"][..], &CONFIG].concat()).text(), "x");
}

#[test]
fn two_of_three_open_and_one_does_not() {
    let kit = Kit::new();
    let quorum =
        |names: &[&str]| any_of(names, "k = 2\nasherah-compatible = false\n").replace("any-of", "k-of-n");
    kit.write("claviger.toml", quorum(&["a", "b", "c"]));
    there_and_back(&kit, &CONFIG);
    let checked = json(&kit.ok(&[&["kms", "check", "--format", "json"][..], &CONFIG].concat()));
    let names: Vec<_> = checked["copies"].as_array().unwrap().iter().map(|copy| &copy["name"]).collect();
    assert_eq!(names, ["a", "b", "c"]);
    for pair in [["a", "b"], ["a", "c"], ["b", "c"]] {
        kit.write("claviger.toml", quorum(&pair));
        assert_eq!(kit.ok(&[&["decrypt", "record", "-p", "me"][..], &CONFIG].concat()).text(), "x");
    }
    let foreign = quorum(&["a", "b"]).replace("name = \"b\"", "name = \"c\"");
    kit.write("claviger.toml", foreign);
    let run = kit.run(&[&["decrypt", "record", "-p", "me"][..], &CONFIG].concat());
    assert_ne!(run.code, Some(0), "{}", run.stderr);
}

#[test]
fn members_that_cannot_be_are_told() {
    let kit = Kit::new();
    kit.write("payload", "x");
    for (text, sentence) in [
        (any_of(&["a", "a"], ""), "the options do not fit together"),
        (any_of(&["a"], "min-copies = 2\n"), "min_copies is 2"),
        (any_of(&["a", "b"], "k = 3\n").replace("any-of", "k-of-n"), "3 of 2 members"),
    ] {
        kit.write("claviger.toml", text);
        let run = kit.fails(78, &[&["encrypt", "payload", "-p", "me"][..], &CONFIG].concat());
        assert!(run.stderr.contains(sentence), "{}", run.stderr);
    }
}
