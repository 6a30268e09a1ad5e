//! The folders on the way to a file, and files whose word is taken.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use claviger_kms::{Exposure, LocalKms, Place, PrivateFile};

use super::{place, set_mode};

const STRANGER: u32 = 65_534;

/// A file three folders deep, and the folders, the outermost first.
fn deep() -> (tempfile::TempDir, Vec<PathBuf>, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let folders = ["a", "a/b", "a/b/c"].map(|name| root.path().join(name));
    fs::create_dir_all(&folders[2]).unwrap();
    let file = folders[2].join("file");
    fs::write(&file, "").unwrap();
    set_mode(&file, 0o600);
    (root, folders.to_vec(), file)
}

fn is_root(path: &Path) -> bool {
    path.metadata().unwrap().uid() == 0
}

/// What is told of a file, for reading its secret and for taking its word.
fn told(path: &Path) -> [Option<Exposure>; 2] {
    let file = PrivateFile::open(path).unwrap();
    [file.exposure().cloned(), file.intrusion().cloned()]
}

fn both(exposure: &Exposure) -> [Option<Exposure>; 2] {
    [Some(exposure.clone()), Some(exposure.clone())]
}

#[test]
fn every_folder_on_the_way_is_nobody_elses_to_write_to_or_sticky() {
    let (_root, folders, file) = deep();
    assert_eq!(told(&file), [None, None]);
    for folder in &folders {
        for mode in [0o777, 0o775, 0o720, 0o702] {
            set_mode(folder, mode);
            assert_eq!(told(&file), both(&Exposure::Folder(folder.clone())), "{mode:o} {folder:?}");
            set_mode(folder, mode | 0o1000);
            assert_eq!(told(&file), [None, None], "{mode:o} {folder:?}");
        }
        set_mode(folder, 0o755);
    }
}

#[test]
fn every_folder_on_the_way_is_the_users_or_roots() {
    let (_root, folders, file) = deep();
    if !is_root(&file) {
        return;
    }
    for folder in &folders {
        for mode in [0o755, 0o1777] {
            set_mode(folder, mode);
            chown(folder, Some(STRANGER), None).unwrap();
            assert_eq!(told(&file), both(&Exposure::ForeignFolder(folder.clone())), "{mode:o}");
            chown(folder, Some(0), None).unwrap();
        }
        set_mode(folder, 0o755);
    }
}

#[test]
fn what_a_link_leads_through_is_held_to_the_same() {
    let (root, folders, file) = deep();
    let link = root.path().join("link");
    for target in [file.clone(), PathBuf::from("a/b/../b/c/file"), PathBuf::from("./a/b/c/./file")] {
        symlink(target, &link).unwrap();
        assert_eq!(told(&link), [None, None]);
        set_mode(&folders[1], 0o770);
        assert_eq!(told(&link), both(&Exposure::Folder(folders[1].clone())));
        set_mode(&folders[1], 0o755);
        fs::remove_file(&link).unwrap();
    }
}

#[test]
fn a_file_whose_word_is_taken_may_be_read_by_all_and_written_by_none() {
    let (_root, _, file) = deep();
    for mode in [0o644, 0o444, 0o755, 0o640] {
        set_mode(&file, mode);
        assert_eq!(told(&file), [Some(Exposure::Others), None], "{mode:o}");
    }
    for mode in [0o664, 0o620, 0o602, 0o666] {
        set_mode(&file, mode);
        assert_eq!(told(&file), [Some(Exposure::Others), Some(Exposure::Writable)], "{mode:o}");
    }
    set_mode(&file, 0o600);
    if is_root(&file) {
        chown(&file, Some(STRANGER), None).unwrap();
        assert_eq!(told(&file), both(&Exposure::AnotherUser));
    }
}

/// As `SetVolumeOwnership` leaves a pod's secrets: the group of `fsGroup` reads them.
#[test]
fn a_volume_of_kubernetes_with_a_group_serves_the_pods_user() {
    let (root, _, _) = deep();
    if !is_root(root.path()) {
        return;
    }
    let version = root.path().join("..2026_11_30_02_00_00.123");
    fs::create_dir(&version).unwrap();
    fs::write(version.join("key"), "x").unwrap();
    symlink(version.file_name().unwrap(), root.path().join("..data")).unwrap();
    symlink("..data/key", root.path().join("key")).unwrap();
    for (path, mode) in
        [(root.path().into(), 0o3777), (version.clone(), 0o2755), (version.join("key"), 0o440)]
    {
        chown(&path, Some(0), Some(2_000)).unwrap();
        set_mode(&path, mode);
    }
    // The test's own binary asks as that user.
    let as_pod = |path: &Path| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "1000", "--regid", "1000", "--groups", "2000"]);
        command.arg(std::env::current_exe().unwrap()).args([
            "--exact",
            "way::tells_what_it_is_asked",
            "--nocapture",
        ]);
        let output = command.env(ASKED, path).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    // The user must be able to run the test's own binary.
    let answer = as_pod(&root.path().join("key"));
    assert!(answer.contains("told: [None, None]"), "{answer}");
    set_mode(&version.join("key"), 0o460);
    let answer = as_pod(&root.path().join("key"));
    assert!(answer.contains("told: [Some(Others), Some(Writable)]"), "{answer}");
}

const ASKED: &str = "CLAVIGER_TEST_ASKED";

#[test]
fn tells_what_it_is_asked() {
    #[expect(clippy::disallowed_methods, reason = "tells the child from its parent")]
    if let Some(path) = std::env::var_os(ASKED) {
        println!("told: {:?}", told(Path::new(&path)));
    }
}

#[test]
fn what_was_given_as_an_open_descriptor_is_nobodys_intrusion_unless_its_file_is() {
    let (reader, _writer) = std::io::pipe().unwrap();
    let by_number = |open: &dyn std::os::fd::AsFd| format!("/dev/fd/{}", open.as_fd().as_raw_fd());
    assert_eq!(PrivateFile::open(by_number(&reader)).unwrap().intrusion(), None);
    let (root, _, file) = deep();
    set_mode(&file, 0o666);
    let open = File::open(&file).unwrap();
    assert_eq!(PrivateFile::open(by_number(&open)).unwrap().intrusion(), Some(&Exposure::Writable));
    // As a shell hands over what stands in a script.
    let mut nameless = tempfile::tempfile_in(root.path()).unwrap();
    nameless.write_all(b"x").unwrap();
    nameless.set_permissions(fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(PrivateFile::open(by_number(&nameless)).unwrap().intrusion(), None);
    assert_eq!(PrivateFile::open("/dev/null").unwrap().intrusion(), None);
}

#[test]
fn a_named_pipe_that_others_may_write_to_is_told() {
    let (_root, folders, _) = deep();
    let pipe = folders[2].join("pipe");
    assert!(Command::new("mkfifo").arg("-m666").arg(&pipe).status().unwrap().success());
    // Opened for writing, too, so that nobody waits.
    let _writer = File::options().read(true).write(true).open(&pipe).unwrap();
    assert_eq!(told(&pipe), [Some(Exposure::Others), Some(Exposure::Writable)]);
}

#[test]
fn a_place_is_found_by_its_folder_without_links_and_its_name() {
    let (root, folders, _) = deep();
    let canonical = fs::canonicalize(&folders[2]).unwrap();
    symlink("a/b", root.path().join("to-b")).unwrap();
    symlink("to-b/c/new", root.path().join("to-new")).unwrap();
    symlink("to-b/c/", root.path().join("to-folder")).unwrap();
    for (path, folder, name) in [
        ("to-b/c/new", &canonical, "new"),
        ("to-new", &canonical, "new"),
        ("a/b/c/../c/new", &canonical, "new"),
        ("to-folder", &canonical, "."),
        ("a/b/c/.", &canonical, "."),
        ("a/b/c/..", &canonical, ".."),
    ] {
        let found = Place::find(root.path().join(path)).unwrap();
        assert_eq!((found.folder_path(), found.name().to_str()), (&**folder, Some(name)), "{path}");
        assert_eq!((found.exposure(), found.foreign_link()), (None, None), "{path}");
    }
    let missing = Place::find(root.path().join("a/b/c/new/")).unwrap_err();
    assert_eq!(missing.kind(), std::io::ErrorKind::NotFound);
    let own = Place::find("/dev/stdin").unwrap();
    let listed = format!("/proc/{}/fd", std::process::id());
    assert_eq!((own.folder_path(), own.name().to_str()), (Path::new(&listed), Some("0")));
}

#[test]
fn a_master_key_is_neither_made_nor_read_where_others_may_exchange_its_folder() {
    let (_folder, path) = place();
    let above = path.with_file_name("above");
    fs::create_dir_all(above.join("own")).unwrap();
    let key = above.join("own/master.key");
    LocalKms::open_or_create(&key).unwrap();
    set_mode(&above, 0o775);
    super::assert_refused(&key, &format!("chmod go-w {}", above.display()));
    let made = LocalKms::open_or_create(above.join("own/other.key")).unwrap_err();
    assert!(super::fault(&made).to_string().contains("others may write"), "{made}");
    assert_eq!(super::names(&above.join("own")), ["master.key"]);
}
