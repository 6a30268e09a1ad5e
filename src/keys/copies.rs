//! System keys that the KMS wrapped without all the copies it is to keep.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::record::KeyMeta;
use crate::status::IncompleteKey;

/// What is known of copies that are missing, by the keys' last wrap or load here.
#[derive(Debug, Default)]
pub(crate) struct MissingCopies(Mutex<BTreeMap<KeyMeta, Vec<String>>>);

/// A service has a system key for each rotation; there is no reason to hold more.
const KEYS_MAX: usize = 100;

impl MissingCopies {
    /// Notes which copies the key lacks, none or some. `true` if that is news, and bad.
    pub(crate) fn note(&self, key: &KeyMeta, missing: &[String]) -> bool {
        let mut keys = self.keys();
        if missing.is_empty() {
            keys.remove(key);
            return false;
        }
        if keys.get(key).is_some_and(|known| known == missing) {
            return false;
        }
        if keys.len() < KEYS_MAX || keys.contains_key(key) {
            keys.insert(key.clone(), missing.to_vec());
        }
        true
    }

    pub(crate) fn list(&self) -> Vec<IncompleteKey> {
        let incomplete = |(key, missing): (&KeyMeta, &Vec<String>)| IncompleteKey {
            key: key.clone(),
            missing: missing.clone(),
        };
        self.keys().iter().map(incomplete).collect()
    }

    fn keys(&self) -> MutexGuard<'_, BTreeMap<KeyMeta, Vec<String>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
