//! What an error shows to whoever reads the log.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

/// Returns every layer of an error, as a log would show it.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

/// Fails unless an error says something, and neither it nor what is behind it shows the credentials of
/// the tests, each of which begins with `canary` or `AKID`.
#[track_caller]
pub fn assert_says(error: &(dyn Error + 'static), says: &str) {
    let text = chain(error);
    assert!(text.contains(says), "{text:?} does not say {says:?}");
    for shown in [text, format!("{error:?}")] {
        assert!(!shown.contains("canary") && !shown.contains("AKID"), "{shown}");
    }
}

/// Returns the number that a value's `Debug` shows for a field.
#[must_use]
pub fn shown_number(value: &impl fmt::Debug, field: &str) -> u32 {
    let text = format!("{value:?}");
    let (_, rest) = text.split_once(&format!("{field}: ")).unwrap_or_else(|| panic!("no {field} in {text}"));
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest.get(..end)
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("{field} is no number in {text}"))
}

/// Fails unless a call that nothing answered took as long as its deadline let it, and says so.
///
/// The deadline is that of the limits: a back end is told one that lies 50 ms before, and may need some of that to
/// tell what was slow. A busy machine may take longer, and then the back end says that it had less.
#[track_caller]
pub fn assert_ended_at(deadline: Duration, begun: Instant, error: &(dyn Error + 'static)) {
    const LEAD: Duration = Duration::from_millis(50);
    const TO_TELL: Duration = Duration::from_millis(20);
    let (took, text) = (begun.elapsed(), chain(error));
    assert!(took >= deadline - LEAD - TO_TELL, "{text:?} came after {took:?}, before {deadline:?}");
    assert!(took < deadline * 2 + Duration::from_secs(3), "{text:?} came after {took:?}, not {deadline:?}");
    let told = text.rsplit_once("within ").and_then(|(_, time)| time_of(time));
    let told = told.unwrap_or_else(|| panic!("{text:?} does not say within which time"));
    assert!(told <= deadline - LEAD && told > (deadline - LEAD) / 2, "{text:?} is not of {deadline:?}");
}

/// Reads a time at the beginning of a text, as `Debug` shows one in seconds or in milliseconds.
fn time_of(text: &str) -> Option<Duration> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    let seconds: f64 = number.parse().ok()?;
    Some(Duration::from_secs_f64(if unit.starts_with("ms") { seconds / 1_000.0 } else { seconds }))
}
