//! The master-key file: races, rights, damage.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper fails its test by panicking")]

mod links;
mod way;

use std::error::Error;
use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Barrier;
use std::thread;

use claviger::testing::call;
use claviger::{
    BackendError, Created, KeyId, KeyManagementService, KeyMeta, SecretKey, StaticKms, SystemRandom,
    WrapHealth,
};
use claviger_kms::{LocalKms, LocalKmsError};
use tempfile::TempDir;

const LINE_BYTES: usize = 97;

/// A folder and the path of a master key in it that is not made yet.
fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("master.key");
    (folder, path)
}

fn meta() -> KeyMeta {
    KeyMeta::new(KeyId::new("_SK_checkout_payments"), Created::new(1_700_000_000).unwrap())
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn wrap(kms: &impl KeyManagementService, key: &SecretKey) -> Vec<u8> {
    block_on(kms.wrap_key(key, &meta(), &call())).unwrap().bytes().to_vec()
}

#[track_caller]
fn assert_same_master_key(left: &impl KeyManagementService, right: &impl KeyManagementService) {
    let key = SecretKey::generate(&SystemRandom::new()).unwrap();
    let unwrapped = block_on(right.unwrap_key(&wrap(left, &key), &meta(), &call())).unwrap();
    assert_eq!(unwrapped.expose_secret(), key.expose_secret());
}

/// What is wrong with the file.
#[track_caller]
fn fault(error: &BackendError) -> &LocalKmsError {
    assert!(!error.was_asked(), "{error:?}");
    error.source().unwrap().downcast_ref().unwrap()
}

#[track_caller]
fn assert_refused(path: &Path, expected: &str) {
    for outcome in [LocalKms::open(path), LocalKms::open_or_create(path)] {
        match fault(&outcome.unwrap_err()) {
            LocalKmsError::Refused { reason, .. } => assert!(reason.contains(expected), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn key_made_once_is_found_again() {
    let (_folder, path) = place();
    let first = LocalKms::open_or_create(&path).unwrap();
    let second = LocalKms::open_or_create(&path).unwrap();
    let third = LocalKms::open(&path).unwrap();
    assert_eq!([first.is_new(), second.is_new(), third.is_new()], [true, false, false]);
    assert_same_master_key(&first, &second);
    assert_same_master_key(&second, &third);
}

#[test]
fn two_files_hold_two_keys() {
    let ((_a, left), (_b, right)) = (place(), place());
    let [left, right] = [left, right].map(|path| LocalKms::open_or_create(path).unwrap());
    let key = SecretKey::generate(&SystemRandom::new()).unwrap();
    let error = block_on(right.unwrap_key(&wrap(&left, &key), &meta(), &call())).unwrap_err();
    assert!(!error.is_transient());
}

#[test]
fn file_is_one_line_only_its_owner_can_read_and_nothing_lies_beside_it() {
    let (folder, path) = place();
    LocalKms::open_or_create(&path).unwrap();
    let metadata = path.metadata().unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.nlink()), (0o600, 1));
    assert_eq!(metadata.len(), LINE_BYTES as u64);
    assert!(fs::read_to_string(&path).unwrap().starts_with("claviger-master-key-v1 "));
    assert_eq!(names(folder.path()), ["master.key"]);
}

#[test]
fn digits_of_the_file_serve_the_static_kms() {
    let (_folder, path) = place();
    let local = LocalKms::open_or_create(&path).unwrap();
    let line = fs::read_to_string(&path).unwrap();
    let digits = line.split(' ').nth(1).unwrap();
    let key = SecretKey::try_init(|key| {
        for (index, byte) in key.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * index..2 * index + 2], 16)?;
        }
        Ok::<_, std::num::ParseIntError>(())
    });
    assert_same_master_key(&local, &StaticKms::new(&key.unwrap()).unwrap());
}

#[test]
fn wrapped_keys_are_reported_as_local() {
    let (_folder, path) = place();
    let kms = LocalKms::open_or_create(&path).unwrap();
    let health = kms.inspect(b"").unwrap();
    assert_eq!(health, WrapHealth::new(vec!["local".to_owned()], Vec::new()));
}

#[test]
fn threads_that_come_first_at_once_share_one_key() {
    const THREADS: usize = 64;
    let (folder, path) = place();
    let barrier = Barrier::new(THREADS);
    let opened: Vec<_> = thread::scope(|scope| {
        let open = || {
            barrier.wait();
            LocalKms::open_or_create(&path).unwrap()
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(open)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(opened.iter().filter(|kms| kms.is_new()).count(), 1);
    opened.iter().for_each(|kms| assert_same_master_key(&opened[0], kms));
    assert_eq!(names(folder.path()), ["master.key"]);
}

/// The test's own binary is run again for each process; the variable tells it its part.
#[test]
fn processes_that_come_first_at_once_share_one_key() {
    const PATH: &str = "CLAVIGER_TEST_MASTER_KEY";
    const NAME: &str = "processes_that_come_first_at_once_share_one_key";
    #[expect(clippy::disallowed_methods, reason = "tells the child from its parent")]
    if let Some(path) = std::env::var_os(PATH) {
        return open_when_told(Path::new(&path));
    }

    let (folder, path) = place();
    let spawn = |_| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", NAME, "--nocapture"]).env(PATH, &path);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    };
    let mut children: Vec<_> = (0..8).map(spawn).collect();
    let mut outputs: Vec<_> =
        children.iter_mut().map(|child| BufReader::new(child.stdout.take().unwrap()).lines()).collect();
    let mut answer = |child: usize| {
        outputs[child].find_map(|line| Some(line.unwrap().split_once("child: ")?.1.to_owned()))
    };

    (0..8).for_each(|child| assert_eq!(answer(child).unwrap(), "ready"));
    children.iter_mut().for_each(|child| child.stdin.take().unwrap().write_all(b"go\n").unwrap());
    let wrapped: Vec<_> = (0..8).map(|child| answer(child).unwrap()).collect();
    children.into_iter().for_each(|child: Child| assert!(child.wait_with_output().unwrap().status.success()));

    let kms = LocalKms::open(&path).unwrap();
    for digits in wrapped {
        let bytes: Vec<_> = (0..digits.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
            .collect();
        block_on(kms.unwrap_key(&bytes, &meta(), &call())).unwrap();
    }
    assert_eq!(names(folder.path()), ["master.key"]);
}

fn open_when_told(path: &Path) {
    println!("child: ready");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    let kms = LocalKms::open_or_create(path).unwrap();
    let wrapped = wrap(&kms, &SecretKey::generate(&SystemRandom::new()).unwrap());
    println!("child: {}", wrapped.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
}

#[test]
fn key_that_others_have_any_right_on_is_refused() {
    let (_folder, path) = place();
    LocalKms::open_or_create(&path).unwrap();
    for bit in 0..6 {
        set_mode(&path, 0o600 | 1 << bit);
        assert_refused(&path, "its group or others have rights");
    }
    set_mode(&path, 0o400);
    LocalKms::open(&path).unwrap();
}

#[test]
fn key_of_another_user_is_refused() {
    let (_folder, path) = place();
    LocalKms::open_or_create(&path).unwrap();
    // Only root can give a file away; anybody else finds one of root's.
    if path.metadata().unwrap().uid() == 0 {
        chown(&path, Some(65534), None).unwrap();
        assert_refused(&path, "another user");
    } else {
        assert_refused(Path::new("/etc/passwd"), "another user");
    }
}

#[test]
fn folder_that_others_may_write_to_is_refused_unless_sticky() {
    for mode in [0o777, 0o775, 0o702] {
        let (folder, path) = place();
        set_mode(folder.path(), mode);
        let made = LocalKms::open_or_create(&path).unwrap_err();
        let told = format!("others may write to the folder {}", folder.path().display());
        assert!(made.to_string().contains(&told), "{made}");
        assert_eq!(names(folder.path()), [""; 0]);
        set_mode(folder.path(), mode | 0o1000);
        LocalKms::open_or_create(&path).unwrap();
        set_mode(folder.path(), mode);
        assert_refused(&path, &told);
    }
}

#[test]
fn folder_or_fifo_in_place_of_the_key_is_refused_without_waiting() {
    let (folder, path) = place();
    assert_refused(folder.path(), "not a regular file");
    assert!(Command::new("mkfifo").arg("-m600").arg(&path).status().unwrap().success());
    assert_refused(&path, "not a regular file");
}

#[test]
fn damaged_key_is_refused_and_left_as_it_is() {
    let (_folder, path) = place();
    LocalKms::open_or_create(&path).unwrap();
    let line = fs::read(&path).unwrap();
    let cut = (0..LINE_BYTES).map(|length| line[..length].to_vec());
    let flipped = (0..LINE_BYTES).map(|at| {
        let mut line = line.clone();
        line[at] ^= 1;
        line
    });
    let prolonged = [line.repeat(2), [&line[..], b"\n"].concat()];
    for damaged in cut.chain(flipped).chain(prolonged) {
        fs::write(&path, &damaged).unwrap();
        for outcome in [LocalKms::open(&path), LocalKms::open_or_create(&path)] {
            assert!(matches!(fault(&outcome.unwrap_err()), LocalKmsError::Malformed { .. }), "{damaged:?}");
        }
        assert_eq!(fs::read(&path).unwrap(), damaged);
    }
    fs::write(&path, line).unwrap();
    LocalKms::open(&path).unwrap();
}

#[test]
fn key_that_anybody_could_guess_is_refused() {
    let (_folder, path) = place();
    let summed = format!("claviger-master-key-v1 {}", "00".repeat(32));
    let sum = summed.bytes().fold(u32::MAX, |sum, byte| {
        (0..8).fold(
            sum ^ u32::from(byte),
            |sum, _| if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 },
        )
    });
    fs::write(&path, format!("{summed} {:08x}\n", !sum)).unwrap();
    set_mode(&path, 0o600);
    assert!(matches!(fault(&LocalKms::open(&path).unwrap_err()), LocalKmsError::Unusable { .. }));
}

#[test]
fn missing_file_and_missing_folder_are_told_as_such() {
    let (folder, path) = place();
    assert!(matches!(fault(&LocalKms::open(&path).unwrap_err()), LocalKmsError::NotFound { .. }));
    let path = folder.path().join("missing/master.key");
    assert!(matches!(fault(&LocalKms::open_or_create(&path).unwrap_err()), LocalKmsError::NotFound { .. }));
    assert_eq!(names(folder.path()), [""; 0]);
}

#[test]
fn failing_system_call_is_named_with_its_cause() {
    let (_folder, path) = place();
    fs::write(&path, "").unwrap();
    let error = LocalKms::open_or_create(path.join("master.key")).unwrap_err();
    assert!(matches!(fault(&error), LocalKmsError::Io { operation: "open", .. }), "{error:?}");
    assert!(fault(&error).source().is_some());
}

#[test]
fn leftovers_of_a_crashed_creator_do_no_harm() {
    let (folder, path) = place();
    let leftovers = [".claviger-master-key-empty", ".claviger-master-key-half"];
    File::create(folder.path().join(leftovers[0])).unwrap();
    fs::write(folder.path().join(leftovers[1]), "claviger-master-key-v1 00").unwrap();
    let created = LocalKms::open_or_create(&path).unwrap();
    assert!(created.is_new());
    assert_same_master_key(&created, &LocalKms::open(&path).unwrap());
    assert_eq!(names(folder.path()), [leftovers[0], leftovers[1], "master.key"]);
}

#[test]
fn path_may_be_a_bare_name() {
    // Relative to the package's folder, where no master key lies.
    assert!(matches!(
        fault(&LocalKms::open("no-such-master.key").unwrap_err()),
        LocalKmsError::NotFound { .. }
    ));
    assert_refused(Path::new("src"), "not a regular file");
}

#[test]
fn nothing_prints_the_key() {
    let (_folder, path) = place();
    let kms = LocalKms::open_or_create(&path).unwrap();
    let line = fs::read_to_string(&path).unwrap();
    let digits = line.split(' ').nth(1).unwrap();
    fs::write(&path, line.to_uppercase()).unwrap();
    let damaged = LocalKms::open(&path).unwrap_err();
    for printed in [format!("{kms:?}"), format!("{damaged:?}"), damaged.to_string()] {
        let printed = printed.to_lowercase();
        assert!(digits.as_bytes().windows(8).all(|part| !printed.contains(str::from_utf8(part).unwrap())));
    }
}
