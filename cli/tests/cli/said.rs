//! What is said of failures: no partition, no cell, nothing that steers a terminal; and whose trouble
//! they are. Each fault is a line of a table.

mod disks;

use std::fs;

use serde_json::{Value, json};

use crate::kit::{Kit, Run};

/// A customer in trouble. The name would move a terminal's cursor, and is an e-mail address.
pub(crate) const EVE: &str = "eve@example.com";
/// One who is not.
pub(crate) const BOB: &str = "bob";
pub(crate) const CELL: &str = "4111 1111\u{9b}31m\u{7f}";

pub(crate) const FIELDS: [&str; 4] = ["--partition-field", "id", "--fields", "card"];

/// What a partition or a cell would be recognised by.
const MARKS: [&str; 4] = ["eve", "example.com", "4111", "bob"];

/// Holds what a run told to the rule, and its errors file.
pub(crate) fn assert_says_nothing_of_anybody(kit: &Kit, run: &Run, case: &str) {
    let errors = fs::read_to_string(kit.path("errors.jsonl")).unwrap_or_default();
    let stdout = if run.code == Some(0) { "" } else { run.text() };
    for (place, told) in
        [("standard error", run.stderr.as_str()), ("errors file", &errors), ("output", stdout)]
    {
        for mark in MARKS {
            assert!(!told.to_lowercase().contains(mark), "{case}, {place}: {told:?}");
        }
        let steers = |character: char| character.is_control() && character != '\n';
        assert!(!told.contains(steers), "{case}, {place}: {told:?}");
    }
}

/// Two customers' rows, and these besides.
fn rows(more: &[Value]) -> String {
    let two = [json!({"id": EVE, "card": CELL}), json!({"id": BOB, "card": CELL})];
    two.iter().chain(more).map(|row| format!("{row}\n")).collect()
}

/// Runs statements on the key store of the kit.
fn execute(kit: &Kit, statements: &[&str]) {
    use sqlx::{ConnectOptions as _, Connection as _};
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(kit.path("home/keys.db"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = options.connect().await.unwrap();
        for statement in statements {
            sqlx::raw_sql(sqlx::AssertSqlSafe(*statement)).execute(&mut connection).await.unwrap();
        }
        connection.close().await.unwrap();
    });
}

/// Whose trouble a fault is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// Eve's: with `--keep-going` the others' rows are written.
    Hers(i32),
    /// Everybody's.
    All(i32),
}
use Trouble::{All, Hers};

/// A fault met by decrypting what Eve and Bob had encrypted.
struct DecryptFault {
    name: &'static str,
    /// What happens to the key store meanwhile.
    sql: &'static [&'static str],
    /// What happens to Eve's record.
    record: fn(&mut Value),
    trouble: Trouble,
}

const fn untouched(_: &mut Value) {}

const DECRYPT_FAULTS: &[DecryptFault] = &[
    DecryptFault {
        name: "a row whose record is cut",
        sql: &["UPDATE encryption_key SET key_record = '{\"Key' WHERE id LIKE '_IK_eve%'"],
        record: untouched,
        trouble: Hers(66),
    },
    DecryptFault {
        name: "a row whose record is of another time",
        sql: &[
            "UPDATE encryption_key SET key_record = json_set(key_record, '$.Created', 5) WHERE id LIKE '_IK_eve%'",
        ],
        record: untouched,
        trouble: Hers(66),
    },
    DecryptFault {
        name: "a row whose wrapped key is another's, whose own row then comes second: nothing under others",
        sql: &[
            "UPDATE encryption_key SET key_record = (SELECT key_record FROM encryption_key WHERE id LIKE '_IK_bob%') \
                WHERE id LIKE '_IK_eve%'",
        ],
        record: untouched,
        trouble: Hers(66),
    },
    DecryptFault {
        name: "a row with a foreign parent",
        sql: &[
            "UPDATE encryption_key SET key_record = json_set(key_record, '$.ParentKeyMeta.KeyId', '_SK_eve_x') \
                WHERE id LIKE '_IK_eve%'",
        ],
        record: untouched,
        trouble: Hers(66),
    },
    DecryptFault {
        name: "a row whose parent is not there",
        sql: &["UPDATE encryption_key SET key_record = json_set(key_record, '$.ParentKeyMeta.Created', 5) \
                WHERE id LIKE '_IK_eve%'"],
        record: untouched,
        trouble: Hers(66),
    },
    DecryptFault {
        name: "a row that is gone",
        sql: &["DELETE FROM encryption_key WHERE id LIKE '_IK_eve%'"],
        record: untouched,
        trouble: Hers(66),
    },
    DecryptFault {
        name: "a record of a time past the year 9999",
        sql: &[],
        record: |record| record["Key"]["ParentKeyMeta"]["Created"] = json!(300_000_000_000_i64),
        trouble: Hers(65),
    },
    DecryptFault {
        name: "a record of the last time there is",
        sql: &[],
        record: |record| record["Key"]["ParentKeyMeta"]["Created"] = json!(i64::MAX),
        trouble: Hers(65),
    },
    DecryptFault {
        name: "a record of no time",
        sql: &[],
        record: |record| record["Key"]["ParentKeyMeta"]["Created"] = json!(0),
        trouble: Hers(65),
    },
    DecryptFault {
        name: "a record of a key that there never was",
        sql: &[],
        record: |record| record["Key"]["ParentKeyMeta"]["Created"] = json!(1_000_000_000),
        trouble: Hers(66),
    },
    DecryptFault {
        name: "another customer's record",
        sql: &[],
        record: |record| record["Key"]["ParentKeyMeta"]["KeyId"] = json!("_IK_bob_claviger_default"),
        trouble: Hers(66),
    },
    DecryptFault {
        name: "a record of a key id without end",
        sql: &[],
        record: |record| record["Key"]["ParentKeyMeta"]["KeyId"] = json!("eve\u{1b}".repeat(10_000)),
        trouble: Hers(65),
    },
    DecryptFault {
        name: "a record of half a data row key",
        sql: &[],
        record: |record| record["Key"]["Key"] = json!("ZXZlQGV4YW1wbGUuY29t"),
        trouble: Hers(65),
    },
    DecryptFault {
        name: "data of another record",
        sql: &[],
        record: |record| record["Data"] = json!("ZXZlQGV4YW1wbGUuY29tZXZlQGV4YW1wbGUuY29tZXZl"),
        trouble: Hers(66),
    },
    DecryptFault {
        name: "a cell that is no record",
        sql: &[],
        record: |record| *record = json!(CELL),
        trouble: Hers(65),
    },
    DecryptFault {
        name: "a system key's row that is cut: all that is under it, and nothing under others",
        sql: &["UPDATE encryption_key SET key_record = '{' WHERE id LIKE '_SK%'"],
        record: untouched,
        trouble: Hers(66),
    },
    DecryptFault {
        name: "a system key's row that the master key does not open",
        sql: &[
            "UPDATE encryption_key SET key_record = (SELECT json_set(s.key_record, '$.Key', i.key_record ->> '$.Key') \
                FROM encryption_key AS s, encryption_key AS i WHERE s.id LIKE '_SK%' AND i.id LIKE '_IK_bob%') \
                WHERE id LIKE '_SK%'",
        ],
        record: untouched,
        trouble: All(66),
    },
    DecryptFault {
        name: "no table",
        sql: &["ALTER TABLE encryption_key RENAME COLUMN key_record TO eve"],
        record: untouched,
        trouble: All(3),
    },
];

fn sealed_rows(kit: &Kit, edit: fn(&mut Value)) {
    kit.write("rows.jsonl", rows(&[]));
    kit.ok(&[&["encrypt", "rows.jsonl", "-o", "sealed.jsonl"][..], &FIELDS].concat());
    let sealed = String::from_utf8(kit.read("sealed.jsonl")).unwrap();
    let mut lines: Vec<Value> = sealed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    edit(&mut lines[0]["card"]);
    kit.write("sealed.jsonl", lines.iter().map(|line| format!("{line}\n")).collect::<String>());
    kit.write("record", lines[0]["card"].to_string());
}

/// Runs `command` on the file as it is, and so that it keeps going, and looks whose trouble it is.
fn check(kit: &Kit, command: &str, file: &str, trouble: Trouble, case: &str) {
    let (Hers(code) | All(code)) = trouble;
    let once = [&[command, file, "-o", "out.jsonl"][..], &FIELDS].concat();
    let run = kit.run(&once);
    assert_eq!(run.code, Some(code), "{case}: {}", run.stderr);
    assert_says_nothing_of_anybody(kit, &run, case);
    assert!(!kit.path("out.jsonl").exists(), "{case}");
    let run = kit.run(&[&once[..], &["--keep-going", "--errors", "errors.jsonl"]].concat());
    assert_says_nothing_of_anybody(kit, &run, case);
    match trouble {
        All(code) => assert_eq!(run.code, Some(code), "{case}: {}", run.stderr),
        Hers(_) => {
            assert_eq!(run.code, Some(1), "{case}: {}", run.stderr);
            let errors = String::from_utf8(kit.read("errors.jsonl")).unwrap();
            assert!(errors.contains("\"line\":1"), "{case}: {errors}");
        }
    }
}

#[test]
fn no_failure_of_decrypting_tells_of_anybody_and_a_rows_trouble_is_the_rows() {
    for fault in DECRYPT_FAULTS {
        let kit = Kit::new();
        sealed_rows(&kit, fault.record);
        execute(&kit, fault.sql);
        check(&kit, "decrypt", "sealed.jsonl", fault.trouble, fault.name);
        let is_under_others = fault.name.contains("nothing under others");
        if let (Hers(_), false) = (fault.trouble, is_under_others) {
            let out = String::from_utf8(kit.read("out.jsonl")).unwrap();
            assert_eq!(out.lines().count(), 1, "{}: {out}", fault.name);
            assert!(out.contains(BOB), "{}: {out}", fault.name);
        }
        // A whole payload is told of in the same way.
        let run = kit.run(&["decrypt", "record", "-p", EVE]);
        assert_ne!(run.code, Some(0), "{}", fault.name);
        assert_says_nothing_of_anybody(&kit, &run, fault.name);
        for command in
            [&["kms", "repair", "--all", "--format", "json"][..], &["kms", "rewrap"], &["schema", "check"]]
        {
            let run = kit.run(command);
            // It lists the rows that have one key, which is what it is asked for.
            if !run.text().contains("equal-keys") {
                assert_says_nothing_of_anybody(&kit, &run, fault.name);
            }
        }
    }
}

/// A fault met by encrypting.
struct EncryptFault {
    name: &'static str,
    sql: &'static [&'static str],
    /// Whose row it is; she has one.
    partition: fn() -> Value,
    options: &'static [&'static str],
    trouble: Trouble,
}

fn eve() -> Value {
    json!(EVE)
}

/// Makes the table one that folds case.
const FOLDS: &[&str] = &[
    "ALTER TABLE encryption_key RENAME TO old",
    "CREATE TABLE encryption_key (id TEXT COLLATE NOCASE, created TEXT, key_record TEXT, PRIMARY KEY (id, created))",
    "INSERT INTO encryption_key SELECT * FROM old",
    "DROP TABLE old",
];

const ENCRYPT_FAULTS: &[EncryptFault] = &[
    EncryptFault {
        name: "a partition that is too long",
        sql: &[],
        partition: || json!(EVE.repeat(20)),
        options: &[],
        trouble: Hers(65),
    },
    EncryptFault {
        name: "a partition with NUL",
        sql: &[],
        partition: || json!(format!("{EVE}\0")),
        options: &[],
        trouble: Hers(65),
    },
    EncryptFault { name: "no partition", sql: &[], partition: || json!(""), options: &[], trouble: Hers(65) },
    EncryptFault {
        name: "a partition that is none",
        sql: &[],
        partition: || json!([EVE]),
        options: &[],
        trouble: Hers(65),
    },
    EncryptFault {
        name: "a row that is cut",
        sql: &["UPDATE encryption_key SET key_record = '{' WHERE id LIKE '_IK_eve%'"],
        partition: eve,
        options: &[],
        trouble: Hers(66),
    },
    EncryptFault {
        name: "a row with a foreign parent",
        sql: &[
            "UPDATE encryption_key SET key_record = json_set(key_record, '$.ParentKeyMeta.KeyId', '_SK_eve_x') \
                WHERE id LIKE '_IK_eve%'",
        ],
        partition: eve,
        options: &[],
        trouble: Hers(66),
    },
    EncryptFault {
        name: "a row of Eve's at a time that cannot be read",
        sql: &["UPDATE encryption_key SET created = 'eve@example.com' WHERE id LIKE '_IK_eve%'"],
        partition: eve,
        options: &[],
        trouble: Hers(66),
    },
    EncryptFault {
        name: "a table that folds, and another who is called alike",
        sql: FOLDS,
        partition: || json!("BOB"),
        options: &["--accept-finding", "collation-folds"],
        trouble: Hers(65),
    },
    EncryptFault {
        name: "a trigger that repeats what it refuses",
        sql: &[
            "DELETE FROM encryption_key WHERE id LIKE '_IK_eve%'",
            "CREATE TRIGGER refuses BEFORE INSERT ON encryption_key BEGIN SELECT RAISE(ABORT, NEW.id); END",
        ],
        partition: eve,
        options: &[],
        trouble: All(69),
    },
];

#[test]
fn no_failure_of_encrypting_tells_of_anybody_and_a_rows_trouble_is_the_rows() {
    for fault in ENCRYPT_FAULTS {
        let kit = Kit::new();
        // Both have keys already.
        sealed_rows(&kit, untouched);
        execute(&kit, fault.sql);
        let partition = (fault.partition)();
        let lines = [json!({"id": partition, "card": CELL}), json!({"id": BOB, "card": CELL})];
        kit.write("rows.jsonl", lines.iter().map(|line| format!("{line}\n")).collect::<String>());
        let (Hers(code) | All(code)) = fault.trouble;
        let once = [&["encrypt", "rows.jsonl", "-o", "out.jsonl"][..], &FIELDS, fault.options].concat();
        let run = kit.run(&once);
        assert_eq!(run.code, Some(code), "{}: {}", fault.name, run.stderr);
        assert_says_nothing_of_anybody(&kit, &run, fault.name);
        let run = kit.run(&[&once[..], &["--keep-going", "--errors", "errors.jsonl"]].concat());
        assert_says_nothing_of_anybody(&kit, &run, fault.name);
        if fault.trouble == Hers(code) {
            assert_eq!(run.code, Some(1), "{}: {}", fault.name, run.stderr);
            let out = String::from_utf8(kit.read("out.jsonl")).unwrap();
            assert_eq!(out.lines().count(), 1, "{}: {out}", fault.name);
        } else {
            assert_eq!(run.code, Some(code), "{}: {}", fault.name, run.stderr);
        }
        if let Some(partition) = partition.as_str().filter(|partition| !partition.contains('\0')) {
            kit.write("payload", CELL);
            let run = kit.run(&[&["encrypt", "payload", "-p", partition][..], fault.options].concat());
            assert_says_nothing_of_anybody(&kit, &run, fault.name);
        }
    }
}

#[test]
fn verbose_tells_the_whole_key_id_and_all_causes() {
    let kit = Kit::new();
    sealed_rows(&kit, untouched);
    execute(&kit, &["UPDATE encryption_key SET key_record = '{' WHERE id LIKE '_IK_eve%'"]);
    for arguments in [
        &["--verbose", "decrypt", "record", "-p", EVE][..],
        &["decrypt", "record", "-p", EVE, "--verbose"],
        &[&["decrypt", "sealed.jsonl", "--verbose"][..], &FIELDS].concat(),
    ] {
        let run = kit.run(arguments);
        assert_eq!(run.code, Some(66), "{}", run.stderr);
        let (sentence, details) = run.stderr.trim_end().split_once('\n').unwrap();
        assert!(sentence.contains("row of key _IK_#") && !sentence.contains("eve"), "{sentence}");
        assert!(details.contains("_IK_eve@example.com_claviger_default"), "{details}");
        assert!(details.contains("causes: metastore load failed: stored key record is damaged"), "{details}");
    }
}

#[test]
fn keys_from_the_future_that_are_encrypted_under_are_told_of() {
    let kit = Kit::new();
    sealed_rows(&kit, untouched);
    let later = "CAST(strftime('%s', 'now') AS INTEGER) + 7200";
    let move_on = format!(
        "UPDATE encryption_key SET key_record = json_set(key_record, '$.Created', {later}), \
         created = datetime({later}, 'unixepoch') WHERE id LIKE '_IK_eve%'"
    );
    execute(&kit, &[&move_on]);
    let run = kit.ok(&[&["encrypt", "rows.jsonl", "-o", "again.jsonl"][..], &FIELDS].concat());
    assert!(run.stderr.contains("made in the future") && run.stderr.contains("look which"), "{}", run.stderr);
    assert_says_nothing_of_anybody(&kit, &run, "a key from the future");
    let run = kit.ok(&["encrypt", "rows.jsonl", "-p", BOB]);
    assert_eq!(run.stderr, "");
}
