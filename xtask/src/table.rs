//! Tables of proofs in documents: the last column of a row names the tests that prove it.

use std::collections::BTreeSet;

/// A row of a table whose last column is one of proofs.
pub(crate) struct Row<'a> {
    pub(crate) line: usize,
    pub(crate) cells: Vec<&'a str>,
    /// The names of tests in the last cell, each in backticks.
    pub(crate) tests: Vec<&'a str>,
}

impl<'a> Row<'a> {
    pub(crate) fn proof(&self) -> &'a str {
        self.cells.last().copied().unwrap_or_default()
    }
}

/// Reads the rows of all tables of proofs.
pub(crate) fn rows(markdown: &str) -> Vec<Row<'_>> {
    let mut rows = Vec::new();
    let (mut last_column, mut in_body) = ("", false);
    for (index, line) in markdown.lines().enumerate() {
        let Some(line) = line.trim().strip_prefix('|').and_then(|line| line.strip_suffix('|')) else {
            in_body = false;
            continue;
        };
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let last = cells.last().copied().unwrap_or_default();
        if line.chars().all(|character| "-: |".contains(character)) {
            in_body = PROOF.contains(&last_column);
        } else if in_body {
            let tests = last.split('`').skip(1).step_by(2).collect();
            rows.push(Row { line: index + 1, cells, tests });
        } else {
            last_column = last;
        }
    }
    rows
}

/// What a column of proofs is called.
const PROOF: [&str; 2] = ["proof", "shown by"];

/// Says of each test that a row names and that is not there.
pub(crate) fn unknown_tests(row: &Row<'_>, names: &BTreeSet<&str>) -> Vec<String> {
    let unknown = row.tests.iter().filter(|test| !names.contains(*test));
    unknown.map(|test| format!("line {}: there is no test `{test}`", row.line)).collect()
}
