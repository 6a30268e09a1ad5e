//! Draws the steps of a plan.

use super::{Class, Deed, Leave, Mood, Road, Step};
use crate::dice::Dice;
use crate::settings::Settings;

/// How restless a run is, of a hundred: most seeds have some kinds of trouble only, so that each kind is seen by
/// itself and beside others.
struct Temper {
    weather: u64,
    operator: u64,
    losses: u64,
    crashes: u64,
    jumps: u64,
    leaves: u64,
}

impl Temper {
    fn drawn(dice: &mut Dice) -> Self {
        let mut some = |often: u64| if dice.percent(50) { dice.between(1, often) } else { 0 };
        Self {
            weather: some(25),
            operator: some(12),
            losses: some(5),
            crashes: some(8),
            jumps: some(6),
            leaves: some(40),
        }
    }
}

pub(super) fn steps(settings: &Settings, dice: &mut Dice) -> Vec<Step> {
    let temper = Temper::drawn(dice);
    let unit = settings.interval.max(2_000);
    let span = unit * dice.between(3, 15);
    let mut steps = Vec::new();
    for _ in 0..dice.between(20, 140) {
        let at = dice.below(span);
        step(settings, &temper, dice, at, unit, &mut steps);
    }
    steps.sort_by_key(|step| step.at);
    steps
}

/// Draws one deed, and the one that ends it if it lasts.
fn step(settings: &Settings, temper: &Temper, dice: &mut Dice, at: u64, unit: u64, steps: &mut Vec<Step>) {
    let process = index(dice, settings.processes);
    let mut add = |at, deed| steps.push(Step { at, deed });
    if dice.percent(temper.weather) {
        let end = at + dice.one_of(50, &[500, 3_000, unit / 2, unit * 2]);
        for (begins, ends) in weather(settings, dice) {
            add(at, begins);
            add(end, ends);
        }
    } else if dice.percent(temper.operator) {
        add(at, operator(dice));
    } else if dice.percent(temper.losses) {
        let partition = index(dice, settings.partitions);
        add(at, if dice.percent(50) { Deed::Lose { row: row(dice) } } else { Deed::Shred { partition } });
        if dice.percent(30) {
            add(at + dice.below(unit), Deed::RestoreLost { process });
        }
    } else if dice.percent(temper.crashes) {
        let deadline = dice.one_of(0, &[20, 1_000, 20_000]);
        let ends = if dice.percent(50) { Deed::Crash { process } } else { Deed::Close { process, deadline } };
        add(at, ends);
        add(at + dice.one_of(0, &[1, 100, unit]), Deed::Start { process });
    } else if dice.percent(temper.jumps) {
        let most = (settings.expire_seconds * 1_000).min(6 * 3_600_000);
        let span = dice.one_of(1_000, &[60_000, most]).min(most);
        let by = dice.below(span).cast_signed();
        add(at, Deed::Jump { process, by: if dice.percent(50) { by } else { -by } });
    } else {
        add(at, operation(settings, temper, dice, process));
    }
}

fn operation(settings: &Settings, temper: &Temper, dice: &mut Dice, process: usize) -> Deed {
    let times = usize::try_from(dice.one_of(1, &[1, 1, 2, 8])).unwrap_or(1);
    let leave = leave(temper, dice);
    match dice.below(40) {
        0 | 17 | 18 => Deed::WarmUp { process, leave },
        1 | 19 => Deed::Invalidate { process, row: dice.percent(70).then(|| row(dice)) },
        2 => Deed::Crowd { process, partitions: index(dice, 12) },
        3 => Deed::DropSessions { process },
        4 if temper.leaves > 0 => Deed::Leave { process },
        5..=16 => Deed::Decrypt { process, record: row(dice), times, leave },
        _ => Deed::Encrypt { process, partition: index(dice, settings.partitions), times, leave },
    }
}

fn leave(temper: &Temper, dice: &mut Dice) -> Leave {
    if !dice.percent(temper.leaves) {
        return Leave::Never;
    }
    if dice.percent(60) {
        Leave::Polls(u32::try_from(dice.between(1, 6)).unwrap_or(1))
    } else {
        Leave::After(dice.one_of(0, &[1, 5, 30, 300, 3_000]))
    }
}

fn operator(dice: &mut Dice) -> Deed {
    match dice.below(10) {
        0 => Deed::Rewrap { master: index(dice, 2) },
        _ => Deed::Revoke { row: row(dice) },
    }
}

/// What begins, and what ends it.
fn weather(settings: &Settings, dice: &mut Dice) -> Vec<(Deed, Deed)> {
    if dice.percent(10) {
        let partition = index(dice, settings.partitions);
        let mood = mood(dice);
        return vec![(Deed::Afflict { partition, mood }, Deed::Afflict { partition, mood: Mood::Calm })];
    }
    let process = dice.percent(50).then(|| index(dice, settings.processes));
    let mood = mood(dice);
    let roads = match dice.below(6) {
        0 => vec![Road::Reads, Road::Writes, Road::Replica, Road::Kms],
        1 => vec![Road::Reads, Road::Writes],
        _ => vec![dice.one_of(Road::Reads, &[Road::Writes, Road::Kms, Road::Replica, Road::Push])],
    };
    let change = |road, mood| Deed::Weather { process, road, mood };
    roads.into_iter().map(|road| (change(road, mood), change(road, Mood::Calm))).collect()
}

fn mood(dice: &mut Dice) -> Mood {
    let class = dice.one_of(Class::Transient, &[Class::Transient, Class::Permanent, Class::Damaged]);
    match dice.below(7) {
        0 | 1 => Mood::Down(class),
        2 => Mood::Hangs,
        3 => Mood::Slow(dice.one_of(50, &[300, 3_000])),
        4 => Mood::LosesReplies(class),
        _ => Mood::Flaky(dice.between(5, 60)),
    }
}

fn index(dice: &mut Dice, length: usize) -> usize {
    usize::try_from(dice.below(length as u64)).unwrap_or_default()
}

fn row(dice: &mut Dice) -> usize {
    index(dice, 1_000)
}
