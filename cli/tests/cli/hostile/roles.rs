//! Runs that would write to one of their own other files.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use super::{CSV, OPTIONS, shell};
use crate::kit::{CLAVIGER, Kit, finish, list};

const CONFIG: &str = r#"
metastore = "@metastore"

[kms]
type = "k-of-n"
k = 1

[[kms.members]]
name = "a"
kms = "local:member.key"

[[kms.members]]
name = "b"
kms = "@member"

[[kms.members]]
name = "c"
kms = "static:@member.hex"

[[kms.members]]
name = "d"
kms = "pkcs11:token=t;object=o?module-path=module.so&pin-source=file:pin"

[[kms.members]]
name = "e"
kms = "vault:https://vault.example:8200/transit/key?auth=approle&role-id=@role&secret-id=@secret&ca=ca.pem"
"#;

const FILES: &[&str] = &["--metastore", "sqlite:keys.db", "--kms", "local:master.key"];

/// What each file is, and the options by which it is used.
const USED: [(&str, &str, &[&str]); 23] = [
    ("keys.db", "the key store", FILES),
    ("keys.db-wal", "a part of the key store", FILES),
    ("keys.db-shm", "a part of the key store", FILES),
    ("keys.db-journal", "a part of the key store", FILES),
    ("keys.db", "the key store", &["--metastore", "@metastore", "--kms", "local:master.key"]),
    (
        "keys.db-wal",
        "a part of the key store",
        &["--metastore", "sqlite:linked.db", "--kms", "local:master.key"],
    ),
    ("master.key", "the master key", FILES),
    ("master.key", "the master key", &["--metastore", "sqlite:keys.db", "--kms", "@kms"]),
    ("static.hex", "the master key", &["--metastore", "sqlite:keys.db", "--kms", "static:@static.hex"]),
    ("kms", "the file of an option", &["--metastore", "sqlite:keys.db", "--kms", "@kms"]),
    ("metastore", "the file of an option", &["--metastore", "@metastore", "--kms", "@kms"]),
    ("claviger.toml", "the configuration file", &["--config", "claviger.toml"]),
    ("metastore", "the file of an option", &["--config", "claviger.toml"]),
    ("member.key", "the master key", &["--config", "claviger.toml"]),
    ("member", "the file of an option", &["--config", "claviger.toml"]),
    ("member.hex", "the master key", &["--config", "claviger.toml"]),
    ("pin", "a file with a secret", &["--config", "claviger.toml"]),
    ("role", "a file with a secret", &["--config", "claviger.toml"]),
    ("secret", "a file with a secret", &["--config", "claviger.toml"]),
    ("module.so", "a file with a secret", &["--config", "claviger.toml"]),
    (
        "tls.key",
        "a file with a secret",
        &["--metastore", "postgres://u@h/d?sslkey=tls.key", "--kms", "local:k"],
    ),
    ("tls.ca", "a file with a secret", &["--metastore", "mysql://u@h/d?ssl-ca=tls.ca", "--kms", "local:k"]),
    ("ca.pem", "a file with a secret", &["--config", "claviger.toml"]),
];

fn kit() -> Kit {
    let kit = Kit::new();
    kit.write("in.csv", CSV);
    let files = [
        ("claviger.toml", CONFIG),
        ("metastore", "sqlite:keys.db"),
        ("kms", "local:master.key"),
        ("member", "local:other.key"),
    ];
    for (name, text) in files {
        kit.write(name, text);
        fs::set_permissions(kit.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    symlink("keys.db", kit.path("linked.db")).unwrap();
    fs::create_dir(kit.path("folder")).unwrap();
    symlink("..", kit.path("folder/back")).unwrap();
    kit
}

/// The other names of a file: none of a hard link where nothing is there yet.
fn aliases(kit: &Kit, name: &str) -> Vec<String> {
    let (soft, hard) = (kit.path("soft"), kit.path("hard"));
    for alias in [&soft, &hard] {
        let _gone = fs::remove_file(alias);
    }
    symlink(Path::new("folder/back").join(name), soft).unwrap();
    let mut aliases = vec![
        name.to_owned(),
        "soft".to_owned(),
        format!("folder/../{name}"),
        format!("folder/back/{name}"),
        kit.path(name).to_str().unwrap().to_owned(),
    ];
    if kit.path(name).exists() {
        fs::hard_link(kit.path(name), hard).unwrap();
        aliases.push("hard".to_owned());
    }
    aliases
}

/// What is in the folder, and in the files.
fn state(kit: &Kit) -> Vec<(String, Option<Vec<u8>>)> {
    let names = list(&kit.path(".")).into_iter();
    names.map(|name| (name.clone(), fs::read(kit.path(&name)).ok())).collect()
}

#[test]
fn no_output_is_a_file_that_keys_are_in_or_that_says_where_they_are() {
    let kit = kit();
    for is_there in [false, true] {
        for (file, role, keys) in USED {
            if is_there && !kit.path(file).exists() {
                kit.write(file, "it is here");
            }
            for alias in aliases(&kit, file) {
                let before = state(&kit);
                let runs = [
                    ("OUT", vec!["-o", &alias]),
                    ("the errors file", vec!["-o", "out.csv", "--keep-going", "--errors", &alias]),
                ];
                for (written, outputs) in runs {
                    let run = kit.run(&[&["encrypt", "in.csv"][..], &outputs, &OPTIONS, keys].concat());
                    run.assert_failed(2);
                    for word in [&alias, role, &format!("cannot be {written} too;")] {
                        assert!(run.stderr.contains(word), "{keys:?} {alias}: {word}: {}", run.stderr);
                    }
                    assert!(state(&kit) == before, "{keys:?} {alias}: something was made or changed");
                }
            }
        }
    }
}

#[test]
fn an_errors_file_that_would_be_named_after_the_output_is_compared_too() {
    let kit = Kit::new();
    kit.write("in.csv", CSV);
    let keys = ["--metastore", "sqlite:out.errors.jsonl", "--kms", "local:master.key"];
    let run = kit.run(&[&["encrypt", "in.csv", "-o", "out", "--keep-going"][..], &OPTIONS, &keys].concat());
    run.assert_failed(2);
    assert_eq!(kit.files(), ["in.csv"]);
}

#[test]
fn standard_output_that_leads_to_a_file_of_the_run_is_refused() {
    let kit = kit();
    kit.ok(&[&["encrypt", "in.csv", "-o", "out"][..], &OPTIONS].concat());
    let before = state(&kit);
    let keys = kit.path("home/keys.db");
    let size = fs::metadata(&keys).unwrap().len();
    for file in ["home/keys.db", "home/master.key", "in.csv"] {
        for output in ["", "-o -", "-o /dev/stdout", "-o /proc/self/fd/1"] {
            for (input, redirected) in [("in.csv", ""), ("-", "< in.csv"), ("/dev/fd/3", "3< in.csv")] {
                let options = OPTIONS.join(" ");
                let run = shell(
                    &kit,
                    &format!("\"$C\" encrypt {input} {output} --format csv {options} {redirected} >> {file}"),
                );
                run.assert_failed(2);
            }
        }
    }
    assert!(state(&kit) == before);
    assert_eq!(fs::metadata(keys).unwrap().len(), size);
}

#[test]
fn the_errors_file_is_neither_the_input_nor_the_output() {
    let kit = kit();
    for name in ["in.csv", "out.csv"] {
        for is_there in [false, true] {
            if is_there {
                kit.write(name, CSV);
            }
            for alias in aliases(&kit, name) {
                let before = state(&kit);
                let outputs = ["encrypt", "in.csv", "-o", "out.csv", "--keep-going", "--errors", &alias];
                kit.fails(2, &[&outputs[..], &OPTIONS].concat());
                assert!(state(&kit) == before, "{alias}");
            }
        }
    }
    let options = OPTIONS.join(" ");
    let errors = shell(
        &kit,
        &format!("\"$C\" encrypt in.csv --keep-going --errors /dev/stdout {options} | cat; true"),
    );
    assert!(errors.stdout.is_empty() && errors.stderr.contains("the errors file"), "{}", errors.stderr);
    let run = kit.fails(
        2,
        &[&["encrypt", "in.csv", "-o", "out", "--keep-going", "--errors", "-"][..], &OPTIONS].concat(),
    );
    assert!(run.stderr.contains("--errors FILE"), "{}", run.stderr);
    assert!(!kit.path("home").exists());
}

#[test]
fn an_output_may_be_the_input_unless_rows_may_be_left_out() {
    let kit = kit();
    for place in 0..aliases(&kit, "in.csv").len() {
        // What was linked before is another file once one of the two was replaced.
        let alias = aliases(&kit, "in.csv").remove(place);
        let run =
            kit.fails(2, &[&["encrypt", "in.csv", "-o", &alias, "--keep-going"][..], &OPTIONS].concat());
        assert!(
            run.stderr.contains("INPUT, so that it cannot be OUT too with --keep-going"),
            "{}",
            run.stderr
        );
        kit.ok(&[&["encrypt", "in.csv", "-o", &alias][..], &OPTIONS].concat());
        let sealed = kit.read(&alias);
        assert!(sealed.starts_with(b"id,mail\n1,\"{"));
        kit.write("in.csv", sealed);
        kit.ok(&[&["decrypt", "in.csv", "-o", "in.csv"][..], &OPTIONS].concat());
        assert_eq!(kit.read("in.csv"), CSV.as_bytes());
    }
    let options = OPTIONS.join(" ");
    let run = shell(&kit, &format!("\"$C\" encrypt - -o in.csv --format csv {options} < in.csv"));
    assert_eq!(run.code, Some(0), "{}", run.stderr);
}

#[test]
fn an_output_that_is_no_file_needs_a_named_errors_file() {
    let kit = Kit::new();
    kit.write("bad.csv", "id,mail\n,x\n1,a\n");
    let options = OPTIONS.join(" ");
    for output in ["/dev/null", "/dev/stdout", "/dev/fd/1", "-"] {
        let run = shell(&kit, &format!("\"$C\" encrypt bad.csv -o {output} --keep-going {options} > out"));
        run.assert_failed(2);
        assert!(run.stderr.contains("--errors FILE"), "{}", run.stderr);
        let run = shell(
            &kit,
            &format!("\"$C\" encrypt bad.csv -o {output} --keep-going --errors list {options} > out"),
        );
        assert_eq!(run.code, Some(1), "{}", run.stderr);
        assert!(kit.read("list").starts_with(b"{\"line\":2,"));
    }
    assert!(!Path::new("/dev/null.errors.jsonl").exists());
}

#[test]
fn a_key_store_is_no_other_file_of_its_run() {
    let kit = kit();
    kit.write("empty.toml", "");
    let runs = [
        ["--metastore", "sqlite:one", "--kms", "local:one"].to_vec(),
        ["--metastore", "sqlite:one", "--kms", "local:one-wal"].to_vec(),
        ["--metastore", "sqlite:empty.toml", "--config", "empty.toml"].to_vec(),
        ["--metastore", "sqlite:kms", "--kms", "@kms"].to_vec(),
    ];
    for keys in runs {
        let before = state(&kit);
        kit.fails(2, &[&["encrypt", "in.csv", "-o", "out.csv"][..], &OPTIONS, &keys].concat());
        assert!(state(&kit) == before, "{keys:?}");
    }
}

#[test]
fn one_pipe_or_socket_may_be_read_and_written() {
    let kit = kit();
    let script = "import socket, subprocess, sys\n\
                  ours, theirs = socket.socketpair()\n\
                  run = subprocess.Popen(sys.argv[1:], stdin=theirs, stdout=theirs)\n\
                  ours.sendall(b'id,mail\\n1,a\\n'); ours.shutdown(socket.SHUT_WR)\n\
                  sys.exit(run.wait())";
    let mut command = kit.program("python3");
    command.args(["-c", script, CLAVIGER, "encrypt", "--format", "csv"]).args(OPTIONS);
    let run = finish(&mut command);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
}

#[test]
fn what_is_printed_is_not_printed_onto_keys() {
    let kit = kit();
    kit.pipe(&["encrypt", "-p", "1"], b"x");
    kit.write("old.hex", "8f".repeat(31) + "01");
    fs::set_permissions(kit.path("old.hex"), fs::Permissions::from_mode(0o600)).unwrap();
    let commands = [
        ("schema show", "home/keys.db"),
        ("schema apply", "home/keys.db"),
        ("schema check", "home/keys.db"),
        ("kms check", "home/master.key"),
        ("kms repair", "home/keys.db"),
        ("kms rewrap", "home/master.key"),
        ("kms rewrap --from static:@old.hex", "old.hex"),
        ("kms rewrap --from static:@old.hex --config claviger.toml", "claviger.toml"),
    ];
    for (command, file) in commands {
        let before = kit.read(file);
        shell(&kit, &format!("\"$C\" {command} >> {file}")).assert_failed(2);
        assert_eq!(kit.read(file), before, "{command}");
    }
}
