//! Debian's packages.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::Result;
use crate::process::Process;

/// What Debian asks before a package starts a service of its own.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Installs packages, and starts nothing that is in them.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let is_root = Process::new("id", &["-u"]).probe().is_some_and(|id| id == "0");
    if !is_root || Process::new("apt-get", &["--version"]).probe().is_none() {
        let packages = packages.join(", ");
        return Err(format!("install it by hand (Debian: {packages}); that takes root and apt-get").into());
    }
    let _nothing_starts = NothingStarts::new(Path::new(POLICY))?;
    let apt = |args: &[&str]| Process::new("apt-get", args).env("DEBIAN_FRONTEND", "noninteractive").run();
    apt(&["update"])?;
    apt(&[&["install", "--yes", "--no-install-recommends"], packages].concat())
}

/// While it lives, no package starts a service. One's own policy is left as it is.
struct NothingStarts(Option<PathBuf>);

impl NothingStarts {
    fn new(policy: &Path) -> Result<Self> {
        if policy.exists() {
            return Ok(Self(None));
        }
        let guard = Self(Some(policy.to_owned()));
        fs::write(policy, "#!/bin/sh\n# 101: the service may not be started.\nexit 101\n")?;
        fs::set_permissions(policy, fs::Permissions::from_mode(0o755))?;
        Ok(guard)
    }
}

impl Drop for NothingStarts {
    fn drop(&mut self) {
        if let Some(policy) = &self.0
            && let Err(error) = fs::remove_file(policy)
        {
            eprintln!(
                "xtask: {} is still there, and keeps services from starting: {error}",
                policy.display()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_starts_until_the_guard_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let policy = folder.path().join("policy-rc.d");
        let guard = NothingStarts::new(&policy).unwrap();
        let script = policy.to_string_lossy().into_owned();
        let error = Process::new(&policy, &["postgresql", "start"]).run().unwrap_err().to_string();
        assert!(error.contains("101"), "{script}: {error}");
        drop(guard);
        assert!(!policy.exists());
    }

    #[test]
    fn policy_that_is_there_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let policy = folder.path().join("policy-rc.d");
        fs::write(&policy, "mine").unwrap();
        drop(NothingStarts::new(&policy).unwrap());
        assert_eq!(fs::read_to_string(&policy).unwrap(), "mine");
    }
}
