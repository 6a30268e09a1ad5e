//! What an error shows to whoever reads the log.

use std::error::Error;
use std::fmt;

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
