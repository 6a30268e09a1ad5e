//! Links to the file, and what else leads to it.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, lchown, symlink};
use std::path::{Path, PathBuf};

use crate::fault;
use claviger_kms::{Exposure, LocalKms, LocalKmsError, PrivateFile};

use super::{assert_refused, assert_same_master_key, place, set_mode};

#[test]
fn link_that_leads_nowhere_is_refused_and_its_target_not_made() {
    let (folder, path) = place();
    let target = folder.path().join("elsewhere.key");
    symlink(&target, &path).unwrap();
    match fault(&LocalKms::open_or_create(&path).unwrap_err()) {
        LocalKmsError::Refused { reason, .. } => assert!(reason.contains("not there"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert!(!target.exists());
    assert!(matches!(fault(&LocalKms::open(&path).unwrap_err()), LocalKmsError::NotFound { .. }));
}

/// As Kubernetes mounts secrets: a sticky folder of root's, in which links lead to the version there is.
fn kubernetes_volume(folder: &Path) -> PathBuf {
    let version = folder.join("..2026_11_30_02_00_00.123");
    fs::create_dir(&version).unwrap();
    LocalKms::open_or_create(version.join("master.key")).unwrap();
    symlink(version.file_name().unwrap(), folder.join("..data")).unwrap();
    symlink("..data/master.key", folder.join("master.key")).unwrap();
    set_mode(folder, 0o1777);
    version.join("master.key")
}

#[test]
fn links_of_a_kubernetes_volume_are_followed() {
    let (folder, path) = place();
    let target = kubernetes_volume(folder.path());
    assert_same_master_key(&LocalKms::open(&path).unwrap(), &LocalKms::open(&target).unwrap());
    // The target is looked at, and not the link.
    set_mode(&target, 0o644);
    assert_refused(&path, "its group or others have rights");
    set_mode(&target, 0o400);
    LocalKms::open(&path).unwrap();
    for open in [folder.path(), target.parent().unwrap()] {
        let mode = open.metadata().unwrap().mode();
        set_mode(open, 0o777);
        assert_refused(&path, "others may write");
        set_mode(open, mode);
    }
}

#[test]
fn link_through_a_folder_that_everybody_may_write_to_is_refused() {
    let (folder, path) = place();
    let (open, inner) = (folder.path().join("open"), folder.path().join("open/inner"));
    fs::create_dir_all(&inner).unwrap();
    LocalKms::open_or_create(inner.join("master.key")).unwrap();
    symlink("open/inner/master.key", &path).unwrap();
    LocalKms::open(&path).unwrap();
    set_mode(&open, 0o777);
    assert_refused(&path, &format!("others may write to the folder {}", open.display()));
    set_mode(&open, 0o1777);
    LocalKms::open(&path).unwrap();
}

#[test]
fn link_of_another_user_is_refused() {
    let (folder, path) = place();
    let target = kubernetes_volume(folder.path());
    // Only root can give a link away.
    if target.metadata().unwrap().uid() == 0 {
        for (folder_mode, owner, is_refused) in
            [(0o1777, 65534, true), (0o755, 65534, true), (0o1777, 0, false)]
        {
            set_mode(folder.path(), folder_mode);
            lchown(folder.path().join("..data"), Some(owner), None).unwrap();
            if is_refused {
                assert_refused(&path, "/..data of another user leads to it");
            } else {
                LocalKms::open(&path).unwrap();
            }
        }
    }
}

#[test]
fn links_in_a_circle_end() {
    let (folder, path) = place();
    symlink("other", &path).unwrap();
    symlink("master.key", folder.path().join("other")).unwrap();
    assert!(matches!(
        fault(&LocalKms::open(&path).unwrap_err()),
        LocalKmsError::Io { operation: "open", .. }
    ));
}

#[test]
fn linked_folder_is_followed() {
    let (folder, path) = place();
    let link = folder.path().join("link");
    symlink(folder.path(), &link).unwrap();
    let through_link = LocalKms::open_or_create(link.join("master.key")).unwrap();
    assert_same_master_key(&through_link, &LocalKms::open(&path).unwrap());
}

#[test]
fn pipe_is_private_and_an_open_descriptor_is_followed_to_what_it_is() {
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(b"secret").unwrap();
    drop(writer);
    let mut file = PrivateFile::open(format!("/dev/fd/{}", reader.as_raw_fd())).unwrap();
    assert_eq!(file.exposure(), None);
    let mut read = String::new();
    file.read_to_string(&mut read).unwrap();
    assert_eq!(read, "secret");
    drop(file);
    reader.read_to_string(&mut read).unwrap();
    let (_folder, path) = place();
    fs::write(&path, "").unwrap();
    set_mode(&path, 0o644);
    let open = File::open(&path).unwrap();
    let exposed = PrivateFile::open(format!("/proc/self/fd/{}", open.as_raw_fd())).unwrap();
    assert_eq!(exposed.exposure(), Some(&Exposure::Others));
    assert_eq!(PrivateFile::open("/dev/null").unwrap().exposure(), Some(&Exposure::NoFile));
    assert_eq!(PrivateFile::open("/").unwrap().exposure(), Some(&Exposure::NoFile));
}
