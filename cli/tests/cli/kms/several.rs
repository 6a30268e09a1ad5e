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
fn a_member_that_was_added_is_made_and_gets_its_copies_by_rewrap() {
    let kit = Kit::new();
    let config = |names: &[&str]| kit.write("claviger.toml", any_of(names, "asherah-compatible = false\n"));
    config(&["a"]);
    there_and_back(&kit, &CONFIG);
    config(&["a", "b"]);
    // Others than rewrap take the file for one that was lost, and go on without it.
    let told = kit.ok(&[&["encrypt", "payload", "-p", "me"][..], &CONFIG].concat());
    assert!(!kit.path("b.key").exists() && !told.stderr.contains("made "), "{}", told.stderr);
    assert!(told.stderr.contains("_SK_claviger_default has no copy of b; "), "{}", told.stderr);
    assert!(told.stderr.contains("claviger kms repair makes it"), "{}", told.stderr);
    let checked = kit.run(&[&["kms", "check"][..], &CONFIG].concat());
    assert_eq!(checked.code, Some(3), "{}", checked.stderr);
    assert!(checked.text().contains("\nb: wrap failed: "), "{}", checked.text());
    assert!(checked.text().contains("master-key file b.key does not exist"), "{}", checked.text());
    let repair = [&["kms", "repair", "--format", "json"][..], &CONFIG].concat();
    let dry = kit.run(&[&repair[..], &["--dry-run"]].concat());
    assert_eq!(dry.code, Some(3), "{}", dry.stderr);
    assert_eq!(
        (&json(&dry)["keys"][0]["outcome"], &json(&dry)["keys"][0]["missing"][0]),
        (&"due".into(), &"b".into())
    );
    assert_eq!(json(&kit.run(&repair))["keys"][0]["outcome"], "failed");
    let made = kit.ok(&[&["kms", "rewrap"][..], &CONFIG].concat());
    assert!(made.stderr.contains("made b.key; keep a copy"), "{}", made.stderr);
    assert_eq!(json(&kit.ok(&repair))["keys"][0]["outcome"], "up-to-date");
    assert_eq!(kit.ok(&[&["encrypt", "payload", "-p", "me"][..], &CONFIG].concat()).stderr, "");
    // The first is not needed any more: neither when it is lost, nor when it is taken out.
    std::fs::remove_file(kit.path("a.key")).unwrap();
    for names in [&["a", "b"][..], &["b"]] {
        config(names);
        assert_eq!(kit.ok(&[&["decrypt", "record", "-p", "me"][..], &CONFIG].concat()).text(), "x");
        let told = kit.ok(&[&["encrypt", "payload", "-p", "me"][..], &CONFIG].concat()).stderr;
        assert_eq!(told.contains("has no copy of a; "), names.len() == 2, "{told}");
    }
    assert!(!kit.path("a.key").exists());
}

#[test]
fn keys_of_several_move_to_one_by_the_old_configuration_file() {
    let kit = Kit::new();
    let old = any_of(&["a", "b"], "asherah-compatible = false\n");
    kit.write("claviger.toml", &old);
    there_and_back(&kit, &CONFIG);
    kit.write("old.toml", &old);
    kit.write("claviger.toml", "metastore = \"sqlite:keys.db\"\nkms = \"local:c.key\"\n");
    let made = kit.ok(&[&["kms", "rewrap", "--from", "config:old.toml"][..], &CONFIG].concat());
    assert!(made.stderr.contains("made c.key"), "{}", made.stderr);
    assert_eq!(kit.ok(&[&["decrypt", "record", "-p", "me"][..], &CONFIG].concat()).text(), "x");
    kit.write("old.toml", "service = \"a\"\n");
    let run = kit.fails(78, &[&["kms", "rewrap", "--from", "config:old.toml"][..], &CONFIG].concat());
    assert!(run.stderr.contains("old.toml says no kms"), "{}", run.stderr);
    kit.fails(66, &[&["kms", "rewrap", "--from", "config:missing.toml"][..], &CONFIG].concat());
}

#[test]
fn a_dry_run_says_what_a_move_to_new_members_would_do() {
    let kit = Kit::new();
    kit.write("claviger.toml", "metastore = \"sqlite:keys.db\"\nkms = \"local:old.key\"\n");
    there_and_back(&kit, &CONFIG);
    for kind in ["any-of", "k-of-n"] {
        let options = if kind == "any-of" { "" } else { "k = 2\n" };
        let text = any_of(&["a", "b"], &format!("asherah-compatible = false\n{options}"));
        kit.write("claviger.toml", text.replace("any-of", kind));
        let dry = kit.ok(&[&["kms", "rewrap", "--from", "local:old.key", "--dry-run"][..], &CONFIG].concat());
        assert!(dry.text().contains(": to be wrapped anew"), "{}", dry.text());
        assert_eq!(dry.stderr, "claviger: without --dry-run a.key and b.key would be made\n");
        assert!(!kit.path("a.key").exists() && !kit.path("b.key").exists());
    }
    // To claviger's own, whose folder is made as well.
    let own = ["kms", "rewrap", "--from", "local:old.key", "--metastore", "sqlite:keys.db", "--dry-run"];
    let dry = kit.ok(&own);
    assert!(dry.stderr.ends_with("home/master.key would be made\n"), "{}", dry.stderr);
    assert!(!kit.path("home").exists());
    kit.ok(&[&["kms", "rewrap", "--from", "local:old.key"][..], &CONFIG].concat());
    // With a new member.
    kit.write(
        "claviger.toml",
        any_of(&["a", "b", "c"], "k = 2\nasherah-compatible = false\n").replace("any-of", "k-of-n"),
    );
    let dry = kit.ok(&[&["kms", "rewrap", "--dry-run"][..], &CONFIG].concat());
    assert_eq!(dry.stderr, "claviger: without --dry-run c.key would be made\n");
    assert!(!kit.path("c.key").exists());
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
    // What is there of one is a share too few.
    kit.write("claviger.toml", quorum(&["a", "b", "c"]));
    let decrypt = [&["decrypt", "record", "-p", "me"][..], &CONFIG].concat();
    std::fs::remove_file(kit.path("a.key")).unwrap();
    assert_eq!(kit.ok(&decrypt).text(), "x");
    std::fs::remove_file(kit.path("b.key")).unwrap();
    let run = kit.fails(77, &decrypt);
    assert!(run.stderr.contains("master-key file b.key does not exist"), "{}", run.stderr);
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
