//! Times as the text that all writers send: `YYYY-MM-DD HH:MM:SS`, in UTC.
//!
//! The server is never asked to convert between a time and its text: it would by the zone of the
//! session, and where clocks change two times have one text.

const DAY: i64 = 86_400;
const DAYS_OF_400_YEARS: i64 = 146_097;
/// From the first of January of the year 1.
const DAYS_TO_1970: i64 = 719_162;

/// Writes Unix seconds, of the years 1 to 9999.
pub(super) fn text(unix_seconds: i64) -> String {
    let days = unix_seconds.div_euclid(DAY) + DAYS_TO_1970;
    let second = unix_seconds.rem_euclid(DAY);
    // By the mean length of a year it is the right one or the one before.
    let mut year = days * 400 / DAYS_OF_400_YEARS;
    while days_before(year + 1) <= days {
        year += 1;
    }
    let (mut month, mut day) = (1, days - days_before(year));
    for length in months(year) {
        if day < length {
            break;
        }
        (month, day) = (month + 1, day - length);
    }
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{:02} {hour:02}:{minute:02}:{second:02}", day + 1)
}

/// Reads what [`text`] writes, also with a fraction of zeros; `None` of anything else, such as the
/// `0000-00-00 00:00:00` that servers make of what they cannot hold.
pub(super) fn seconds(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut numbers = whole.split(['-', ' ', ':']).map(|digits| digits.parse::<u16>().ok().map(i64::from));
    let mut next = || numbers.next().flatten();
    let (year, month, day) = (next()?, next()?, next()?);
    let (hour, minute, second) = (next()?, next()?, next()?);
    let months_before = usize::try_from(month).ok()?.checked_sub(1)?;
    let days = days_before(year) + months(year).iter().take(months_before).sum::<i64>() + day - 1;
    let unix_seconds = (days - DAYS_TO_1970) * DAY + hour * 3_600 + minute * 60 + second;
    let is_exact = fraction.bytes().all(|digit| digit == b'0') && self::text(unix_seconds) == whole;
    is_exact.then_some(unix_seconds)
}

/// How many days there are before a year, from the year 1 on.
const fn days_before(year: i64) -> i64 {
    let years = year - 1;
    years * 365 + years / 4 - years / 100 + years / 400
}

const fn months(year: i64) -> [i64; 12] {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    [31, if is_leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::CREATED_MAX;

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
