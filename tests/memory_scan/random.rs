//! Randomness that can be computed again, so that nobody need keep a copy of a key.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use claviger::{RandomError, SecureRandom};

use crate::scan::{Needle, mask};

/// A generator that writes each word where it is wanted and nowhere else. Its clones are one.
#[derive(Clone, Debug)]
pub(crate) struct Recomputable(Arc<State>);

#[derive(Debug)]
struct State {
    seed: u64,
    words: AtomicU64,
    /// Where in the sequence of words the draws begin that are long enough for a key.
    keys: Mutex<Vec<u64>>,
}

/// How many words a key is.
const KEY_WORDS: u64 = 4;

impl Recomputable {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(State { seed, words: AtomicU64::new(0), keys: Mutex::default() }))
    }

    /// Returns what to look for: both halves of every key that was drawn, masked.
    pub(crate) fn needles(&self) -> Vec<Needle> {
        let keys = self.0.keys.lock().unwrap();
        keys.iter().flat_map(|&key| [self.needle(key), self.needle(key + KEY_WORDS / 2)]).collect()
    }

    fn needle(&self, first: u64) -> Needle {
        // One word at a time, each masked before the next is computed: two unmasked words side by
        // side, in a register or spilled, would be a copy.
        let mut masked = [0; 2];
        for (at, masked) in (first..).zip(&mut masked) {
            *masked = black_box(mask(self.word(black_box(at))));
        }
        Needle(masked)
    }

    /// SplitMix64's output at this place of its sequence.
    #[inline(never)]
    fn word(&self, at: u64) -> u64 {
        let state = self.0.seed.wrapping_add(at.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let word = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
}

impl SecureRandom for Recomputable {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomError> {
        let words = bytes.len().div_ceil(8) as u64;
        let first = self.0.words.fetch_add(words, Ordering::Relaxed);
        for (at, chunk) in (first..).zip(bytes.chunks_mut(8)) {
            for (index, byte) in (0..).zip(chunk) {
                *byte = (self.word(at) >> (8 * index)) as u8;
            }
        }
        if words >= KEY_WORDS {
            self.0.keys.lock().unwrap().push(first);
        }
        Ok(())
    }
}
