//! How long keys live, how often they are checked, and how much of everything there may be.

use std::time::Duration;

use claviger_memory::LockPolicy;

use crate::error::Error;

/// The life cycle of keys. Its default is [`production`](Self::production).
///
/// ```
/// use std::time::Duration;
/// use claviger::CryptoPolicy;
///
/// let policy = CryptoPolicy::production().expire_after(Duration::from_secs(30 * 24 * 60 * 60));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CryptoPolicy {
    pub(crate) expire_after: Span,
    pub(crate) revoke_check_interval: Duration,
    pub(crate) creation_precision: Duration,
    pub(crate) intermediate_keys_max: Capacity,
    pub(crate) system_keys_max: Capacity,
    pub(crate) idle_timeout: Span,
    pub(crate) refresh_wait: Duration,
    pub(crate) max_stale_encrypt: Duration,
    pub(crate) max_stale_decrypt: Duration,
    pub(crate) revoked_decrypt: RevokedDecrypt,
    pub(crate) max_wraps_per_key: u64,
    pub(crate) lock_policy: LockPolicy,
}

/// A length of time, or no end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there is no third kind of span")]
pub enum Span {
    /// This long.
    Of(Duration),
    /// Without end.
    Never,
}

impl From<Duration> for Span {
    fn from(duration: Duration) -> Self {
        Self::Of(duration)
    }
}

/// How many keys a cache holds; a key's versions count one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a cache is bounded or it is not")]
pub enum Capacity {
    /// At most this many.
    Keys(u64),
    /// As many as there are. Memory then grows with the number of partitions.
    Unbounded,
}

impl From<u64> for Capacity {
    fn from(keys: u64) -> Self {
        Self::Keys(keys)
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
            expire_after: Span::Of(Duration::from_secs(90 * 24 * 60 * 60)),
            revoke_check_interval: HOUR,
            creation_precision: MINUTE,
            intermediate_keys_max: Capacity::Keys(10_000),
            system_keys_max: Capacity::Keys(100),
            idle_timeout: Span::Of(Duration::from_secs(2 * 60 * 60)),
            refresh_wait: Duration::from_millis(200),
            max_stale_encrypt: HOUR,
            max_stale_decrypt: DAY,
            revoked_decrypt: RevokedDecrypt::Allow,
            max_wraps_per_key: 1 << 28,
            lock_policy: LockPolicy::Prefer,
        }
    }

    /// For a developer's machine: keys live a day, are created to the second and checked every
    /// 10 seconds, so that rotation and revocation can be watched; memory is not locked.
    #[must_use]
    pub const fn development() -> Self {
        Self {
            expire_after: Span::Of(DAY),
            revoke_check_interval: Duration::from_secs(10),
            creation_precision: Duration::from_secs(1),
            intermediate_keys_max: Capacity::Keys(1_000),
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
            expire_after: Span::Of(Duration::from_secs(30 * 24 * 60 * 60)),
            revoke_check_interval: Duration::from_secs(5 * 60),
            idle_timeout: Span::Of(Duration::from_secs(15 * 60)),
            max_stale_encrypt: Duration::from_secs(15 * 60),
            max_stale_decrypt: HOUR,
            revoked_decrypt: RevokedDecrypt::Warn,
            lock_policy: LockPolicy::Require,
            ..Self::production()
        }
    }

    /// Sets how old a key may be and still encrypt. Old keys decrypt for ever.
    #[must_use]
    pub fn expire_after(mut self, span: impl Into<Span>) -> Self {
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

    /// Sets to what the creation time of keys is rounded down, in whole seconds that divide a day,
    /// so that processes that start together share one key.
    #[must_use]
    pub const fn creation_precision(mut self, precision: Duration) -> Self {
        self.creation_precision = precision;
        self
    }

    /// Sets how many intermediate keys are cached.
    #[must_use]
    pub fn intermediate_keys_max(mut self, capacity: impl Into<Capacity>) -> Self {
        self.intermediate_keys_max = capacity.into();
        self
    }

    /// Sets how many system keys are cached.
    #[must_use]
    pub fn system_keys_max(mut self, capacity: impl Into<Capacity>) -> Self {
        self.system_keys_max = capacity.into();
        self
    }

    /// Sets after how long without use cached keys are dropped.
    #[must_use]
    pub fn idle_timeout(mut self, span: impl Into<Span>) -> Self {
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
        require(precision_divides_a_day, "creation_precision is not a number of whole seconds that divides a day")?;
        if let Span::Of(expire_after) = self.expire_after {
            require(expire_after.subsec_nanos() == 0, "expire_after is not in whole seconds")?;
            require(expire_after <= SPAN_MAX, "expire_after is over 100 years; say Span::Never")?;
            require(precision <= expire_after / 2, "creation_precision is over half of expire_after")?;
            let checked_within = self.revoke_check_interval.saturating_add(self.max_stale_encrypt);
            require(
                checked_within < expire_after,
                "revoke_check_interval + max_stale_encrypt is not below expire_after",
            )?;
        }
        for span in [self.revoke_check_interval, self.max_stale_encrypt, self.max_stale_decrypt] {
            require(span <= SPAN_MAX, "revoke_check_interval, max_stale_encrypt or max_stale_decrypt is over 100 years")?;
        }
        require(self.max_stale_decrypt >= self.max_stale_encrypt, "max_stale_decrypt is below max_stale_encrypt")?;
        require(!self.refresh_wait.is_zero(), "refresh_wait is zero")?;
        require(self.idle_timeout != Span::Of(Duration::ZERO), "idle_timeout is zero")?;
        require(self.intermediate_keys_max != Capacity::Keys(0), "intermediate_keys_max is zero")?;
        require(self.system_keys_max != Capacity::Keys(0), "system_keys_max is zero")?;
        require(self.max_wraps_per_key > 0, "max_wraps_per_key is zero")?;
        require(self.max_wraps_per_key <= 1 << 31, "max_wraps_per_key is over 2^31")
    }
}

impl Default for CryptoPolicy {
    fn default() -> Self {
        Self::production()
    }
}

/// How much work and waiting there may be. Each has a default that suits a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    pub(crate) payload_bytes_max: usize,
    pub(crate) operation_deadline: Duration,
    pub(crate) store_deadline: Duration,
    pub(crate) kms_deadline: Duration,
    pub(crate) store_calls_max: usize,
    pub(crate) kms_calls_max: usize,
    pub(crate) waiting_calls_max: usize,
    pub(crate) background_refreshes_max: usize,
    pub(crate) attempts_max: u32,
}

impl Limits {
    /// Payloads of 64 MiB; deadlines of 10 s for an operation, 2 s for a metastore call and 5 s
    /// for a KMS call; 64 metastore calls, 16 KMS calls and 16 background refreshes at once; 10 000
    /// calls waiting; 3 attempts.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            payload_bytes_max: 64 << 20,
            operation_deadline: Duration::from_secs(10),
            store_deadline: Duration::from_secs(2),
            kms_deadline: Duration::from_secs(5),
            store_calls_max: 64,
            kms_calls_max: 16,
            waiting_calls_max: 10_000,
            background_refreshes_max: 16,
            attempts_max: 3,
        }
    }

    /// Sets how long a plaintext may be, in bytes.
    #[must_use]
    pub const fn payload_bytes_max(mut self, bytes: usize) -> Self {
        self.payload_bytes_max = bytes;
        self
    }

    /// Sets how long an encrypt or decrypt may take in all.
    #[must_use]
    pub const fn operation_deadline(mut self, deadline: Duration) -> Self {
        self.operation_deadline = deadline;
        self
    }

    /// Sets how long one attempt at a metastore call may take.
    #[must_use]
    pub const fn store_deadline(mut self, deadline: Duration) -> Self {
        self.store_deadline = deadline;
        self
    }

    /// Sets how long one attempt at a KMS call may take.
    #[must_use]
    pub const fn kms_deadline(mut self, deadline: Duration) -> Self {
        self.kms_deadline = deadline;
        self
    }

    /// Sets how many metastore calls may be under way at once.
    #[must_use]
    pub const fn store_calls_max(mut self, calls: usize) -> Self {
        self.store_calls_max = calls;
        self
    }

    /// Sets how many KMS calls may be under way at once.
    #[must_use]
    pub const fn kms_calls_max(mut self, calls: usize) -> Self {
        self.kms_calls_max = calls;
        self
    }

    /// Sets how many calls may wait for a permit before more are refused with
    /// [`Error::Overloaded`].
    #[must_use]
    pub const fn waiting_calls_max(mut self, calls: usize) -> Self {
        self.waiting_calls_max = calls;
        self
    }

    /// Sets how many background refreshes may be under way at once; more are skipped.
    #[must_use]
    pub const fn background_refreshes_max(mut self, refreshes: usize) -> Self {
        self.background_refreshes_max = refreshes;
        self
    }

    /// Sets how often a metastore or KMS call that fails transiently is tried in all.
    #[must_use]
    pub const fn attempts_max(mut self, attempts: u32) -> Self {
        self.attempts_max = attempts;
        self
    }

    pub(crate) fn validate(&self) -> Result<(), Error> {
        for (deadline, name) in [
            (self.operation_deadline, "operation_deadline"),
            (self.store_deadline, "store_deadline"),
            (self.kms_deadline, "kms_deadline"),
        ] {
            require(!deadline.is_zero(), &format!("{name} is zero"))?;
            require(deadline <= SPAN_MAX, &format!("{name} is over 100 years"))?;
        }
        for (calls, name) in [
            (self.store_calls_max, "store_calls_max"),
            (self.kms_calls_max, "kms_calls_max"),
            (self.waiting_calls_max, "waiting_calls_max"),
            (self.background_refreshes_max, "background_refreshes_max"),
        ] {
            require(calls > 0, &format!("{name} is zero"))?;
            require(calls <= tokio::sync::Semaphore::MAX_PERMITS, &format!("{name} is too large"))?;
        }
        require(self.attempts_max > 0, "attempts_max is zero")
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::new()
    }
}

/// Longer spans are a mistake of units, and would overflow the arithmetic of time.
const SPAN_MAX: Duration = Duration::from_secs(100 * 366 * 24 * 60 * 60);

fn require(holds: bool, otherwise: &str) -> Result<(), Error> {
    if holds { Ok(()) } else { Err(Error::invalid_config(otherwise)) }
}
