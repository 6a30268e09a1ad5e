//! Files with secrets in them: who may have a right on them, and what is told of what they hold instead.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;

use crate::config::{KEY, KNOWN_KEY, private};
use crate::kit::{Kit, is_root};

/// What people put into files of keys, and what they are told.
fn key_files() -> Vec<(Vec<u8>, &'static str)> {
    let utf16: Vec<u8> = KEY.bytes().flat_map(|byte| [byte, 0]).collect();
    let utf16_be: Vec<u8> = KEY.bytes().flat_map(|byte| [0, byte]).collect();
    let raw: Vec<u8> = (0xa0..0xc0).collect();
    let base64 = "jw5tXEs6KRiHdmVUQzIhEA/+7dzLuqmYh3ZlVEMyIRE=";
    vec![
        (b"".into(), "it is empty"),
        (b" \n".into(), "it is empty"),
        (b"1234".into(), "it has 4 of them; write all 64"),
        (KEY[1..].into(), "it has 63 of them"),
        (format!("{KEY}00").into(), "it has 66 of them"),
        (
            KEY.replace('8', "g").into(),
            "it has other characters; write it anew, such as by openssl rand -hex 32",
        ),
        ([b"\xff\xfe", &*utf16].concat(), "it is in UTF-16"),
        ([b"\xfe\xff", &*utf16_be].concat(), "it is in UTF-16"),
        (utf16, "it is in UTF-16"),
        (utf16_be, "it is in UTF-16"),
        ([b"\xef\xbb\xbf", KEY.as_bytes()].concat(), "it begins with a byte order mark"),
        (format!("{KEY}\n{KEY}\n").into(), "it has more than one line"),
        (format!("\"{KEY}\"\n").into(), "it stands in quotes; leave them out"),
        (format!("'{KEY}'").into(), "it stands in quotes"),
        (format!("0x{KEY}").into(), "it begins with 0x; leave it out"),
        (raw, "it is a raw key of 32 bytes; write it as xxd -p -c 64 does"),
        (b"thisIsAStaticMasterKeyForTesting".into(), "it is a text of 32 characters"),
        (base64.into(), "it looks like Base64"),
        (format!("claviger-master-key-v1 {KEY} 00000000\n").into(), "say local:PATH"),
        (b"\xa5\x5a\xff".into(), "it is not UTF-8 text"),
    ]
}

#[test]
fn what_a_file_of_a_static_key_holds_instead_is_told_and_what_to_do() {
    let kit = Kit::new();
    let arguments = ["encrypt", "-p", "me", "--metastore", "sqlite:a.db", "--kms", "static:@key"];
    for (bytes, told) in key_files() {
        private(&kit, "key", &bytes);
        let run = kit.fails(78, &arguments);
        assert!(run.stderr.contains("the master key key is not 64 hex digits: it "), "{}", run.stderr);
        assert!(run.stderr.contains(told), "{told}: {}", run.stderr);
        assert!(!run.stderr.contains(&KEY[8..16]), "{}", run.stderr);
    }
    for (repeated, told) in [("00", "one byte repeated"), ("a5", "one byte repeated")] {
        private(&kit, "key", repeated.repeat(32));
        let run = kit.fails(78, &arguments);
        assert!(run.stderr.contains("the master key key is one that anybody can guess ("), "{}", run.stderr);
        assert!(run.stderr.contains(told) && run.stderr.contains("openssl rand -hex 32"), "{}", run.stderr);
    }
    private(&kit, "key", KNOWN_KEY);
    let known = kit.fails(78, &arguments).stderr;
    assert!(known.contains("well-known test key") && known.contains("--danger-known-key"), "{known}");
    assert!(!kit.path("a.db").exists());
    for fine in [format!("{KEY}\r\n"), format!("  {KEY}\n\n"), KEY.to_uppercase()] {
        private(&kit, "key", fine);
        kit.ok(&["kms", "check", "--kms", "static:@key"]);
    }
}

#[test]
fn what_a_file_of_a_local_key_holds_instead_is_told_and_what_to_do() {
    let kit = Kit::new();
    let keys = ["encrypt", "-p", "me", "--metastore", "sqlite:a.db", "--kms", "local:key"];
    kit.ok(&keys);
    let line = kit.read("key");
    let utf16: Vec<u8> = line.iter().flat_map(|&byte| [byte, 0]).collect();
    for (bytes, told) in [
        (Vec::new(), "it is empty"),
        ([b"\xff\xfe", &*utf16].concat(), "it is in UTF-16"),
        ([b"\xef\xbb\xbf", &*line].concat(), "it begins with a byte order mark"),
        ([line.trim_ascii(), b"\r\n"].concat(), "its line does not end with one line feed alone"),
        (KEY.into(), "it is a static key, of 64 hex digits"),
        (line[..50].to_owned(), "it is damaged"),
    ] {
        private(&kit, "key", &bytes);
        let run = kit.fails(66, &keys);
        assert!(run.stderr.contains("master-key file key holds no claviger master key: "), "{}", run.stderr);
        assert!(run.stderr.contains(told) && run.stderr.contains("restore it from a copy"), "{}", run.stderr);
        assert_eq!(kit.read("key"), bytes);
    }
    // One byte repeated, with its sum.
    private(&kit, "key", format!("claviger-master-key-v1 {} 92579a43\n", "00".repeat(32)));
    let run = kit.fails(78, &keys);
    assert!(run.stderr.contains("anybody can guess it: restore it from a copy"), "{}", run.stderr);
}

#[test]
fn what_a_file_of_an_option_holds_instead_is_told_and_what_to_do() {
    let kit = Kit::new();
    let url = "sqlite:keys.db";
    let utf16: Vec<u8> = url.bytes().flat_map(|byte| [byte, 0]).collect();
    for (bytes, told) in [
        (
            [b"\xff\xfe", &*utf16].concat(),
            "the file is in UTF-16, as some editors and shells write; write it anew in UTF-8",
        ),
        (utf16.clone(), "the file is in UTF-16"),
        ([b"\xef\xbb\xbf", url.as_bytes()].concat(), "the file begins with a byte order mark"),
        (format!("{url}\n{url}\n").into(), "the file has more than one line"),
    ] {
        private(&kit, "option", &bytes);
        for option in ["--metastore", "--kms"] {
            let run = kit.fails(78, &["encrypt", "-p", "me", option, "@option"]);
            assert!(run.stderr.contains(&format!("{option} @option: {told}")), "{}", run.stderr);
        }
    }
    private(&kit, "claviger.toml", [b"\xff\xfe", &*utf16].concat());
    let run = kit.fails(78, &["encrypt", "-p", "me", "--config", "claviger.toml"]);
    assert!(run.stderr.contains("the configuration file claviger.toml is in UTF-16"), "{}", run.stderr);
}

/// All files with secrets, and how they are named.
#[test]
fn every_file_with_a_secret_is_held_to_one_rule() {
    let kit = Kit::new();
    private(&kit, "payload", "x");
    private(
        &kit,
        "other.toml",
        "[kms]\ntype = \"vault\"\naddress = \"http://127.0.0.1:1\"\nkey = \"k\"\ntoken = \"t\"\n",
    );
    kit.ok(&["encrypt", "payload", "-p", "me", "--metastore", "sqlite:a.db", "--kms", "local:local"]);
    private(&kit, "static", KEY);
    private(&kit, "option", "static:@static");
    let uses: [(&str, &[&str]); 4] = [
        ("local", &["--kms", "local:local"]),
        ("static", &["--kms", "static:@static"]),
        ("option", &["--kms", "@option"]),
        ("other.toml", &["--config", "other.toml"]),
    ];
    for (name, options) in uses {
        let check = |code: i32| {
            let run = kit.run(&[&["kms", "check"], options].concat());
            // The configuration's server is not there.
            let good = if name == "other.toml" { [69, 78] } else { [0, 0] };
            let is_as_told =
                if code == 0 { good.map(Some).contains(&run.code) } else { run.code == Some(code) };
            assert!(is_as_told, "{name}: {:?} {}", run.code, run.stderr);
        };
        let file = kit.path(name);
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        for bits in [0o640, 0o604, 0o660, 0o620, 0o601] {
            mode(&file, bits);
            check(77);
        }
        mode(&file, 0o400);
        check(0);
        mode(&kit.path(""), 0o777);
        check(77);
        mode(&kit.path(""), 0o1777);
        check(0);
        // Linked as Kubernetes does it.
        fs::create_dir_all(kit.path("..1")).unwrap();
        fs::rename(&file, kit.path("..1").join(name)).unwrap();
        drop(fs::remove_file(kit.path("..data")));
        symlink("..1", kit.path("..data")).unwrap();
        symlink(Path::new("..data").join(name), &file).unwrap();
        check(0);
        mode(&kit.path("..1"), 0o777);
        check(77);
        mode(&kit.path("..1"), 0o755);
        mode(&kit.path("..1").join(name), 0o444);
        check(77);
        mode(&kit.path("..1").join(name), 0o400);
        if is_root() {
            std::os::unix::fs::lchown(kit.path("..data"), Some(65534), None).unwrap();
            check(77);
            std::os::unix::fs::lchown(kit.path("..data"), Some(0), None).unwrap();
            chown(kit.path("..1").join(name), Some(65534), None).unwrap();
            check(77);
            chown(kit.path("..1").join(name), Some(0), None).unwrap();
        }
        check(0);
        mode(&kit.path(""), 0o700);
    }
}

#[test]
fn a_secret_is_taken_from_a_pipe() {
    let kit = Kit::new();
    let run = kit.pipe(&["kms", "check", "--kms", "static:@/dev/stdin"], KEY.as_bytes());
    assert_eq!(run.code, Some(0), "{}", run.stderr);
}
