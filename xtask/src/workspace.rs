//! Where the workspace is, and what cargo knows of it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::Result;
use crate::process::Process;

pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) packages: Vec<Package>,
}

pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) manifest: PathBuf,
    /// Those for users: a name that begins with `_` is for other features.
    pub(crate) features: Vec<String>,
    pub(crate) test_programs: Vec<TestProgram>,
    /// Cargo refuses to run the doc tests of a package that has no library.
    pub(crate) has_doc_tests: bool,
}

/// A program of a package's folder `tests`.
pub(crate) struct TestProgram {
    pub(crate) name: String,
    pub(crate) required_features: Vec<String>,
}

impl Workspace {
    pub(crate) fn find() -> Result<Self> {
        let metadata =
            Process::cargo(Path::new("."), &["metadata", "--no-deps", "--format-version=1"]).output()?;
        Self::parse(&metadata)
    }

    fn parse(metadata: &str) -> Result<Self> {
        let metadata: Value = serde_json::from_str(metadata)?;
        let packages =
            metadata.get("packages").and_then(Value::as_array).ok_or("cargo metadata names no packages")?;
        Ok(Self {
            root: text(&metadata, "workspace_root")?.into(),
            target: text(&metadata, "target_directory")?.into(),
            packages: packages.iter().map(Package::parse).collect::<Result<_>>()?,
        })
    }

    /// Runs cargo at the root.
    pub(crate) fn cargo(&self, args: &[&str]) -> Process {
        Process::cargo(&self.root, args)
    }

    /// Lists the Rust files of all members.
    pub(crate) fn sources(&self) -> Result<Vec<PathBuf>> {
        let mut files = self.files()?;
        files.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
        Ok(files)
    }

    /// Lists all files but what was built and what is hidden, as cargo's own folder is not.
    pub(crate) fn files(&self) -> Result<Vec<PathBuf>> {
        self.files_of(&self.root)
    }

    /// Lists the same of a copy of the workspace.
    pub(crate) fn files_of(&self, root: &Path) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let path = entry?.path();
                let is_hidden = path
                    .file_name()
                    .is_some_and(|name| name != ".cargo" && name.as_encoded_bytes().starts_with(b"."));
                // A target folder that was there before cargo has no tag.
                let is_built = path == self.target || path.join("CACHEDIR.TAG").exists();
                match path.is_dir() {
                    true if !is_hidden && !is_built => folders.push(path),
                    true => {}
                    false => files.push(path),
                }
            }
        }
        Ok(files)
    }

    /// Where tools are installed to, beside what cargo builds.
    pub(crate) fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }
}

impl Package {
    fn parse(package: &Value) -> Result<Self> {
        let features =
            package.get("features").and_then(Value::as_object).ok_or("cargo metadata names no features")?;
        let is_for_users = |feature: &&String| *feature != "default" && !feature.starts_with('_');
        let targets = list(package, "targets");
        let is_test = |target: &&Value| list(target, "kind").any(|kind| kind == "test");
        Ok(Self {
            name: text(package, "name")?.into(),
            manifest: text(package, "manifest_path")?.into(),
            features: features.keys().filter(is_for_users).cloned().collect(),
            has_doc_tests: list(package, "targets").any(|target| target.get("doctest") == Some(&true.into())),
            test_programs: targets.filter(is_test).map(TestProgram::parse).collect::<Result<_>>()?,
        })
    }
}

impl TestProgram {
    fn parse(target: &Value) -> Result<Self> {
        let features = list(target, "required-features").filter_map(Value::as_str);
        Ok(Self {
            name: text(target, "name")?.into(),
            required_features: features.map(str::to_owned).collect(),
        })
    }
}

/// Lists what is there; nothing, if it is not.
fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value.get(key).and_then(Value::as_str).ok_or_else(|| format!("cargo metadata has no {key}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_read() {
        let workspace = Workspace::parse(
            r#"{"workspace_root":"/w","target_directory":"/t","packages":[
                {"name":"a","manifest_path":"/w/a/Cargo.toml","features":{"default":[],"_y":[],"x":[]},
                "targets":[{"name":"a","kind":["lib"],"doctest":true},
                {"name":"t","kind":["test"],"required-features":["x"]}]}]}"#,
        )
        .unwrap();
        assert_eq!((workspace.root, workspace.target), ("/w".into(), "/t".into()));
        assert_eq!(workspace.packages[0].features, ["x"]);
        assert!(workspace.packages[0].has_doc_tests);
        let [program] = &workspace.packages[0].test_programs[..] else { panic!("not one test program") };
        assert_eq!((&*program.name, &program.required_features[..]), ("t", &["x".to_owned()][..]));
        assert!(Workspace::parse("{}").is_err());
    }

    #[test]
    fn sources_are_found_but_not_those_cargo_made() {
        let root = tempfile::tempdir().unwrap();
        for file in [
            "src/lib.rs",
            "kms/src/lib.rs",
            "kms/notes.md",
            "target/CACHEDIR.TAG",
            "target/a.rs",
            "built/c.rs",
            ".git/b.rs",
        ] {
            let file = root.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
        }
        let workspace =
            Workspace { root: root.path().into(), target: root.path().join("built"), packages: Vec::new() };
        let mut sources = workspace.sources().unwrap();
        sources.sort();
        assert_eq!(sources, [root.path().join("kms/src/lib.rs"), root.path().join("src/lib.rs")]);
    }
}
