//! The ids of `docs/design`: each that code or a test's name carries has its row, each row names tests or says
//! why there are none, and what is said to decide it is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use regex_lite::Regex;

use crate::Result;
use crate::table::{self, Row};
use crate::workspace::Workspace;

const FOLDER: &str = "docs/design";
pub(crate) const SEMANTICS: &str = "docs/design/semantics.md";
pub(crate) const REQUIREMENTS: &str = "docs/design/requirements.md";

/// What a row says that has no test yet.
const EXCUSE: &str = "Not yet: ";

/// Looks at both documents and at all code.
pub(crate) fn faults(workspace: &Workspace, names: &BTreeSet<&str>) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    let mut ids = BTreeSet::new();
    for document in [SEMANTICS, REQUIREMENTS] {
        let text = fs::read_to_string(workspace.root.join(document))?;
        let mut wrong = Vec::new();
        for row in table::rows(&text) {
            wrong.extend(table::unknown_tests(&row, names));
            wrong.extend(unproven(&row));
            wrong.extend(lost_places(&row, &workspace.root.join(FOLDER))?);
            let id = row.cells.first().copied().unwrap_or_default();
            if !ids.insert(id.to_owned()) {
                wrong.push(format!("line {}: {id} has a row already", row.line));
            }
        }
        faults.extend(wrong.into_iter().map(|fault| format!("{document}, {fault}")));
    }
    let named = named_ids(workspace)?;
    let unknown = named.into_iter().filter(|(id, _)| !is_known(id, &ids));
    faults.extend(unknown.map(|(id, place)| format!("{place} names {id}, which has no row in {FOLDER}")));
    Ok(faults)
}

fn unproven(row: &Row<'_>) -> Option<String> {
    let is_proven = !row.tests.is_empty() || row.proof().contains(EXCUSE);
    (!is_proven).then(|| format!("line {}: neither a test nor \"{EXCUSE}…\"", row.line))
}

/// Looks for the functions that a row says decide it: links whose text is a function's name.
fn lost_places(row: &Row<'_>, folder: &Path) -> Result<Vec<String>> {
    let link = Regex::new(r"\[(\w+)\]\(([^)]+\.rs)\)")?;
    let mut lost = Vec::new();
    for link in row.cells.iter().flat_map(|cell| link.captures_iter(cell)) {
        let [Some(function), Some(file)] = [1, 2].map(|group| link.get(group)) else { continue };
        let (function, file) = (function.as_str(), file.as_str());
        let source = fs::read_to_string(folder.join(file)).unwrap_or_default();
        if !Regex::new(&format!(r"\bfn {function}\b"))?.is_match(&source) {
            lost.push(format!("line {}: there is no function {function} in {file}", row.line));
        }
    }
    Ok(lost)
}

/// The ids that code names, each with one place that does.
fn named_ids(workspace: &Workspace) -> Result<BTreeMap<String, String>> {
    let mut named = BTreeMap::new();
    for source in workspace.sources()? {
        let place = source.strip_prefix(&workspace.root).unwrap_or(&source).display().to_string();
        for id in ids_in(&fs::read_to_string(&source)?)? {
            named.entry(id).or_insert_with(|| place.clone());
        }
    }
    Ok(named)
}

/// Finds the ids in comments, and those that names of functions begin with.
fn ids_in(source: &str) -> Result<BTreeSet<String>> {
    let in_comment = Regex::new(r"\b(T[1-9](?:\.\d+)?|S\d\.\d+)\b")?;
    let in_name = Regex::new(r"\bfn (?:t([1-9])|s(\d)_(\d+))_")?;
    let mut ids = BTreeSet::new();
    for line in source.lines() {
        if let Some((_, comment)) = line.split_once("//") {
            ids.extend(in_comment.find_iter(comment).map(|id| id.as_str().to_owned()));
        }
        for name in in_name.captures_iter(line) {
            let [table, chapter, number] = [1, 2, 3].map(|group| name.get(group).map(|group| group.as_str()));
            ids.extend(table.map(|table| format!("T{table}")));
            ids.extend(chapter.zip(number).map(|(chapter, number)| format!("S{chapter}.{number}")));
        }
    }
    Ok(ids)
}

/// Whether an id has a row; the id of a table (`T1`) if one of its rows is there.
fn is_known(id: &str, rows: &BTreeSet<String>) -> bool {
    rows.contains(id) || !id.contains('.') && rows.iter().any(|row| row.starts_with(&format!("{id}.")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_in_comments_and_in_names_of_functions() {
        let source = "
// As T1 and T5.3 say (S0.12).
let s3 = \"S9.9\"; // S3 is no id
async fn t4_created_is_now_rounded_down() {}
fn s3_11_a_dead_region_gets_one_request_a_second() {}
fn t12_no_table() {}
";
        let ids = ids_in(source).unwrap();
        assert_eq!(
            ids.iter().map(String::as_str).collect::<Vec<_>>(),
            ["S0.12", "S3.11", "T1", "T4", "T5.3"]
        );
    }

    #[test]
    fn table_is_known_by_its_rows_and_a_row_by_itself() {
        let rows = BTreeSet::from(["T1.1".to_owned(), "T1.10".to_owned(), "S3.1".to_owned()]);
        for known in ["T1", "T1.10", "S3.1"] {
            assert!(is_known(known, &rows), "{known}");
        }
        for unknown in ["T2", "T1.2", "S3.11", "S3.2"] {
            assert!(!is_known(unknown, &rows), "{unknown}");
        }
    }

    #[test]
    fn row_without_a_proof_or_an_excuse_is_found_and_so_is_a_lost_place() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let markdown = "
| id | decided by | proof |
|---|---|---|
| T1.1 | [faults](design.rs) | `a` |
| T1.2 | [no_function](design.rs), [faults](nowhere.rs) | Not yet: nobody knows how |
| T1.3 | | by hand |
";
        let rows = table::rows(markdown);
        let unproven: Vec<_> = rows.iter().filter_map(unproven).collect();
        assert_eq!(unproven, ["line 6: neither a test nor \"Not yet: …\""]);
        let lost = rows.iter().flat_map(|row| lost_places(row, &here).unwrap());
        assert_eq!(
            lost.collect::<Vec<_>>(),
            [
                "line 5: there is no function no_function in design.rs",
                "line 5: there is no function faults in nowhere.rs"
            ]
        );
    }
}
