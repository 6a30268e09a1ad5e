//! Keys on real servers.

#[cfg(feature = "dynamodb")]
mod dynamodb;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;

use std::path::Path;

use serde_json::{Value, json};

use crate::kit::{Kit, Run, finish};
use crate::said::{self, BOB, CELL, EVE, assert_says_nothing_of_anybody};

const FIELDS: [&str; 4] = ["--partition-field", "customer_id", "--fields", "email,card_number"];

/// A kit, a store's URL, and what else is in the environment.
struct Client<'a> {
    kit: Kit,
    url: String,
    variables: &'a [(&'a str, &'a str)],
}

impl<'a> Client<'a> {
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    fn new(url: String) -> Self {
        Self::with(url, &[])
    }

    fn with(url: String, variables: &'a [(&'a str, &'a str)]) -> Self {
        Self { kit: Kit::new(), url, variables }
    }

    fn run(&self, arguments: &[&str]) -> Run {
        let mut command = self.kit.command(arguments);
        for name in ["PGPASSWORD", "PGPASSFILE", "PGUSER", "PGHOST", "PGSSLMODE"] {
            command.env_remove(name);
        }
        command.env("CLAVIGER_METASTORE", &self.url).envs(self.variables.iter().copied());
        let run = finish(&mut command);
        assert!(!run.stderr.contains(self.password()), "{}", run.stderr);
        run
    }

    fn password(&self) -> &str {
        let authority = self.url.split('@').next().unwrap();
        authority.rsplit(':').next().filter(|_| self.url.contains('@')).unwrap_or("no password")
    }

    fn ends_with(&self, code: i32, arguments: &[&str]) -> Run {
        let run = self.run(arguments);
        assert_eq!(run.code, Some(code), "{arguments:?}: {}{}", run.text(), run.stderr);
        run
    }

    /// Encrypts the example and decrypts it in another process.
    fn there_and_back(&self) {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/customers.csv");
        let original = std::fs::read(&example).unwrap();
        let example = example.to_str().unwrap();
        self.ends_with(0, &[&["encrypt", example, "-o", "sealed.csv"][..], &FIELDS].concat());
        self.ends_with(0, &[&["decrypt", "sealed.csv", "-o", "back.csv"][..], &FIELDS].concat());
        assert_eq!(self.kit.read("back.csv"), original);
        assert!(self.ends_with(0, &["kms", "repair"]).text().ends_with(": as it should be\n"));
        assert!(!String::from_utf8(self.kit.read("sealed.csv")).unwrap().contains("@example.com"));
    }

    /// From an empty server on, as `docs/cli.md` says.
    fn starts_from_nothing(&self) {
        self.kit.write("payload", "x");
        let encrypt = ["encrypt", "payload", "-p", "me", "-o", "record"];
        let refused = self.ends_with(3, &encrypt);
        assert!(refused.stderr.contains("table-missing"), "{}", refused.stderr);
        assert!(refused.stderr.contains("claviger schema apply"), "{}", refused.stderr);
        assert_eq!(self.dangers(3), ["table-missing"]);
        self.ends_with(0, &["schema", "apply"]);
        assert!(self.dangers(0).is_empty());
        self.ends_with(0, &["schema", "apply"]);
        self.there_and_back();
        for scope in [&[][..], &["--all"]] {
            let rewrapped = self.ends_with(0, &[&["kms", "rewrap"][..], scope].concat());
            assert!(rewrapped.text().ends_with(": wrapped anew\n"), "{}", rewrapped.text());
        }
        self.ends_with(0, &[&["decrypt", "sealed.csv", "-o", "back.csv"][..], &FIELDS].concat());
    }

    /// The dangerous findings of a check that ends with this code.
    fn dangers(&self, code: i32) -> Vec<String> {
        let run = self.ends_with(code, &["schema", "check", "--format", "json"]);
        let report: Value = serde_json::from_slice(&run.stdout).unwrap();
        let findings = report["findings"].as_array().unwrap();
        assert_eq!(report["dangerous"].as_bool().unwrap(), code == 3);
        assert_eq!(report["store"].as_str().unwrap().split("://").count(), 2);
        let dangers = findings.iter().filter(|finding| finding["severity"] == "dangerous");
        for finding in findings {
            assert!(finding["what"].as_str().unwrap().ends_with('.'), "{finding}");
            assert!(finding["remedy"].as_str().unwrap().ends_with('.'), "{finding}");
        }
        dangers.map(|finding| finding["id"].as_str().unwrap().to_owned()).collect()
    }

    /// What a service may, with the documented rights, and what an operator may.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    fn has_rights(&self, operates: bool) {
        let report = self.ends_with(0, &["schema", "check", "--format", "json"]);
        assert_eq!(report.text().contains("admin-permission-missing"), !operates, "{}", report.text());
        self.there_and_back();
        let rewrapped = self.ends_with(if operates { 0 } else { 3 }, &["kms", "rewrap"]);
        assert_eq!(rewrapped.text().contains("the user lacks a right"), !operates, "{}", rewrapped.text());
    }

    /// A table with this fault: found, refused, and used when the user says so.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    fn has_fault(&self, id: &str) {
        assert_eq!(self.dangers(3), [id]);
        let text = self.ends_with(3, &["schema", "check"]);
        assert!(text.text().contains(&format!("{id} (dangerous)\n  ")), "{}", text.text());
        self.kit.write("payload", "x");
        for command in ["encrypt", "decrypt"] {
            let refused = self.ends_with(3, &[command, "payload", "-p", "me"]);
            assert!(refused.stdout.is_empty());
            assert!(refused.stderr.contains(&format!("\n{id}\n  ")), "{}", refused.stderr);
            assert!(
                refused.stderr.trim_end().ends_with(&format!("--accept-finding {id}")),
                "{}",
                refused.stderr
            );
        }
        let accept = ["--accept-finding", id];
        let accepted = self.ends_with(0, &[&["schema", "check"][..], &accept].concat());
        assert!(accepted.text().contains(&format!("{id} (dangerous, accepted)\n")), "{}", accepted.text());
        // `table-missing` does for another one that is accepted as well.
        let both = ["--accept-finding", "table-missing", "--accept-finding", id];
        self.ends_with(0, &[&["encrypt", "payload", "-p", "me", "-o", "record"][..], &both].concat());
        self.kit.write("claviger.toml", format!("accept-finding = [\"{id}\"]\n"));
        let file = ["--config", "claviger.toml"];
        let opened = self.ends_with(0, &[&["decrypt", "record", "-p", "me"][..], &file].concat());
        assert_eq!(opened.text(), "x");
        self.ends_with(0, &[&["schema", "check"][..], &file].concat());
    }

    /// With `--keep-going` one customer's trouble leaves out her row and no other: a partition that the
    /// store cannot hold, a time that no key has, a row that `damage` damages, given its id and time.
    fn leaves_out_the_row_in_trouble(&self, refused: &str, damage: impl Fn(&str, i64)) {
        let lines = |rows: &[Value]| rows.iter().map(|row| format!("{row}\n")).collect::<String>();
        let rows = |partition: &str| {
            lines(&[json!({"id": partition, "card": CELL}), json!({"id": BOB, "card": CELL})])
        };
        self.kit.write("refused.jsonl", rows(refused));
        self.kit.write("rows.jsonl", rows(EVE));
        self.leaves_out("encrypt", "refused.jsonl", 65);
        self.ends_with(0, &[&["encrypt", "rows.jsonl", "-o", "sealed.jsonl"][..], &said::FIELDS].concat());
        let sealed = String::from_utf8(self.kit.read("sealed.jsonl")).unwrap();
        let mut sealed: Vec<Value> = sealed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let parent = sealed[0]["card"]["Key"]["ParentKeyMeta"].clone();
        let (id, created) = (parent["KeyId"].as_str().unwrap(), parent["Created"].as_i64().unwrap());
        sealed[0]["card"]["Key"]["ParentKeyMeta"]["Created"] = json!(300_000_000_000_i64);
        self.kit.write("late.jsonl", lines(&sealed));
        self.leaves_out("decrypt", "late.jsonl", 65);
        damage(id, created);
        self.leaves_out("decrypt", "sealed.jsonl", 66);
        self.leaves_out("encrypt", "rows.jsonl", 66);
    }

    fn leaves_out(&self, command: &str, file: &str, code: i32) {
        let once = [&[command, file, "-o", "out.jsonl"][..], &said::FIELDS].concat();
        let case = format!("{command} {file}");
        let run = self.ends_with(code, &once);
        assert_says_nothing_of_anybody(&self.kit, &run, &case);
        let run = self.ends_with(1, &[&once[..], &["--keep-going", "--errors", "errors.jsonl"]].concat());
        assert_says_nothing_of_anybody(&self.kit, &run, &case);
        let out = String::from_utf8(self.kit.read("out.jsonl")).unwrap();
        assert_eq!(out.lines().count(), 1, "{case}: {out}");
        assert!(out.contains(BOB), "{case}: {out}");
        std::fs::remove_file(self.kit.path("out.jsonl")).unwrap();
    }

    /// As who may load keys and not insert any, `reader` decrypts, and is told so when he encrypts.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    fn lets_a_reader_decrypt(&mut self, reader: String) {
        self.kit.write("payload", "x");
        self.ends_with(0, &["encrypt", "payload", "-p", "me", "-o", "record"]);
        self.url = reader;
        let run = self.ends_with(0, &["decrypt", "record", "-p", "me"]);
        assert_eq!((run.text(), run.stderr.as_str()), ("x", ""));
        let run = self.ends_with(3, &["encrypt", "payload", "-p", "me"]);
        assert!(run.stderr.contains("permission-missing"), "{}", run.stderr);
    }

    /// A failure to open the store: the code, and what its sentence says.
    fn fails(&self, code: i32, says: &[&str]) {
        self.kit.write("payload", "x");
        for arguments in [&["encrypt", "payload", "-p", "me"][..], &["schema", "check"], &["schema", "apply"]]
        {
            let run = self.run(arguments);
            run.assert_failed(code);
            for part in says {
                assert!(run.stderr.contains(part), "{part}: {}", run.stderr);
            }
        }
    }
}

/// `url` with another password.
#[cfg(any(feature = "postgres", feature = "mysql"))]
fn with_password(url: &str, password: &str) -> String {
    let (user, host) = url.split_once('@').unwrap();
    format!("{}:{password}@{host}", user.rsplit_once(':').unwrap().0)
}

/// The SQL that `docs/metastores.md` has behind this sentence.
#[cfg(any(feature = "postgres", feature = "mysql"))]
fn documented_sql(sentence: &str) -> String {
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metastores.md");
    let manual = std::fs::read_to_string(manual).unwrap();
    let (_, after) = manual.split_once(sentence).unwrap();
    let (_, after) = after.split_once("```sql\n").unwrap();
    after.split_once("```").unwrap().0.to_owned()
}
