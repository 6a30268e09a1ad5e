//! Keys in memory, ready to use.

pub(crate) mod known;
pub(crate) mod state;

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use claviger_memory::{Arena, Wiped};
use ring::aead::LessSafeKey;

use crate::aead::{self, AeadKey, Nonce};
use crate::clock::Moment;
use crate::error::Error;
use crate::record::{Created, EnvelopeKeyRecord, KeyMeta};
use crate::secret::{KEY_BYTES, SecretKey};
use crate::sync::AtomicBool;
use crate::telemetry::keys::LiveKey;
use known::{Hold, IsCopy, Known};
use state::KeyState;

/// The system key that wraps an intermediate key.
#[derive(Debug)]
pub(crate) struct Parent {
    pub(crate) meta: KeyMeta,
    pub(crate) state: Arc<KeyState>,
    life: Life,
    is_former: Arc<AtomicBool>,
}

impl Parent {
    pub(crate) fn of(key: &CryptoKey) -> Self {
        Self {
            meta: key.meta.clone(),
            state: Arc::clone(&key.state),
            life: key.life,
            is_former: Arc::clone(&key.is_former),
        }
    }

    /// Returns `true` if nothing under it may encrypt any more.
    fn is_unusable(&self) -> bool {
        self.is_former.load(Ordering::Relaxed) || self.state.is_unusable()
    }
}

/// When a key version ends, in wall-clock nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Life {
    /// The last moment at which it is valid.
    pub(crate) expires: u64,
    /// From when on it is replaced in the background, so that nobody waits at the end.
    pub(crate) replace_from: u64,
}

impl Life {
    fn min(self, other: Self) -> Self {
        Self {
            expires: self.expires.min(other.expires),
            replace_from: self.replace_from.min(other.replace_from),
        }
    }
}

/// A key version ready to use: its schedule in protected memory, and what is known of it.
///
/// `Arc` counts its users; the last one to go wipes it.
#[derive(Debug)]
pub(crate) struct CryptoKey {
    meta: KeyMeta,
    aead: AeadKey,
    /// As stored, to see whether a row read again still says the same.
    wrapped_key: Arc<[u8]>,
    state: Arc<KeyState>,
    parent: Option<Parent>,
    life: Life,
    wraps: Wraps,
    /// By which it is recognised in other rows.
    hold: Hold,
    /// Its row holds other bytes by now. Keys under it share this.
    is_former: Arc<AtomicBool>,
    /// Last, so that it counts until all else is gone. `None` until it is counted.
    live: Option<LiveKey>,
}

impl CryptoKey {
    /// Expands `secret` into protected memory. Its life ends with its parent's.
    pub(crate) fn new(
        arena: &Arena,
        secret: &SecretKey,
        record: &EnvelopeKeyRecord,
        life: Life,
        state: Arc<KeyState>,
        parent: Option<Parent>,
        known: &Arc<Known>,
    ) -> Result<Self, MakeError> {
        let life = parent.as_ref().map_or(life, |parent| life.min(parent.life));
        let aead = AeadKey::new(arena, secret.expose_secret()).map_err(Error::from)?;
        // What wraps an intermediate key is our own, and has one form only.
        let probe = if parent.is_none() { Some(probe(&aead)?) } else { None };
        let hold = known.hold(record, probe.as_ref().map(<[u8; _]>::as_slice), &state)?;
        Ok(Self {
            meta: record.meta().clone(),
            aead,
            wrapped_key: Arc::clone(record.wrapped_key()),
            state,
            parent,
            life,
            wraps: Wraps::new(record.wrapped_key()),
            hold,
            is_former: Arc::default(),
            live: None,
        })
    }

    /// Has it counted among the keys in memory.
    pub(crate) fn counted(mut self, live: LiveKey) -> Self {
        self.live = Some(live);
        self
    }

    /// Notes whether it is out of the cache and in use.
    pub(crate) fn set_orphan(&self, is_orphan: bool) {
        if let Some(live) = &self.live {
            live.set_orphan(is_orphan);
        }
    }

    pub(crate) const fn meta(&self) -> &KeyMeta {
        &self.meta
    }

    /// Returns the key's row as it was read or written, with what was learned since of its revocation.
    pub(crate) fn record(&self) -> EnvelopeKeyRecord {
        let parent = self.parent.as_ref().map(|parent| parent.meta.clone());
        EnvelopeKeyRecord::new(self.meta.clone(), Arc::clone(&self.wrapped_key), parent)
            .revoked(self.state.is_revoked())
    }

    pub(crate) const fn created(&self) -> Created {
        self.meta.created()
    }

    /// Returns the key for one use.
    pub(crate) fn cipher(&self) -> Result<&LessSafeKey, Error> {
        self.aead.get().map_err(|Wiped { .. }| Error::Forked)
    }

    pub(crate) const fn state(&self) -> &Arc<KeyState> {
        &self.state
    }

    pub(crate) const fn parent(&self) -> Option<&Parent> {
        self.parent.as_ref()
    }

    /// Returns when the key, or its parent before it, ends.
    pub(crate) const fn life(&self) -> Life {
        self.life
    }

    pub(crate) const fn hold(&self) -> &Hold {
        &self.hold
    }

    pub(crate) const fn wraps(&self) -> &Wraps {
        &self.wraps
    }

    /// Returns `true` if the key or its parent is known to be revoked.
    pub(crate) fn is_revoked(&self) -> bool {
        self.state.is_revoked() || self.parent.as_ref().is_some_and(|parent| parent.state.is_revoked())
    }

    /// Notes that the key's row holds other bytes: a load of it brings those.
    pub(crate) fn mark_former(&self) {
        self.is_former.store(true, Ordering::Relaxed);
    }

    /// Returns `true` if the key must not encrypt, whatever fails: it or its parent is known to be revoked,
    /// or its row or its parent's is gone, another id's, or holds another key.
    pub(crate) fn is_unusable(&self) -> bool {
        self.is_former.load(Ordering::Relaxed)
            || self.state.is_unusable()
            || self.parent.as_ref().is_some_and(Parent::is_unusable)
    }

    /// Returns `true` if no read of its row, or its parent's, is known that began after the last word
    /// that it changed.
    pub(crate) fn is_invalidated(&self) -> bool {
        self.state.is_invalidated()
            || self.parent.as_ref().is_some_and(|parent| parent.state.is_invalidated())
    }

    /// Returns `true` if nothing speaks against using the key, but for age and wear.
    pub(crate) fn is_nominal(&self) -> bool {
        self.state.is_nominal() && self.parent.as_ref().is_none_or(|parent| parent.state.is_nominal())
    }

    /// Returns the age of what is known: the older of its row's and its parent's row's last read.
    pub(crate) fn age(&self, now: Moment) -> u64 {
        let parent = self.parent.as_ref().map_or(0, |parent| parent.state.age(now));
        self.state.age(now).max(parent)
    }

    /// Returns `true` if the key is what a load of `record` would make: from the same wrapped key, and
    /// sharing what is known of it and of its parent.
    pub(crate) fn is_from(
        &self,
        record: &EnvelopeKeyRecord,
        state: &Arc<KeyState>,
        parent: Option<&Self>,
    ) -> bool {
        self.meta == *record.meta()
            && self.wrapped_key == *record.wrapped_key()
            && self.parent.as_ref().map(|parent| &parent.meta) == record.parent()
            && Arc::ptr_eq(&self.state, state)
            && match (&self.parent, parent) {
                (Some(held), Some(parent)) => Arc::ptr_eq(&held.state, &parent.state),
                (held, parent) => held.is_none() && parent.is_none(),
            }
    }

    /// Returns `true` if both hold the same key, without taking the bytes out.
    pub(crate) fn has_same_bytes(&self, other: &Self) -> Result<bool, Error> {
        Ok(probe(&self.aead)? == probe(&other.aead)?)
    }
}

/// Returns what only this key makes: keys that are the same seal alike.
///
/// The fixed nonce is no risk, since what is sealed with it is compared and hashed only.
fn probe(key: &AeadKey) -> Result<[u8; KEY_BYTES + aead::OVERHEAD_BYTES], Error> {
    let mut sealed = [0; KEY_BYTES + aead::OVERHEAD_BYTES];
    let key = key.get().map_err(|Wiped { .. }| Error::Forked)?;
    aead::seal(key, Nonce::new([0; aead::NONCE_BYTES]), &mut sealed)?;
    Ok(sealed)
}

/// Why a key was not made of a row.
#[derive(Debug)]
pub(crate) enum MakeError {
    Copy(IsCopy),
    Other(Error),
}

impl From<Error> for MakeError {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl From<IsCopy> for MakeError {
    fn from(copy: IsCopy) -> Self {
        Self::Copy(copy)
    }
}

/// Counts what was wrapped under a key, in lots reserved by each thread, so that threads that use
/// one key do not write to one place at every call.
///
/// A thread that stays with a key reserves twice as many each time, up to [`LOT_MAX`]; one that
/// moves to another key gives up the rest of its lot. So the count may run ahead of the truth, by
/// at most a factor of two, and never behind.
///
/// It begins anew with each load, and knows nothing of other processes. So with each lot the key is also
/// worn out by chance, as probable as the lot is part of all that may be wrapped: however often keys are
/// evicted and processes started, and however many there are, that is how much is wrapped on average, and
/// sixteen times as much once in nine million keys.
#[derive(Debug)]
pub(crate) struct Wraps {
    reserved: AtomicU64,
    /// Tells this key from others in the threads' lots: the nonce its record was sealed with.
    tag: u64,
}

const LOT_MAX: u32 = 1024;

#[derive(Clone, Copy)]
struct Lot {
    tag: u64,
    size: u32,
    left: u32,
}

thread_local! {
    static LOT: Cell<Lot> = const { Cell::new(Lot { tag: 0, size: 0, left: 0 }) };
}

impl Wraps {
    fn new(wrapped_key: &[u8]) -> Self {
        let tag = wrapped_key.last_chunk().map_or(0, |nonce| u64::from_le_bytes(*nonce));
        Self { reserved: AtomicU64::new(0), tag }
    }

    /// Returns how many are counted.
    pub(crate) fn count(&self) -> u64 {
        self.reserved.load(Ordering::Relaxed)
    }

    /// Counts on from where a key's earlier copy in memory was.
    pub(crate) fn continue_from(&self, earlier: &Self) {
        self.reserved.fetch_max(earlier.count(), Ordering::Relaxed);
    }

    /// Counts one more, of at most `max`; `true` if it wore the key out by `chance`, which is random and
    /// used for nothing else.
    pub(crate) fn add_one(&self, max: u64, chance: u64) -> bool {
        LOT.with(|cell| {
            let lot = cell.get();
            if lot.tag == self.tag && lot.left > 0 {
                cell.set(Lot { left: lot.left - 1, ..lot });
                return false;
            }
            let size = if lot.tag == self.tag { lot.size.saturating_mul(2).clamp(1, LOT_MAX) } else { 1 };
            self.reserved.fetch_add(size.into(), Ordering::Relaxed);
            cell.set(Lot { tag: self.tag, size, left: size - 1 });
            let is_worn_out = chance < (u64::MAX / max.max(1)).saturating_mul(size.into());
            if is_worn_out {
                self.reserved.fetch_max(max, Ordering::Relaxed);
            }
            is_worn_out
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: u64 = 10_000;

    fn wraps(tag: u64) -> Wraps {
        Wraps::new(&tag.to_le_bytes())
    }

    /// Whether a thread stays with a key, goes to and fro, or the key is loaded anew all the time.
    #[test]
    fn key_is_worn_out_by_chance_after_so_many_wraps_on_average_however_they_are_counted() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        // Xorshift64*.
        let mut chance = || {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            state.wrapping_mul(0x2545_f491_4f6c_dd1d)
        };
        for (goes_to_and_fro, is_reloaded) in [(false, false), (true, false), (false, true)] {
            let (keys, mut wrapped) = (300, 0);
            for tag in 1..=keys {
                let (mut key, other) = (wraps(tag), wraps(u64::MAX));
                while key.count() < MAX {
                    // The count alone never gets there.
                    key.reserved.store(0, Ordering::Relaxed);
                    if goes_to_and_fro {
                        other.add_one(MAX, u64::MAX);
                    }
                    key.add_one(MAX, chance());
                    wrapped += 1;
                    if is_reloaded && key.count() < MAX {
                        key = wraps(tag);
                    }
                }
            }
            let average = wrapped / keys;
            assert!(
                (MAX / 5 * 4..MAX / 5 * 6).contains(&average),
                "{goes_to_and_fro} {is_reloaded}: {average}"
            );
        }
    }

    #[test]
    fn lot_is_counted_whatever_the_chance() {
        let key = wraps(7);
        (0..100).for_each(|_| assert!(!key.add_one(MAX, u64::MAX)));
        assert_eq!(key.count(), 127);
        (0..27).for_each(|_| assert!(!key.add_one(MAX, 0)));
        assert_eq!(key.count(), 127, "a lot has one chance, as it begins");
        assert!(key.add_one(MAX, 0));
        assert_eq!(key.count(), MAX);
    }
}
