//! What crates.io and docs.rs show of a crate is checked before it is there.

use std::fs;
use std::path::Path;

use toml::{Table, Value};

use crate::Result;
use crate::checks::none;
use crate::workspace::Workspace;

/// The example whose dependencies the README's are.
const EXAMPLE: &str = "examples/axum/Cargo.toml";

pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let root = &workspace.root;
    let readme = fs::read_to_string(root.join("README.md"))?;
    let manifest = read(&root.join("Cargo.toml"))?;
    let mut wrong = undocumented_features(workspace)?;
    let repository = at(&manifest, &["workspace", "package", "repository"]);
    let repository = repository.and_then(Value::as_str).ok_or("the workspace has no repository")?;
    wrong.extend(bad_links(&readme, repository, root));
    wrong.extend(other_dependencies(&readme, &manifest, &read(&root.join(EXAMPLE))?)?);
    none(wrong)
}

/// docs.rs builds without features unless a manifest tells it otherwise: back ends would not be there.
fn undocumented_features(workspace: &Workspace) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for package in &workspace.packages {
        let manifest = read(&package.manifest)?;
        let is_published = at(&manifest, &["package", "publish"]) != Some(&Value::Boolean(false));
        let all = at(&manifest, &["package", "metadata", "docs", "rs", "all-features"]);
        if is_published && all != Some(&Value::Boolean(true)) {
            wrong.push(format!("{} is published, and docs.rs would leave its features out", package.name));
        }
    }
    Ok(wrong)
}

/// The README is shown on crates.io and docs.rs, where links relative to it lead nowhere.
fn bad_links(readme: &str, repository: &str, root: &Path) -> Vec<String> {
    let targets =
        readme.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    let wrong = targets.filter_map(|target| {
        let own = target
            .strip_prefix(repository)
            .map(|path| ["/blob/main/", "/tree/main/"].iter().find_map(|branch| path.strip_prefix(branch)));
        match own {
            Some(Some(path)) => {
                let file = path.split('#').next().unwrap_or(path);
                (!root.join(file).exists()).then(|| format!("README.md links to {file}, which is not there"))
            }
            Some(None) => {
                Some(format!("README.md links to {target}, which names no file of the branch main"))
            }
            None if target.starts_with("https://") => None,
            None => Some(format!("README.md links to {target}, which is not absolute")),
        }
    });
    wrong.collect()
}

/// A reader copies the README's `[dependencies]`: they are the example's, in the versions of now.
fn other_dependencies(readme: &str, manifest: &Table, example: &Table) -> Result<Vec<String>> {
    let (_, lines) = readme.split_once("```toml\n").ok_or("README.md has no dependency lines")?;
    let (lines, _) = lines.split_once("```").ok_or("README.md's dependency lines have no end")?;
    let lines: Table = lines.parse()?;
    let lines = at(&lines, &["dependencies"]).and_then(Value::as_table).ok_or("they are no dependencies")?;
    let mut wrong = Vec::new();
    for (name, line) in lines {
        let own = at(example, &["dependencies", name]).ok_or_else(|| format!("{EXAMPLE} has no {name}"))?;
        let shared = at(manifest, &["workspace", "dependencies", name]).unwrap_or(own);
        let is_ours = shared.get("path").is_some();
        let version =
            if is_ours { at(manifest, &["workspace", "package", "version"]) } else { version(shared) };
        let version = version.and_then(Value::as_str).ok_or_else(|| format!("{name} has no version"))?;
        // Of ours what is compatible is enough.
        let expected = if is_ours { compatible(version) } else { version.to_owned() };
        if self::version(line).and_then(Value::as_str) != Some(&expected) {
            wrong.push(format!("README.md's {name} is to have the version {expected}"));
        }
        let features = |of: &Value| of.get("features").cloned().unwrap_or_else(|| Value::Array(Vec::new()));
        if is_ours && features(line) != features(own) {
            wrong.push(format!("README.md's {name} has other features than that of {EXAMPLE}"));
        }
    }
    Ok(wrong)
}

/// `name = "1"` or `name = { version = "1" }`.
fn version(dependency: &Value) -> Option<&Value> {
    if dependency.is_str() { Some(dependency) } else { dependency.get("version") }
}

/// The first two numbers of a version.
fn compatible(version: &str) -> String {
    version.splitn(3, '.').take(2).collect::<Vec<_>>().join(".")
}

fn read(path: &Path) -> Result<Table> {
    Ok(fs::read_to_string(path)?.parse()?)
}

fn at<'a>(table: &'a Table, path: &[&str]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(table.get(*first)?, |value, key| value.get(*key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_shows_all_there_is() {
        check(&Workspace::find().unwrap()).unwrap();
    }

    #[test]
    fn links_that_lead_nowhere_from_elsewhere_are_named() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("a.md"), "").unwrap();
        let bad = |link: &str| bad_links(&format!("see [it]({link}), or"), "https://git/c", root.path());
        for link in ["https://git/c/blob/main/a.md", "https://git/c/blob/main/a.md#b", "https://other"] {
            assert!(bad(link).is_empty(), "{link}");
        }
        for link in [
            "a.md",
            "/a.md",
            "#a",
            "http://other",
            "https://git/c/blob/main/b.md",
            "https://git/c/blob/old/a.md",
        ] {
            assert_eq!(bad(link).len(), 1, "{link}");
        }
    }

    #[test]
    fn dependency_lines_of_another_version_or_with_other_features_are_named() {
        let manifest = "[workspace.package]\nversion = '0.3.1'\n[workspace.dependencies]\n\
             ours = { path = 'x', version = '0.3.1' }\ntheirs = '1.50'";
        let example = "[dependencies]\nours = { workspace = true, features = ['a'] }\n\
             theirs = { workspace = true, features = ['b'] }";
        let wrong = |lines: &str| {
            let readme = format!("text\n```toml\n[dependencies]\n{lines}\n```\ntext");
            other_dependencies(&readme, &manifest.parse().unwrap(), &example.parse().unwrap())
        };
        let good = "ours = { version = '0.3', features = ['a'] }\ntheirs = { version = '1.50' }";
        assert!(wrong(good).unwrap().is_empty());
        assert_eq!(wrong("ours = '0.3'").unwrap().len(), 1);
        assert_eq!(wrong("ours = { version = '0.2', features = ['a'] }").unwrap().len(), 1);
        assert_eq!(wrong("theirs = '1'").unwrap().len(), 1);
        assert!(wrong("others = '1'").is_err());
        assert!(other_dependencies("text", &manifest.parse().unwrap(), &example.parse().unwrap()).is_err());
    }
}
