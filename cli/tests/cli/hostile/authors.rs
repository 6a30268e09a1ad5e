//! Who may have written what says what is done: the configuration, and the folders on the way to it.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, lchown, symlink};
use std::path::Path;

use super::shell;
use crate::config::{KEY, private};
use crate::kit::{Kit, Run, is_root};

const STRANGER: u32 = 65_533;

/// Folders `a/b`, with a configuration and a static key in the inner one.
fn kit() -> Kit {
    let kit = Kit::new();
    fs::create_dir_all(kit.path("a/b")).unwrap();
    let key = kit.path("a/b/key");
    private(&kit, "a/b/key", KEY);
    kit.write("a/b/claviger.toml", format!("kms = \"static:@{}\"\n", key.display()));
    mode(&kit, "a/b/claviger.toml", 0o644);
    kit
}

fn mode(kit: &Kit, name: &str, mode: u32) {
    fs::set_permissions(kit.path(name), fs::Permissions::from_mode(mode)).unwrap();
}

fn check(kit: &Kit, config: &str) -> Run {
    kit.run(&["kms", "check", "--config", config])
}

fn refused(kit: &Kit, config: &str, told: &str) {
    let run = check(kit, config);
    run.assert_failed(77);
    assert!(run.stderr.contains("the configuration file"), "{}", run.stderr);
    assert!(run.stderr.contains(told), "{told}: {}", run.stderr);
}

fn taken(kit: &Kit, config: &str) {
    let run = check(kit, config);
    assert_eq!(run.code, Some(0), "{config}: {}", run.stderr);
}

const CONFIG: &str = "a/b/claviger.toml";

#[test]
fn a_configuration_that_others_may_write_to_is_refused() {
    let kit = kit();
    for bits in [0o664, 0o646, 0o620, 0o602, 0o666] {
        mode(&kit, CONFIG, bits);
        refused(&kit, CONFIG, "can be written to by others; say chmod go-w");
    }
    for bits in [0o644, 0o640, 0o444, 0o600] {
        mode(&kit, CONFIG, bits);
        taken(&kit, CONFIG);
    }
    if is_root() {
        chown(kit.path(CONFIG), Some(STRANGER), None).unwrap();
        refused(&kit, CONFIG, "belongs to another user");
    }
}

/// Each folder from the root on, whether the path is relative or not.
#[test]
fn a_configuration_that_others_may_exchange_is_refused() {
    let kit = kit();
    let absolute = kit.path(CONFIG).display().to_string();
    for folder in ["", "a", "a/b"] {
        let told = fs::canonicalize(kit.path(folder)).unwrap();
        let told = format!("who may write to {0}; say chmod go-w {0}", told.display());
        for bits in [0o775, 0o757, 0o777] {
            mode(&kit, folder, bits);
            for config in [CONFIG, &absolute, "./a/../a/b/claviger.toml"] {
                refused(&kit, config, &told);
            }
            mode(&kit, folder, bits | 0o1000);
            for config in [CONFIG, &absolute] {
                taken(&kit, config);
            }
        }
        if is_root() {
            mode(&kit, folder, 0o755);
            chown(kit.path(folder), Some(STRANGER), None).unwrap();
            refused(&kit, CONFIG, "can be exchanged by another user, whose");
            chown(kit.path(folder), Some(0), None).unwrap();
        }
        mode(&kit, folder, 0o700);
    }
    // From within, the folders above are on the way, too.
    mode(&kit, "a", 0o770);
    let run = shell(&kit, "cd a/b && \"$C\" kms check --config claviger.toml");
    run.assert_failed(77);
    assert!(run.stderr.contains("/a; say chmod go-w "), "{}", run.stderr);
}

#[test]
fn a_link_of_another_user_leads_to_no_configuration() {
    let kit = kit();
    symlink("b/claviger.toml", kit.path("a/link")).unwrap();
    taken(&kit, "a/link");
    if is_root() {
        lchown(kit.path("a/link"), Some(STRANGER), None).unwrap();
        refused(&kit, "a/link", "a/link; name the file itself");
    }
}

/// As a volume of a pod: sticky and everybody's, and nobody's but root's in it.
#[test]
fn a_configuration_in_a_volume_of_kubernetes_is_taken() {
    let kit = kit();
    fs::create_dir(kit.path("volume")).unwrap();
    fs::rename(kit.path("a/b"), kit.path("volume/..2026_11_30")).unwrap();
    symlink("..2026_11_30", kit.path("volume/..data")).unwrap();
    symlink("..data/claviger.toml", kit.path("volume/claviger.toml")).unwrap();
    fs::write(kit.path("volume/..data/claviger.toml"), "kms = \"static:@volume/..data/key\"\n").unwrap();
    mode(&kit, "volume", 0o3777);
    taken(&kit, "volume/claviger.toml");
}

#[test]
fn a_configuration_from_a_pipe_or_a_descriptor_is_taken() {
    let kit = kit();
    for script in [
        "\"$C\" kms check --config /dev/stdin <a/b/claviger.toml",
        "cat a/b/claviger.toml | \"$C\" kms check --config /dev/stdin",
        "\"$C\" kms check --config /dev/fd/3 3<a/b/claviger.toml",
        "\"$C\" kms check --config /proc/self/fd/3 3<a/b/claviger.toml",
        "\"$C\" kms check --config /dev/fd/3 3<<END\n$(cat a/b/claviger.toml)\nEND",
        "mkfifo -m600 pipe && { cat a/b/claviger.toml >pipe & \"$C\" kms check --config pipe; }",
        "CLAVIGER_KMS=static:@a/b/key \"$C\" kms check --config /dev/null",
    ] {
        let run = shell(&kit, script);
        assert_eq!(run.code, Some(0), "{script}: {}", run.stderr);
    }
    // A file is whose it is, by whatever number.
    mode(&kit, CONFIG, 0o666);
    let run = shell(&kit, "\"$C\" kms check --config /dev/fd/3 3<a/b/claviger.toml");
    run.assert_failed(77);
    // As is a pipe with a name.
    let run = shell(&kit, "mkfifo -m622 open && { echo >open & \"$C\" kms check --config open; }");
    run.assert_failed(77);
}

#[test]
fn master_keys_and_other_files_with_secrets_are_held_to_the_same_folders() {
    let kit = kit();
    kit.write("payload", "x");
    kit.ok(&["encrypt", "payload", "-p", "me", "--metastore", "sqlite:s.db", "--kms", "local:a/b/local"]);
    private(&kit, "a/b/option", format!("static:@{}", kit.path("a/b/key").display()));
    mode(&kit, "a", 0o775);
    let folder = fs::canonicalize(kit.path("a")).unwrap();
    for kms in ["local:a/b/local", "static:@a/b/key", "@a/b/option"] {
        let run = kit.fails(77, &["kms", "check", "--kms", kms]);
        assert!(run.stderr.contains(&format!("chmod go-w {}", folder.display())), "{}", run.stderr);
    }
    let made = ["encrypt", "payload", "-p", "me", "--metastore", "sqlite:t.db", "--kms", "local:a/b/new"];
    kit.fails(77, &made);
    assert!(!kit.path("a/b/new").exists());
    mode(&kit, "a", 0o755);
    for kms in ["local:a/b/local", "static:@a/b/key", "@a/b/option"] {
        kit.ok(&["kms", "check", "--kms", kms]);
    }
}

#[test]
fn claviger_s_own_folder_is_not_to_be_exchanged_either() {
    let kit = Kit::new();
    let record = kit.pipe(&["encrypt", "-p", "me"], b"x").stdout;
    mode(&kit, "home", 0o770);
    let run = kit.pipe(&["decrypt", "-p", "me"], &record);
    run.assert_failed(77);
    assert!(
        run.stderr.contains(&format!("chmod go-w {}", Path::new(&kit.path("home")).display())),
        "{}",
        run.stderr
    );
}
