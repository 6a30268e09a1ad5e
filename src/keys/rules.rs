//! When a key may be used: the policy as plain arithmetic on nanoseconds.
//!
//! Of what is known of a key its age is read first. A check notes first what it learned, a revocation say, and
//! then that it was made: so whoever finds a key fresh finds what the check learned. In the other order one could
//! look at the revocation, then comes the check, and then one finds the key fresh.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use super::decide::{Fitness, Freshness, LatestFacts, VersionFacts};
use crate::clock::{Moment, NANOS_PER_SECOND, nanos};
use crate::key::state::KeyState;
use crate::key::{CryptoKey, Life};
use crate::policy::{CryptoPolicy, Lifetime, RevokedDecrypt};
use crate::record::{Created, KeyMeta};

#[derive(Debug)]
pub(crate) struct Rules {
    /// Seconds; `None` for keys that never expire.
    expire_after: Option<u64>,
    /// Seconds.
    precision: u64,
    /// 80 % of the check interval: from this age on a key is checked in the background.
    due: u64,
    interval: u64,
    encrypt_age_max: u64,
    decrypt_age_max: u64,
    stale_encrypt: u64,
    stale_decrypt: u64,
    wraps_max: u64,
    pub(crate) refresh_wait: Duration,
    pub(crate) revoked_decrypt: RevokedDecrypt,
    /// Replicas may answer decrypts. Not where every call is to be checked.
    pub(crate) replica_reads: bool,
}

/// What a key is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Encrypt,
    Decrypt,
}

/// The clock says a time before the latest key's by more than a day: it was set back a moment ago.
#[derive(Debug)]
pub(crate) struct TooFarAhead;

/// How far ahead of our clock keys may be that encrypt.
const DAY_SECONDS: i64 = 24 * 60 * 60;
/// A key that replaces one which lies as far ahead as may be is a second further.
const SLACK_SECONDS: i64 = 60;

impl Rules {
    pub(crate) fn new(policy: &CryptoPolicy) -> Self {
        let interval = nanos(policy.revoke_check_interval);
        Self {
            expire_after: match policy.expire_after {
                Lifetime::Of(span) => Some(span.as_secs()),
                Lifetime::Never => None,
            },
            precision: policy.creation_precision.as_secs(),
            due: interval / 5 * 4,
            interval,
            encrypt_age_max: interval.saturating_add(nanos(policy.max_stale_encrypt)),
            decrypt_age_max: interval.saturating_add(nanos(policy.max_stale_decrypt)),
            stale_encrypt: nanos(policy.max_stale_encrypt),
            stale_decrypt: nanos(policy.max_stale_decrypt),
            wraps_max: policy.max_wraps_per_key,
            refresh_wait: policy.refresh_wait,
            revoked_decrypt: policy.revoked_decrypt,
            replica_reads: policy.replica_reads && interval > 0,
        }
    }

    /// Returns when the key version ends. It is replaced from 95 % of its life on, some keys a
    /// little later than others, so that a fleet does not replace them all at once.
    pub(crate) fn life(&self, key: &KeyMeta) -> Life {
        let Some(expire_after) = self.expire_after else {
            return Life { expires: u64::MAX, replace_from: u64::MAX };
        };
        let created = key.created().unix_seconds().cast_unsigned().saturating_mul(NANOS_PER_SECOND);
        let span = expire_after.saturating_mul(NANOS_PER_SECOND);
        let mut hasher = DefaultHasher::new();
        key.id().hash(&mut hasher);
        let jitter = span / 100 * 4 / 1024 * (hasher.finish() % 1024);
        Life {
            expires: created.saturating_add(span),
            replace_from: created.saturating_add(span / 100 * 95).saturating_add(jitter),
        }
    }

    /// Returns `true` if a key created then is past its end. At the very end it is still valid.
    pub(crate) fn is_expired(&self, key: &KeyMeta, now: Moment) -> bool {
        now.wall > self.life(key).expires
    }

    /// The hot path's question: may this key encrypt, with nothing else to do?
    pub(crate) fn is_ready(&self, key: &CryptoKey, now: Moment) -> bool {
        key.age(now) < self.due && key.is_nominal() && self.fitness(key, now) == Fitness::Fit
    }

    /// The hot path's question: may this key decrypt, with nothing else to do?
    pub(crate) fn is_ready_to_decrypt(&self, key: &CryptoKey, now: Moment) -> bool {
        key.age(now) < self.due
            && !key.is_invalidated()
            && (self.revoked_decrypt == RevokedDecrypt::Allow || !key.is_revoked())
    }

    /// Tells what the key is good for; the first that holds, as in T1.
    pub(crate) fn fitness(&self, key: &CryptoKey, now: Moment) -> Fitness {
        let life = key.life();
        if key.is_unusable() {
            Fitness::Unusable
        } else if now.wall > life.expires {
            Fitness::Expired
        } else if self.is_exhausted(key) {
            Fitness::Exhausted
        } else if now.wall >= life.replace_from {
            Fitness::Ending
        } else {
            Fitness::Fit
        }
    }

    pub(crate) const fn wraps_max(&self) -> u64 {
        self.wraps_max
    }

    pub(crate) fn is_exhausted(&self, key: &CryptoKey) -> bool {
        key.wraps().count() >= self.wraps_max
    }

    pub(crate) const fn interval(&self) -> Duration {
        Duration::from_nanos(self.interval)
    }

    /// Returns how old what is known of a key may be for it still to decrypt, in nanoseconds.
    pub(crate) const fn decrypt_age_max(&self) -> u64 {
        self.decrypt_age_max
    }

    /// Returns for how long a key that its row holds no more decrypts, in nanoseconds.
    pub(crate) const fn stale_decrypt(&self) -> u64 {
        self.stale_decrypt
    }

    fn freshness(&self, key: &CryptoKey, age: u64, purpose: Purpose) -> Freshness {
        if purpose == Purpose::Encrypt && key.state().is_from_replica() {
            // The store itself was never asked.
            return Freshness::TooOld;
        }
        match self.freshness_at(age, purpose) {
            Freshness::Fresh | Freshness::Due if key.is_invalidated() => Freshness::Stale,
            by_age => by_age,
        }
    }

    /// Returns how old what is known of a key is at this age, unless it was invalidated.
    pub(crate) const fn freshness_at(&self, age: u64, purpose: Purpose) -> Freshness {
        let age_max = match purpose {
            Purpose::Encrypt => self.encrypt_age_max,
            Purpose::Decrypt => self.decrypt_age_max,
        };
        if age < self.due {
            Freshness::Fresh
        } else if age < self.interval {
            Freshness::Due
        } else if age <= age_max {
            Freshness::Stale
        } else {
            Freshness::TooOld
        }
    }

    /// Returns what T1 asks of a cached key.
    pub(crate) fn latest_facts(&self, key: &CryptoKey, now: Moment) -> LatestFacts {
        let age = key.age(now);
        let freshness = self.freshness(key, age, Purpose::Encrypt);
        let fitness = self.fitness(key, now);
        LatestFacts { fitness, freshness, is_in_grace: self.is_in_grace(key, fitness, age, now) }
    }

    /// Returns what T5 asks of a cached key.
    pub(crate) fn version_facts(&self, key: &CryptoKey, now: Moment) -> VersionFacts {
        let freshness = self.freshness(key, key.age(now), Purpose::Decrypt);
        VersionFacts::Cached { freshness, is_revoked: key.is_revoked() }
    }

    /// Returns `true` if a key past its end may go on for a while, when no other can be had.
    fn is_in_grace(&self, key: &CryptoKey, fitness: Fitness, age: u64, now: Moment) -> bool {
        let is_within = match fitness {
            Fitness::Expired => self.is_in_grace_after(key.life().expires, age, now),
            Fitness::Exhausted => {
                key.wraps().count() < self.wraps_max.saturating_mul(2) && age <= self.encrypt_age_max
            }
            Fitness::Fit | Fitness::Ending | Fitness::Unusable => false,
        };
        is_within && !key.state().is_from_replica()
    }

    /// Returns `true` if an expired key may go on for a while, by its end and the age of its check.
    pub(crate) const fn is_in_grace_after(&self, expires: u64, age: u64, now: Moment) -> bool {
        now.wall <= expires.saturating_add(self.stale_encrypt) && age <= self.encrypt_age_max
    }

    /// Returns `true` if the key may wrap or encrypt: it is neither revoked, without a row, expired nor far in
    /// the future.
    pub(crate) fn is_usable(&self, key: &CryptoKey, now: Moment) -> bool {
        !key.is_unusable() && now.wall <= key.life().expires && !self.is_far_ahead(key.created(), now)
    }

    /// Returns `true` if the key may wrap another one, with nothing to ask before.
    pub(crate) fn may_wrap(&self, key: &CryptoKey, now: Moment) -> bool {
        !self.is_due(key, now) && self.is_usable(key, now)
    }

    /// Returns `true` if every call asks the store: then only what was asked after the call counts.
    pub(crate) const fn checks_every_call(&self) -> bool {
        self.interval == 0
    }

    /// Returns `true` if the key's row or its parent's is to be read again.
    pub(crate) fn is_due(&self, key: &CryptoKey, now: Moment) -> bool {
        self.is_row_due(key.state(), now)
            || key.parent().is_some_and(|parent| self.is_row_due(&parent.state, now))
    }

    /// Returns `true` if this one row is to be read again.
    pub(crate) fn is_row_due(&self, state: &KeyState, now: Moment) -> bool {
        state.age(now) >= self.due || state.is_invalidated()
    }

    /// Returns `true` if a key lies ahead of our clock by more than rounding explains.
    pub(crate) fn is_ahead(&self, created: Created, now: Moment) -> bool {
        created.unix_seconds() > now.unix_seconds().saturating_add_unsigned(self.precision)
    }

    /// Returns `true` if a key lies so far ahead of our clock that it never encrypts.
    pub(crate) fn is_far_ahead(&self, created: Created, now: Moment) -> bool {
        created.unix_seconds() > now.unix_seconds().saturating_add(DAY_SECONDS + SLACK_SECONDS)
    }

    /// Returns up to when keys count as the latest: what lies further ahead stands in nobody's way.
    pub(crate) fn created_max(&self, now: Moment) -> Created {
        Created::new(now.unix_seconds().saturating_add(DAY_SECONDS)).unwrap_or(Created::MIN)
    }

    /// Returns when the key that comes after `above` is created: now, rounded down, and in any case
    /// later than `above`, so that it sorts last (T4). `Ok(None)` while now, rounded down, is the beginning of
    /// 1970: no key has that time.
    pub(crate) fn next_created(
        &self,
        now: Moment,
        above: Option<Created>,
    ) -> Result<Option<Created>, TooFarAhead> {
        let seconds = now.unix_seconds();
        let floor = seconds - seconds % self.precision.max(1).cast_signed();
        let Some(above) = above.map(Created::unix_seconds) else { return Ok(Created::new(floor)) };
        if above > seconds.saturating_add(DAY_SECONDS) {
            return Err(TooFarAhead);
        }
        Ok(Created::new(floor.max(above.saturating_add(1))))
    }
}
