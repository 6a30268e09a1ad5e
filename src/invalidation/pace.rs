//! How often a source's messages are applied. Anybody that can reach a source, such as any role of a database,
//! can have it send messages without end, and each makes a factory ask its store.

use std::time::Duration;

use tokio::time::Instant;

/// How often all keys may be invalidated.
pub(super) const SPAN: Duration = Duration::from_secs(1);

/// How many keys may be invalidated one by one in a span. A message about more counts as one about all.
const KEYS_MAX: u32 = 256;

/// The messages of one source of late.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When all keys were last invalidated.
    everything: Option<Instant>,
    /// They are to be invalidated again when that is a span ago.
    is_owed: bool,
    /// When the span began in which keys are counted, and how many there were.
    counting_since: Option<Instant>,
    keys: u32,
}

impl Pace {
    /// Returns `true` if all keys are invalidated now; else that is owed.
    pub(super) fn takes_everything(&mut self, now: Instant) -> bool {
        let is_early = self.everything.is_some_and(|last| now < last + SPAN);
        self.is_owed = is_early;
        if !is_early {
            self.everything = Some(now);
        }
        !is_early
    }

    /// Returns `true` if one key is invalidated by itself; else all are to be.
    pub(super) fn takes_key(&mut self, now: Instant) -> bool {
        if self.counting_since.is_none_or(|since| now >= since + SPAN) {
            (self.counting_since, self.keys) = (Some(now), 0);
        }
        self.keys = self.keys.saturating_add(1);
        self.keys <= KEYS_MAX
    }

    /// Returns when all keys are to be invalidated for earlier messages.
    pub(super) fn due(&self) -> Option<Instant> {
        self.everything.filter(|_| self.is_owed).map(|last| last + SPAN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Milliseconds after some moment.
    fn at(start: Instant, milliseconds: u64) -> Instant {
        start + Duration::from_millis(milliseconds)
    }

    #[test]
    fn everything_is_taken_at_once_and_then_owed_to_the_end_of_the_span() {
        let (start, mut pace) = (Instant::now(), Pace::default());
        assert_eq!(pace.due(), None);
        assert!(pace.takes_everything(start));
        assert_eq!(pace.due(), None);
        for milliseconds in [0, 1, 500, 999] {
            assert!(!pace.takes_everything(at(start, milliseconds)));
            assert_eq!(pace.due(), Some(at(start, 1_000)));
        }
        assert!(pace.takes_everything(at(start, 1_000)));
        assert_eq!(pace.due(), None);
        assert!(!pace.takes_everything(at(start, 1_999)));
        assert_eq!(pace.due(), Some(at(start, 2_000)));
    }

    #[test]
    fn so_many_keys_are_taken_in_a_span_and_no_more() {
        let (start, mut pace) = (Instant::now(), Pace::default());
        for span in [0, 1_000, 5_500] {
            for key in 0..2 * KEYS_MAX {
                assert_eq!(pace.takes_key(at(start, span + u64::from(key))), key < KEYS_MAX, "{span} {key}");
            }
        }
    }
}
