//! What the documents say of tests is so: every guarantee of `docs/guarantees.md`, every row of the threat model in
//! `SECURITY.md` and every row of `docs/design` names the tests that prove it, and they exist.

use std::collections::BTreeSet;
use std::fs;

use crate::table::{Row, rows, unknown_tests};
use crate::workspace::Workspace;
use crate::{Result, checks, design, loom, programs};

const PROMISES: [&str; 2] = ["docs/guarantees.md", "SECURITY.md"];

/// Builds all tests, to know their names, and runs none.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let listing = programs::list(workspace)? + &loom::list(workspace)?;
    let names = test_names(&listing);
    let mut wrong = Vec::new();
    for document in PROMISES {
        let text = fs::read_to_string(workspace.root.join(document))?;
        let rows = rows(&text);
        if rows.is_empty() {
            wrong.push(format!("{document} has no table of proofs"));
        }
        wrong.extend(
            rows.iter().flat_map(|row| faults(row, &names)).map(|fault| format!("{document}, {fault}")),
        );
    }
    wrong.extend(design::faults(workspace, &names)?);
    checks::none(wrong)
}

fn faults(row: &Row<'_>, names: &BTreeSet<&str>) -> Vec<String> {
    let Row { line, cells, tests } = row;
    let guarantee = cells.first().copied().unwrap_or_default();
    let mut faults = Vec::new();
    if guarantee.is_empty() {
        faults.push(format!("line {line}: no guarantee"));
    }
    if tests.is_empty() {
        faults.push(format!("line {line}: no test proves: {guarantee}"));
    }
    faults.extend(unknown_tests(row, names));
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

| guarantee | note | shown by |
| --- | --- | --- |
| Proven | `unknown` | `proven` |

| no guarantee | of which `code` |
|---|---|
| is proven | `here` |
";
        let rows = rows(markdown);
        let listing = "crate::module::proven: test\n0 tests, 3 benchmarks\nrenamed: benchmark";
        let names = test_names(listing);
        let faults: Vec<_> = rows.iter().flat_map(|row| faults(row, &names)).collect();
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
