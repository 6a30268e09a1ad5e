//! Time and randomness that a test sets.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Clock;
use crate::random::{RandomError, SecureRandom};

/// A clock that stands still until it is moved. Its clones show the same time.
#[derive(Clone, Debug)]
pub struct FixedClock {
    times: Arc<Mutex<Times>>,
}

#[derive(Debug)]
struct Times {
    wall: Duration,
    monotonic: Duration,
}

impl FixedClock {
    /// A clock whose wall time is `unix_seconds` and whose monotonic time is zero.
    #[must_use]
    pub fn new(unix_seconds: u64) -> Self {
        let times = Times { wall: Duration::from_secs(unix_seconds), monotonic: Duration::ZERO };
        Self { times: Arc::new(Mutex::new(times)) }
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        let mut times = lock(&self.times);
        times.wall = times.wall.saturating_add(by);
        times.monotonic = times.monotonic.saturating_add(by);
    }

    /// Lets time pass while the machine sleeps, which stops the monotonic clock. An operator who
    /// sets the clock forward looks the same.
    pub fn suspend(&self, by: Duration) {
        let mut times = lock(&self.times);
        times.wall = times.wall.saturating_add(by);
    }

    /// Sets the wall clock back, as an operator or a time server does.
    pub fn set_wall_back(&self, by: Duration) {
        let mut times = lock(&self.times);
        times.wall = times.wall.saturating_sub(by);
    }

    /// Returns the wall time in whole Unix seconds.
    #[must_use]
    pub fn unix_seconds(&self) -> u64 {
        self.wall().as_secs()
    }
}

impl Clock for FixedClock {
    fn wall(&self) -> Duration {
        lock(&self.times).wall
    }

    fn monotonic(&self) -> Duration {
        lock(&self.times).monotonic
    }
}

/// A generator that repeats itself from one seed, and remembers what it handed out so that a test
/// can search memory and output for it. Its clones go on with the same sequence.
#[derive(Clone)]
pub struct SeededRandom {
    state: Arc<Mutex<Seeded>>,
}

struct Seeded {
    seed: u64,
    drawn: Vec<Vec<u8>>,
}

impl SeededRandom {
    /// A generator whose whole output follows from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: Arc::new(Mutex::new(Seeded { seed, drawn: Vec::new() })) }
    }

    /// Returns how often bytes were drawn.
    #[must_use]
    pub fn draws(&self) -> usize {
        lock(&self.state).drawn.len()
    }

    /// Returns the bytes of every draw so far, in order.
    #[must_use]
    pub fn drawn(&self) -> Vec<Vec<u8>> {
        lock(&self.state).drawn.clone()
    }
}

impl fmt::Debug for SeededRandom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What was drawn are keys, and a test searches output for them.
        f.debug_struct("SeededRandom").field("draws", &self.draws()).finish_non_exhaustive()
    }
}

impl SecureRandom for SeededRandom {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomError> {
        let mut state = lock(&self.state);
        for chunk in bytes.chunks_mut(8) {
            for (byte, random) in chunk.iter_mut().zip(split_mix(&mut state.seed).to_le_bytes()) {
                *byte = random;
            }
        }
        state.drawn.push(bytes.to_vec());
        Ok(())
    }
}

/// SplitMix64: one word per step, from any seed.
const fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// A generator under which no key is replaced by chance: for tests that count to
/// [`max_wraps_per_key`](crate::CryptoPolicy::max_wraps_per_key). What it draws is another generator's, but
/// for the part of a record's draw that decides that.
#[derive(Clone, Debug)]
pub struct NoChance<R>(R);

impl<R: SecureRandom> NoChance<R> {
    /// Draws from `random`.
    pub const fn new(random: R) -> Self {
        Self(random)
    }
}

impl<R: SecureRandom> SecureRandom for NoChance<R> {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomError> {
        self.0.fill(bytes)?;
        if bytes.len() == crate::data_row::DRAW_BYTES
            && let Some(chance) = bytes.last_chunk_mut()
        {
            *chance = u64::MAX.to_ne_bytes();
        }
        Ok(())
    }
}

/// A generator that fails at chosen draws, and draws from another one otherwise. Its clones count
/// together.
#[derive(Clone, Debug)]
pub struct FailingRandom {
    inner: Arc<dyn SecureRandom>,
    script: Arc<Mutex<RandomScript>>,
}

#[derive(Debug, Default)]
struct RandomScript {
    draws: u64,
    fail_at: BTreeSet<u64>,
}

impl FailingRandom {
    /// Fails draw number `fail_at`, counted from 1; 0 fails none.
    #[must_use]
    pub fn new(inner: impl SecureRandom, fail_at: u64) -> Self {
        let script = RandomScript { draws: 0, fail_at: BTreeSet::from([fail_at]) };
        Self { inner: Arc::new(inner), script: Arc::new(Mutex::new(script)) }
    }

    /// Fails the next draw too.
    pub fn fail_next(&self) {
        let mut script = lock(&self.script);
        let next = script.draws + 1;
        script.fail_at.insert(next);
    }

    /// Returns how often bytes were asked for, failures included.
    #[must_use]
    pub fn draws(&self) -> u64 {
        lock(&self.script).draws
    }
}

impl SecureRandom for FailingRandom {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomError> {
        let mut script = lock(&self.script);
        script.draws += 1;
        let draw = script.draws;
        if script.fail_at.contains(&draw) {
            // Bytes of a failed draw must not be used, so a test should see it when they are.
            bytes.fill(0);
            return Err(RandomError::new());
        }
        drop(script);
        self.inner.fill(bytes)
    }
}

/// Locks a fake's state. A test that panicked under the lock has failed anyway.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_moves_as_told() {
        let clock = FixedClock::new(100);
        let clone = clock.clone();
        clock.advance(Duration::from_secs(5));
        clock.suspend(Duration::from_secs(10));
        clock.set_wall_back(Duration::from_secs(1));
        assert_eq!((clone.unix_seconds(), clone.monotonic()), (114, Duration::from_secs(5)));
    }

    #[test]
    fn one_seed_gives_one_sequence_and_remembers_it() {
        let (one, other) = (SeededRandom::new(7), SeededRandom::new(7));
        let mut bytes = [[0; 13]; 3];
        one.fill(&mut bytes[0]).unwrap();
        one.fill(&mut bytes[1]).unwrap();
        other.fill(&mut bytes[2]).unwrap();
        assert_eq!(bytes[0], bytes[2]);
        assert_ne!(bytes[0], bytes[1]);
        assert_eq!(one.drawn(), [bytes[0].to_vec(), bytes[1].to_vec()]);
        assert_eq!(one.draws(), 2);
    }

    #[test]
    fn chosen_draws_fail_and_the_others_do_not() {
        let random = FailingRandom::new(SeededRandom::new(1), 2);
        let draw = || random.fill(&mut [0; 4]).is_ok();
        assert_eq!([draw(), draw(), draw()], [true, false, true]);
        random.fail_next();
        let draw = || random.fill(&mut [0; 4]).is_ok();
        assert_eq!([draw(), draw()], [false, true]);
        assert_eq!(random.draws(), 5);
    }
}
