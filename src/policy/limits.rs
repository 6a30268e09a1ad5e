//! Bounds on payloads, calls and waiting.

use std::time::Duration;

use super::check::{SPAN_MAX, require};
use crate::error::Error;

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
    pub(crate) max_cold_operations: usize,
    pub(crate) misses_max: u32,
    pub(crate) background_refreshes_max: usize,
    pub(crate) attempts_max: u32,
}

impl Limits {
    /// Payloads of 64 MiB; deadlines of 10 s for an operation, 2 s for a metastore call and 5 s
    /// for a KMS call; 64 reads of the metastore, 32 inserts, 16 KMS calls and 16 background refreshes
    /// at once; 10 000 key loads waiting and 20 000 operations that wait for a key; 64 key versions that are
    /// not found, for each partition and second; 3 attempts.
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
            max_cold_operations: 20_000,
            misses_max: 64,
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

    /// Sets how many reads of the metastore may be under way at once, and how many of its replica.
    /// Inserts may be half as many, but one at least: they have permits of their own, so that none that
    /// hangs is in the way of a read.
    ///
    /// Keys in use are checked and replaced beside these, with half as many permits of their own, but one
    /// at least. Keys whose last call brought no answer share an eighth, but one at least, beside both.
    #[must_use]
    pub const fn store_calls_max(mut self, calls: usize) -> Self {
        self.store_calls_max = calls;
        self
    }

    /// Sets how many KMS calls may be under way at once; those for keys in use and for keys in trouble
    /// come beside these, as of [`store_calls_max`](Self::store_calls_max).
    #[must_use]
    pub const fn kms_calls_max(mut self, calls: usize) -> Self {
        self.kms_calls_max = calls;
        self
    }

    /// Sets how many key loads may wait besides those that `store_calls_max` lets ask the metastore at
    /// once. The operation that would begin one more is refused with [`Error::Overloaded`], at once; a
    /// load that was begun is not refused half-way. Loads of one key count once, however many operations
    /// wait for it, and checks and replacements of keys in use do not count.
    #[must_use]
    pub const fn waiting_calls_max(mut self, loads: usize) -> Self {
        self.waiting_calls_max = loads;
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

    /// Sets how many key versions that are not found, or not to be had, may be looked for on behalf of one
    /// partition within a second, all regions of its ids together: whoever writes a service's database can
    /// make records up that name any version, and each costs a call of the metastore. Decrypts that name more
    /// are refused with [`Error::Overloaded`], at once, and [`Event::TooManyMisses`](crate::Event) tells.
    /// Cached keys and other partitions are not affected.
    #[must_use]
    pub const fn misses_max(mut self, misses: u32) -> Self {
        self.misses_max = misses;
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
        let sealable = u64::try_from(self.payload_bytes_max).is_ok_and(|bytes| bytes <= GCM_BYTES_MAX);
        require(sealable, "payload_bytes_max is over the 64 GiB that AES-GCM can seal at once")?;
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
            (self.max_cold_operations, "max_cold_operations"),
            (self.background_refreshes_max, "background_refreshes_max"),
        ] {
            require(calls > 0, &format!("{name} is zero"))?;
            require(calls <= tokio::sync::Semaphore::MAX_PERMITS, &format!("{name} is too large"))?;
        }
        require(self.misses_max > 0, "misses_max is zero")?;
        require(self.attempts_max > 0, "attempts_max is zero")
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::new()
    }
}

/// What the 32-bit block counter of NIST SP 800-38D leaves room for.
const GCM_BYTES_MAX: u64 = (1 << 36) - 32;
