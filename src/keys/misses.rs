//! How many versions that are not there may be looked for on behalf of one partition: its records may be
//! forged, and each costs a call where a good one costs none.

use std::sync::{Mutex, PoisonError};

use crate::aging::Aging;
use crate::clock::{Moment, NANOS_PER_SECOND};
use crate::record::KeyId;

/// What was looked for within a second of the first, by the id that the partition's new data is encrypted
/// under.
#[derive(Debug)]
pub(crate) struct Misses {
    max: u32,
    partitions: Mutex<Aging<KeyId, Spent>>,
}

#[derive(Debug, Default)]
struct Spent {
    looks: u32,
    is_told: bool,
}

/// How many partitions are remembered.
const PARTITIONS_MAX: usize = 10_000;

/// A partition looked for more than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exceeded {
    pub(super) max: u32,
    /// For the first time within this second.
    pub(super) is_news: bool,
}

impl Misses {
    pub(crate) fn new(max: u32) -> Self {
        Self { max, partitions: Mutex::new(Aging::new(PARTITIONS_MAX)) }
    }

    /// Takes a look, which is [given back](Self::give_back) if something is found.
    pub(super) fn begin(&self, partition: &KeyId, now: Moment) -> Result<(), Exceeded> {
        let mut partitions = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        partitions.forget_before(now.monotonic.saturating_sub(NANOS_PER_SECOND - 1));
        if partitions.get(partition).is_none() {
            partitions.insert(partition.clone(), Spent::default(), now.monotonic);
        }
        let Some(spent) = partitions.get_mut(partition) else { return Ok(()) };
        if spent.looks < self.max {
            spent.looks += 1;
            return Ok(());
        }
        let is_news = !std::mem::replace(&mut spent.is_told, true);
        Err(Exceeded { max: self.max, is_news })
    }

    pub(super) fn give_back(&self, partition: &KeyId) {
        let mut partitions = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(spent) = partitions.get_mut(partition) {
            spent.looks = spent.looks.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Moment {
        Moment { wall: 0, monotonic: 10 * NANOS_PER_SECOND + milliseconds * 1_000_000 }
    }

    #[test]
    fn looks_are_bounded_for_each_partition_and_second_and_those_that_find_something_do_not_count() {
        let (misses, partition, other) = (Misses::new(2), KeyId::new("a"), KeyId::new("b"));
        for second in [0, 1_000, 2_500] {
            assert_eq!(misses.begin(&partition, at(second)), Ok(()));
            for _ in 0..10 {
                assert_eq!(misses.begin(&partition, at(second + 1)), Ok(()));
                misses.give_back(&partition);
            }
            assert_eq!(misses.begin(&partition, at(second + 2)), Ok(()));
            let exceeded = |is_news| Err(Exceeded { max: 2, is_news });
            assert_eq!(misses.begin(&partition, at(second + 3)), exceeded(true));
            assert_eq!(misses.begin(&partition, at(second + 999)), exceeded(false));
            assert_eq!(misses.begin(&other, at(second + 999)), Ok(()));
        }
    }

    #[test]
    fn partitions_are_bounded() {
        let misses = Misses::new(1);
        for number in 0..3 * PARTITIONS_MAX {
            assert_eq!(misses.begin(&KeyId::new(number.to_string()), at(0)), Ok(()));
        }
        assert_eq!(misses.partitions.lock().unwrap().in_order().count(), PARTITIONS_MAX);
    }
}
