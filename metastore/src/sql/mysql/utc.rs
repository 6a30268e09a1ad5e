//! Times as the text that all writers send: `YYYY-MM-DD HH:MM:SS`, in UTC.
//!
//! The server is never asked to convert between a time and its text: it would by the zone of the
//! session, and where clocks change two times have one text.

use time::{Date, Month, Time, UtcDateTime};

/// Writes Unix seconds, of the years 1 to 9999.
pub(super) fn text(unix_seconds: i64) -> String {
    // Times past those years were refused before.
    let time = UtcDateTime::from_unix_timestamp(unix_seconds).unwrap_or(UtcDateTime::MAX);
    let (hour, minute, second) = time.as_hms();
    let (year, month, day) = (time.year(), u8::from(time.month()), time.day());
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// Reads what [`text`] writes, also with a fraction of zeros; `None` of anything else, such as the
/// `0000-00-00 00:00:00` that servers make of what they cannot hold.
pub(super) fn seconds(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut numbers = whole.split(['-', ' ', ':']).map(|digits| digits.parse::<u16>().ok());
    let mut next = || numbers.next().flatten();
    let (year, month, day) = (next()?, two_digits(next()?)?, two_digits(next()?)?);
    let (hour, minute, second) = (two_digits(next()?)?, two_digits(next()?)?, two_digits(next()?)?);
    let date = Date::from_calendar_date(i32::from(year), Month::try_from(month).ok()?, day).ok()?;
    let time = Time::from_hms(hour, minute, second).ok()?;
    let unix_seconds = UtcDateTime::new(date, time).unix_timestamp();
    let is_exact = fraction.bytes().all(|digit| digit == b'0') && self::text(unix_seconds) == whole;
    is_exact.then_some(unix_seconds)
}

fn two_digits(number: u16) -> Option<u8> {
    number.try_into().ok()
}

#[cfg(test)]
mod tests {
    use claviger::Created;

    use super::*;

    const CREATED_MAX: i64 = Created::MAX.unix_seconds();

    #[test]
    fn known_times_have_their_texts() {
        let known = [
            (1, "1970-01-01 00:00:01"),
            (951_782_400, "2000-02-29 00:00:00"),
            (1_700_000_000, "2023-11-14 22:13:20"),
            (i64::from(i32::MAX), "2038-01-19 03:14:07"),
            (4_107_542_399, "2100-02-28 23:59:59"),
            (4_107_542_400, "2100-03-01 00:00:00"),
            (CREATED_MAX, "9999-12-31 23:59:59"),
        ];
        for (seconds, written) in known {
            assert_eq!(text(seconds), written);
            assert_eq!(super::seconds(written), Some(seconds));
        }
    }

    #[test]
    fn every_day_reads_back_and_sorts_as_its_time_does() {
        let mut before = String::new();
        for noon in (43_200..CREATED_MAX).step_by(86_400) {
            let written = text(noon);
            assert_eq!(seconds(&written), Some(noon), "{written}");
            assert!(before < written, "{before} {written}");
            before = written;
        }
    }

    #[test]
    fn fractions_of_zeros_are_whole_seconds() {
        assert_eq!(seconds("2023-11-14 22:13:20.000000"), Some(1_700_000_000));
        assert_eq!(seconds("2023-11-14 22:13:20.000001"), None);
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "",
            "0000-00-00 00:00:00",
            "2023-02-29 00:00:00",
            "2023-13-01 00:00:00",
            "2023-00-10 00:00:00",
            "2023-11-14T22:13:20",
            "2023-11-14",
            "2023-11-14 24:00:00",
            "2023-11-14 22:13:20 ",
            "2023-11-14 22:13:20Z",
            "-023-11-14 22:13:20",
            "70000-11-14 22:13:20",
            "2023-1-14 22:13:20",
        ] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }
}
