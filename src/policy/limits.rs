//! Bounds on caches, payloads, calls and waiting.

use std::time::Duration;

use super::check::{SPAN_MAX, require};
use crate::error::Error;

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

/// How much of everything there may be: cached keys, payload bytes, calls, waiting. Its default is
/// [`production`](Self::production).
///
/// ```
/// use claviger::{Capacity, CryptoPolicy, Limits};
///
/// let policy = CryptoPolicy::high_security();
/// let limits = Limits::high_security().max_intermediate_keys(Capacity::Keys(50_000));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    pub(crate) max_intermediate_keys: Capacity,
    pub(crate) max_system_keys: Capacity,
    pub(crate) max_payload_bytes: usize,
    pub(crate) operation_deadline: Duration,
    pub(crate) store_deadline: Duration,
    pub(crate) kms_deadline: Duration,
    pub(crate) max_store_calls: usize,
    pub(crate) max_kms_calls: usize,
    pub(crate) max_waiting_calls: usize,
    pub(crate) max_cold_operations: usize,
    pub(crate) max_misses: u32,
    pub(crate) max_background_refreshes: usize,
    pub(crate) max_attempts: u32,
}

impl Limits {
    /// For services: 10 000 cached intermediate keys and 100 system keys; payloads of 64 MiB; deadlines of 10 s for an operation, 2 s for a metastore call and 5 s
    /// for a KMS call; 64 reads of the metastore, 32 inserts, 16 KMS calls and 16 background refreshes
    /// at once; 10 000 key loads waiting and 20 000 operations that wait for a key; 64 key versions that are
    /// not found, for each partition and second; 3 attempts.
    #[must_use]
    pub const fn production() -> Self {
        Self {
            max_intermediate_keys: Capacity::Keys(10_000),
            max_system_keys: Capacity::Keys(100),
            max_payload_bytes: 64 << 20,
            operation_deadline: Duration::from_secs(10),
            store_deadline: Duration::from_secs(2),
            kms_deadline: Duration::from_secs(5),
            max_store_calls: 64,
            max_kms_calls: 16,
            max_waiting_calls: 10_000,
            max_cold_operations: 20_000,
            max_misses: 64,
            max_background_refreshes: 16,
            max_attempts: 3,
        }
    }

    /// For a developer's machine: as [`production`](Self::production), with 1 000 cached intermediate keys.
    #[must_use]
    pub const fn development() -> Self {
        Self { max_intermediate_keys: Capacity::Keys(1_000), ..Self::production() }
    }

    /// For the most sensitive data: as [`production`](Self::production).
    #[must_use]
    pub const fn high_security() -> Self {
        Self::production()
    }

    /// Sets how many intermediate keys are cached.
    #[must_use]
    pub fn max_intermediate_keys(mut self, capacity: impl Into<Capacity>) -> Self {
        self.max_intermediate_keys = capacity.into();
        self
    }

    /// Sets how many system keys are cached.
    #[must_use]
    pub fn max_system_keys(mut self, capacity: impl Into<Capacity>) -> Self {
        self.max_system_keys = capacity.into();
        self
    }

    /// Sets how long a plaintext may be, in bytes.
    #[must_use]
    pub const fn max_payload_bytes(mut self, bytes: usize) -> Self {
        self.max_payload_bytes = bytes;
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

    /// Sets how many reads of the metastore may be under way at once, and how many of its replica.
    /// Inserts may be half as many, but one at least: they have permits of their own, so that none that
    /// hangs is in the way of a read.
    ///
    /// Keys in use are checked and replaced beside these, with half as many permits of their own, but one
    /// at least. Keys in trouble (their last call got no answer) have permits of their own: an eighth as
    /// many, at least one.
    #[must_use]
    pub const fn max_store_calls(mut self, calls: usize) -> Self {
        self.max_store_calls = calls;
        self
    }

    /// Sets how many KMS calls may be under way at once; those for keys in use and for keys in trouble
    /// come beside these, as of [`max_store_calls`](Self::max_store_calls).
    #[must_use]
    pub const fn max_kms_calls(mut self, calls: usize) -> Self {
        self.max_kms_calls = calls;
        self
    }

    /// Sets how many key loads may wait besides those that `max_store_calls` lets ask the metastore at
    /// once. The operation that would begin one more is refused with [`Error::Overloaded`], at once; a
    /// load that was begun is not refused half-way. Loads of one key count once, however many operations
    /// wait for it, and checks and replacements of keys in use do not count.
    #[must_use]
    pub const fn max_waiting_calls(mut self, loads: usize) -> Self {
        self.max_waiting_calls = loads;
        self
    }

    /// Sets how many operations may wait at once for a key that is not cached, whether they began its load
    /// or joined it; more are refused with [`Error::Overloaded`], at once. Operations with cached keys do
    /// not count, also while these are checked or replaced.
    #[must_use]
    pub const fn max_cold_operations(mut self, operations: usize) -> Self {
        self.max_cold_operations = operations;
        self
    }

    /// Bounds how many versions that cannot be found one partition's records may name in a second, over all
    /// regions. Whoever writes a service's database can make up such records. Each costs a call of the
    /// metastore. More are refused with [`Error::Overloaded`], at once, and the event
    /// [`TooManyMisses`](crate::Event::TooManyMisses) is raised. Cached keys and other partitions are not
    /// affected.
    #[must_use]
    pub const fn max_misses(mut self, misses: u32) -> Self {
        self.max_misses = misses;
        self
    }

    /// Sets how many background refreshes may be under way at once; more are skipped.
    #[must_use]
    pub const fn max_background_refreshes(mut self, refreshes: usize) -> Self {
        self.max_background_refreshes = refreshes;
        self
    }

    /// Sets how often a metastore or KMS call that fails transiently is tried in all.
    #[must_use]
    pub const fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts;
        self
    }

    pub(crate) fn validate(&self) -> Result<(), Error> {
        let sealable = u64::try_from(self.max_payload_bytes).is_ok_and(|bytes| bytes <= GCM_BYTES_MAX);
        require(sealable, "max_payload_bytes is over the 64 GiB that AES-GCM can seal at once")?;
        for (deadline, name) in [
            (self.operation_deadline, "operation_deadline"),
            (self.store_deadline, "store_deadline"),
            (self.kms_deadline, "kms_deadline"),
        ] {
            require(!deadline.is_zero(), &format!("{name} is zero"))?;
            require(deadline <= SPAN_MAX, &format!("{name} is over 100 years"))?;
        }
        for (calls, name) in [
            (self.max_store_calls, "max_store_calls"),
            (self.max_kms_calls, "max_kms_calls"),
            (self.max_waiting_calls, "max_waiting_calls"),
            (self.max_cold_operations, "max_cold_operations"),
            (self.max_background_refreshes, "max_background_refreshes"),
        ] {
            require(calls > 0, &format!("{name} is zero"))?;
            require(calls <= tokio::sync::Semaphore::MAX_PERMITS, &format!("{name} is too large"))?;
        }
        require(self.max_intermediate_keys != Capacity::Keys(0), "max_intermediate_keys is zero")?;
        require(self.max_system_keys != Capacity::Keys(0), "max_system_keys is zero")?;
        require(self.max_misses > 0, "max_misses is zero")?;
        require(self.max_attempts > 0, "max_attempts is zero")
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::production()
    }
}

/// What the 32-bit block counter of NIST SP 800-38D leaves room for.
const GCM_BYTES_MAX: u64 = (1 << 36) - 32;
