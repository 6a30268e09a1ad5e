//! Opens the key store and the master key, and makes them at first use.

use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::time::Duration;

use claviger::{CryptoPolicy, Event, Limits, SessionFactory};

use crate::config::Settings;
use crate::exit::{Exit, Failure};
use crate::kms::KmsChoice;
use crate::kms::open::{Absent, Making, OpenKms, Opening};
use crate::kms::watched::Watched;
use crate::store::StoreChoice;
use crate::store::backend::{Admission, Backend, CALL_WAIT, CALLS_MAX};
use crate::table::rows::Direction;
use crate::tell::tell;

/// The keys of a run.
#[derive(Debug)]
pub(crate) struct Keys {
    pub(crate) factory: SessionFactory,
    pub(crate) kms: Watched,
    store: Backend,
}

impl Keys {
    /// Wipes the keys and closes the key store; SQLite tidies up then, so that a copy of its one file
    /// is whole.
    ///
    /// The data is safe by now; what could go wrong here is about keys that nobody uses any more.
    pub(crate) async fn close(self) {
        self.tell();
        drop(self.factory.close(CLOSE_DEADLINE).await);
        self.store.close().await;
    }

    fn tell(&self) {
        let Ok(status) = self.factory.status() else { return };
        if status.events.iter().any(|(event, _)| *event == Event::ClockSkew) {
            tell(
                "keys that were made in the future, by this machine's clock, were used to encrypt: it is behind, or \
                 theirs was ahead; set the clocks, since such keys live longer than they should",
            );
        }
        for degraded in &status.degraded_keys {
            tell(format_args!(
                "the system key {} has no copy of {}; claviger kms check tells why, and claviger kms repair \
                 makes it",
                degraded.key.id(),
                degraded.missing.join(", ")
            ));
        }
        let unlocked = status.memory.unlocked_bytes;
        if unlocked > 0 {
            tell(format_args!(
                "{} KiB of keys could not be locked in memory and may have been swapped out; raise \
                 the limit (ulimit -l) or lower --cache",
                unlocked / 1024
            ));
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
    let making_if = |may_make| if may_make { Making::IfMissing } else { Making::Never };
    let is_first_use = missing.len() == wanted.len();
    let opening = Opening {
        making: making_if(direction == Direction::Encrypt),
        members: making_if(direction == Direction::Encrypt && is_first_use),
        absent: Absent::Failure,
        danger_known_key: settings.danger_known_key,
    };
    let kms = Watched::new(OpenKms::open(&settings.kms, opening).await?.boxed());
    let admission = match direction {
        Direction::Encrypt => Admission::Checked(&settings.accepted),
        Direction::Decrypt => Admission::ToRead(&settings.accepted),
    };
    let store = Backend::open(&settings.metastore, admission).await?;
    announce(&missing);
    let policy = CryptoPolicy::production().intermediate_keys_max(settings.cache.get());
    let mut builder = SessionFactory::builder(store.boxed(), kms.clone())
        .service(&settings.service)
        .product(&settings.product)
        .policy(policy)
        .limits(limits());
    if let Some(suffix) = &settings.region_suffix {
        builder = builder.region_suffix(suffix);
    }
    let factory = builder.build().map_err(|error| Failure::crypt(&error))?;
    Ok(Keys { factory, kms, store })
}

/// The store's own deadline ends first, so that the reason is told; three tries end before the
/// operation's.
pub(crate) fn limits() -> Limits {
    Limits::new()
        .store_calls_max(CALLS_MAX)
        .store_deadline(CALL_WAIT + Duration::from_secs(1))
        .kms_deadline(CALL_WAIT)
        .operation_deadline(CALL_WAIT * 4)
}

/// The files that hold keys and that encrypting makes if need be.
fn wanted_files(settings: &Settings) -> Vec<&Path> {
    let metastore = settings.metastore.file();
    // The key store first, as it is looked for first: another first user makes it last, so where it
    // is there, its master key is there too, whenever we look.
    metastore.into_iter().chain(settings.kms.files()).collect()
}

fn check_missing(settings: &Settings, direction: Direction, missing: &[&Path]) -> Result<(), Failure> {
    // Without one of its members a master key may serve.
    let is_needed =
        |path: &&&Path| settings.metastore.file() == Some(**path) || settings.kms.file() == Some(**path);
    let Some(first) = missing.iter().find(is_needed) else { return Ok(()) };
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

/// Tells which of the files that were missing are there now.
pub(crate) fn announce(missing: &[&Path]) {
    let made = missing.iter().filter(|path| path.exists());
    let paths: Vec<String> = made.map(|path| path.display().to_string()).collect();
    if !paths.is_empty() {
        tell(format_args!(
            "made {}; keep a copy: without the key store and its master key nothing can be decrypted",
            paths.join(" and ")
        ));
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

const CLOSE_DEADLINE: Duration = Duration::from_secs(2);
