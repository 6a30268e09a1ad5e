//! Keys that were lost, and keys that are not there yet: the ones are never replaced unasked, the others are
//! made once.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use crate::config::private;
use crate::kit::{Kit, Run};
use crate::schema::sql_in;

const ENCRYPT: [&str; 4] = ["encrypt", "payload", "-p", "me"];

/// A way to say where the keys are, and the files that they are in then.
struct Setting {
    config: &'static str,
    store: &'static str,
    keys: &'static [&'static str],
}

const DEFAULT: Setting = Setting { config: "", store: "home/keys.db", keys: &["home/master.key"] };

const SETTINGS: [Setting; 4] = [
    DEFAULT,
    Setting {
        config: "metastore = \"sqlite:keys.db\"\nkms = \"local:a.key\"\n",
        store: "keys.db",
        keys: &["a.key"],
    },
    Setting {
        config: "metastore = \"sqlite://keys.db\"\n[kms]\ntype = \"any-of\"\nasherah-compatible = false\n\
                 members = [{ name = \"a\", kms = \"local:a.key\" }, { name = \"b\", kms = \"local:b.key\" }]\n",
        store: "keys.db",
        keys: &["a.key", "b.key"],
    },
    Setting {
        config: "metastore = \"sqlite:keys.db\"\n[kms]\ntype = \"k-of-n\"\nk = 2\nasherah-compatible = false\n\
                 members = [{ name = \"a\", kms = \"local:a.key\" }, { name = \"b\", kms = \"local:b.key\" }]\n",
        store: "keys.db",
        keys: &["a.key", "b.key"],
    },
];

impl Setting {
    fn kit(&self) -> Kit {
        let kit = Kit::new();
        kit.write("payload", "x");
        kit.write("claviger.toml", self.config);
        kit
    }

    fn run(&self, kit: &Kit, arguments: &[&str]) -> Run {
        kit.run(&[arguments, &["--config", "claviger.toml"]].concat())
    }

    fn ok(&self, kit: &Kit, arguments: &[&str]) -> Run {
        let run = self.run(kit, arguments);
        assert_eq!(run.code, Some(0), "{arguments:?}: {}", run.stderr);
        run
    }
}

/// What can become of a key store: how, and what is told.
type Loss = (fn(&Path), &'static str);

const LOSSES: [Loss; 3] = [
    (|store| fs::remove_file(store).unwrap(), "is gone, and its master key "),
    (|store| fs::write(store, "").unwrap(), "is empty or has no table of keys"),
    (|store| sql_in(store, "DROP TABLE encryption_key"), "is empty or has no table of keys"),
];

#[test]
fn a_lost_key_store_is_not_replaced() {
    for setting in &SETTINGS {
        for (lose, told) in LOSSES {
            let kit = setting.kit();
            setting.ok(&kit, &ENCRYPT);
            let store = kit.path(setting.store);
            lose(&store);
            let left = fs::read(&store).ok();
            for arguments in [&ENCRYPT[..], &["schema", "apply"]] {
                let is_apply = arguments[0] == "schema";
                let run = setting.run(&kit, arguments);
                run.assert_failed(66);
                assert!(run.stderr.contains(told) || is_apply, "{}", run.stderr);
                assert!(run.stderr.contains("restore it from a copy"), "{}", run.stderr);
                assert!(run.stderr.contains("--new-key-store"), "{}", run.stderr);
                assert_eq!(fs::read(&store).ok(), left, "{arguments:?}");
            }
        }
    }
}

#[test]
fn a_lost_key_store_is_begun_anew_when_told_and_once() {
    for setting in &SETTINGS {
        for (lose, _) in LOSSES {
            let kit = setting.kit();
            setting.ok(&kit, &ENCRYPT);
            lose(&kit.path(setting.store));
            let keys = setting.keys.iter().map(|key| kit.read(key)).collect::<Vec<_>>();
            let anew = [&ENCRYPT[..], &["--new-key-store"]].concat();
            setting.ok(&kit, &anew);
            assert_eq!(keys, setting.keys.iter().map(|key| kit.read(key)).collect::<Vec<_>>());
            setting.ok(&kit, &ENCRYPT);
            // It must not stay in a script, where it would hide the next loss.
            let again = setting.run(&kit, &anew);
            again.assert_failed(78);
            assert!(again.stderr.contains("is there; leave out --new-key-store"), "{}", again.stderr);
        }
    }
    let kit = DEFAULT.kit();
    let memory = ["--metastore", "memory:", "--danger-discard-keys", "--new-key-store"];
    let run = kit.fails(78, &[&ENCRYPT[..], &memory].concat());
    assert!(run.stderr.contains("for a key store in a file"), "{}", run.stderr);
    assert_eq!(kit.run(&["decrypt", "-p", "me", "--new-key-store"]).code, Some(2));
}

#[test]
fn what_only_reads_keys_makes_none_where_they_were_lost() {
    for (lose, _) in LOSSES {
        let kit = DEFAULT.kit();
        kit.ok(&[&ENCRYPT[..], &["-o", "record"]].concat());
        let store = kit.path("home/keys.db");
        lose(&store);
        let left = fs::read(&store).ok();
        for (arguments, told) in [
            (&["decrypt", "record", "-p", "me"][..], "there are no keys at "),
            (&["kms", "repair"], "there is no key store at "),
            (&["kms", "rewrap"], "there is no key store at "),
        ] {
            let run = kit.fails(66, arguments);
            assert!(run.stderr.contains(told), "{}", run.stderr);
            assert_eq!(fs::read(&store).ok(), left, "{arguments:?}");
        }
        let checked = kit.run(&["kms", "check"]);
        assert_eq!(checked.code, Some(if left.is_some() { 66 } else { 0 }), "{}", checked.stderr);
        assert!(checked.stderr.contains("there is no key store at "), "{}", checked.stderr);
        assert_eq!(fs::read(&store).ok(), left);
    }
}

#[test]
fn a_log_whose_key_store_is_lost_is_kept_whatever_is_told() {
    let kit = DEFAULT.kit();
    kit.ok(&ENCRYPT);
    fs::remove_file(kit.path("home/keys.db")).unwrap();
    for kept in [true, false] {
        kit.write("home/keys.db-wal", "keys");
        if kept {
            kit.write("home/keys.db", "");
        }
        for more in [&[][..], &["--new-key-store"]] {
            let run = kit.fails(66, &[&ENCRYPT[..], more].concat());
            assert!(run.stderr.contains("keys.db-wal is there, which may hold keys"), "{}", run.stderr);
        }
        kit.fails(66, &["schema", "apply"]);
        assert_eq!(kit.read("home/keys.db-wal"), b"keys");
    }
}

#[test]
fn what_a_first_user_that_was_killed_leaves_is_gone_on_with() {
    for setting in &SETTINGS {
        let other = setting.kit();
        setting.ok(&other, &["schema", "apply"]);
        let table = other.read(setting.store);
        setting.ok(&other, &ENCRYPT);
        // Each step of the making: the file, its table, the master key or a member's.
        for (store, keys) in [(None, 0), (Some(&b""[..]), 0), (Some(&table), 0), (Some(&table), 1)] {
            let kit = setting.kit();
            fs::create_dir(kit.path("home")).unwrap();
            if let Some(store) = store {
                kit.write(setting.store, store);
            }
            for key in &setting.keys[..keys] {
                fs::copy(other.path(key), kit.path(key)).unwrap();
            }
            setting.ok(&kit, &[&ENCRYPT[..], &["-o", "record"]].concat());
            assert!(setting.keys.iter().all(|key| kit.path(key).exists()));
            assert_eq!(setting.ok(&kit, &["decrypt", "record", "-p", "me"]).text(), "x");
        }
    }
}

#[test]
fn options_that_do_not_fit_together_leave_nothing_in_the_way() {
    let kit = SETTINGS[2].kit();
    kit.write("claviger.toml", SETTINGS[2].config.replace("\"any-of\"\n", "\"any-of\"\nmin-copies = 3\n"));
    SETTINGS[2].run(&kit, &ENCRYPT).assert_failed(78);
    kit.write("claviger.toml", SETTINGS[2].config);
    SETTINGS[2].ok(&kit, &ENCRYPT);
}

#[test]
fn an_empty_key_store_of_a_master_key_elsewhere_is_not_begun_unasked() {
    let kit = DEFAULT.kit();
    private(&kit, "key", "8f0e6d5c4b3a2918".repeat(4));
    kit.write("keys.db", "");
    let keys = ["--metastore", "sqlite:keys.db", "--kms", "static:@key"];
    let run = kit.fails(66, &[&ENCRYPT[..], &keys].concat());
    assert!(run.stderr.contains("keys.db is empty or has no table of keys"), "{}", run.stderr);
    assert_eq!(kit.read("keys.db"), b"");
    kit.ok(&[&["schema", "apply"][..], &keys].concat());
    kit.ok(&[&ENCRYPT[..], &keys].concat());
}

#[test]
fn a_run_that_failed_after_it_made_keys_is_no_loss() {
    let kit = DEFAULT.kit();
    kit.write("in.csv", "id,card\nalice\n");
    let fields = ["encrypt", "in.csv", "--fields", "card", "--partition-field", "id"];
    kit.fails(65, &fields);
    assert!(kit.path("home/keys.db").exists() && kit.path("home/master.key").exists());
    kit.ok(&ENCRYPT);
}

#[test]
fn programs_that_come_first_at_once_share_the_keys_that_one_makes() {
    let of_others = Setting {
        config: "metastore = \"sqlite:keys.db\"\nkms = \"static:@key\"\n",
        store: "keys.db",
        keys: &[],
    };
    for setting in SETTINGS.iter().chain([&of_others]) {
        let kit = setting.kit();
        private(&kit, "key", "8f0e6d5c4b3a2918".repeat(4));
        let spawn = |_| {
            let mut command = kit.command(&[&ENCRYPT[..], &["--config", "claviger.toml"]].concat());
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let children: Vec<_> = (0..8).map(spawn).collect();
        for child in children {
            let run = Run::from(child.wait_with_output().unwrap());
            assert_eq!(run.code, Some(0), "{}", run.stderr);
            kit.write("record", run.stdout);
            assert_eq!(setting.ok(&kit, &["decrypt", "record", "-p", "me"]).text(), "x");
        }
        assert!(kit.files().iter().all(|name| !name.starts_with(".claviger")), "{:?}", kit.files());
    }
}

#[test]
fn a_lost_master_key_is_not_replaced() {
    for setting in &SETTINGS[..2] {
        let kit = setting.kit();
        setting.ok(&kit, &ENCRYPT);
        fs::remove_file(kit.path(setting.keys[0])).unwrap();
        let run = setting.run(&kit, &ENCRYPT);
        run.assert_failed(66);
        assert!(run.stderr.contains("holds keys under it; restore it from a copy"), "{}", run.stderr);
        assert!(!kit.path(setting.keys[0]).exists());
    }
}

#[test]
fn a_lost_member_is_not_replaced_by_another_service_either() {
    let setting = &SETTINGS[2];
    let kit = setting.kit();
    setting.ok(&kit, &ENCRYPT);
    for key in setting.keys {
        fs::rename(kit.path(key), kit.path("away")).unwrap();
        setting.ok(&kit, &[&ENCRYPT[..], &["--service", key]].concat());
        assert!(!kit.path(key).exists());
        fs::rename(kit.path("away"), kit.path(key)).unwrap();
    }
}

#[test]
fn a_master_key_is_made_for_a_key_store_without_keys() {
    for setting in &SETTINGS {
        let kit = setting.kit();
        setting.ok(&kit, &["schema", "apply"]);
        setting.ok(&kit, &ENCRYPT);
        assert!(setting.keys.iter().all(|key| kit.path(key).exists()));
    }
    // Another service's keys are under another master key.
    let kit = DEFAULT.kit();
    let store = ["--metastore", "sqlite:keys.db"];
    for service in ["a", "b"] {
        let kms = format!("local:{service}.key");
        kit.ok(&[&ENCRYPT[..], &store, &["--service", service, "--kms", &kms]].concat());
    }
}
