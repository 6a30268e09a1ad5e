//! The command line itself.

use std::path::Path;

use crate::kit::{Kit, finish};

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
        for code in ["0", "1", "2", "3", "65", "66", "69", "70", "73", "74", "77", "78", "130", "141"] {
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

/// The options that say what a run works on, and how.
const KINDS: [&[&str]; 6] = [
    &["--partition", "x"],
    &["--fields", "a"],
    &["--partition-field", "id"],
    &["--format", "csv"],
    &["--keep-going"],
    &["--errors", "errors.jsonl"],
];

/// The options that a sentence asks for, or asks to leave out, behind any of these words.
fn asked<'a>(message: &'a str, words: &[&str]) -> Vec<&'a str> {
    let (_, advice) = message.trim_end().split_once("; ").unwrap();
    let parts = advice.split(", or ").flat_map(|part| part.split(" in place of ").enumerate());
    // What is behind "in place of" is to be left out.
    let parts = parts.map(|(place, part)| (part, if place == 0 { part } else { "leave out" }));
    let parts = parts.filter(|(_, verb)| words.iter().any(|word| verb.starts_with(word)));
    parts.flat_map(|(part, _)| part.split([' ', ','])).filter(|word| word.starts_with("--")).collect()
}

#[test]
fn options_that_do_not_go_together_are_answered_by_what_to_do() {
    let kit = Kit::new();
    for which in 0..1 << KINDS.len() {
        let given: Vec<&[&str]> =
            KINDS.iter().enumerate().filter(|(at, _)| which >> at & 1 == 1).map(|(_, &kind)| kind).collect();
        let has = |option: &str| given.iter().any(|kind| kind[0] == option);
        let arguments = [["encrypt", "missing.csv", "-o", "out"].as_slice(), &given.concat()].concat();
        let of_rows = ["--fields", "--partition-field", "--format", "--keep-going", "--errors"];
        let is_payload = has("--partition") && !of_rows.into_iter().any(has);
        let is_rows = !has("--partition")
            && has("--fields")
            && has("--partition-field")
            && (has("--keep-going") || !has("--errors"));
        if is_payload || is_rows {
            assert!(kit.fails(66, &arguments).stderr.contains("cannot read missing.csv"), "{arguments:?}");
            continue;
        }
        let message = kit.fails(2, &arguments).stderr;
        let (add, leave_out) = (asked(&message, &["say"]), asked(&message, &["leave out"]));
        assert!(!add.is_empty() || !leave_out.is_empty(), "{message}");
        assert!(!add.iter().any(|option| has(option)), "{arguments:?} has it already: {message}");
        assert!(leave_out.iter().all(|option| has(option)), "{arguments:?} has it not: {message}");
    }
    assert_eq!(kit.files(), Vec::<String>::new());
}

#[test]
fn what_begins_with_a_hyphen_is_told_how_to_be_a_value() {
    let kit = Kit::new();
    let told: [(&[&str], &str, &[&str]); 9] = [
        (&["encrypt", "-p", "-3"], "'--partition=-3'", &["encrypt", "missing", "--partition=-3"]),
        (&["encrypt", "--partition", "-3"], "'--partition=-3'", &["encrypt", "missing", "--partition=-3"]),
        (&["encrypt", "--partition", "--3"], "'--partition=--3'", &["encrypt", "missing", "--partition=--3"]),
        (&["encrypt", "-p", "-abc"], "'--partition=-abc'", &["encrypt", "missing", "--partition=-abc"]),
        (
            &["decrypt", "x", "-p", "a", "-o", "-x"],
            "'--output=-x'",
            &["decrypt", "missing", "-p", "a", "--output=-x"],
        ),
        (
            &["encrypt", "--accept-finding", "read-only", "-p", "--a"],
            "'--partition=--a'",
            &["encrypt", "missing", "--partition=--a"],
        ),
        (&["kms", "repair", "--service", "-x"], "'--service=-x'", &["kms", "repair", "--service=-x"]),
        (&["encrypt", "-p", "a", "-3.csv"], "'-- -3.csv' behind", &["encrypt", "-p", "a", "--", "-3.csv"]),
        (&["encrypt", "-3.csv", "-p", "a"], "'-- -3.csv' behind", &["encrypt", "-p", "a", "--", "-3.csv"]),
    ];
    for (arguments, advice, followed) in told {
        let run = kit.run(arguments);
        assert_eq!(run.code, Some(2));
        assert!(run.stderr.contains(advice), "{arguments:?}: {}", run.stderr);
        assert_eq!(run.stderr.contains("'-- "), advice.contains("'-- "), "{}", run.stderr);
        // It is taken for what it is meant to be: something else is missing now.
        kit.fails(66, followed);
    }
    for (arguments, said) in [
        (["schema", "check", "-3"].as_slice(), "'-3'"),
        (&["completions", "-3"], "'-3'"),
        (&["encrypt", "--partitio", "x"], "'--partition'"),
    ] {
        let run = kit.run(arguments);
        assert!(run.code == Some(2) && run.stderr.contains(said), "{}", run.stderr);
        assert!(!run.stderr.contains("-- -"), "{}", run.stderr);
    }
}

#[test]
fn no_advice_is_about_an_option_of_the_other_kind_of_run() {
    let kit = Kit::new();
    kit.write("in.csv", "id,mail\n1,a\n");
    let rows = ["--partition-field", "id", "--fields", "mail"];
    kit.ok(&[["encrypt", "in.csv", "-o", "sealed.csv"], rows].concat());
    let sealed = String::from_utf8(kit.read("sealed.csv")).unwrap();
    kit.write("moved.csv", sealed.replace("\n1,", "\n2,"));
    let run = kit.fails(66, &[["decrypt", "moved.csv", "-o", "back.csv"], rows].concat());
    assert!(
        run.stderr.contains("another partition") && !run.stderr.contains("--partition"),
        "{}",
        run.stderr
    );
}

/// The variables that any command reads, as its help says.
fn variables(kit: &Kit) -> Vec<String> {
    let commands = [
        "encrypt",
        "decrypt",
        "schema show",
        "schema apply",
        "schema check",
        "kms check",
        "kms repair",
        "kms rewrap",
    ];
    let help = commands.map(|command| {
        let arguments: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        kit.ok(&arguments).text().to_owned()
    });
    let help = help.concat();
    let named = help.split("[env: ").skip(1);
    let mut names: Vec<String> =
        named.map(|rest| rest.split(['=', ']']).next().unwrap().to_owned()).collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn a_variable_that_is_empty_is_not_set() {
    let kit = Kit::new();
    let variables = variables(&kit);
    assert!(variables.len() >= 10, "{variables:?}");
    kit.write("payload", "x");
    for name in &variables {
        let mut command = kit.command(&["encrypt", "payload", "-p", "a", "-o", name]);
        let run = finish(command.env(name, ""));
        assert_eq!(run.code, Some(0), "{name}: {}", run.stderr);
        assert_eq!(kit.ok(&["decrypt", name, "-p", "a"]).text(), "x", "{name}");
    }
    let empty = || variables.iter().map(|name| (name, ""));
    for arguments in [
        ["schema", "check"].as_slice(),
        &["schema", "apply"],
        &["kms", "check"],
        &["kms", "repair"],
        &["kms", "rewrap", "--dry-run"],
    ] {
        let run = finish(kit.command(arguments).envs(empty()));
        assert_eq!(run.code, Some(0), "{arguments:?}: {}", run.stderr);
    }
    // Nor does it win over the configuration file.
    kit.write("config.toml", "service = \"other\"\n");
    let mut command =
        kit.command(&["encrypt", "payload", "-p", "a", "-o", "other", "--config", "config.toml"]);
    assert_eq!(finish(command.envs(empty())).code, Some(0));
    assert_eq!(kit.ok(&["decrypt", "other", "-p", "a", "--service", "other"]).text(), "x");
}
