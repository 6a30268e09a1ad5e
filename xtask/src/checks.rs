//! Checks that no other tool makes.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use toml::{Table, Value};

use crate::Result;
use crate::workspace::Workspace;

/// A file may have this many lines before its tests.
const FILE_LINES_MAX: usize = 500;

/// The core stays below this many crates.
const CORE_CRATES: usize = 75;

/// What the core must not pull in, by the beginning of the name.
const BANNED_FROM_CORE: &[&str] = &["sqlx", "aws", "openssl", "native-tls", "async-trait", "anyhow"];

/// What needs more than gcc to build, anywhere.
const BANNED_BUILD_TOOLS: &[&str] = &["cmake", "bindgen", "clang-sys", "openssl-sys", "aws-lc"];

/// The one crate with `unsafe` repeats the workspace's lint table, for a member cannot override a
/// single lint of it; every other member inherits it.
pub(crate) fn lint_tables(workspace: &Workspace) -> Result<()> {
    let read = |path: &Path| -> Result<Table> { Ok(fs::read_to_string(path)?.parse()?) };
    let root = read(&workspace.root.join("Cargo.toml"))?;
    let shared = root.get("workspace").and_then(|table| table.get("lints")).ok_or("no workspace.lints")?;
    let mut wrong = Vec::new();
    for package in &workspace.packages {
        let manifest = read(&package.manifest)?;
        let lints = manifest.get("lints").ok_or_else(|| format!("{} has no lints", package.name))?;
        if package.name == "claviger-memory" {
            wrong.extend(lint_differences(shared, lints));
        } else if lints.get("workspace") != Some(&Value::Boolean(true)) {
            wrong.push(format!("{} does not inherit the workspace's lints", package.name));
        }
    }
    none(wrong)
}

/// Names the lints that `shared` has and `own` has not, or at another level.
fn lint_differences(shared: &Value, own: &Value) -> Vec<String> {
    let groups = shared.as_table().into_iter().flatten();
    let lints = groups
        .flat_map(|(group, lints)| lints.as_table().into_iter().flatten().map(move |lint| (group, lint)));
    lints
        .filter(|(_, (lint, _))| *lint != "unsafe_code")
        .filter(|(group, (lint, level))| own.get(group).and_then(|own| own.get(lint)) != Some(level))
        .map(|(group, (lint, level))| {
            format!("claviger-memory's lint table lacks {group}.{lint} = {level:?}")
        })
        .collect()
}

/// No source file is longer than a reader stands.
pub(crate) fn file_lengths(workspace: &Workspace) -> Result<()> {
    let mut wrong = Vec::new();
    for path in workspace.sources()?.iter().filter(|path| !is_all_tests(path)) {
        let lines = lines_before_tests(&fs::read_to_string(path)?);
        if lines > FILE_LINES_MAX {
            wrong.push(format!(
                "{} has {lines} lines before its tests, over {FILE_LINES_MAX}",
                path.display()
            ));
        }
    }
    none(wrong)
}

/// Unit tests that moved out to a file of their own, and whole-library tests.
fn is_all_tests(path: &Path) -> bool {
    path.ends_with("tests.rs") || path.components().any(|part| part.as_os_str() == "tests")
}

fn lines_before_tests(source: &str) -> usize {
    source.lines().take_while(|line| *line != "#[cfg(test)]").count()
}

/// The core is small and builds with gcc alone, and so does everything else.
pub(crate) fn dependencies(workspace: &Workspace) -> Result<()> {
    let tree = |args: &[&str]| -> Result<BTreeSet<String>> {
        let format = ["tree", "--prefix=none", "--no-dedupe", "--format={p}", "--locked"];
        Ok(crates(&workspace.cargo(&[&format, args].concat()).output()?))
    };
    let core = tree(&["--edges=normal", "--package=claviger"])?;
    println!("the core has {} crates", core.len());
    let mut wrong = banned("the core", &core, BANNED_FROM_CORE);
    if core.len() >= CORE_CRATES {
        wrong.push(format!("the core has {} crates, not under {CORE_CRATES}", core.len()));
    }
    let all = tree(&["--workspace", "--all-features"])?;
    wrong.extend(banned("the workspace", &all, BANNED_BUILD_TOOLS));
    none(wrong)
}

/// Reads `name v1.2.3 (path)` lines; each crate and version counts once.
fn crates(tree: &str) -> BTreeSet<String> {
    let name_and_version = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    tree.lines().filter(|line| !line.is_empty()).map(name_and_version).collect()
}

fn banned(whose: &str, crates: &BTreeSet<String>, prefixes: &[&str]) -> Vec<String> {
    let is_banned = |name: &&String| prefixes.iter().any(|prefix| name.starts_with(prefix));
    crates.iter().filter(is_banned).map(|name| format!("{whose} pulls in {name}")).collect()
}

/// Errs with everything that is wrong.
pub(crate) fn none(wrong: Vec<String>) -> Result<()> {
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lint_that_is_missing_or_milder_is_named() {
        let shared: Value =
            "rust = { unsafe_code = 'forbid', a = 'warn' }\nclippy = { b = 'deny', c = 'warn' }"
                .parse::<Table>()
                .unwrap()
                .into();
        let own: Value =
            "rust = { unsafe_code = 'deny' }\nclippy = { b = 'warn', c = 'warn', more = 'deny' }"
                .parse::<Table>()
                .unwrap()
                .into();
        let differences = lint_differences(&shared, &own).join("\n");
        assert_eq!(differences.lines().count(), 2, "{differences}");
        assert!(differences.contains("rust.a") && differences.contains("clippy.b"), "{differences}");
        assert!(lint_differences(&shared, &shared).is_empty());
    }

    #[test]
    fn tests_at_the_bottom_do_not_count() {
        assert_eq!(lines_before_tests("one\ntwo\n#[cfg(test)]\nmod tests {\n}\n"), 2);
        assert!(
            is_all_tests(Path::new("/w/src/record/tests.rs"))
                && is_all_tests(Path::new("/w/tests/session.rs"))
        );
        assert!(!is_all_tests(Path::new("/w/src/testing.rs")));
        assert_eq!(lines_before_tests("one\n    #[cfg(test)]\nthree\n"), 3);
    }

    #[test]
    fn crates_are_counted_once_and_banned_by_prefix() {
        let crates = crates("claviger v0.1.0 (/w)\nring v0.17.1\nring v0.17.1\nsqlx-core v0.9.0\n\n");
        assert_eq!(crates.len(), 3);
        assert_eq!(banned("the core", &crates, BANNED_FROM_CORE), ["the core pulls in sqlx-core v0.9.0"]);
        assert!(banned("the core", &crates, BANNED_BUILD_TOOLS).is_empty());
    }
}
