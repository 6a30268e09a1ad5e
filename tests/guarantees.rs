//! Every guarantee of `docs/guarantees.md`, and every row of the threat model in `SECURITY.md`, names the tests
//! that prove it, and they exist.

#![expect(clippy::unwrap_used, reason = "a helper fails its test by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

const DOCUMENTS: [(&str, &str); 2] = [
    ("docs/guarantees.md", include_str!("../docs/guarantees.md")),
    ("SECURITY.md", include_str!("../SECURITY.md")),
];

#[test]
fn every_guarantee_and_every_row_of_the_threat_model_names_a_test_that_exists() {
    let listing = listing();
    let names = test_names(&listing);
    for (name, text) in DOCUMENTS {
        let rows = rows(text);
        assert!(!rows.is_empty(), "{name} has no table");
        let faults = faults(&rows, &names);
        assert!(faults.is_empty(), "{name}:\n{}", faults.join("\n"));
    }
}

struct Row<'a> {
    line: usize,
    guarantee: &'a str,
    tests: Vec<&'a str>,
}

/// Reads the rows of all tables: the guarantee in the first column, in the last one its tests, each
/// in backticks.
fn rows(markdown: &str) -> Vec<Row<'_>> {
    let mut rows = Vec::new();
    let mut in_body = false;
    for (index, line) in markdown.lines().enumerate() {
        let Some(cells) = line.trim().strip_prefix('|').and_then(|line| line.strip_suffix('|')) else {
            in_body = false;
            continue;
        };
        if cells.chars().all(|character| "-: |".contains(character)) {
            in_body = true;
        } else if in_body {
            let (guarantee, tests) = cells.rsplit_once('|').unwrap_or((cells, ""));
            let tests = tests.split('`').skip(1).step_by(2).collect();
            rows.push(Row { line: index + 1, guarantee: guarantee.trim(), tests });
        }
    }
    rows
}

fn faults(rows: &[Row<'_>], names: &BTreeSet<&str>) -> Vec<String> {
    let mut faults = Vec::new();
    for Row { line, guarantee, tests } in rows {
        if guarantee.is_empty() {
            faults.push(format!("line {line}: no guarantee"));
        }
        if tests.is_empty() {
            faults.push(format!("line {line}: no test proves: {guarantee}"));
        }
        let unknown = tests.iter().filter(|test| !names.contains(*test));
        faults.extend(unknown.map(|test| format!("line {line}: there is no test `{test}`")));
    }
    faults
}

/// Every tail of every test's path is a name of it: `a::b::c`, `b::c` and `c`.
fn test_names(listing: &str) -> BTreeSet<&str> {
    let paths = listing.lines().filter_map(|line| line.strip_suffix(": test"));
    paths
        .flat_map(|path| {
            path.match_indices("::").map(|(at, _)| &path[at + 2..]).chain([path]).collect::<Vec<_>>()
        })
        .collect()
}

/// What `cargo test --workspace --all-features -- --list` prints. `cargo xtask test` has asked
/// already; else we ask, which builds the tests of the other crates if nobody has.
#[expect(clippy::disallowed_methods, reason = "cargo and xtask speak to tests through the environment")]
fn listing() -> String {
    if let Some(file) = std::env::var_os("CLAVIGER_TEST_NAMES") {
        return fs::read_to_string(file).unwrap();
    }
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap());
    // Build scripts that watch what cargo sets for this test would run again, and all above them.
    for (name, _) in std::env::vars_os() {
        if name
            .to_str()
            .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
        {
            cargo.env_remove(name);
        }
    }
    let output = cargo
        .args(["test", "--workspace", "--all-features", "--", "--list"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo test -- --list: {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn guarantee_without_a_test_or_with_an_unknown_one_is_found() {
    let markdown = "
Text with `backticks` | and a bar.

| guarantee | proof |
|---|:--|
| Proven | `proven`, `module::proven` |
| `promised`, not proven | by hand |
| Mistaken | `renamed` |
|  | `proven` |

| guarantee | note | proof |
| --- | --- | --- |
| Proven | `unknown` | `proven` |
";
    let rows = rows(markdown);
    let faults =
        faults(&rows, &test_names("crate::module::proven: test\n0 tests, 3 benchmarks\nrenamed: benchmark"));
    assert_eq!(rows.len(), 5);
    assert_eq!(
        faults,
        [
            "line 7: no test proves: `promised`, not proven",
            "line 8: there is no test `renamed`",
            "line 9: no guarantee"
        ]
    );
}
