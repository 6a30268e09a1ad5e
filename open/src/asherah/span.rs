//! Times whose unit depends on who wrote them.

use std::time::Duration;

use super::implementation::{Asherah, Unit};
use crate::error::SpecError;
use crate::fields::Fields;

/// How a time is read.
pub(super) struct Span {
    pub(super) by: Asherah,
    pub(super) unit: Unit,
    /// What to say of 0, if there is more to say than that it is too short.
    pub(super) zero: Option<&'static str>,
}

impl Span {
    pub(super) fn read(
        &self,
        fields: &mut Fields,
        name: &'static str,
    ) -> Result<Option<Duration>, SpecError> {
        let called = fields.called(name);
        if !fields.has(name) {
            return Ok(None);
        }
        if self.unit == Unit::Written {
            let span = fields.parsed(name, "a time such as 1h30m or 90d", |value| written(value.word()?))?;
            let span = span.unwrap_or_default();
            return self.check(fields, &called, span, "", String::new()).map(Some);
        }
        let number: i64 = fields.number(name)?.unwrap_or_default();
        let magnitude = number.unsigned_abs();
        let (seconds, nanoseconds) = (Duration::from_secs(magnitude), Duration::from_nanos(magnitude));
        let by = self.by.name();
        let (span, other, unit, reads) = match self.unit {
            Unit::Nanoseconds => (nanoseconds, seconds, "seconds", "nanoseconds"),
            _ => (seconds, nanoseconds, "nanoseconds", "seconds"),
        };
        let read = format!(", which {by}'s Asherah reads as {reads}");
        if number < 0 {
            return Err(fields.wrong(&format!("{called} is {number}{read}; it is no time, correct it")));
        }
        let advice = match is_in_range(other) {
            true => {
                let value = match self.unit {
                    Unit::Nanoseconds => u128::from(magnitude) * 1_000_000_000,
                    _ => u128::from(magnitude / 1_000_000_000),
                };
                format!("; if {magnitude} {unit} ({}) are meant, write {value}", shown(other))
            }
            false => String::new(),
        };
        self.check(fields, &called, span, &format!(" is {number}{read}:"), advice).map(Some)
    }

    fn check(
        &self,
        fields: &Fields,
        called: &str,
        span: Duration,
        read: &str,
        advice: String,
    ) -> Result<Duration, SpecError> {
        match self.zero {
            Some(why) if span.is_zero() => Err(fields.wrong(&format!("{called} is 0, {why}"))),
            _ if is_in_range(span) => Ok(span),
            _ => {
                let read = if read.is_empty() { " is" } else { read };
                let shown = shown(span);
                Err(fields.wrong(&format!("{called}{read} {shown}; claviger takes 1s to 100 years{advice}")))
            }
        }
    }
}

/// A time as Go writes it, with fractions as in `1.5h`, or with days as people do.
fn written(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok().or_else(|| {
        let mut span = Duration::ZERO;
        let mut rest = Some(text).filter(|text| !text.is_empty())?;
        while !rest.is_empty() {
            let number_end = rest.find(|letter: char| letter != '.' && !letter.is_ascii_digit())?;
            let (number, after) = rest.split_at(number_end);
            let unit_end =
                after.find(|letter: char| letter == '.' || letter.is_ascii_digit()).unwrap_or(after.len());
            let (unit, next) = after.split_at(unit_end);
            let seconds = match unit {
                "h" => 3_600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "\u{b5}s" | "\u{3bc}s" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
            let part = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
            (span, rest) = (span.checked_add(part)?, next);
        }
        Some(span)
    })
}

fn is_in_range(span: Duration) -> bool {
    (Duration::from_secs(1)..=YEARS_100).contains(&span)
}

/// In units that people read: whole days where it is some, and of what is longer than a life the years alone.
fn shown(span: Duration) -> String {
    const DAY_SECONDS: u64 = 86_400;
    match span.as_secs() {
        seconds if span > YEARS_100 => format!("{} years", seconds / YEAR_SECONDS),
        seconds if seconds > 0 && seconds % DAY_SECONDS == 0 && span.subsec_nanos() == 0 => {
            format!("{}d", seconds / DAY_SECONDS)
        }
        _ => humantime::format_duration(span).to_string(),
    }
}

const YEAR_SECONDS: u64 = 31_557_600;

const YEARS_100: Duration = Duration::from_secs(100 * YEAR_SECONDS);

pub(super) const CHECK_INTERVAL_ZERO: &str = "which means three things: Rust's Asherah never looks again at a key, Go's looks at each use, and what is built \
     on cobhan takes its default; say how long a key is used before it is looked at again";
