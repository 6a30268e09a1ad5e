//! Every guarantee of `docs/guarantees.md`, and every row of the threat model in `SECURITY.md`, names the tests
//! that prove it, and they exist.

use std::collections::BTreeSet;
use std::fs;

use crate::workspace::Workspace;
use crate::{Result, checks, programs};

const DOCUMENTS: [&str; 2] = ["docs/guarantees.md", "SECURITY.md"];

/// Builds all tests, to know their names, and runs none.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let listing = programs::list(workspace)?;
    let names = test_names(&listing);
    let mut wrong = Vec::new();
    for document in DOCUMENTS {
        let text = fs::read_to_string(workspace.root.join(document))?;
        let rows = rows(&text);
        if rows.is_empty() {
            wrong.push(format!("{document} has no table"));
        }
        wrong.extend(faults(&rows, &names).into_iter().map(|fault| format!("{document}, {fault}")));
    }
    checks::none(wrong)
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
            let tails =
                path.match_indices("::").filter_map(|(at, separator)| path.get(at + separator.len()..));
            tails.chain([path]).collect::<Vec<_>>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let listing = "crate::module::proven: test\n0 tests, 3 benchmarks\nrenamed: benchmark";
        let faults = faults(&rows, &test_names(listing));
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
}
