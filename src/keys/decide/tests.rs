//! The tables, written down a second time as lists of rows, against all facts there are; and the states of
//! the life-cycle tests, which go through real factories there.

#[expect(dead_code, reason = "what becomes of it in the store is for the life-cycle tests")]
#[path = "../../../tests/life_cycle/oracle.rs"]
mod oracle;

use super::*;
use oracle::{Age, Key, Opened, Oracle, View, combinations, is_expired, parent_of};

const FITNESSES: [Fitness; 5] =
    [Fitness::Fit, Fitness::Ending, Fitness::Exhausted, Fitness::Expired, Fitness::Unusable];
const FRESHNESSES: [Freshness; 4] = [Freshness::Fresh, Freshness::Due, Freshness::Stale, Freshness::TooOld];
const POLICIES: [RevokedDecrypt; 3] = [RevokedDecrypt::Allow, RevokedDecrypt::Warn, RevokedDecrypt::Deny];
const FAILURES: [Failure; 2] = [Failure::Passing, Failure::Lasting];
const WAITED: [Waited; 6] = [
    Waited::Answered,
    Waited::Gone,
    Waited::Failed(Failure::Passing),
    Waited::Failed(Failure::Lasting),
    Waited::NoAnswer,
    Waited::NotAtAll,
];

/// A row of a table.
struct Row<F, S> {
    matches: fn(&F) -> bool,
    says: S,
}

const fn row<F, S: Copy>(_in_words: &str, matches: fn(&F) -> bool, says: S) -> Row<F, S> {
    Row { matches, says }
}

/// Returns what the first row that matches says.
fn first<F, S: Copy>(rows: &[Row<F, S>], facts: &F) -> S {
    rows.iter().find(|row| (row.matches)(facts)).expect("a table has a row for everything").says
}

fn all_latest() -> impl Iterator<Item = Option<LatestFacts>> {
    let of_freshness = |fitness| {
        FRESHNESSES.into_iter().flat_map(move |freshness| {
            [false, true].map(|is_in_grace| Some(LatestFacts { fitness, freshness, is_in_grace }))
        })
    };
    std::iter::once(None).chain(FITNESSES.into_iter().flat_map(of_freshness))
}

#[test]
fn t1_is_decided_by_its_first_row_that_matches() {
    const fn is(latest: &Option<LatestFacts>, fitness: Fitness) -> bool {
        matches!(latest, Some(facts) if facts.fitness as u8 == fitness as u8)
    }
    const fn aged(latest: &Option<LatestFacts>, freshness: Freshness) -> bool {
        matches!(latest, Some(facts) if facts.freshness as u8 == freshness as u8)
    }
    const fn in_grace(latest: &Option<LatestFacts>) -> bool {
        matches!(latest, Some(LatestFacts { is_in_grace: true, .. }))
    }
    let rows: [Row<Option<LatestFacts>, EncryptStep>; 11] = [
        row("absent", Option::is_none, EncryptStep::Load),
        row("known to be revoked", |key| is(key, Fitness::Unusable), EncryptStep::Load),
        row(
            "expired, in grace",
            |key| is(key, Fitness::Expired) && in_grace(key),
            EncryptStep::Wait(Awaited::Successor),
        ),
        row("expired, later", |key| is(key, Fitness::Expired), EncryptStep::Load),
        row(
            "exhausted, in grace",
            |key| is(key, Fitness::Exhausted) && in_grace(key),
            EncryptStep::Wait(Awaited::Successor),
        ),
        row("exhausted, later", |key| is(key, Fitness::Exhausted), EncryptStep::Load),
        row(
            "near its end",
            |key| is(key, Fitness::Ending) && aged(key, Freshness::Fresh),
            EncryptStep::UseAndReplace,
        ),
        row("age < 80 % of the interval", |key| aged(key, Freshness::Fresh), EncryptStep::Use),
        row("age < interval", |key| aged(key, Freshness::Due), EncryptStep::UseAndRefresh),
        row("older", |key| aged(key, Freshness::Stale), EncryptStep::Wait(Awaited::Check)),
        row("older still", |_| true, EncryptStep::Load),
    ];
    let mut tried = 0;
    for latest in all_latest() {
        assert_eq!(encrypt(latest), first(&rows, &latest), "{latest:?}");
        tried += 1;
    }
    assert_eq!(tried, 41);
}

#[test]
fn t1_waits_unless_the_breaker_is_open_or_it_failed_a_moment_ago() {
    for is_shut in [false, true] {
        for trouble in [None, Some(Failure::Passing), Some(Failure::Lasting)] {
            let way = WayOut { is_shut, trouble };
            assert_eq!(is_worth_waiting(Awaited::Check, way), !is_shut && trouble.is_none(), "{way:?}");
            let is_passing = trouble == Some(Failure::Passing);
            assert_eq!(is_worth_waiting(Awaited::Successor, way), !is_shut && !is_passing, "{way:?}");
        }
    }
}

#[test]
fn t1_goes_on_with_the_cached_key_unless_the_wait_brought_another_or_spoke_against_it() {
    const fn failed((_, waited, _): &(Awaited, Waited, bool)) -> bool {
        matches!(waited, Waited::Gone | Waited::Failed(_))
    }
    let rows: [Row<(Awaited, Waited, bool), Next>; 6] = [
        row("the store answers", |(_, waited, _)| *waited == Waited::Answered, Next::UseAnswer),
        row(
            "no successor, for good",
            |facts| {
                let is_lasting = facts.1 != Waited::Failed(Failure::Passing);
                facts.0 == Awaited::Successor && failed(facts) && is_lasting
            },
            Next::Fail,
        ),
        row("a failure, and the key is revoked", |facts| failed(facts) && facts.2, Next::Fail),
        row("no answer, and the key is revoked", |(.., is_unusable)| *is_unusable, Next::Load),
        row("nobody waited", |facts| facts.1 == Waited::NotAtAll, Next::UseCached { is_logged: false }),
        row("a failure, or no answer", |_| true, Next::UseCached { is_logged: true }),
    ];
    for awaited in [Awaited::Check, Awaited::Successor] {
        for (waited, is_unusable) in WAITED.into_iter().flat_map(|waited| [(waited, false), (waited, true)]) {
            let facts = (awaited, waited, is_unusable);
            let next = after_wait_to_encrypt(awaited, waited, is_unusable);
            assert_eq!(next, first(&rows, &facts), "{facts:?}");
            assert!(
                !is_unusable || !matches!(next, Next::UseCached { .. }),
                "never the revoked one: {facts:?}"
            );
        }
    }
}

#[test]
fn t5_is_decided_by_its_first_row_that_matches() {
    const fn aged((version, _): &(VersionFacts, RevokedDecrypt), aged: Freshness) -> bool {
        matches!(version, VersionFacts::Cached { freshness, .. } if *freshness as u8 == aged as u8)
    }
    let rows: [Row<(VersionFacts, RevokedDecrypt), DecryptStep>; 7] = [
        row(
            "known revoked, policy Deny",
            |facts| matches!(facts, (VersionFacts::Cached { is_revoked: true, .. }, RevokedDecrypt::Deny)),
            DecryptStep::Revoked,
        ),
        row("age < 80 % of the interval", |facts| aged(facts, Freshness::Fresh), DecryptStep::Use),
        row("age < interval", |facts| aged(facts, Freshness::Due), DecryptStep::UseAndRefresh),
        row("older", |facts| aged(facts, Freshness::Stale), DecryptStep::Wait),
        row("older still", |facts| aged(facts, Freshness::TooOld), DecryptStep::Load),
        row("missing a moment ago", |(version, _)| *version == VersionFacts::Missing, DecryptStep::NotFound),
        row("not cached", |_| true, DecryptStep::Load),
    ];
    let cached = FRESHNESSES
        .into_iter()
        .flat_map(|freshness| [false, true].map(|is_revoked| VersionFacts::Cached { freshness, is_revoked }));
    let mut tried = 0;
    for version in cached.chain([VersionFacts::Missing, VersionFacts::Absent]) {
        for policy in POLICIES {
            assert_eq!(decrypt(version, policy), first(&rows, &(version, policy)), "{version:?} {policy:?}");
            tried += 1;
        }
    }
    assert_eq!(tried, 30);
}

#[test]
fn t5_goes_on_with_the_cached_key_unless_its_row_is_gone() {
    assert_eq!(after_wait_to_decrypt(Waited::Answered), Next::UseAnswer);
    assert_eq!(after_wait_to_decrypt(Waited::Gone), Next::Fail);
    for waited in FAILURES.map(Waited::Failed).into_iter().chain([Waited::NoAnswer]) {
        assert_eq!(after_wait_to_decrypt(waited), Next::UseCached { is_logged: true }, "{waited:?}");
    }
    assert_eq!(after_wait_to_decrypt(Waited::NotAtAll), Next::UseCached { is_logged: false });
}

#[test]
fn t5_admits_revoked_keys_as_the_policy_says_and_others_always() {
    assert_eq!(POLICIES.map(|policy| admit(false, policy)), [Admittance::Granted; 3]);
    assert_eq!(
        POLICIES.map(|policy| admit(true, policy)),
        [Admittance::Granted, Admittance::Warned, Admittance::Denied]
    );
}

const fn freshness(age: Age) -> Freshness {
    match age {
        Age::Fresh => Freshness::Fresh,
        Age::Stale => Freshness::Stale,
    }
}

fn fitness(view: &View, key: Key) -> Fitness {
    let parent = parent_of(key.day);
    if key.revoked || view.knows_to_be_revoked(parent) {
        Fitness::Unusable
    } else if is_expired(key.day) || is_expired(parent) {
        Fitness::Expired
    } else {
        Fitness::Fit
    }
}

#[test]
fn states_encrypt_under_the_cached_key_at_once_only_if_the_tables_say_so() {
    for combination in combinations() {
        let view = View::of(combination);
        for age in [Age::Fresh, Age::Stale] {
            // They are expired for longer than anything goes on.
            let facts = |key| LatestFacts {
                fitness: fitness(&view, key),
                freshness: freshness(age),
                is_in_grace: false,
            };
            let step = encrypt(view.cached_ik.map(facts));
            let oracle = Oracle { view: &view, age };
            let foretold = match oracle.encrypts_at_once() {
                Some(_) => EncryptStep::Use,
                None if step == EncryptStep::Wait(Awaited::Check) => {
                    // A store that is well answers, and its answer counts.
                    let way = WayOut { is_shut: false, trouble: None };
                    assert!(age == Age::Stale && is_worth_waiting(Awaited::Check, way));
                    let next = after_wait_to_encrypt(Awaited::Check, Waited::Answered, false);
                    assert_eq!(next, Next::UseAnswer);
                    step
                }
                None => EncryptStep::Load,
            };
            assert_eq!(step, foretold, "{combination:?} {age:?}");
        }
    }
}

#[test]
fn states_decrypt_under_the_cached_key_at_once_only_if_the_tables_say_so() {
    for combination in combinations() {
        let view = View::of(combination);
        let version = view.cached_ik.or(view.stored_iks.last().copied()).map_or(61, |key| key.day);
        for (age, policy) in
            [Age::Fresh, Age::Stale].into_iter().flat_map(|age| POLICIES.map(|policy| (age, policy)))
        {
            let cached = view.cached_ik.filter(|key| key.day == version);
            let facts = cached.map_or(VersionFacts::Absent, |key| VersionFacts::Cached {
                freshness: freshness(age),
                is_revoked: fitness(&view, key) == Fitness::Unusable,
            });
            let oracle = Oracle { view: &view, age };
            let foretold = match oracle.decrypts_at_once(version, policy) {
                Some(Opened::Plaintext) => DecryptStep::Use,
                Some(Opened::Revoked) => DecryptStep::Revoked,
                Some(Opened::NotFound) => DecryptStep::NotFound,
                None if cached.is_some() => DecryptStep::Wait,
                None => DecryptStep::Load,
            };
            assert_eq!(decrypt(facts, policy), foretold, "{combination:?} {age:?} {policy:?}");
        }
    }
}
