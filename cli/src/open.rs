//! Opens the key store and the master key, and makes them at first use.

pub(crate) mod first_use;

use std::fmt;
use std::path::Path;
use std::time::Duration;

use claviger::{CryptoPolicy, Event, Limits, SessionFactory};
use claviger_open::{Absent, Making, OpenKms, OpenStore};

use crate::config::Settings;
use crate::exit::{Exit, Failure};
use crate::explain;
use crate::kms::watched::Watched;
use crate::kms::{KmsChoice, Opening};
use crate::patience::CALL_WAIT;
use crate::tell::tell;

/// The keys of a run.
#[derive(Debug)]
pub(crate) struct Keys {
    pub(crate) factory: SessionFactory,
    pub(crate) kms: Watched,
    store: OpenStore,
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
                "the key store holds keys that were made in the future, by this machine's clock: it is behind, or theirs \
                 was ahead, or somebody wrote them so; look which, since those that are used live longer than they should",
            );
        }
        for incomplete in &status.incomplete_keys {
            tell(format_args!(
                "the system key {} has no copy of {}; claviger kms check tells why, and claviger kms repair \
                 makes it",
                incomplete.key.id(),
                incomplete.missing.join(", ")
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

/// What keys are opened for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Use {
    /// `is_new`: the key store is to be begun anew, though its master key is there.
    Encrypt {
        is_new: bool,
    },
    Decrypt,
}

/// Opens the keys that the settings describe. Only encrypting makes what is not there.
pub(crate) async fn open(settings: &Settings, usage: Use) -> Result<Keys, Failure> {
    let missing: Vec<&Path> = wanted_files(settings).into_iter().filter(|path| !path.exists()).collect();
    let (kms, store) = match usage {
        Use::Encrypt { is_new } => first_use::open(settings, is_new).await?,
        Use::Decrypt => {
            let store = find_store(settings).await?;
            (open_kms(settings, Making::Never).await?, store)
        }
    };
    announce(&missing);
    let kms = Watched::new(kms.kms());
    let mut builder = SessionFactory::builder(store.metastore(), kms.clone())
        .service(&settings.service)
        .product(&settings.product)
        .policy(CryptoPolicy::production())
        .limits(limits(&settings.kms).max_intermediate_keys(settings.cache.get()))
        .folded_ids(settings.folded_ids);
    if let Some(suffix) = &settings.region_suffix {
        builder = builder.region_suffix(suffix);
    }
    let factory = builder.build().map_err(|error| explain::failure(&error))?;
    Ok(Keys { factory, kms, store })
}

async fn find_store(settings: &Settings) -> Result<OpenStore, Failure> {
    let found = settings.metastore.open_existing(settings.terms().to_read()).await?;
    found.ok_or_else(|| no_keys(&settings.metastore))
}

/// `making` is what becomes of files that are not there, members' as well.
async fn open_kms(settings: &Settings, making: Making) -> Result<OpenKms, Failure> {
    // Without one of its members a master key may serve.
    if let Some(path) = settings.kms.file().filter(|path| making == Making::Never && !path.exists()) {
        return Err(no_keys(&path.display()));
    }
    let danger_known_key = settings.danger_known_key;
    let opening = Opening { making, members: making, absent: Absent::Failure, danger_known_key };
    settings.kms.open(opening).await
}

fn no_keys(place: &impl fmt::Display) -> Failure {
    let message = format!(
        "there are no keys at {place}; check --metastore, --kms and CLAVIGER_HOME, or restore the file from a copy"
    );
    Failure::new(Exit::NotFound, message)
}

/// Three tries end before the operation's deadline.
pub(crate) fn limits(kms: &KmsChoice) -> Limits {
    let kms_wait = kms.call_wait();
    Limits::production()
        .max_store_calls(CALLS_MAX)
        .store_deadline(CALL_WAIT)
        .kms_deadline(kms_wait)
        .operation_deadline(CALL_WAIT.max(kms_wait) * 4)
}

/// The files that hold keys and that encrypting makes if need be.
fn wanted_files(settings: &Settings) -> Vec<&Path> {
    settings.metastore.file().into_iter().chain(settings.kms.files()).collect()
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

/// Tells what would be made.
pub(crate) fn announce_due(missing: &[&Path]) {
    let paths: Vec<String> = missing.iter().map(|path| path.display().to_string()).collect();
    if !paths.is_empty() {
        tell(format_args!("without --dry-run {} would be made", paths.join(" and ")));
    }
}

/// How many calls are under way at once: as many as the databases' stores have connections, so that
/// none of them spends its time waiting for one.
const CALLS_MAX: usize = 10;

const CLOSE_DEADLINE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use claviger_open::KmsSpec;

    use super::*;

    #[test]
    fn a_master_keys_own_deadline_is_that_of_its_calls_and_three_tries_fit_into_an_operation() {
        for (parameters, kms, operation) in
            [("", 10, 40), ("?call-deadline=30s", 30, 120), ("?call-deadline=1s", 1, 40)]
        {
            let text = format!("vault:https://vault.example/transit/k{parameters}");
            let choice = KmsChoice::from(KmsSpec::from_text(&text, "--kms").unwrap());
            let limits = format!("{:?}", limits(&choice));
            assert!(limits.contains(&format!("kms_deadline: {kms}s")), "{limits}");
            assert!(limits.contains(&format!("operation_deadline: {operation}s")), "{limits}");
            assert!(limits.contains("store_deadline: 10s"), "{limits}");
        }
    }
}
