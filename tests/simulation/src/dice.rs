//! Randomness that a seed repeats.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use claviger::{RandomError, SecureRandom};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore as _, SeedableRng as _};

/// What a seed decides. Each user has a stream of its own, so that one who draws more shifts nobody else's
/// draws.
pub(crate) struct Dice(ChaCha8Rng);

impl Dice {
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        generator.set_stream(stream);
        Self(generator)
    }

    /// Returns a number below `sides`; 0 if there is none.
    pub(crate) fn below(&mut self, sides: u64) -> u64 {
        self.0.next_u64().checked_rem(sides).unwrap_or(0)
    }

    /// Returns a number from `least` to `most`, both included.
    pub(crate) fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most.saturating_sub(least) + 1)
    }

    /// Returns `true` in so many of a hundred cases.
    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Returns one of them, each as often as the others.
    pub(crate) fn one_of<T: Copy>(&mut self, first: T, others: &[T]) -> T {
        let place = usize::try_from(self.below(others.len() as u64 + 1)).unwrap_or_default();
        place.checked_sub(1).and_then(|place| others.get(place)).copied().unwrap_or(first)
    }
}

/// The keys and nonces of one process.
pub(crate) struct MachineRandom(Mutex<ChaCha8Rng>);

impl MachineRandom {
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        Self(Mutex::new(Dice::new(seed, stream).0))
    }
}

impl SecureRandom for MachineRandom {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(bytes);
        Ok(())
    }
}

impl fmt::Debug for MachineRandom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MachineRandom")
    }
}
