//! Opens the key store and the master key, and makes them at first use.

use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::time::Duration;

use claviger::{BoxedKms, CryptoPolicy, Limits, SecretKey, SessionFactory, StaticKms};
use claviger_kms::{LocalKms, LocalKmsError};

use crate::config::{KmsChoice, Settings};
use crate::exit::{Exit, Failure, chain};
use crate::private;
use crate::store::StoreChoice;
use crate::store::backend::{Admission, Backend, CALL_WAIT, CALLS_MAX};
use crate::table::rows::Direction;

/// The keys of a run.
#[derive(Debug)]
pub(crate) struct Keys {
    pub(crate) factory: SessionFactory,
    store: Backend,
}

impl Keys {
    /// Wipes the keys and closes the key store; SQLite tidies up then, so that a copy of its one file
    /// is whole.
    ///
    /// The data is safe by now; what could go wrong here is about keys that nobody uses any more.
    pub(crate) async fn close(self) {
        self.tell_unlocked_memory();
        drop(self.factory.close(CLOSE_DEADLINE).await);
        self.store.close().await;
    }

    fn tell_unlocked_memory(&self) {
        let unlocked = self.factory.status().map_or(0, |status| status.memory.unlocked_bytes);
        if unlocked > 0 {
            eprintln!(
                "claviger: {} KiB of keys could not be locked in memory and may have been swapped out; raise \
                 the limit (ulimit -l) or lower --cache",
                unlocked / 1024
            );
        }
    }
}

/// Opens the keys that the settings describe. Only encrypting makes what is not there.
pub(crate) async fn open(settings: &Settings, direction: Direction) -> Result<Keys, Failure> {
    let wanted = wanted_files(settings);
    let missing: Vec<&Path> = wanted.iter().copied().filter(|path| !path.exists()).collect();
    check_missing(settings, direction, &missing)?;
    // The master key first: a key store that is there then had its master key, and one without is
    // a loss to tell, not a first use.
    let kms = open_kms(&settings.kms)?;
    let store = Backend::open(&settings.metastore, Admission::Checked(&settings.accepted)).await?;
    announce(&missing);
    let policy = CryptoPolicy::production().intermediate_keys_max(settings.cache.get());
    let mut builder = SessionFactory::builder(store.boxed(), kms)
        .service(&settings.service)
        .product(&settings.product)
        .policy(policy)
        .limits(limits());
    if let Some(suffix) = &settings.region_suffix {
        builder = builder.region_suffix(suffix);
    }
    let factory = builder.build().map_err(|error| Failure::crypt(&error))?;
    Ok(Keys { factory, store })
}

/// The store's own deadline ends first, so that the reason is told; three tries end before the
/// operation's.
fn limits() -> Limits {
    Limits::new()
        .store_calls_max(CALLS_MAX)
        .store_deadline(CALL_WAIT + Duration::from_secs(1))
        .operation_deadline(CALL_WAIT * 4)
}

/// The files that hold keys and that encrypting makes if need be.
fn wanted_files(settings: &Settings) -> Vec<&Path> {
    let metastore = settings.metastore.file();
    let kms = match &settings.kms {
        KmsChoice::Embedded(path) | KmsChoice::Local(path) => Some(path.as_path()),
        KmsChoice::Static { .. } => None,
    };
    // The key store first, as it is looked for first: another first user makes it last, so where it
    // is there, its master key is there too, whenever we look.
    metastore.into_iter().chain(kms).collect()
}

fn check_missing(settings: &Settings, direction: Direction, missing: &[&Path]) -> Result<(), Failure> {
    let Some(first) = missing.first() else { return Ok(()) };
    if direction == Direction::Decrypt {
        let message = format!(
            "there are no keys at {}; check --metastore, --kms and CLAVIGER_HOME, or restore the file from a copy",
            first.display()
        );
        return Err(Failure::new(Exit::NotFound, message));
    }
    if let (KmsChoice::Embedded(key), StoreChoice::Embedded(store)) = (&settings.kms, &settings.metastore)
        && missing.contains(&key.as_path())
        && !missing.contains(&store.as_path())
    {
        let message = format!(
            "{} is gone, and {} holds keys under it; restore it from a copy, or move the key store away to begin anew",
            key.display(),
            store.display()
        );
        return Err(Failure::new(Exit::NotFound, message));
    }
    Ok(())
}

fn announce(made: &[&Path]) {
    if !made.is_empty() {
        let paths: Vec<String> = made.iter().map(|path| path.display().to_string()).collect();
        eprintln!(
            "claviger: made {}; keep a copy: without the key store and its master key nothing can be decrypted",
            paths.join(" and ")
        );
    }
}

fn open_kms(choice: &KmsChoice) -> Result<BoxedKms, Failure> {
    let path = match choice {
        KmsChoice::Static { file, danger_known_key } => return static_kms(file, *danger_known_key),
        KmsChoice::Embedded(path) => {
            make_folder_of(path)?;
            path
        }
        KmsChoice::Local(path) => path,
    };
    match LocalKms::open_or_create(path) {
        Ok(kms) => Ok(BoxedKms::new(kms)),
        Err(error) => Err(master_key_failure(&error)),
    }
}

/// Makes claviger's own folder, for its owner alone, and syncs what names it: keys that are in use
/// must not vanish with their folder when the power goes.
fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().unwrap_or(Path::new(""));
    make_folder(parent)?;
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => File::open(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })?.sync_all(),
    }
}

pub(crate) fn make_folder_of(path: &Path) -> Result<(), Failure> {
    let folder = path.parent().unwrap_or(Path::new(""));
    make_folder(folder).map_err(|error| Failure::create(folder, &error))
}

fn master_key_failure(error: &LocalKmsError) -> Failure {
    let (exit, advice) = match error {
        LocalKmsError::NotFound { .. } => (Exit::NotFound, "make its folder, or check --kms"),
        LocalKmsError::Refused { .. } => (Exit::Permission, "see to it and run it again"),
        LocalKmsError::Malformed { .. } => (Exit::NotFound, "check --kms"),
        LocalKmsError::Io { source, .. } => match source.kind() {
            ErrorKind::PermissionDenied => (Exit::Permission, "check who may read it"),
            ErrorKind::ReadOnlyFilesystem => (Exit::CannotCreate, "choose a folder you may write to"),
            _ => (Exit::Io, "check the device it is on"),
        },
        LocalKmsError::Random(_) => (Exit::Unavailable, "try again"),
        LocalKmsError::Unusable { source, .. } if source.is_retryable() => (Exit::Unavailable, "try again"),
        _ => (Exit::Config, "choose another with --kms"),
    };
    Failure::new(exit, format!("{}; {advice}", chain(error)))
}

fn static_kms(file: &Path, danger_known_key: bool) -> Result<BoxedKms, Failure> {
    let key = read_static_key(file)?;
    let kms = if danger_known_key { StaticKms::danger_any_key(&key) } else { StaticKms::new(&key) };
    kms.map(BoxedKms::new).map_err(|error| Failure::crypt(&error))
}

/// Reads 64 hex digits. What else is in the file is not told.
fn read_static_key(path: &Path) -> Result<SecretKey, Failure> {
    let text = private::read(path, "the master key", KEY_FILE_BYTES_MAX, "change the key")?;
    SecretKey::try_init(|key| decode_hex(text.trim_ascii(), key)).map_err(|NotHex| {
        let shown = path.display();
        Failure::new(Exit::Config, format!("the master key {shown} is not 64 hex digits; write it anew"))
    })
}

#[derive(Debug)]
struct NotHex;

fn decode_hex(digits: &[u8], key: &mut [u8; 32]) -> Result<(), NotHex> {
    let (pairs, rest) = digits.as_chunks::<2>();
    if pairs.len() != key.len() || !rest.is_empty() {
        return Err(NotHex);
    }
    for (byte, [high, low]) in key.iter_mut().zip(pairs) {
        *byte = hex_digit(*high)? << 4 | hex_digit(*low)?;
    }
    Ok(())
}

fn hex_digit(digit: u8) -> Result<u8, NotHex> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(NotHex),
    }
}

/// The digits and some white space.
const KEY_FILE_BYTES_MAX: usize = 256;

const CLOSE_DEADLINE: Duration = Duration::from_secs(2);
