//! The command line itself.

use std::path::Path;

use crate::kit::Kit;

#[test]
fn help_shows_examples_and_every_exit_code_and_so_does_the_manual() {
    let kit = Kit::new();
    let manual =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli.md")).unwrap();
    for (arguments, example) in [
        (&["--help"][..], "claviger encrypt customers.csv"),
        (&["encrypt", "--help"], "claviger encrypt customers.csv"),
        (&["decrypt", "--help"], "claviger encrypt customers.csv"),
        (&["schema", "--help"], "claviger schema apply"),
        (&["kms", "--help"], "claviger kms check --kms aws:"),
    ] {
        let help = kit.ok(arguments);
        assert!(help.text().contains(example), "{}", help.text());
        for code in ["0", "1", "2", "3", "65", "66", "69", "70", "73", "74", "77", "78", "130"] {
            assert!(
                help.text().lines().any(|line| line.trim_start().starts_with(&format!("{code}  "))),
                "{code}"
            );
            assert!(manual.contains(&format!("| {code} |")), "{code} is not in docs/cli.md");
        }
    }
}

#[test]
fn the_manual_has_every_option() {
    let kit = Kit::new();
    let manual =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli.md")).unwrap();
    let help = [&["encrypt", "--help"][..], &["schema", "check", "--help"], &["kms", "rewrap", "--help"]]
        .map(|arguments| kit.ok(arguments).text().to_owned())
        .concat();
    let words = help.split(|letter: char| !(letter.is_ascii_lowercase() || letter == '-'));
    let options: Vec<&str> = words.filter(|word| word.starts_with("--") && word.len() > 2).collect();
    assert!(options.len() > 15);
    for option in options {
        assert!(manual.contains(option), "{option} is not in docs/cli.md");
    }
}

#[test]
fn the_documents_have_every_finding() {
    let read = |name: &str| {
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name)).unwrap()
    };
    let document = read("metastores.md");
    assert!(claviger_metastore::FindingId::ALL.len() >= 18);
    for id in claviger_metastore::FindingId::ALL {
        assert!(document.contains(&format!("| `{id}` |")), "{id} is not in docs/metastores.md");
    }
}

#[test]
fn version_is_the_crates() {
    assert_eq!(Kit::new().ok(&["--version"]).text(), format!("claviger {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn completions_know_the_options() {
    let kit = Kit::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let completions = kit.ok(&["completions", shell]);
        for word in ["partition-field", "accept-finding", "apply", "kms", "rewrap", "dry-run"] {
            assert!(completions.text().contains(word), "{shell}: {word}");
        }
    }
    assert_eq!(kit.run(&["completions", "csh"]).code, Some(2));
}

#[test]
fn command_lines_that_say_too_little_or_too_much_exit_with_2() {
    let kit = Kit::new();
    let kit = &kit;
    let wrong: [&[&str]; 20] = [
        &[],
        &["schema"],
        &["schema", "drop"],
        &["schema", "check", "--format", "xml"],
        &["rotate"],
        &["kms"],
        &["kms", "drop"],
        &["kms", "check", "--dry-run"],
        &["kms", "rewrap", "--from"],
        &["encrypt"],
        &["encrypt", "in.csv", "--fields", "a"],
        &["encrypt", "in.csv", "--partition-field", "a"],
        &["encrypt", "in.csv", "--fields", "a", "--partition-field", "id", "--partition", "x"],
        &["encrypt", "in.csv", "--fields", "a,id", "--partition-field", "id"],
        &["encrypt", "in.csv", "--fields", "a,a", "--partition-field", "id"],
        &["encrypt", "in.csv", "--fields", "a,", "--partition-field", "id"],
        &["encrypt", "in.txt", "--fields", "a", "--partition-field", "id"],
        &["encrypt", "--fields", "a", "--partition-field", "id"],
        &["encrypt", "in.csv", "--fields", "a", "--partition-field", "id", "--keep-going"],
        &["encrypt", "in", "-p", "x", "--cache", "0"],
    ];
    for arguments in wrong {
        let run = kit.run(arguments);
        assert_eq!(run.code, Some(2), "{arguments:?}: {}", run.stderr);
        assert!(!run.stderr.is_empty() && run.stdout.is_empty());
    }
    assert!(!kit.path("home").exists());
}
