//! Mutants: changes for the worse, kept as patches, each of which some test must catch.
//!
//! A patch begins with what it changes and which commands catch that (`tests/mutants/README.md`). It is applied to a
//! copy of the sources, so that nothing is left of it, whatever ends a run.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::Result;
use crate::process::Process;
use crate::workspace::Workspace;

/// A patch and what its first lines say.
#[derive(Debug, PartialEq, Eq)]
struct Mutant {
    name: String,
    what: String,
    /// Commands for cargo, each of which must fail.
    caught_by: Vec<Vec<String>>,
    patch: PathBuf,
}

/// A copy of the sources that patches are applied to.
struct Copy<'a> {
    workspace: &'a Workspace,
    tree: PathBuf,
    target: PathBuf,
}

/// How a command ended that was to fail.
enum Verdict {
    /// What it said that failed.
    Caught(String),
    Passed,
}

/// Applies each of these mutants, all if none is named, and has its commands run, which must fail; without the
/// mutant they must pass. With `applies_only` nothing is run.
pub(crate) fn run(workspace: &Workspace, names: &[String], applies_only: bool) -> Result<()> {
    let mutants = read_all(&workspace.root.join("tests/mutants"), names)?;
    let copy = Copy::new(workspace)?;
    let mut failed = Vec::new();
    if !applies_only {
        let commands: BTreeSet<_> = mutants.iter().flat_map(|mutant| &mutant.caught_by).collect();
        for command in commands {
            if let Verdict::Caught(by) = copy.run(command)? {
                return Err(format!("cargo {} fails without any mutant: {by}", command.join(" ")).into());
            }
        }
    }
    for mutant in &mutants {
        let touched = match copy.apply(mutant) {
            Ok(touched) => touched,
            Err(error) => {
                failed.push(format!("{}: {error}", mutant.name));
                continue;
            }
        };
        for command in mutant.caught_by.iter().filter(|_| !applies_only) {
            let begun = Instant::now();
            match copy.run(command) {
                Ok(Verdict::Caught(by)) => {
                    println!("caught  {}: {} ({} s)", mutant.name, by, begun.elapsed().as_secs());
                }
                Ok(Verdict::Passed) => {
                    failed.push(format!(
                        "{} ({}) lives: cargo {}",
                        mutant.name,
                        mutant.what,
                        command.join(" ")
                    ));
                }
                Err(error) => failed.push(format!("{}: {error}", mutant.name)),
            }
        }
        copy.restore(&touched)?;
    }
    println!("\n{} mutants, {} failures", mutants.len(), failed.len());
    crate::checks::none(failed)
}

/// Reads the patches of a folder, in the order of their names.
fn read_all(folder: &Path, names: &[String]) -> Result<Vec<Mutant>> {
    let mut mutants = Vec::new();
    for entry in fs::read_dir(folder)? {
        let patch = entry?.path();
        if patch.extension().is_some_and(|extension| extension == "patch") {
            mutants.push(Mutant::read(patch)?);
        }
    }
    mutants.sort_by(|one, other| one.name.cmp(&other.name));
    for name in names {
        if !mutants.iter().any(|mutant| mutant.name == *name) {
            return Err(format!("there is no mutant {name}").into());
        }
    }
    mutants.retain(|mutant| names.is_empty() || names.contains(&mutant.name));
    Ok(mutants)
}

impl Mutant {
    fn read(patch: PathBuf) -> Result<Self> {
        let name = patch.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = fs::read_to_string(&patch)?;
        let (mut what, mut caught_by) = (None, Vec::new());
        for line in text.lines().take_while(|line| !line.starts_with("diff ") && !line.starts_with("--- ")) {
            if let Some(text) = line.strip_prefix("Mutant: ") {
                what = Some(text.to_owned());
            } else if let Some(command) = line.strip_prefix("Caught by: cargo ") {
                caught_by.push(command.split_whitespace().map(str::to_owned).collect());
            }
        }
        match what {
            Some(what) if !caught_by.is_empty() => Ok(Self { name, what, caught_by, patch }),
            _ => Err(format!("{name} lacks its lines «Mutant: » and «Caught by: cargo »").into()),
        }
    }
}

impl<'a> Copy<'a> {
    /// Brings the copy to what the sources are now. Files that are the same stay as they are, and so does what was
    /// built of them.
    fn new(workspace: &'a Workspace) -> Result<Self> {
        let folder = workspace.target.join("mutants");
        let copy = Self { workspace, tree: folder.join("tree"), target: folder.join("target") };
        fs::create_dir_all(&copy.tree)?;
        let mut files = BTreeSet::new();
        for file in workspace.files()? {
            let file = file.strip_prefix(&workspace.root)?.to_string_lossy().into_owned();
            copy.bring(&file)?;
            files.insert(file);
        }
        for file in workspace.files_of(&copy.tree)? {
            if !files.contains(&*file.strip_prefix(&copy.tree)?.to_string_lossy()) {
                fs::remove_file(file)?;
            }
        }
        Ok(copy)
    }

    fn bring(&self, file: &str) -> Result<()> {
        let (from, to) = (self.workspace.root.join(file), self.tree.join(file));
        let content = fs::read(&from)?;
        if fs::read(&to).is_ok_and(|there| there == content) {
            return Ok(());
        }
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)?;
        }
        // With its permissions: some are programs.
        fs::copy(&from, &to)?;
        Ok(())
    }

    /// Applies a patch; returns the files it touches.
    fn apply(&self, mutant: &Mutant) -> Result<Vec<String>> {
        let patch = mutant.patch.to_string_lossy();
        let touched = self.git(&["apply", "--whitespace=nowarn", "--numstat", &patch]).output()?;
        self.git(&["apply", "--whitespace=nowarn", &patch]).output()?;
        Ok(touched.lines().filter_map(|line| Some(line.rsplit_once('\t')?.1.to_owned())).collect())
    }

    fn restore(&self, touched: &[String]) -> Result<()> {
        touched.iter().try_for_each(|file| self.bring(file))
    }

    /// A git that knows no repository: the copy may lie inside of one that ignores it.
    fn git(&self, args: &[&str]) -> Process {
        Process::new("git", args)
            .in_folder(&self.tree)
            .env("GIT_CEILING_DIRECTORIES", self.workspace.target.join("mutants"))
    }

    fn run(&self, command: &[String]) -> Result<Verdict> {
        let args: Vec<_> = command.iter().map(String::as_str).collect();
        let cargo = Process::cargo(&self.tree, &args).env("CARGO_TARGET_DIR", &self.target);
        let (written, status) = cargo.record()?;
        if status.success() {
            return Ok(Verdict::Passed);
        }
        if written.contains("could not compile") {
            return Err(format!("cargo {} does not compile:\n{}", args.join(" "), tail(&written)).into());
        }
        let failed: Vec<_> = written.lines().filter_map(what_failed).collect();
        if failed.is_empty() {
            return Err(
                format!("cargo {} names nothing that failed:\n{}", args.join(" "), tail(&written)).into()
            );
        }
        Ok(Verdict::Caught(failed.join(", ")))
    }
}

/// Reads a line by which a test, the simulation or the model says what failed.
fn what_failed(line: &str) -> Option<&str> {
    let of_test = line.strip_prefix("test ").and_then(|line| line.strip_suffix(" ... FAILED"));
    of_test.or_else(|| Some(line).filter(|line| line.contains(" broke ") && line.contains(", the first is ")))
}

fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(folder: &Path, name: &str, text: &str) -> Result<Mutant> {
        let patch = folder.join(name);
        fs::write(&patch, text).unwrap();
        Mutant::read(patch)
    }

    #[test]
    fn patches_say_what_they_change_and_what_catches_that() {
        let folder = tempfile::tempdir().unwrap();
        let head = "Mutant: nothing is checked\nCaught by: cargo test -p a b\nCaught by: cargo test -p c\n\n";
        let mutant =
            written(folder.path(), "unchecked.patch", &format!("{head}diff --git a/x b/x\n")).unwrap();
        let of = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(mutant.caught_by, [of("test -p a b"), of("test -p c")]);
        assert_eq!((&*mutant.name, &*mutant.what), ("unchecked", "nothing is checked"));
        for lacking in [
            "Mutant: nothing\n\ndiff",
            "Caught by: cargo test\n\ndiff",
            "diff --git a/x b/x\nMutant: late\nCaught by: cargo x",
        ] {
            assert!(written(folder.path(), "lacking.patch", lacking).is_err(), "{lacking}");
        }
    }

    #[test]
    fn mutants_are_chosen_by_name() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b", "a"] {
            let text = "Mutant: m\nCaught by: cargo test\n";
            written(folder.path(), &format!("{name}.patch"), text).unwrap();
        }
        fs::write(folder.path().join("README.md"), "").unwrap();
        let names = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
            let mutants = read_all(folder.path(), &names)?;
            Ok::<_, Box<dyn std::error::Error>>(
                mutants.into_iter().map(|mutant| mutant.name).collect::<Vec<_>>(),
            )
        };
        assert_eq!(names(&[]).unwrap(), ["a", "b"]);
        assert_eq!(names(&["b"]).unwrap(), ["b"]);
        assert!(names(&["c"]).is_err());
    }

    #[test]
    fn lines_that_say_what_failed_are_found() {
        assert_eq!(what_failed("test t1::t1_fresh ... FAILED"), Some("t1::t1_fresh"));
        let of_simulation = "2 broke nothing_is_lost, the first is 17";
        assert_eq!(what_failed(of_simulation), Some(of_simulation));
        assert_eq!(what_failed("test t1::t1_fresh ... ok"), None);
    }

    #[test]
    fn kept_patches_are_read() {
        let workspace = Workspace::find().unwrap();
        assert!(read_all(&workspace.root.join("tests/mutants"), &[]).unwrap().len() > 30);
    }
}
