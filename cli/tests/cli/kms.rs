//! Who keeps the master key, and what `claviger kms` does about it.

#[cfg(feature = "aws")]
mod aws;
mod check;
mod known;
mod several;
#[cfg(feature = "vault")]
mod vault;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::kit::{Kit, Run, finish};

const SECRET: &str = "Tr0ub4dor";
const ENCRYPT: [&str; 4] = ["encrypt", "payload", "-p", "me"];

/// Descriptions with a secret in them.
fn with_secrets() -> [String; 4] {
    [
        format!("pkcs11:token=t;object=o?module-path=/no/module.so&pin-value={SECRET}"),
        format!("vault:https://127.0.0.1:1/transit/k?token={SECRET}"),
        format!("vault:https://127.0.0.1:1/transit/k?auth=approle&role-id=r&secret-id={SECRET}"),
        format!("vault:https://user:{SECRET}@127.0.0.1:1/transit/k"),
    ]
}

fn with_mode(kit: &Kit, name: &str, text: &str, mode: u32) {
    fs::set_permissions(kit.write(name, text), fs::Permissions::from_mode(mode)).unwrap();
}

fn json(run: &Run) -> Value {
    serde_json::from_slice(&run.stdout).unwrap()
}

/// Encrypts a payload and decrypts it in another process, with these options.
fn there_and_back(kit: &Kit, options: &[&str]) {
    kit.write("payload", "x");
    kit.ok(&[&ENCRYPT[..], &["-o", "record"], options].concat());
    assert_eq!(kit.ok(&[&["decrypt", "record", "-p", "me"][..], options].concat()).text(), "x");
}

#[test]
fn a_secret_of_the_master_key_is_refused_on_the_command_line_and_not_repeated() {
    let kit = Kit::new();
    kit.write("payload", "x");
    let rewrap = ["kms", "rewrap", "--kms", "local:a.key"];
    for text in with_secrets() {
        let joined = format!("--kms={text}");
        for arguments in [
            [&ENCRYPT[..], &["--kms", &text]].concat(),
            [&ENCRYPT[..], &[joined.as_str()]].concat(),
            vec!["kms", "check", "--kms", &text],
            vec!["kms", "repair", "--kms", &text],
            [&rewrap[..], &["--from", &text]].concat(),
            // In the wrong place, where clap would repeat it.
            vec!["kms", "check", &text],
            vec!["kms", &text],
            vec!["encrypt", "payload", "-p", "me", "--cache", &text],
            vec!["kms", "check", &joined.replace("--kms", "--kmss")],
        ] {
            let run = kit.fails(78, &arguments);
            for way in
                ["CLAVIGER_PKCS11_PIN", "VAULT_TOKEN", "VAULT_SECRET_ID", "CLAVIGER_KMS", "--kms @FILE"]
            {
                assert!(run.stderr.contains(way), "{}", run.stderr);
            }
            assert!(!run.stderr.contains(SECRET), "{}", run.stderr);
        }
    }
}

#[test]
fn a_secret_of_the_master_key_is_taken_where_others_do_not_see_it_and_is_never_shown() {
    let kit = Kit::new();
    kit.write("payload", "x");
    let config = [&ENCRYPT[..], &["--config", "claviger.toml"]].concat();
    let file = [&ENCRYPT[..], &["--kms", "@kms"]].concat();
    let refused = "on the command line";
    for text in &with_secrets()[..3] {
        let run = finish(kit.command(&ENCRYPT).env("CLAVIGER_KMS", text));
        assert!(run.code != Some(0) && !run.stderr.contains(refused), "{}", run.stderr);
        assert!(!run.stderr.contains(SECRET), "{}", run.stderr);
        let help = finish(kit.command(&["kms", "check", "--help"]).env("CLAVIGER_KMS", text));
        assert!(help.text().contains("CLAVIGER_KMS") && !help.text().contains(SECRET));
        for (name, content, arguments) in
            [("claviger.toml", format!("kms = \"{text}\"\n"), &config), ("kms", text.clone(), &file)]
        {
            with_mode(&kit, name, &content, 0o600);
            let run = kit.run(arguments);
            assert!(run.code != Some(77) && !run.stderr.contains(refused), "{}", run.stderr);
            assert!(!run.stderr.contains(SECRET), "{}", run.stderr);
            with_mode(&kit, name, &content, 0o640);
            let run = kit.fails(77, arguments);
            assert!(run.stderr.contains("can be read by others; say chmod 600"), "{}", run.stderr);
            assert!(!run.stderr.contains(SECRET), "{}", run.stderr);
        }
    }
    let table = format!(
        "[kms]\ntype = \"vault\"\naddress = \"https://127.0.0.1:1\"\nkey = \"k\"\ntoken = \"{SECRET}\"\n"
    );
    with_mode(&kit, "claviger.toml", &table, 0o644);
    let run = kit.fails(77, &config);
    assert!(run.stderr.contains("claviger.toml holds a secret and can be read by others"), "{}", run.stderr);
    // Without one anybody may read it.
    with_mode(&kit, "claviger.toml", "[kms]\ntype = \"local\"\npath = \"a.key\"\n", 0o644);
    kit.ok(&config);
    assert!(kit.path("a.key").exists());
}

#[test]
fn a_master_key_is_chosen_by_flag_variable_and_table_of_the_file() {
    let kit = Kit::new();
    kit.write("payload", "x");
    kit.write("claviger.toml", "[kms]\ntype = \"local\"\npath = \"table.key\"\n");
    with_mode(&kit, "kms", "local:file.key\n", 0o600);
    let config = ["--config", "claviger.toml"];
    let mut stores = 0;
    let mut made = |flags: &[&str], variable: Option<&str>| {
        stores += 1;
        let store = format!("sqlite:{stores}.db");
        let mut command = kit.command(&[&ENCRYPT[..], &config, &["--metastore", &store], flags].concat());
        let run = finish(command.envs(variable.map(|kms| ("CLAVIGER_KMS", kms))));
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        run.stderr.split_once(" and ").unwrap().1.split_once(';').unwrap().0.to_owned()
    };
    assert_eq!(made(&[], None), "table.key");
    assert_eq!(made(&[], Some("local:variable.key")), "variable.key");
    assert_eq!(made(&["--kms", "local:flag.key"], Some("local:variable.key")), "flag.key");
    assert_eq!(made(&["--kms", "@kms"], Some("@kms")), "file.key");
}

#[test]
fn what_is_wrong_with_the_table_is_told_with_its_line_whatever_the_flags_say() {
    let kit = Kit::new();
    kit.write("payload", "x");
    let arguments = [&ENCRYPT[..], &["--config", "claviger.toml", "--kms", "local:a.key"]].concat();
    for (text, sentence) in [
        ("service = \"a\"\n[kms]\ntype = \"local\"\nfile = \"a\"\n", "claviger.toml:3: kms: lacks its path"),
        (
            "[kms]\ntype = \"local\"\npath = \"a\"\nfile = \"a\"\n",
            "claviger.toml:4: kms: unknown field `file`; there are path, type",
        ),
        (
            "[kms]\ntype = \"aws\"\n\n[kms.regions.us-east-1]\nky = \"arn\"\n",
            "claviger.toml:4: kms: lacks its key; say the ARN of the key of us-east-1",
        ),
        ("kms = 7\n", "claviger.toml:1: invalid type: integer `7`, expected a text or a table"),
        ("[kms]\ntype = 2020-01-01\n", "claviger.toml:2: invalid type"),
        (
            "[[kms]]\ntype = \"local\"\n",
            "claviger.toml:1: invalid type: sequence, expected a text or a table",
        ),
    ] {
        kit.write("claviger.toml", text);
        let run = kit.fails(78, &arguments);
        assert!(run.stderr.contains(sentence), "{}", run.stderr);
    }
}

#[test]
fn a_service_that_was_not_built_in_is_refused_and_its_feature_named() {
    let kit = Kit::new();
    kit.write("payload", "x");
    with_mode(&kit, "pin", "1234", 0o600);
    for (text, feature, is_built_in) in [
        ("aws:us-east-1=alias/claviger,endpoint.us-east-1=http://127.0.0.1:1", "aws", cfg!(feature = "aws")),
        (
            "pkcs11:token=t;object=o?module-path=/no/module.so&pin-source=file:pin",
            "pkcs11",
            cfg!(feature = "pkcs11"),
        ),
        ("vault:https://127.0.0.1:1/transit/k", "vault", cfg!(feature = "vault")),
    ] {
        let mut command = kit.command(&["kms", "check", "--kms", text]);
        command
            .env("VAULT_TOKEN", "t")
            .env("AWS_ACCESS_KEY_ID", "key")
            .env("AWS_SECRET_ACCESS_KEY", "secret");
        let run = finish(&mut command);
        assert_ne!(run.code, Some(0), "{}", run.text());
        let says = format!("cargo build --release -p claviger-cli --features {feature}");
        assert_eq!(run.stderr.contains(&says), !is_built_in, "{}", run.stderr);
        assert_eq!(
            run.code == Some(78) && run.stderr.contains("was built without"),
            !is_built_in,
            "{}",
            run.stderr
        );
    }
}

#[test]
fn help_shows_every_form_of_a_master_key() {
    let kit = Kit::new();
    for arguments in [&["encrypt", "--help"][..], &["decrypt", "--help"], &["kms", "check", "--help"]] {
        let help = kit.ok(arguments);
        for form in [
            "local:PATH",
            "static:@FILE",
            "aws:REGION=ARN[,REGION=ARN…][,preferred=REGION]",
            "pkcs11:token=LABEL;object=LABEL?module-path=PATH&pin-source=file:PATH",
            "vault:https://HOST:8200/MOUNT/KEY[?auth=token|approle|kubernetes&…]",
            "@FILE ",
        ] {
            assert!(help.text().contains(form), "{form}: {}", help.text());
        }
    }
    let examples = kit.ok(&["kms", "--help"]);
    for form in ["--kms local:", "--kms aws:", "--kms 'pkcs11:", "--kms 'vault:", "--from static:@"] {
        assert!(examples.text().contains(form), "{form}");
    }
}

/// A time as people read it.
fn is_rfc_3339(text: &str) -> bool {
    let shape = |byte: u8| if byte.is_ascii_digit() { b'0' } else { byte };
    text.bytes().map(shape).eq(*b"0000-00-00T00:00:00Z")
}

#[test]
fn repair_says_what_is_as_it_should_be_and_what_is_not_there() {
    let kit = Kit::new();
    let run = kit.fails(66, &["kms", "repair"]);
    assert!(run.stderr.contains("there is no key store at"), "{}", run.stderr);
    there_and_back(&kit, &[]);
    let run = kit.ok(&["kms", "repair"]);
    let time =
        run.text().strip_prefix("_SK_claviger_default of ").unwrap().strip_suffix(": as it should be\n");
    assert!(time.is_some_and(is_rfc_3339), "{}", run.text());
    kit.ok(&["kms", "repair", "--all", "--dry-run"]);
    let run = kit.fails(66, &["kms", "repair", "--service", "other"]);
    assert!(run.stderr.contains("no system keys of this service and product"), "{}", run.stderr);
    let run = kit.fails(78, &["kms", "repair", "--metastore", "memory:"]);
    assert!(run.stderr.contains("forgets the keys"), "{}", run.stderr);
}

#[test]
fn system_keys_move_to_another_master_key() {
    let kit = Kit::new();
    with_mode(&kit, "old.hex", &"0123456789abcdef".repeat(4), 0o600);
    let store = ["--metastore", "sqlite:keys.db"];
    let (old, new) = (["--kms", "static:@old.hex"], ["--kms", "local:new.key"]);
    kit.write("payload", "x");
    let mut records = Vec::new();
    for service in ["a", "b"] {
        let sealed = kit.ok(&[&ENCRYPT[..], &store, &old, &["--service", service]].concat());
        records.push((service, kit.write(service, sealed.stdout)));
    }
    let rewrap =
        [&["kms", "rewrap", "--from", "static:@old.hex", "--format", "json"][..], &store, &new].concat();
    // Nothing is made nor moved by a dry run, which says what would be.
    let before = (kit.read("keys.db"), kit.files());
    let dry = kit.ok(&[&rewrap[..], &["--all", "--dry-run"]].concat());
    assert_eq!(dry.stderr, "claviger: without --dry-run new.key would be made\n");
    let due = |key: &Value| key["outcome"] == "due";
    assert!(
        json(&dry)["keys"].as_array().unwrap().iter().filter(|key| due(key)).count() == 2,
        "{}",
        dry.text()
    );
    assert_eq!((kit.read("keys.db"), kit.files()), before);
    // Nor where it could not be made, or where nothing opens the keys.
    let nowhere = ["kms", "rewrap", "--from", "static:@old.hex", "--kms", "local:none/new.key", "--dry-run"];
    kit.fails(66, &[&nowhere[..], &store, &["--all"]].concat());
    with_mode(&kit, "wrong.hex", &"00112233445566ff".repeat(4), 0o600);
    let wrong = ["kms", "rewrap", "--from", "static:@wrong.hex", "--dry-run", "--all"];
    assert_eq!(kit.run(&[&wrong[..], &store, &new].concat()).code, Some(3));
    let made = kit.ok(&[&rewrap[..], &["--service", "a"]].concat());
    assert!(made.stderr.contains("made new.key; keep a copy"), "{}", made.stderr);
    assert_eq!(json(&made)["keys"][0]["outcome"], "rewrapped");
    assert_eq!(json(&made)["keys"][0]["id"], "_SK_a_default");
    let dry = json(&kit.ok(&[&rewrap[..], &["--all", "--dry-run"]].concat()));
    let outcomes = |report: &Value| -> Vec<String> {
        let keys = report["keys"].as_array().unwrap().iter();
        keys.map(|key| format!("{} {}", key["id"].as_str().unwrap(), key["outcome"].as_str().unwrap()))
            .collect()
    };
    assert_eq!(outcomes(&dry), ["_SK_a_default up-to-date", "_SK_b_default due"]);
    let all = json(&kit.ok(&[&rewrap[..], &["--all"]].concat()));
    assert_eq!(outcomes(&all), ["_SK_a_default up-to-date", "_SK_b_default rewrapped"]);
    for (service, record) in records {
        let decrypt = ["decrypt", record.to_str().unwrap(), "-p", "me", "--service", service];
        assert_eq!(kit.ok(&[&decrypt[..], &store, &new].concat()).text(), "x");
        kit.fails(66, &[&decrypt[..], &store, &old].concat());
    }
    let again = json(&kit.ok(&[&["kms", "rewrap", "--all", "--format", "json"][..], &store, &new].concat()));
    assert_eq!(outcomes(&again), ["_SK_a_default rewrapped", "_SK_b_default rewrapped"]);
}

#[test]
fn where_keys_come_from_may_stand_in_a_file_that_only_its_owner_may_read() {
    let kit = Kit::new();
    there_and_back(&kit, &["--kms", "local:old.key", "--metastore", "sqlite:keys.db"]);
    let rewrap =
        ["kms", "rewrap", "--from", "@from", "--kms", "local:new.key", "--metastore", "sqlite:keys.db"];
    with_mode(&kit, "from", "local:old.key\n", 0o644);
    let run = kit.fails(77, &rewrap);
    assert!(run.stderr.contains("the file of --from from can be read by others"), "{}", run.stderr);
    with_mode(&kit, "from", "local:old.key\n", 0o600);
    assert!(kit.ok(&rewrap).text().ends_with(": wrapped anew\n"));
    with_mode(&kit, "from", "local:\n", 0o600);
    assert!(kit.fails(78, &rewrap).stderr.contains("--from local: lacks its path"));
}

#[test]
fn a_system_key_that_neither_master_key_opens_is_told_and_left_as_it_is() {
    let kit = Kit::new();
    with_mode(&kit, "wrong.hex", &"0123456789abcdef".repeat(4), 0o600);
    with_mode(&kit, "new.hex", &"fedcba9876543210".repeat(4), 0o600);
    there_and_back(&kit, &[]);
    let rewrap = ["kms", "rewrap", "--from", "static:@wrong.hex", "--kms", "static:@new.hex"];
    let run = kit.run(&rewrap);
    assert_eq!(run.code, Some(3), "{}", run.stderr);
    assert!(run.text().contains(": failed: the master key does not open the system key"), "{}", run.text());
    there_and_back(&kit, &[]);
}
