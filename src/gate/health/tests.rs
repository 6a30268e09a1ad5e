use super::*;
use crate::record::KeyId;

const SECOND: Duration = Duration::from_secs(1);

fn at(milliseconds: u64) -> Duration {
    Duration::from_secs(1_000) + Duration::from_millis(milliseconds)
}

fn key(name: &str) -> Subject {
    Subject::latest(&KeyId::new(name))
}

/// Keys that are asked one after the other, and what becomes of it.
#[derive(Debug)]
struct Played {
    health: Health,
    now: u64,
}

impl Played {
    fn new() -> Self {
        Self { health: Health::new(Arc::default()), now: 0 }
    }

    fn may_ask(&self, name: &str) -> bool {
        matches!(self.health.look(Some(&key(name)), at(self.now)), Verdict::Go(_))
    }

    /// Asks, as an operation without retries does; `false` if that is not to be.
    fn ask(&self, name: &str, is_answered: bool) -> bool {
        let (subject, now) = (key(name), at(self.now));
        let Verdict::Go(standing) = self.health.look(Some(&subject), now) else { return false };
        let in_trouble = matches!(standing, Standing::Troubled(_));
        assert!(self.health.admit(Some(&subject), in_trouble, now).is_ok());
        if is_answered {
            self.health.answered(Some(&subject), true, now);
        } else {
            self.health.failed(&subject, now, now);
            self.health.note_trouble(&subject, BackendError::transient(name.to_owned()), now, now);
        }
        true
    }

    /// Asks until the breaker is open; returns how often.
    fn fail_until_open(&mut self, names: &[&str]) -> Option<usize> {
        let mut asked = 0;
        for name in names.iter().cycle().take(40) {
            self.now += 1_000;
            asked += usize::from(self.ask(name, false));
            if self.health.is_tripped() {
                return Some(asked);
            }
        }
        None
    }
}

#[test]
fn breaker_opens_on_five_failures_of_three_subjects() {
    // Who was answered just before, who fails then, once a second, and after how many failures it opens.
    for (asked, failing, opens) in [
        (None, vec!["a"], 5),
        (None, vec!["a", "b"], 5),
        (None, vec!["a", "b", "c"], 5),
        (None, vec!["a", "b", "c", "d", "e", "f", "g"], 5),
        // The other says nothing of the dependency once that was ten seconds ago.
        (Some("x"), vec!["a"], 10),
        (Some("x"), vec!["a", "b"], 10),
        (Some("x"), vec!["a", "b", "c"], 5),
    ] {
        let mut played = Played::new();
        if let Some(asked) = asked {
            assert!(played.ask(asked, true));
        }
        assert_eq!(played.fail_until_open(&failing), Some(opens), "{asked:?} {failing:?}");
    }
}

#[test]
fn call_that_came_to_nobody_counts_neither_way() {
    let mut played = Played::new();
    for name in ["a", "b", "c", "d", "e"] {
        for refused in ["x", "y", "z"] {
            assert!(played.health.admit(Some(&key(refused)), false, at(played.now)).is_ok());
            played.health.not_asked(&key(refused), at(played.now));
        }
        assert!(!played.health.is_tripped(), "{name}");
        assert!(played.ask(name, false));
    }
    assert!(played.health.is_tripped());
    for _ in 0..10 {
        played.now += 1_000;
        for refused in ["x", "y", "z"] {
            assert!(played.health.admit(Some(&key(refused)), false, at(played.now)).is_ok());
            played.health.not_asked(&key(refused), at(played.now));
            assert!(played.health.is_tripped());
        }
        let new = format!("new{}", played.now);
        assert!(played.ask(&new, false), "the probe is still to be made");
        assert!(!played.may_ask("other"), "and is made once");
    }
}

#[test]
fn breaker_stays_closed_as_long_as_anybody_is_answered() {
    let mut played = Played::new();
    for round in 0..100 {
        for name in ["a", "b", "c", "d"] {
            played.ask(name, false);
        }
        assert!(played.ask(&format!("well{round}"), true), "{round}");
        played.now += 500;
        assert!(!played.health.is_tripped(), "{round}");
    }
}

#[test]
fn breaker_stays_closed_as_long_as_others_are_answered_while_many_hang() {
    let mut played = Played::new();
    for round in 0..10 {
        let asked = at(played.now);
        let hanging: Vec<_> = (0..64).map(|number| key(&format!("hung{round}_{number}"))).collect();
        for subject in &hanging {
            assert!(played.health.admit(Some(subject), false, asked).is_ok());
        }
        played.now += 1_000;
        assert!(played.ask("well", true));
        played.now += 1_000;
        hanging.iter().for_each(|subject| played.health.failed(subject, asked, at(played.now)));
        assert!(!played.health.is_tripped(), "{round}");
    }
}

#[test]
fn open_breaker_refuses_who_is_in_trouble_and_makes_others_wait() {
    let mut played = Played::new();
    played.fail_until_open(&["a", "b", "c"]).unwrap();
    let now = at(played.now);
    match played.health.look(Some(&key("a")), now) {
        Verdict::Refused(failure) => {
            assert_eq!(std::error::Error::source(&failure).unwrap().to_string(), "a")
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(played.health.look(Some(&key("new")), now), Verdict::Wait(SECOND)));
    assert!(matches!(played.health.look(None, now), Verdict::Wait(SECOND)));
}

#[test]
fn open_breaker_lets_one_probe_through_a_second_whoever_asks() {
    for names in [vec!["a"], vec!["a", "b", "c"], vec!["a", "new", "b", "other"]] {
        let mut played = Played::new();
        played.fail_until_open(&["a", "b", "c"]).unwrap();
        let mut probes = 0;
        for step in 0..10_000 {
            played.now += 1;
            probes += usize::from(played.ask(names[step % names.len()], false));
            assert!(played.health.is_tripped());
        }
        assert!((9..=10).contains(&probes), "{names:?}: {probes}");
    }
}

#[tokio::test(start_paused = true)]
async fn probe_is_left_to_who_waits_for_it_and_is_not_in_trouble() {
    let mut played = Played::new();
    played.fail_until_open(&["a", "b", "c"]).unwrap();
    played.now += 1_000;
    assert!(played.may_ask("a"), "nobody else wants it");
    let until = Instant::now() + SECOND;
    let mut waiting = Box::pin(played.health.probe(until, SECOND));
    assert!(poll_once(waiting.as_mut()).is_none());
    assert!(!played.may_ask("a"));
    assert!(played.may_ask("new"));
    drop(waiting);
    assert!(played.may_ask("a"));
}

#[test]
fn probe_is_left_for_a_while_to_those_that_were_answered_last() {
    let mut played = Played::new();
    for number in 1..=5 {
        assert!(played.ask(&format!("well{number}"), true));
    }
    played.now = 20_000;
    played.fail_until_open(&["a", "b", "c"]).unwrap();
    played.now += 1_000;
    let may_ask = |played: &Played| ["well1", "well2", "well5", "new"].map(|name| played.may_ask(name));
    assert_eq!(may_ask(&played), [false, true, true, false]);
    played.now += 249;
    assert_eq!(may_ask(&played), [false, true, true, false]);
    played.now += 1;
    assert_eq!(may_ask(&played), [true; 4]);
    // One that fails is in trouble, and preferred no more.
    for name in ["well2", "well3", "well4", "well5"] {
        assert!(played.health.prefers(&key(name), at(played.now)));
        assert!(played.ask(name, false));
        played.now += 1_000;
    }
    assert!(played.may_ask("new"));
}

#[tokio::test(start_paused = true)]
async fn answer_closes_the_breaker_wakes_who_waits_and_lets_all_be_asked_again() {
    let mut played = Played::new();
    played.fail_until_open(&["a", "b", "c"]).unwrap();
    played.now += 1;
    let begun = Instant::now();
    let mut waiting = Box::pin(played.health.probe(begun + 2 * SECOND, SECOND));
    assert!(poll_once(waiting.as_mut()).is_none());
    assert!(["a", "b", "c"].iter().all(|name| !played.may_ask(name)));
    played.health.answered(Some(&key("a")), false, at(played.now));
    assert!(poll_once(waiting.as_mut()).is_some_and(|woken| woken.is_ok()));
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert!(!played.health.is_tripped());
    for name in ["a", "b", "c"] {
        assert!(played.ask(name, false), "{name}");
        assert!(!played.may_ask(name), "once");
    }
}

#[tokio::test(start_paused = true)]
async fn wait_for_a_probe_ends_when_patience_does() {
    let mut played = Played::new();
    played.fail_until_open(&["a"]).unwrap();
    let begun = Instant::now();
    let mut waits = 0;
    while played.health.probe(begun + 2 * SECOND, SECOND).await.is_ok() {
        waits += 1;
    }
    assert_eq!((waits, begun.elapsed()), (2, 2 * SECOND));
}

#[test]
fn probe_that_is_reserved_is_the_next_call_whoever_makes_it() {
    let mut played = Played::new();
    played.fail_until_open(&["a"]).unwrap();
    assert_eq!(played.health.reserve_probe(at(played.now)), Some(SECOND));
    played.now += 1_000;
    assert_eq!(played.health.reserve_probe(at(played.now)), None);
    assert!(played.health.reserve_probe(at(played.now)).is_some(), "one only");
    assert!(played.ask("a", false), "though it was asked this second");
    assert!(!played.ask("a", false) && !played.may_ask("b"));
}

#[test]
fn subject_in_trouble_is_asked_once_a_second_until_it_answers() {
    let mut played = Played::new();
    played.ask("well", true);
    assert!(played.ask("a", false));
    let mut asked = 0;
    for _ in 0..5_000 {
        played.now += 1;
        asked += usize::from(played.ask("a", false));
        played.ask("well", true);
    }
    assert_eq!(asked, 5);
    played.now += 1_000;
    assert!(played.ask("a", true));
    assert!(played.ask("a", true), "in trouble no more");
}

#[test]
fn trouble_is_over_after_a_minute() {
    let mut played = Played::new();
    played.ask("well", true);
    assert!(played.ask("a", false));
    let standing = |played: &Played| played.health.look(Some(&key("a")), at(played.now));
    played.now = 60_000;
    assert!(matches!(standing(&played), Verdict::Go(Standing::Troubled(_))));
    played.now = 60_001;
    assert!(matches!(standing(&played), Verdict::Go(Standing::Well)));
}

#[test]
fn ten_thousand_in_trouble_are_remembered_the_last_ones() {
    let played = Played::new();
    for number in 0..10_001 {
        played.ask(&number.to_string(), false);
        played.ask("well", true);
    }
    assert!(played.may_ask("0"), "forgotten");
    assert!(!played.may_ask("1") && !played.may_ask("10000"));
}

#[test]
fn refusal_is_an_answer_and_serves_nobody() {
    let played = Played::new();
    for number in 0..20 {
        let subject = key(&number.to_string());
        assert!(played.health.admit(Some(&subject), false, at(0)).is_ok());
        played.health.answered(Some(&subject), false, at(0));
    }
    assert!(!played.health.is_tripped());
    assert!(!played.health.has_served_since(at(0)));
    played.ask("a", true);
    assert!(played.health.has_served_since(at(0)) && !played.health.has_served_since(at(1)));
}

/// Polls once.
fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    match future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}
