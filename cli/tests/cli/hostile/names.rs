//! Names that steer a terminal, change the direction of text or begin lines of their own: of files, in
//! arguments, in the configuration, in a key store's rows and table.

use std::fs;

use serde_json::Value;

use super::{CSV, OPTIONS};
use crate::kit::{Kit, Run};
use crate::schema::sql_in;

/// What one could be shown by, and what passes for another message.
const HOSTILE: &str = "x\u{1b}]0;t\u{7}\u{9b}2J\u{202e}gpj\u{2066}\u{200b}\nclaviger: all is well";

/// A text of several lines is as harmless as one.
fn assert_harmless(text: &str) {
    let steers = |character: char| {
        (character.is_control() && character != '\n')
            || matches!(character, '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    assert!(!text.contains(steers), "{text:?}");
    assert!(!text.lines().any(|line| line.to_lowercase().starts_with("claviger: all is well")), "{text:?}");
}

fn assert_told(run: &Run, code: i32) {
    assert_eq!(run.code, Some(code), "{}", run.stderr);
    assert_harmless(&run.stderr);
    assert!(run.stderr.contains("\\u{1b}]0;t"), "{:?}", run.stderr);
}

#[test]
fn a_file_s_name_is_shown_escaped_in_every_message() {
    let kit = Kit::new();
    let missing = format!("missing-{HOSTILE}");
    kit.write("in.csv", CSV);
    kit.write(HOSTILE, "id,mail\n1\n");
    let config = format!("config-{HOSTILE}");
    kit.write(&config, "kms = 1\n");
    fs::create_dir(kit.path(&format!("folder-{HOSTILE}"))).unwrap();
    let folder = format!("folder-{HOSTILE}");
    let errors = format!("errors-{HOSTILE}");
    let store = format!("sqlite:{missing}/keys.db");
    let cases: [(i32, &[&str]); 9] = [
        (66, &["encrypt", &missing, "--format", "csv"]),
        (65, &["encrypt", HOSTILE, "--format", "csv"]),
        (73, &["encrypt", "in.csv", "-o", &folder]),
        (2, &["encrypt", HOSTILE, "--format", "csv", "-o", HOSTILE, "--keep-going", "--errors", "e"]),
        (78, &["encrypt", "in.csv", "--config", &config]),
        (66, &["encrypt", "in.csv", "--config", &missing]),
        (66, &["encrypt", "in.csv", "--metastore", &store]),
        (66, &["encrypt", "in.csv", "--kms", &format!("static:@{missing}")]),
        (1, &["encrypt", HOSTILE, "--format", "csv", "-o", "o", "--keep-going", "--errors", &errors]),
    ];
    for (code, arguments) in cases {
        assert_told(&kit.run(&[arguments, &OPTIONS].concat()), code);
    }
}

#[test]
fn an_argument_is_shown_escaped_in_what_is_said_of_the_command_line() {
    let kit = Kit::new();
    kit.write("in.csv", CSV);
    let column = format!("mail,{HOSTILE},{HOSTILE}");
    for arguments in [
        vec!["encrypt", "in.csv", HOSTILE],
        vec!["encrypt", "in.csv", "--cache", HOSTILE],
        vec![HOSTILE],
        vec!["encrypt", "in.csv", "--partition-field", "id", "--fields", &column],
        vec!["kms", "rewrap", "--created-up-to", HOSTILE],
    ] {
        assert_told(&kit.run(&arguments), 2);
    }
    let unknown = format!("--{HOSTILE}");
    let short = format!("-{HOSTILE}");
    for argument in [&unknown, &short] {
        let run = kit.run(&["encrypt", "in.csv", "--partition", argument]);
        assert_eq!(run.code, Some(2));
        assert_harmless(&run.stderr);
    }
    let header = ["encrypt", "in.csv", "--partition-field", "id", "--fields", HOSTILE];
    assert_told(&kit.run(&header), 65);
}

#[test]
fn a_value_of_the_configuration_is_shown_escaped() {
    let kit = Kit::new();
    kit.write("in.csv", CSV);
    for text in [
        "\"x\\u001B]0;t\\u202E\\nclaviger: all is well\" = 1\n".to_owned(),
        "cache = \"x\\u001B]0;t\\u202E\\nclaviger: all is well\"\n".to_owned(),
        "accept-finding = [\"x\\u001B]0;t\\u202E\\nclaviger: all is well\"]\n".to_owned(),
    ] {
        kit.write("claviger.toml", text);
        let run = kit.run(&[["encrypt", "in.csv", "--config", "claviger.toml"], OPTIONS].concat());
        assert_eq!(run.code, Some(78), "{}", run.stderr);
        assert_harmless(&run.stderr);
        assert_eq!(run.stderr.lines().count(), 1, "{:?}", run.stderr);
    }
}

/// A system key's row that somebody renamed.
#[test]
fn ids_of_a_key_store_are_shown_escaped_and_json_is_what_they_are() {
    let kit = Kit::new();
    kit.pipe(&["encrypt", "-p", "me"], b"x");
    let id = format!("_SK_{HOSTILE}");
    sql_in(
        &kit.path("home/keys.db"),
        &format!("UPDATE encryption_key SET id = '{id}' WHERE id LIKE '\\_SK%' ESCAPE '\\'"),
    );
    let commands: [&[&str]; 3] =
        [&["kms", "check", "--all"], &["kms", "repair", "--all", "--dry-run"], &["kms", "rewrap", "--all"]];
    for command in commands {
        let text = kit.run(command);
        assert_harmless(text.text());
        assert!(text.text().contains("_SK_x\\u{1b}]0;t\\u{7}\\u{9b}2J\\u{202e}gpj"), "{}", text.text());
        let json = kit.run(&[command, &["--format", "json"]].concat());
        assert_harmless(json.text());
        assert_eq!(json.text().lines().count(), 1, "{}", json.text());
        let read: Value = serde_json::from_str(json.text()).unwrap();
        assert_eq!(read["keys"][0]["id"], Value::from(id.clone()));
    }
}

#[test]
fn what_a_key_store_s_table_says_is_shown_escaped_by_schema_check_and_where_it_is_refused() {
    let kit = Kit::new();
    kit.write("in.csv", CSV);
    let declared = HOSTILE.replace('\u{7}', "");
    sql_in(
        &kit.path("keys.db"),
        &format!("CREATE TABLE encryption_key (id \"INT {declared}\", created TIMESTAMP, key_record TEXT)"),
    );
    let store = ["--metastore", "sqlite:keys.db"];
    let check = kit.run(&[&["schema", "check"][..], &store].concat());
    assert_eq!(check.code, Some(3), "{}", check.stderr);
    // The finding has it in capitals.
    assert!(check.text().contains("\\u{1b}]0;T"), "{}", check.text());
    assert_harmless(check.text());
    let json = kit.run(&[&["schema", "check", "--format", "json"][..], &store].concat());
    assert_harmless(json.text());
    let read: Value = serde_json::from_str(json.text()).unwrap();
    let what = |finding: &Value| finding["what"].as_str().unwrap().contains("\u{1b}]0;T");
    assert!(read["findings"].as_array().unwrap().iter().any(what), "{read}");
    let refused = kit.run(&[&["encrypt", "in.csv"][..], &store, &OPTIONS].concat());
    assert_eq!(refused.code, Some(3));
    assert_harmless(&refused.stderr);
    assert!(refused.stderr.contains("\\u{1b}]0;T"), "{}", refused.stderr);
}
