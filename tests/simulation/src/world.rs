//! What all processes of a run share: the rows, the weather, what was seen, and what was found wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use claviger::{BackendError, DataRowRecord, FailureClass, KeyId, KeyMeta};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::calls::Calls;
use crate::clock::MachineClock;
use crate::dice::Dice;
use crate::oracle::retries::Last;
use crate::plan::{Class, Mood, Plan, Road};
use crate::settings::{Settings, ms};
use crate::table::Table;

/// A handle to the world. No lock is held over an await, nor over a call of the core.
#[derive(Clone)]
pub(crate) struct Shared {
    world: Arc<Mutex<World>>,
    /// Calls that were sent and go on whoever waits.
    pub(crate) sent: TaskTracker,
}

pub(crate) struct World {
    pub(crate) settings: Settings,
    pub(crate) began: Instant,
    pub(crate) table: Table,
    pub(crate) calls: Calls,
    /// The last call of each subject, by process and life.
    pub(crate) last_calls: BTreeMap<(usize, u64, String), Last>,
    /// When a process was last answered by any back end.
    pub(crate) served: BTreeMap<usize, Instant>,
    pub(crate) sealed: Vec<Sealed>,
    pub(crate) machines: Vec<Seen>,
    pub(crate) history: Vec<String>,
    pub(crate) violations: Vec<Violation>,
    /// Which of two master keys wraps.
    pub(crate) master: usize,
    /// A back end said that what it holds is damaged.
    pub(crate) has_damage: bool,
    moods: BTreeMap<(usize, Road), Mood>,
    /// When a process's road, or the rows of a partition, cleared up last.
    cleared: BTreeMap<(usize, Road), Instant>,
    /// How the rows of a partition are served, and since when.
    afflicted: BTreeMap<KeyId, (Mood, Instant)>,
    seed: u64,
    /// How many calls there were of each kind.
    asked: BTreeMap<u64, u64>,
}

/// What oracles know of one process.
pub(crate) struct Seen {
    pub(crate) clock: MachineClock,
    /// How often it was started.
    pub(crate) life: u64,
    pub(crate) is_closed: bool,
    /// When its wall clock jumped last.
    pub(crate) jumped: Option<Instant>,
    /// Since when neither store nor KMS have answered it.
    pub(crate) dark_since: Option<Instant>,
    /// When it was told by a call of its user that rows of a key may have changed, or of any key.
    pub(crate) told: BTreeMap<KeyId, Instant>,
    pub(crate) told_all: Option<Instant>,
    /// Which key encrypted last for a partition, and when.
    pub(crate) latest: BTreeMap<String, (KeyMeta, Instant)>,
    /// When each key served last.
    pub(crate) served: BTreeMap<KeyMeta, Instant>,
    pub(crate) operations: usize,
}

/// A record that an encrypt returned.
#[derive(Clone)]
pub(crate) struct Sealed {
    pub(crate) record: DataRowRecord,
    pub(crate) key: KeyMeta,
    pub(crate) partition: String,
    pub(crate) plaintext: Vec<u8>,
}

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Violation {
    /// Its name.
    pub rule: &'static str,
    /// What happened.
    pub what: String,
    /// The line of the history that tells of it.
    pub line: usize,
}

/// What becomes of one call.
pub(crate) struct Fate {
    /// How long it takes to get there, and back.
    pub(crate) there: Duration,
    pub(crate) back: Duration,
    pub(crate) trouble: Option<Trouble>,
    /// What one partition's rows suffer from, and others do not.
    pub(crate) is_of_rows: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It fails, and nothing is done.
    Fail(Class),
    /// It is never answered; what it asks is done or not.
    Hang { is_done: bool },
    /// What it asks is done, then it fails.
    LoseReply(Class),
}

impl Seen {
    fn new(skew: i64) -> Self {
        Self {
            clock: MachineClock::new(skew),
            life: 0,
            is_closed: false,
            jumped: None,
            dark_since: None,
            told: BTreeMap::new(),
            told_all: None,
            latest: BTreeMap::new(),
            served: BTreeMap::new(),
            operations: 0,
        }
    }

    /// The process starts anew: it knows nothing.
    pub(crate) fn restart(&mut self) {
        self.life += 1;
        self.operations = 0;
        self.is_closed = false;
        self.told.clear();
        self.told_all = None;
        self.latest.clear();
        self.served.clear();
    }
}

impl Shared {
    pub(crate) fn new(plan: &Plan) -> Self {
        let settings = plan.settings.clone();
        let world = World {
            began: Instant::now(),
            table: Table::default(),
            calls: Calls::new([settings.late(), ms(settings.kms_deadline / 2)]),
            last_calls: BTreeMap::new(),
            served: BTreeMap::new(),
            sealed: Vec::new(),
            machines: settings.skews.iter().map(|skew| Seen::new(*skew)).collect(),
            history: Vec::new(),
            violations: Vec::new(),
            master: 0,
            has_damage: false,
            moods: BTreeMap::new(),
            cleared: BTreeMap::new(),
            afflicted: BTreeMap::new(),
            seed: plan.seed,
            asked: BTreeMap::new(),
            settings,
        };
        Self { world: Arc::new(Mutex::new(world)), sent: TaskTracker::new() }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn tell(&self, line: impl AsRef<str>) {
        self.lock().tell(line.as_ref());
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

impl World {
    /// Adds a line to the history.
    pub(crate) fn tell(&mut self, line: &str) {
        let time = self.began.elapsed();
        self.history.push(format!("{:>9.3} {line}", time.as_secs_f64()));
    }

    /// Returns how often a process was started.
    pub(crate) fn life(&self, who: usize) -> u64 {
        self.machines.get(who).map_or(0, |seen| seen.life)
    }

    pub(crate) fn violate(&mut self, rule: &'static str, what: String) {
        self.tell(&format!("!! {rule}: {what}"));
        self.violations.push(Violation { rule, what, line: self.history.len() });
    }

    /// Sets how a road is, for one process or for all.
    pub(crate) fn set_mood(&mut self, process: Option<usize>, road: Road, mood: Mood) {
        let processes = process.map_or(0..self.settings.processes, |process| process..process + 1);
        for process in processes {
            self.moods.insert((process, road), mood);
            self.cleared.insert((process, road), Instant::now());
            self.note_dark(process);
        }
    }

    /// Notes whether neither store nor KMS answer a process from now on.
    fn note_dark(&mut self, process: usize) {
        let is_dark = [Road::Reads, Road::Writes, Road::Kms]
            .iter()
            .all(|road| matches!(self.mood(process, *road), Mood::Down(Class::Transient) | Mood::Hangs));
        if let Some(seen) = self.machines.get_mut(process) {
            seen.dark_since = is_dark.then(|| seen.dark_since.unwrap_or_else(Instant::now));
        }
    }

    pub(crate) fn afflict(&mut self, id: KeyId, mood: Mood) {
        self.afflicted.insert(id, (mood, Instant::now()));
    }

    /// Ends all trouble.
    pub(crate) fn clear_up(&mut self) {
        for process in 0..self.settings.processes {
            for road in [Road::Reads, Road::Writes, Road::Replica, Road::Kms, Road::Push] {
                if self.mood(process, road) != Mood::Calm {
                    self.set_mood(Some(process), road, Mood::Calm);
                }
            }
        }
        self.afflicted.values_mut().for_each(|mood| *mood = (Mood::Calm, Instant::now()));
        self.machines.iter_mut().for_each(|seen| seen.dark_since = None);
    }

    pub(crate) fn mood(&self, who: usize, road: Road) -> Mood {
        self.moods.get(&(who, road)).copied().unwrap_or(Mood::Calm)
    }

    /// Returns `true` if the weather on a road has been calm since then.
    pub(crate) fn is_calm_since(&self, who: usize, road: Road, from: Instant) -> bool {
        let cleared = self.cleared.get(&(who, road)).copied().unwrap_or(self.began);
        self.mood(who, road) == Mood::Calm && cleared <= from
    }

    /// Returns `true` if the rows of a partition have been served as others since then.
    pub(crate) fn are_rows_calm_since(&self, id: &KeyId, from: Instant) -> bool {
        self.afflicted.get(id).is_none_or(|(mood, since)| *mood == Mood::Calm && *since <= from)
    }

    /// Returns the dice of the next call of this kind. Calls of other kinds that are left out change nothing for it,
    /// so that plans shrink.
    fn dice(&mut self, who: usize, road: Road, about: &BTreeSet<KeyId>) -> Dice {
        let mut hasher = DefaultHasher::new();
        (who, road, about.iter().map(KeyId::as_str).collect::<Vec<_>>()).hash(&mut hasher);
        let kind = hasher.finish();
        let number = self.asked.entry(kind).or_default();
        *number += 1;
        Dice::new(self.seed ^ kind, *number)
    }

    /// Draws what becomes of a call for these keys.
    pub(crate) fn fate(&mut self, who: usize, road: Road, about: &BTreeSet<KeyId>) -> Fate {
        let afflicted = about.iter().filter_map(|id| self.afflicted.get(id));
        let afflicted = afflicted.map(|(mood, _)| *mood).find(|mood| *mood != Mood::Calm);
        let is_of_rows = afflicted.is_some();
        let mood = afflicted.unwrap_or_else(|| self.mood(who, road));
        let calm = if road == Road::Kms { self.settings.kms_latency } else { self.settings.store_latency };
        if who >= self.settings.processes {
            return Fate { there: Duration::ZERO, back: Duration::ZERO, trouble: None, is_of_rows };
        }
        let mut dice = self.dice(who, road, about);
        let mood = match mood {
            Mood::Flaky(percent) if dice.percent(percent) => {
                let class = dice.one_of(Class::Transient, &[Class::Transient, Class::Permanent]);
                dice.one_of(Mood::Down(class), &[Mood::LosesReplies(class), Mood::Slow(1_000), Mood::Hangs])
            }
            Mood::Flaky(_) => Mood::Calm,
            mood => mood,
        };
        let latency = if let Mood::Slow(most) = mood { most.max(calm) } else { calm };
        let there = dice.between(0, latency);
        let back = dice.between(0, latency - there);
        let trouble = match mood {
            Mood::Calm | Mood::Slow(_) | Mood::Flaky(_) => None,
            Mood::Down(class) => Some(Trouble::Fail(class)),
            Mood::Hangs => Some(Trouble::Hang { is_done: dice.percent(50) }),
            Mood::LosesReplies(class) => Some(Trouble::LoseReply(class)),
        };
        let damages = [Trouble::Fail(Class::Damaged), Trouble::LoseReply(Class::Damaged)];
        self.has_damage |= trouble.is_some_and(|trouble| damages.contains(&trouble));
        Fate { there: ms(there), back: ms(back), trouble, is_of_rows }
    }
}

#[derive(Debug)]
struct Simulated;

impl std::fmt::Display for Simulated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("simulated failure")
    }
}

impl std::error::Error for Simulated {}

pub(crate) fn failure(class: Class) -> BackendError {
    match FailureClass::from(class) {
        FailureClass::Permanent => BackendError::permanent(Simulated),
        FailureClass::Damaged => BackendError::damaged(Simulated),
        _ => BackendError::transient(Simulated),
    }
}
