//! The keys of a run that encrypts: those that are there, or new ones where there are none yet.
//!
//! What was lost is never replaced without a word: data is sealed under it. The key store is made first and
//! the master key last, so that a key store that is not there beside its master key is a loss, and no other
//! first user's beginning; and one without its master key is a beginning as long as it holds nothing.

use std::path::Path;

use claviger::{Created, Metastore as _, MetastoreAdmin as _};
use claviger_open::{KmsSpec, Making, OpenKms, OpenStore};

use super::open_kms;
use crate::config::Settings;
use crate::exit::{Exit, Failure};
use crate::kms::KmsChoice;
use crate::patience::call;

pub(super) async fn open(settings: &Settings, is_new: bool) -> Result<(OpenKms, OpenStore), Failure> {
    let Settings { metastore, kms, .. } = settings;
    if is_new && metastore.file().is_none() {
        return Err(wrong("--new-key-store is for a key store in a file; leave it out"));
    }
    // Before the key store is looked for, since first users make it before.
    let held = held(kms);
    let is_whole = kms.files().iter().all(|key| key.exists());
    let found = metastore.open_existing(settings.terms()).await?;
    match (metastore.file(), &found) {
        (_, Some(_)) if is_new => {
            return Err(wrong(&format!("the key store {metastore} is there; leave out --new-key-store")));
        }
        (Some(file), None) if !is_new => check_first_use(file, kms, held)?,
        _ => {}
    }
    if is_whole {
        let kms = open_kms(settings, Making::Never).await?;
        return Ok((kms, or_new(settings, found).await?));
    }
    let store = or_new(settings, found).await?;
    // A member that is made where it was lost looks as if it had its copies.
    let making = if holds_keys(settings, &store, held).await? { Making::Never } else { Making::IfMissing };
    match kms.file().filter(|key| making == Making::Never && !key.exists()) {
        Some(key) => Err(lost_master_key(settings, key)),
        None => Ok((open_kms(settings, making).await?, store)),
    }
}

async fn or_new(settings: &Settings, found: Option<OpenStore>) -> Result<OpenStore, Failure> {
    match found {
        Some(store) => Ok(store),
        None => settings.metastore.make(settings.terms()).await,
    }
}

/// Returns a file of the master key, or of a member, that is there.
pub(crate) fn held(kms: &KmsChoice) -> Option<&Path> {
    kms.files().into_iter().find(|key| key.exists())
}

/// Refuses to make a key store where its master key is one that was used before, or may have been. `held` is
/// what was there of it.
pub(crate) fn check_first_use(file: &Path, kms: &KmsChoice, held: Option<&Path>) -> Result<(), Failure> {
    let shown = file.display();
    let what = match held {
        _ if file.exists() && (held.is_some() || kms.files().is_empty()) => {
            format!("the key store {shown} is empty or has no table of keys")
        }
        Some(key) => format!("the key store {shown} is gone, and its master key {} is there", key.display()),
        None => return Ok(()),
    };
    let advice =
        "restore it from a copy, or begin a new one with --new-key-store if nothing was encrypted with it";
    Err(Failure::new(Exit::NotFound, format!("{what}; {advice}")))
}

/// Tells whether the key store may hold keys that need the file that is not there. `held` is what is there of
/// the master key.
async fn holds_keys(settings: &Settings, store: &OpenStore, held: Option<&Path>) -> Result<bool, Failure> {
    let has_file = settings.metastore.file().is_some();
    let found = match settings.kms.spec() {
        // Other services may have master keys of their own in the same store, but none beside this one.
        KmsSpec::Local(_) if !settings.kms.is_own => None,
        _ if has_file => Some(store.admin().count(&call()).await.map(|rows| rows > 0)),
        // Of the rows on a server, which may be very many, those of others may have a member's copies.
        KmsSpec::AnyOf(_) | KmsSpec::KofN(_) if held.is_some() => Some(Ok(true)),
        _ => None,
    };
    let found = match found {
        Some(found) => found,
        None => {
            let id = settings.system_key_id();
            store.admin().load_latest(&id, Created::MAX, &call()).await.map(|key| key.is_some())
        }
    };
    found.map_err(|error| settings.metastore.failed("cannot read", &error))
}

fn lost_master_key(settings: &Settings, key: &Path) -> Failure {
    let advice = if settings.kms.is_own { "move the key store away to begin anew" } else { "check --kms" };
    let (key, store) = (key.display(), &settings.metastore);
    let message =
        format!("{key} is gone, and {store} holds keys under it; restore it from a copy, or {advice}");
    Failure::new(Exit::NotFound, message)
}

fn wrong(message: &str) -> Failure {
    Failure::new(Exit::Config, message)
}
