//! Temporary folders that go when this process goes.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::program::server_user;

/// The folder that all others of this process are in.
struct Root {
    folder: TempDir,
    _remover: Child,
}

/// Makes a folder that belongs to the user whom servers run as.
pub(crate) fn folder(name: &str) -> TempDir {
    let folder = own_folder(name);
    give_to_server(folder.path());
    folder
}

/// Makes a folder that stays ours.
pub(crate) fn own_folder(name: &str) -> TempDir {
    static ROOT: OnceLock<Root> = OnceLock::new();
    let root = ROOT.get_or_init(root);
    tempfile::Builder::new().prefix(&format!("{name}-")).tempdir_in(&root.folder).unwrap()
}

/// The folder of a server, on the common disk or on a small one of its own.
#[derive(Debug)]
pub(crate) struct Place {
    folder: TempDir,
    is_disk: bool,
}

impl Place {
    pub(crate) fn new(name: &str) -> Self {
        Self { folder: folder(name), is_disk: false }
    }

    /// Mounts a disk of so many mebibytes.
    pub(crate) fn on_small_disk(name: &str, mebibytes: u32) -> Self {
        let folder = folder(&format!("{name}-disk"));
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tmpfs"]).arg(folder.path());
        let output = mount.output().unwrap();
        assert!(
            output.status.success(),
            "no small disk can be mounted for this test, which takes root and tmpfs: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let place = Self { folder, is_disk: true };
        give_to_server(place.path());
        place
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Fills it but for so many bytes.
    pub(crate) fn fill(&self, left: u64) {
        let mut file = File::create(self.filler()).unwrap();
        // It ends where the disk does.
        drop(io::copy(&mut io::repeat(0), &mut file));
        let length = file.metadata().unwrap().len();
        file.set_len(length.saturating_sub(left)).unwrap();
    }

    pub(crate) fn free(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_disk {
            // Lazily: a process of the server may be about to end.
            drop(Command::new("umount").arg("--lazy").arg(self.path()).status());
        }
    }
}

/// Makes the server's user the owner of the folder.
pub(crate) fn give_to_server(folder: &Path) {
    if let Some((uid, gid)) = server_user() {
        chown(folder, Some(uid), Some(gid)).unwrap();
    }
}

/// What is static is never dropped, and a killed process drops nothing at all. So a shell removes it.
fn root() -> Root {
    let passable = Permissions::from_mode(0o711);
    let folder =
        tempfile::Builder::new().prefix("claviger-servers-").permissions(passable).tempdir().unwrap();
    let remover = remover(folder.path());
    Root { folder, _remover: remover }
}

/// Starts a shell that removes the folder when we are gone: it waits for the end of its input, which
/// only we hold. Those whom their server has left behind, paused, it lets go on: they would wait for
/// ever, and end when they see that it is gone.
pub(crate) fn remover(folder: &Path) -> Child {
    let script = r#"
        trap "" INT TERM HUP
        cat
        find /proc -maxdepth 2 -name cwd -lname "$1/*" 2>/dev/null | cut -d/ -f3 | xargs -r kill -CONT
        umount -l "$1"/*disk-* 2>/dev/null
        rm -rf -- "$1" || { sleep 1; rm -rf -- "$1"; }
    "#;
    Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(folder)
        // What kills a whole group of processes does not kill it.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}
