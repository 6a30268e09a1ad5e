//! What stays as it is while a seed runs.

use std::time::Duration;

use claviger::{CryptoPolicy, Lifetime, Limits, LockPolicy, RevokedDecrypt};
use serde::{Deserialize, Serialize};

use crate::dice::Dice;

/// A fleet, its policy and limits, and how far its back ends are. Spans are in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    pub(crate) processes: usize,
    pub(crate) partitions: usize,
    pub(crate) interval: u64,
    pub(crate) refresh_wait: u64,
    pub(crate) stale_encrypt: u64,
    pub(crate) stale_decrypt: u64,
    pub(crate) expire_seconds: u64,
    pub(crate) precision_seconds: u64,
    /// 0 is never.
    pub(crate) idle: u64,
    pub(crate) revoked: OnRevoked,
    /// How far the replica lags behind; `None` where it is not asked.
    pub(crate) replica_lag: Option<u64>,
    pub(crate) wraps: u64,
    pub(crate) capacity: u64,
    pub(crate) operation_deadline: u64,
    pub(crate) store_deadline: u64,
    pub(crate) kms_deadline: u64,
    pub(crate) store_calls: usize,
    pub(crate) kms_calls: usize,
    pub(crate) attempts: u32,
    pub(crate) restores_lost: bool,
    pub(crate) has_push: bool,
    pub(crate) keeps_sessions: bool,
    /// How long a call takes at most in calm weather.
    pub(crate) store_latency: u64,
    pub(crate) kms_latency: u64,
    /// How far ahead each process's clock is at the start.
    pub(crate) skews: Vec<i64>,
}

/// The policy on decrypting under revoked keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum OnRevoked {
    Allow,
    Warn,
    Deny,
}

impl Settings {
    pub(crate) fn drawn(dice: &mut Dice) -> Self {
        let processes = dice.one_of(1, &[1, 2, 2, 2, 3, 4]);
        let interval = dice.one_of(0, &[1_000, 5_000, 5_000, 20_000, 20_000, 60_000, 300_000]);
        let stale_encrypt = dice.one_of(0, &[2_000, 10_000, 30_000, 120_000]);
        let refresh_wait = dice.one_of(100, &[200, 200, 400]);
        let shortest_life = (interval + stale_encrypt) / 1_000 + 2;
        let expire_seconds = match dice.below(3) {
            0 => dice.between(shortest_life, shortest_life * 3),
            _ => dice.between(shortest_life * 4, shortest_life * 40),
        };
        let precision_seconds = dice.one_of(1, &[1, 2, 5, 10, 60]);
        let store_latency = dice.one_of(0, &[1, refresh_wait / 10]);
        let kms_latency = dice.one_of(0, &[5, 50, 300]);
        let skew = |dice: &mut Dice| {
            let span = expire_seconds.min(6 * 3_600) * 1_000;
            match dice.below(3) {
                0 => 0,
                1 => dice.between(0, 2_000).cast_signed() - 1_000,
                _ => dice.between(0, span / 2).cast_signed() - (span / 4).cast_signed(),
            }
        };
        Self {
            processes,
            partitions: dice.one_of(1, &[2, 2, 3, 5]),
            interval,
            refresh_wait,
            stale_encrypt,
            stale_decrypt: stale_encrypt + dice.one_of(0, &[5_000, 60_000]),
            expire_seconds: expire_seconds.max(2 * precision_seconds),
            precision_seconds,
            // Not so short that the sweep takes most of a run's time.
            idle: dice.one_of(0, &[0, interval / 4 + 1_000, interval / 2 + 1_000, interval * 4 + 1_000]),
            revoked: dice.one_of(OnRevoked::Allow, &[OnRevoked::Warn, OnRevoked::Deny]),
            replica_lag: dice.percent(30).then(|| dice.one_of(0, &[50, 2_000, 20_000])),
            wraps: if dice.percent(15) { dice.between(3, 30) } else { 1 << 28 },
            capacity: dice.one_of(100, &[100, 100, 3, 1]),
            operation_deadline: dice.one_of(5_000, &[8_000, 10_000]),
            store_deadline: dice.one_of(500, &[1_000, 2_000]),
            kms_deadline: dice.one_of(1_500, &[2_000, 4_000]),
            store_calls: dice.one_of(64, &[16, 8]),
            kms_calls: dice.one_of(16, &[8, 4]),
            attempts: dice.one_of(1, &[2, 3, 3]),
            restores_lost: dice.percent(30),
            has_push: dice.percent(40),
            keeps_sessions: dice.percent(50),
            store_latency,
            kms_latency,
            skews: (0..processes).map(|_| skew(dice)).collect(),
        }
    }

    pub(crate) fn policy(&self) -> CryptoPolicy {
        let idle = match self.idle {
            0 => Lifetime::Never,
            idle => Lifetime::Of(ms(idle)),
        };
        CryptoPolicy::production()
            .expire_after(Duration::from_secs(self.expire_seconds))
            .revoke_check_interval(self.interval())
            .creation_precision(Duration::from_secs(self.precision_seconds))
            .idle_timeout(idle)
            .refresh_wait(ms(self.refresh_wait))
            .max_stale_encrypt(self.stale_encrypt())
            .max_stale_decrypt(self.stale_decrypt())
            .revoked_decrypt(match self.revoked {
                OnRevoked::Allow => RevokedDecrypt::Allow,
                OnRevoked::Warn => RevokedDecrypt::Warn,
                OnRevoked::Deny => RevokedDecrypt::Deny,
            })
            .replica_reads(self.replica_lag.is_some())
            .max_wraps_per_key(self.wraps)
            .lock_policy(LockPolicy::Off)
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits::production()
            .max_intermediate_keys(self.capacity)
            .operation_deadline(self.operation_deadline())
            .store_deadline(ms(self.store_deadline))
            .kms_deadline(ms(self.kms_deadline))
            .max_store_calls(self.store_calls)
            .max_kms_calls(self.kms_calls)
            .max_attempts(self.attempts)
    }

    pub(crate) const fn interval(&self) -> Duration {
        ms(self.interval)
    }

    pub(crate) const fn stale_encrypt(&self) -> Duration {
        ms(self.stale_encrypt)
    }

    pub(crate) const fn stale_decrypt(&self) -> Duration {
        ms(self.stale_decrypt)
    }

    pub(crate) const fn operation_deadline(&self) -> Duration {
        ms(self.operation_deadline)
    }

    /// After how long a read counts as answered late. A check makes several reads one after the other.
    pub(crate) const fn late(&self) -> Duration {
        ms(self.refresh_wait / 8)
    }

    pub(crate) fn partition(number: usize) -> String {
        format!("p{number}")
    }
}

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
