//! Temporary folders that go when this process goes.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
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
    static ROOT: OnceLock<Root> = OnceLock::new();
    let root = ROOT.get_or_init(root);
    let folder = tempfile::Builder::new().prefix(&format!("{name}-")).tempdir_in(&root.folder).unwrap();
    give_to_server(folder.path());
    folder
}

/// Makes the server's user the owner of the folder.
pub(crate) fn give_to_server(folder: &Path) {
    if let Some((uid, gid)) = server_user() {
        chown(folder, Some(uid), Some(gid)).unwrap();
    }
}

/// What is static is never dropped, and a killed process drops nothing at all. So a shell waits for
/// the end of its input, which only we hold, and removes the folder then.
fn root() -> Root {
    let passable = Permissions::from_mode(0o711);
    let folder =
        tempfile::Builder::new().prefix("claviger-servers-").permissions(passable).tempdir().unwrap();
    let script = r#"trap "" INT TERM HUP; cat; rm -rf -- "$1" || { sleep 1; rm -rf -- "$1"; }"#;
    let remover = Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Root { folder, _remover: remover }
}
