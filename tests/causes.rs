//! No error and no log line drops what is behind a failure: a look at the sources of all crates.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::{Path, PathBuf};

const SOURCES: [&str; 6] = ["src", "memory/src", "metastore/src", "kms/src", "aws/src", "cli/src"];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// What `found` makes of the text of each source, with the file it is in.
fn in_all_sources(found: impl Fn(&str) -> Vec<String>) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    SOURCES.iter().for_each(|folder| sources(&root.join(folder), &mut files));
    assert!(files.len() > 100, "the sources are somewhere else: {}", files.len());
    let in_file = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        found(&text).into_iter().map(move |line| format!("{}: {line}", path.display())).collect::<Vec<_>>()
    };
    files.into_iter().flat_map(in_file).collect()
}

/// Variants whose one field is an error that their text repeats and `source()` does not return.
fn unsourced_variants(text: &str) -> Vec<String> {
    // They have no source of their own.
    let leaves = ["RvError", "RowFault"];
    let lines: Vec<_> = text.lines().collect();
    let is_dropped = |pair: &&[&str]| {
        let [attribute, variant] = pair else { return false };
        let field = variant.trim().trim_end_matches(',').split_once('(').map(|(_, field)| field);
        attribute.trim().starts_with("#[error(")
            && !attribute.contains("transparent")
            && field.is_some_and(|field| {
                let is_error =
                    ["Error)", "Fault)", "Failure)", "Failures)"].iter().any(|end| field.ends_with(end));
                is_error && !field.starts_with('#') && !leaves.iter().any(|leaf| field.starts_with(leaf))
            })
    };
    lines.windows(2).filter(is_dropped).map(|pair| pair.join(" ")).collect()
}

/// Log lines that show an error alone.
fn unchained_logs(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("tracing::") {
        let Some((call, _)) = text[at..].split_once(';') else { continue };
        let names_an_error = ["%error", "%err,", "%fault", "cause = %", "error = %", "= ?error"];
        let before = &text[at.saturating_sub(200)..at];
        if names_an_error.iter().any(|name| call.contains(name))
            && !call.contains("ErrorChain::new(")
            && !before.contains("ErrorChain::new(")
        {
            found.push(call.split_whitespace().collect::<Vec<_>>().join(" "));
        }
    }
    found
}

#[test]
fn no_error_shows_another_one_without_naming_it_as_its_source() {
    assert_eq!(in_all_sources(unsourced_variants), [""; 0]);
    assert_eq!(unsourced_variants("#[error(\"{0}\")]\nLost(BackendError),").len(), 1);
    assert_eq!(unsourced_variants("#[error(\"lost\")]\nLost(#[source] BackendError),").len(), 0);
}

#[test]
fn log_lines_show_errors_with_their_causes() {
    let known = [
        // Of events the cause comes as a chain; of copies the text of a failure is one.
        "event = event.name(), key = %key, cause = %cause",
        "copy = self.name, class, cause = %self",
        // The system's own code, behind which is nothing.
        "memory/src/arena.rs: tracing::warn!(%error,",
    ];
    let found = in_all_sources(unchained_logs);
    let unknown = found.iter().filter(|line| !known.iter().any(|known| line.contains(known)));
    assert_eq!(unknown.collect::<Vec<_>>(), [""; 0]);
    assert_eq!(unchained_logs("tracing::warn!(%error, \"x\");").len(), 1);
}
