//! Which keys are used: flags before variables before the file before the defaults.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use crate::kit::{Kit, Run, finish};

pub(crate) const KEY: &str = "8f0e6d5c4b3a29187766554433221100ffeeddccbbaa99887766554433221101";
/// `thisIsAStaticMasterKeyForTesting`.
pub(crate) const KNOWN_KEY: &str = "746869734973415374617469634d61737465724b6579466f7254657374696e67";

pub(crate) fn private(kit: &Kit, name: &str, text: impl AsRef<[u8]>) {
    let path = kit.write(name, text);
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn a_flag_wins_over_a_variable_and_a_variable_over_the_file() {
    let kit = Kit::new();
    kit.write(
        "claviger.toml",
        "service = \"file\"\nproduct = \"file\"\nregion-suffix = \"eu-west-1\"\ncache = 7\n",
    );
    kit.write("payload", "x");
    let id = |flags: &[&str], variables: &[(&str, &str)]| {
        let mut command = kit.command(&["encrypt", "payload", "-p", "me"]);
        let run = finish(command.args(flags).envs(variables.iter().copied()));
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        let record: serde_json::Value = serde_json::from_str(run.text()).unwrap();
        record["Key"]["ParentKeyMeta"]["KeyId"].as_str().unwrap().to_owned()
    };
    let file = ["--config", "claviger.toml"];
    assert_eq!(id(&[], &[]), "_IK_me_claviger_default");
    assert_eq!(id(&file, &[]), "_IK_me_file_file_eu-west-1");
    assert_eq!(id(&[], &[("CLAVIGER_CONFIG", "claviger.toml")]), "_IK_me_file_file_eu-west-1");
    let variables = [("CLAVIGER_SERVICE", "variable"), ("CLAVIGER_REGION_SUFFIX", "us-east-1")];
    assert_eq!(id(&file, &variables), "_IK_me_variable_file_us-east-1");
    let flags = ["--config", "claviger.toml", "--service", "flag"];
    assert_eq!(id(&flags, &variables), "_IK_me_flag_file_us-east-1");
}

#[test]
fn stores_and_master_keys_are_chosen_by_flag_variable_and_file() {
    let kit = Kit::new();
    private(&kit, "static.hex", format!("{KEY}\n"));
    let run = kit.pipe(&["encrypt", "-p", "me", "--metastore", "sqlite:a.db", "--kms", "local:a.key"], b"x");
    assert!(run.stderr.contains("made a.db and a.key; keep a copy"), "{}", run.stderr);
    for (store, kms) in [("a.db", "local:a.key"), ("b.db", "static:@static.hex")] {
        kit.write("claviger.toml", format!("metastore = \"sqlite:{store}\"\nkms = \"{kms}\"\n"));
        let sealed = kit.pipe(&["encrypt", "-p", "me", "--config", "claviger.toml"], b"x");
        assert_eq!(sealed.code, Some(0), "{}", sealed.stderr);
        kit.write("record", sealed.stdout);
        let mut command = kit.command(&["decrypt", "record", "-p", "me"]);
        command.env("CLAVIGER_METASTORE", format!("sqlite:{store}")).env("CLAVIGER_KMS", kms);
        assert_eq!(finish(&mut command).text(), "x");
    }
    assert!(!kit.path("home").exists());
}

#[test]
fn unknown_and_wrong_entries_of_the_file_are_refused_with_their_line() {
    let kit = Kit::new();
    for (text, sentence) in [
        ("service = \"a\"\nservise = \"b\"\n", "claviger.toml:2: unknown field `servise`"),
        ("\ncache = \"many\"\n", "claviger.toml:2: invalid type"),
        ("cache = 0\n", "claviger.toml:1: invalid value"),
        ("kms = static:SECRET\n", "claviger.toml:1: "),
        ("config = \"x\"\n", "unknown field `config`"),
    ] {
        kit.write("claviger.toml", text);
        let run = kit.fails(78, &["encrypt", "-p", "me", "--config", "claviger.toml"]);
        assert!(run.stderr.contains(sentence), "{}", run.stderr);
        assert!(!run.stderr.contains("SECRET"), "{}", run.stderr);
    }
    let run = kit.fails(66, &["encrypt", "-p", "me", "--config", "missing.toml"]);
    assert!(run.stderr.contains("the configuration file missing.toml"), "{}", run.stderr);
}

#[test]
fn a_key_on_the_command_line_is_refused_and_not_repeated() {
    let kit = Kit::new();
    for kms in [format!("static:{KEY}"), KEY.to_owned()] {
        let run = kit.fails(78, &["encrypt", "-p", "me", "--kms", &kms]);
        assert!(run.stderr.contains("static:@FILE"), "{}", run.stderr);
        assert!(!run.stderr.contains(&KEY[..8]), "{}", run.stderr);
        // Help shows variables' values, but not this one's.
        let help = finish(kit.command(&["encrypt", "--help"]).env("CLAVIGER_KMS", &kms));
        assert!(help.text().contains("CLAVIGER_KMS") && !help.text().contains(&KEY[..8]));
    }
}

#[test]
fn s2_7_back_ends_that_are_not_there_are_refused_and_those_that_are_named() {
    let kit = Kit::new();
    for (options, named) in [
        (["--metastore", "redis://user:pw@host/keys"], "CLAVIGER_METASTORE"),
        (["--metastore", "redis://host"], "sqlite:PATH, postgres://"),
        (["--metastore", "sqlite:"], "sqlite:PATH"),
        (["--kms", "gcp:projects/p/locations/l"], "local:PATH, static:@FILE, aws:REGION=ARN, pkcs11:"),
        (["--kms", "aws:us-east-1"], "say aws:REGION=ARN"),
        (["--kms", "local:"], "local:PATH"),
        (["--kms", "static:@"], "static:@FILE"),
    ] {
        let run = kit.fails(78, &[["encrypt", "-p", "me"].as_slice(), &options].concat());
        assert!(run.stderr.contains(named) && !run.stderr.contains("pw@"), "{}", run.stderr);
    }
}

#[test]
fn static_keys_are_the_same_in_capitals() {
    let kit = Kit::new();
    private(&kit, "key", KEY);
    let arguments = ["-p", "me", "--metastore", "sqlite:a.db", "--kms", "static:@key"];
    kit.write("plain", "text");
    kit.ok(&[&["encrypt", "plain", "-o", "sealed"][..], &arguments].concat());
    private(&kit, "key", KEY.to_uppercase());
    assert_eq!(kit.ok(&[&["decrypt", "sealed"][..], &arguments].concat()).text(), "text");
}

#[test]
fn the_known_test_key_is_used_when_told_in_any_way() {
    let kit = Kit::new();
    private(&kit, "key", KNOWN_KEY);
    kit.write(
        "claviger.toml",
        "danger-known-key = true\nmetastore = \"sqlite:a.db\"\nkms = \"static:@key\"\n",
    );
    kit.write("payload", "x");
    kit.ok(&["encrypt", "payload", "-p", "me", "-o", "record", "--config", "claviger.toml"]);
    let arguments = ["decrypt", "record", "-p", "me", "--metastore", "sqlite:a.db", "--kms", "static:@key"];
    assert_eq!(kit.ok(&[&arguments, ["--danger-known-key"].as_slice()].concat()).text(), "x");
    let run = finish(kit.command(&arguments).env("CLAVIGER_DANGER_KNOWN_KEY", "1"));
    assert_eq!(run.text(), "x");
    let mut refused = kit.command(&["decrypt", "record", "-p", "me", "--config", "claviger.toml"]);
    finish(refused.env("CLAVIGER_DANGER_KNOWN_KEY", "no")).assert_failed(78);
}

#[test]
fn a_store_in_memory_must_be_asked_for_twice() {
    let kit = Kit::new();
    let arguments = ["encrypt", "-p", "me", "--metastore", "memory:"];
    let run = kit.fails(78, &arguments);
    assert!(run.stderr.contains("forgets the keys"), "{}", run.stderr);
    kit.ok(&[arguments.as_slice(), &["--danger-discard-keys"]].concat());
}

#[test]
fn a_store_in_memory_tells_the_length_of_a_key_id_in_bytes() {
    let kit = Kit::new();
    let partition = "é".repeat(125);
    let run =
        kit.fails(65, &["encrypt", "-p", &partition, "--metastore", "memory:", "--danger-discard-keys"]);
    assert!(run.stderr.contains("a key id of 271 bytes"), "{}", run.stderr);
}

#[test]
fn a_store_in_memory_by_another_name_is_one() {
    let kit = Kit::new();
    for name in [
        ":memory:",
        "//:memory:",
        "file::memory:?cache=shared",
        "file:keys.db?mode=memory&cache=shared",
        "keys.db?mode=memory",
        "//?mode=memory",
    ] {
        let metastore = format!("sqlite:{name}");
        let encrypt = ["encrypt", "-p", "me", "--metastore", &metastore];
        assert!(kit.fails(78, &encrypt).stderr.contains("forgets the keys"), "{name}");
        kit.ok(&[&encrypt[..], &["--danger-discard-keys"]].concat());
        let check = kit.fails(78, &["schema", "check", "--metastore", &metastore]);
        assert!(check.stderr.contains("memory: has no schema"), "{}", check.stderr);
    }
    for (name, told) in [
        (" ", "lacks its path"),
        ("//", "lacks its path"),
        ("keys.db?mode=rwc", "takes no parameters"),
        ("file:keys.db", "takes a path and not a URI"),
    ] {
        let run = kit.fails(78, &["encrypt", "-p", "me", "--metastore", &format!("sqlite:{name}")]);
        assert!(run.stderr.contains(told), "{}", run.stderr);
    }
    assert_eq!(kit.files(), [""; 0]);
}

#[test]
fn a_url_of_a_file_names_a_relative_and_an_absolute_path() {
    let kit = Kit::new();
    kit.ok(&["encrypt", "-p", "me", "--metastore", "sqlite://keys.db", "--kms", "local:a.key"]);
    let absolute = format!("sqlite://{}", kit.path("keys.db").display());
    for name in ["sqlite:keys.db", &absolute, "sqlite:./keys.db"] {
        kit.ok(&["schema", "check", "--metastore", name]);
    }
    kit.ok(&["encrypt", "-p", "me", "--metastore", "sqlite://a%3Fb.db", "--kms", "local:b.key"]);
    assert_eq!(kit.files(), ["a.key", "a?b.db", "b.key", "keys.db"]);
}

#[test]
fn the_embedded_default_is_made_once_and_said_so() {
    let kit = Kit::new();
    let first = kit.pipe(&["encrypt", "-p", "me"], b"x");
    assert!(first.stderr.contains("home/keys.db and "), "{}", first.stderr);
    assert!(first.stderr.contains("without the key store and its master key nothing can be decrypted"));
    assert_eq!(kit.pipe(&["encrypt", "-p", "me"], b"x").stderr, "");
    let mode = |name| fs::metadata(kit.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("home"), mode("home/master.key"), mode("home/keys.db")), (0o700, 0o600, 0o600));
}

#[test]
fn the_key_store_is_one_whole_file_afterwards() {
    let (kit, copy) = (Kit::new(), Kit::new());
    let record = kit.pipe(&["encrypt", "-p", "me"], b"x").stdout;
    fs::create_dir(copy.path("home")).unwrap();
    for name in ["home/keys.db", "home/master.key"] {
        fs::copy(kit.path(name), copy.path(name)).unwrap();
    }
    assert_eq!(copy.pipe(&["decrypt", "-p", "me"], &record).text(), "x");
}

#[test]
fn the_folder_is_claviger_home_then_xdg_then_the_users() {
    let kit = Kit::new();
    let made = |variables: &[(&str, &str)]| {
        let mut command = kit.command(&["encrypt", "-p", "me"]);
        command.env_remove("CLAVIGER_HOME").env_remove("XDG_DATA_HOME").env("HOME", kit.path("user"));
        for (name, value) in variables {
            command.env(name, if value.is_empty() { "".into() } else { kit.path(value) });
        }
        let run = finish(&mut command);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        run.stderr
    };
    assert!(made(&[("XDG_DATA_HOME", "xdg"), ("CLAVIGER_HOME", "mine")]).contains("/mine/keys.db"));
    assert!(made(&[("XDG_DATA_HOME", "xdg"), ("CLAVIGER_HOME", "")]).contains("/xdg/claviger/keys.db"));
    assert!(made(&[]).contains("/user/.local/share/claviger/keys.db"));
    let run = finish(
        kit.command(&["encrypt", "-p", "me"])
            .env_remove("CLAVIGER_HOME")
            .env_remove("XDG_DATA_HOME")
            .env_remove("HOME"),
    );
    run.assert_failed(78);
}

#[test]
fn two_first_users_end_with_one_master_key() {
    let kit = Kit::new();
    kit.write("payload", "x");
    let names: Vec<String> = (0..8).map(|number| format!("record{number}")).collect();
    let children: Vec<_> = names
        .iter()
        .map(|name| {
            kit.command(&["encrypt", "payload", "-p", "me", "-o", name]).stderr(Stdio::piped()).spawn()
        })
        .collect();
    for child in children {
        let run: Run = child.unwrap().wait_with_output().unwrap().into();
        assert_eq!(run.code, Some(0), "{}", run.stderr);
    }
    for name in &names {
        assert_eq!(kit.ok(&["decrypt", name, "-p", "me"]).text(), "x");
    }
}
