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

/// What nothing of ours may pull in, by the beginning of the name: what needs more than gcc to
/// build, a second TLS, and what hides errors and futures.
const BANNED: &[&str] = &[
    "cmake ",
    "bindgen ",
    "clang-sys ",
    "openssl ",
    "openssl-sys ",
    "aws-lc",
    "native-tls ",
    "async-trait ",
    "anyhow ",
];

/// What only these features of a back end may pull in, by the beginning of the name. The core may
/// pull in none of it.
const BACK_ENDS: &[(&str, &[&str])] = &[
    ("aws-", &["aws", "dynamodb"]),
    ("claviger-aws ", &["aws", "dynamodb"]),
    ("cryptoki", &["pkcs11"]),
    ("hyper", &["aws", "dynamodb", "vault"]),
    ("rustls", &["aws", "dynamodb", "vault", "mysql", "postgres"]),
    ("sqlx", &["sqlite", "mysql", "postgres"]),
    ("vsss-rs", &["k-of-n"]),
];

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

/// The core is small and knows no back end, each feature brings its own back end alone, and
/// everything builds with gcc alone.
pub(crate) fn dependencies(workspace: &Workspace) -> Result<()> {
    let tree = |args: &[&str]| -> Result<BTreeSet<String>> {
        let format = ["tree", "--prefix=none", "--no-dedupe", "--format={p}", "--locked"];
        Ok(crates(&workspace.cargo(&[&format, args].concat()).output()?))
    };
    let core = tree(&["--edges=normal", "--package=claviger"])?;
    println!("the core has {} crates", core.len());
    let mut wrong = foreign("the core", None, &core);
    if core.len() >= CORE_CRATES {
        wrong.push(format!("the core has {} crates, not under {CORE_CRATES}", core.len()));
    }
    for name in ["claviger-metastore", "claviger-kms", "claviger-open"] {
        let package = workspace.packages.iter().find(|package| package.name == name);
        let package = package.ok_or_else(|| format!("there is no package {name}"))?;
        for feature in &package.features {
            let args = ["--edges=normal,build", "--no-default-features", "--package", name, "--features"];
            let crates = tree(&[&args[..], &[feature.as_str()]].concat())?;
            println!("{name} with {feature} has {} crates", crates.len());
            wrong.extend(foreign(&format!("{name} with {feature}"), Some(feature), &crates));
        }
    }
    let all = tree(&["--workspace", "--all-features"])?;
    wrong.extend(banned("the workspace", &all, BANNED));
    none(wrong)
}

/// Names what is banned everywhere, and what is other back ends'.
fn foreign(whose: &str, feature: Option<&str>, crates: &BTreeSet<String>) -> Vec<String> {
    let is_own = |features: &[&str]| feature.is_some_and(|feature| features.contains(&feature));
    let others = BACK_ENDS.iter().filter(|(_, features)| !is_own(features)).map(|(prefix, _)| *prefix);
    banned(whose, crates, &[BANNED, &others.collect::<Vec<_>>()].concat())
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
        assert_eq!(banned("the core", &crates, &["sqlx"]), ["the core pulls in sqlx-core v0.9.0"]);
        assert!(banned("the core", &crates, BANNED).is_empty());
    }

    #[test]
    fn back_ends_of_others_are_foreign_and_probing_for_openssl_is_not() {
        let crates = crates(
            "claviger v0.1.0 (/w)\naws-sdk-kms v1.0.0\nrustls v0.23.0\nopenssl-probe v0.2.0\nsqlx v0.9.0\n",
        );
        assert_eq!(foreign("aws", Some("aws"), &crates), ["aws pulls in sqlx v0.9.0"]);
        assert_eq!(foreign("it", Some("local"), &crates).len(), 3);
        assert_eq!(foreign("the core", None, &crates).len(), 3);
        let tools = super::crates("openssl v0.10.0\naws-lc-rs v1.0.0\ncmake v0.1.0\naws-lc-sys v0.1.0\n");
        assert_eq!(foreign("aws", Some("aws"), &tools).len(), 4);
    }
}
