//! A seed, spelled out: what is done, and when. Whoever shrinks a failing run takes steps away.

use std::time::Duration;

use claviger::FailureClass;
use serde::{Deserialize, Serialize};

use crate::dice::Dice;
use crate::settings::{Settings, ms};

mod draw;

/// All that happens in one run: the same plan has the same history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Of it come latencies, keys and nonces.
    pub seed: u64,
    pub(crate) settings: Settings,
    pub(crate) steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Step {
    /// Milliseconds since the beginning.
    pub(crate) at: u64,
    pub(crate) deed: Deed,
}

/// What is done. A number of a record or a row that is too large counts round.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Deed {
    /// So many encrypts at once; each leaves as told.
    Encrypt {
        process: usize,
        partition: usize,
        times: usize,
        leave: Leave,
    },
    Decrypt {
        process: usize,
        record: usize,
        times: usize,
        leave: Leave,
    },
    WarmUp {
        process: usize,
        leave: Leave,
    },
    /// Word of a key of this number in the table; without one, of all keys.
    Invalidate {
        process: usize,
        row: Option<usize>,
    },
    /// So many other partitions are used once: they crowd out what is cached.
    Crowd {
        process: usize,
        partitions: usize,
    },
    /// All sessions that are kept are dropped.
    DropSessions {
        process: usize,
    },
    /// All operations under way are dropped, as with a runtime of callers that stops.
    Leave {
        process: usize,
    },
    RestoreLost {
        process: usize,
    },
    Crash {
        process: usize,
    },
    Close {
        process: usize,
        deadline: u64,
    },
    Start {
        process: usize,
    },
    /// The wall clock jumps, by milliseconds.
    Jump {
        process: usize,
        by: i64,
    },
    /// How a road is from now on, for one process or all.
    Weather {
        process: Option<usize>,
        road: Road,
        mood: Mood,
    },
    /// How the rows of one partition are served from now on.
    Afflict {
        partition: usize,
        mood: Mood,
    },
    Revoke {
        row: usize,
    },
    /// A row is lost, without a word.
    Lose {
        row: usize,
    },
    /// All rows of a partition are deleted for good, and all processes are told before.
    Shred {
        partition: usize,
    },
    /// The system keys are wrapped anew, by this one of two master keys.
    Rewrap {
        master: usize,
    },
}

/// When a caller goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Leave {
    Never,
    /// After so many polls.
    Polls(u32),
    /// After so many milliseconds.
    After(u64),
}

/// What calls go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum Road {
    Reads,
    Writes,
    Replica,
    Kms,
    Push,
}

/// How calls fare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Mood {
    Calm,
    /// Every call fails, and nothing is done.
    Down(Class),
    /// No call is answered. Of those that write, some are done.
    Hangs,
    /// Each call takes up to so many milliseconds.
    Slow(u64),
    /// What is asked is done, and the answer is lost.
    LosesReplies(Class),
    /// Of a hundred calls so many fare as one of the others.
    Flaky(u64),
}

/// [`FailureClass`], as a plan names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Class {
    Transient,
    Permanent,
    Damaged,
}

impl From<Class> for FailureClass {
    fn from(class: Class) -> Self {
        match class {
            Class::Transient => Self::Transient,
            Class::Permanent => Self::Permanent,
            Class::Damaged => Self::Damaged,
        }
    }
}

impl Plan {
    /// Returns what happens under this seed.
    #[must_use]
    pub fn of_seed(seed: u64) -> Self {
        let mut dice = Dice::new(seed, 0);
        let settings = Settings::drawn(&mut dice);
        let steps = draw::steps(&settings, &mut dice);
        Self { seed, settings, steps }
    }

    /// Reads a plan's JSON.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_json(json: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json)
    }

    /// Returns the plan's JSON, a step to a line.
    #[must_use]
    pub fn to_json(&self) -> String {
        let text = |value: Result<String, serde_json::Error>| value.unwrap_or_default();
        let steps: Vec<_> =
            self.steps.iter().map(|step| format!("    {}", text(serde_json::to_string(step)))).collect();
        let settings = text(serde_json::to_string(&self.settings));
        format!(
            "{{\n  \"seed\": {},\n  \"settings\": {settings},\n  \"steps\": [\n{}\n  ]\n}}\n",
            self.seed,
            steps.join(",\n")
        )
    }
}

impl Step {
    pub(crate) const fn time(&self) -> Duration {
        ms(self.at)
    }
}
