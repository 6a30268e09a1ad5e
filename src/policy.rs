//! How long keys live and how often they are checked; and, in [`limits`], how much of everything there may be.

mod check;
mod limits;

use std::time::Duration;

use claviger_memory::LockPolicy;

use crate::error::Error;
pub use limits::{Capacity, Limits};

use check::{SPAN_MAX, require};

/// The life cycle of keys. Its default is [`production`](Self::production). Each preset has limits of the same name
/// that go with it: see [`Limits`].
///
/// ```
/// use std::time::Duration;
/// use claviger::CryptoPolicy;
///
/// let policy = CryptoPolicy::production().expire_after(Duration::from_secs(30 * 24 * 60 * 60));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CryptoPolicy {
    pub(crate) expire_after: Lifetime,
    pub(crate) revoke_check_interval: Duration,
    pub(crate) creation_precision: Duration,
    pub(crate) idle_timeout: Lifetime,
    pub(crate) refresh_wait: Duration,
    pub(crate) max_stale_encrypt: Duration,
    pub(crate) max_stale_decrypt: Duration,
    pub(crate) revoked_decrypt: RevokedDecrypt,
    pub(crate) replica_reads: bool,
    pub(crate) max_wraps_per_key: u64,
    pub(crate) lock_policy: LockPolicy,
}

/// A length of time, or no end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there is no third kind of span")]
pub enum Lifetime {
    /// This long.
    Of(Duration),
    /// Without end.
    Never,
}

impl From<Duration> for Lifetime {
    fn from(duration: Duration) -> Self {
        Self::Of(duration)
    }
}

/// What decrypting under a revoked key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RevokedDecrypt {
    /// Goes on.
    Allow,
    /// Goes on, with a warning in the log and a counted event.
    Warn,
    /// Is refused with [`Error::KeyRevoked`]. A revocation cannot be undone, so this makes data
    /// unreadable for good.
    Deny,
}

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl CryptoPolicy {
    /// For services: keys live 90 days and are checked once an hour.
    #[must_use]
    pub const fn production() -> Self {
        Self {
            expire_after: Lifetime::Of(Duration::from_secs(90 * 24 * 60 * 60)),
            revoke_check_interval: HOUR,
            creation_precision: MINUTE,
            idle_timeout: Lifetime::Of(Duration::from_secs(2 * 60 * 60)),
            refresh_wait: Duration::from_millis(200),
            max_stale_encrypt: HOUR,
            max_stale_decrypt: DAY,
            revoked_decrypt: RevokedDecrypt::Allow,
            replica_reads: false,
            max_wraps_per_key: 1 << 28,
            lock_policy: LockPolicy::Prefer,
        }
    }

    /// For a developer's machine: keys live a day, are created to the second and checked every
    /// 10 seconds, so that rotation and revocation can be watched; memory is not locked.
    #[must_use]
    pub const fn development() -> Self {
        Self {
            expire_after: Lifetime::Of(DAY),
            revoke_check_interval: Duration::from_secs(10),
            creation_precision: Duration::from_secs(1),
            lock_policy: LockPolicy::Off,
            ..Self::production()
        }
    }

    /// For the most sensitive data: keys live 30 days and are checked every 5 minutes, an outage
    /// is bridged for 15 minutes when encrypting and an hour when decrypting, memory must be
    /// lockable, and decrypting under a revoked key warns.
    ///
    /// It does not deny such decrypts, since a revocation cannot be undone: say
    /// [`RevokedDecrypt::Deny`] yourself.
    #[must_use]
    pub const fn high_security() -> Self {
        Self {
            expire_after: Lifetime::Of(Duration::from_secs(30 * 24 * 60 * 60)),
            revoke_check_interval: Duration::from_secs(5 * 60),
            idle_timeout: Lifetime::Of(Duration::from_secs(15 * 60)),
            max_stale_encrypt: Duration::from_secs(15 * 60),
            max_stale_decrypt: HOUR,
            revoked_decrypt: RevokedDecrypt::Warn,
            lock_policy: LockPolicy::Require,
            ..Self::production()
        }
    }

    /// Sets how old a key may be and still encrypt. Old keys decrypt for ever.
    #[must_use]
    pub fn expire_after(mut self, span: impl Into<Lifetime>) -> Self {
        self.expire_after = span.into();
        self
    }

    /// Sets how long a cached key is used before the metastore is asked again whether it was
    /// revoked or replaced. Zero asks on every call.
    #[must_use]
    pub const fn revoke_check_interval(mut self, interval: Duration) -> Self {
        self.revoke_check_interval = interval;
        self
    }

    /// Sets the step to which creation times are rounded down. The step is in whole seconds and divides a
    /// day. Processes that start together then share one key.
    #[must_use]
    pub const fn creation_precision(mut self, precision: Duration) -> Self {
        self.creation_precision = precision;
        self
    }

    /// Sets after how long without use cached keys are dropped.
    #[must_use]
    pub fn idle_timeout(mut self, span: impl Into<Lifetime>) -> Self {
        self.idle_timeout = span.into();
        self
    }

    /// Sets how long an operation that holds a usable but stale key waits for the metastore before
    /// it goes on with what it has.
    #[must_use]
    pub const fn refresh_wait(mut self, wait: Duration) -> Self {
        self.refresh_wait = wait;
        self
    }

    /// Sets for how long past the check interval a key still encrypts while the metastore cannot
    /// be asked.
    #[must_use]
    pub const fn max_stale_encrypt(mut self, span: Duration) -> Self {
        self.max_stale_encrypt = span;
        self
    }

    /// Sets for how long past the check interval a key still decrypts while the metastore cannot
    /// be asked.
    #[must_use]
    pub const fn max_stale_decrypt(mut self, span: Duration) -> Self {
        self.max_stale_decrypt = span;
        self
    }

    /// Sets what decrypting under a revoked key does.
    #[must_use]
    pub const fn revoked_decrypt(mut self, what: RevokedDecrypt) -> Self {
        self.revoked_decrypt = what;
        self
    }

    /// Sets whether replicas of the metastore may answer loads for decrypting; off by default.
    ///
    /// Only an intermediate key that is not cached is asked for so. What a replica does not have, or what
    /// cannot be used, is asked for once more of the store itself, and so is everything else: system keys,
    /// checks of cached keys, whatever encrypts, and whatever was
    /// [invalidated](crate::SessionFactory::invalidate) while cached. If a replica lags, decrypts learn of a
    /// revocation or deletion later by that lag. Encrypts do not. With a `revoke_check_interval` of zero it
    /// has no effect.
    #[must_use]
    pub const fn replica_reads(mut self, allowed: bool) -> Self {
        self.replica_reads = allowed;
        self
    }

    /// Sets how many data row keys are wrapped under one intermediate key before it is replaced,
    /// counted for each factory while the key is cached. Random nonces allow 2^32 in all.
    #[must_use]
    pub const fn max_wraps_per_key(mut self, wraps: u64) -> Self {
        self.max_wraps_per_key = wraps;
        self
    }

    /// Sets whether key memory must be locked.
    #[must_use]
    pub const fn lock_policy(mut self, policy: LockPolicy) -> Self {
        self.lock_policy = policy;
        self
    }

    pub(crate) fn validate(&self) -> Result<(), Error> {
        let precision = self.creation_precision;
        let precision_divides_a_day =
            precision.subsec_nanos() == 0 && DAY.as_secs().checked_rem(precision.as_secs()) == Some(0);
        require(
            precision_divides_a_day,
            "creation_precision is not a number of whole seconds that divides a day",
        )?;
        if let Lifetime::Of(expire_after) = self.expire_after {
            require(expire_after.subsec_nanos() == 0, "expire_after is not in whole seconds")?;
            require(expire_after <= SPAN_MAX, "expire_after is over 100 years; say Lifetime::Never")?;
            require(precision <= expire_after / 2, "creation_precision is over half of expire_after")?;
            let checked_within = self.revoke_check_interval.saturating_add(self.max_stale_encrypt);
            require(
                checked_within < expire_after,
                "revoke_check_interval + max_stale_encrypt is not below expire_after",
            )?;
        }
        for (span, name) in [
            (self.revoke_check_interval, "revoke_check_interval"),
            (self.refresh_wait, "refresh_wait"),
            (self.max_stale_encrypt, "max_stale_encrypt"),
            (self.max_stale_decrypt, "max_stale_decrypt"),
        ] {
            require(span <= SPAN_MAX, &format!("{name} is over 100 years"))?;
        }
        if let Lifetime::Of(idle_timeout) = self.idle_timeout {
            require(!idle_timeout.is_zero(), "idle_timeout is zero")?;
            require(idle_timeout <= SPAN_MAX, "idle_timeout is over 100 years; say Lifetime::Never")?;
        }
        require(
            self.max_stale_decrypt >= self.max_stale_encrypt,
            "max_stale_decrypt is below max_stale_encrypt",
        )?;
        require(!self.refresh_wait.is_zero(), "refresh_wait is zero")?;
        require(self.max_wraps_per_key > 0, "max_wraps_per_key is zero")?;
        require(self.max_wraps_per_key <= 1 << 31, "max_wraps_per_key is over 2^31")
    }
}

impl Default for CryptoPolicy {
    fn default() -> Self {
        Self::production()
    }
}

#[cfg(test)]
mod tests;
