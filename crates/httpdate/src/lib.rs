//! Dates as HTTP has them (RFC 9110, 5.6.7), in place of the crate of the same name, of which it has
//! the parts that actix uses.
//!
//! That crate panics at a time before 1970 or after 9999, and actix writes a date every half second
//! in the task that its time limits go by: on a board whose clock starts at 1960, every port would
//! answer 408 for ever. Here such a time is shown as the first or the last that can be.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const SECONDS_A_DAY: u64 = 86_400;
/// 31 December 9999, 23:59:59.
const LAST: u64 = 253_402_300_799;
const DAYS: [(&str, &str); 7] = [
    // The day of the Unix epoch first.
    ("Thu", "Thursday"),
    ("Fri", "Friday"),
    ("Sat", "Saturday"),
    ("Sun", "Sunday"),
    ("Mon", "Monday"),
    ("Tue", "Tuesday"),
    ("Wed", "Wednesday"),
];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Why a text is no date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error(());

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this is no HTTP date")
    }
}

impl std::error::Error for Error {}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        Self::other(error)
    }
}

/// A time from 1970 to 9999, to the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HttpDate {
    /// Since the Unix epoch.
    seconds: u64,
}

impl From<SystemTime> for HttpDate {
    /// The nearest there is.
    fn from(time: SystemTime) -> Self {
        let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self { seconds: seconds.min(LAST) }
    }
}

impl From<HttpDate> for SystemTime {
    fn from(date: HttpDate) -> Self {
        // A system whose times end before 9999 shows its last known one.
        UNIX_EPOCH.checked_add(Duration::from_secs(date.seconds)).unwrap_or(UNIX_EPOCH)
    }
}

/// Year, month (from 1) and day of the day that is so many after the epoch. (Howard Hinnant's
/// `civil_from_days`: years begin in March, so that the day that comes and goes is the last.)
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// The other way round; the day may be any.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    let from_march = if month > 2 { month - 3 } else { month + 9 };
    let year = year.checked_sub(u64::from(month <= 2))?;
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * from_march + 2) / 5 + day.checked_sub(1)?;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * 146_097 + day_of_era).checked_sub(719_468)
}

fn name<T: Copy>(names: &[T], number: u64) -> Option<T> {
    usize::try_from(number).ok().and_then(|number| names.get(number)).copied()
}

impl fmt::Display for HttpDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, second) = (self.seconds / SECONDS_A_DAY, self.seconds % SECONDS_A_DAY);
        let (year, month, day) = civil(days);
        let weekday = name(&DAYS, days % 7).map_or("", |(short, _)| short);
        let month = name(&MONTHS, month.saturating_sub(1)).unwrap_or_default();
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        // In one piece, as actix wants it, and without the formatting machinery: a date is made for
        // every call that goes out.
        let mut text = *b"www, dd mmm yyyy hh:mm:ss GMT";
        put(&mut text, 0, weekday.as_bytes());
        put(&mut text, 5, &two_digits(day));
        put(&mut text, 8, month.as_bytes());
        put(&mut text, 12, &two_digits(year / 100));
        put(&mut text, 14, &two_digits(year % 100));
        put(&mut text, 17, &two_digits(hour));
        put(&mut text, 20, &two_digits(minute));
        put(&mut text, 23, &two_digits(second));
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

/// Writes `part` into `text` from `at` on.
fn put(text: &mut [u8], at: usize, part: &[u8]) {
    let places = text.iter_mut().skip(at);
    places.zip(part).for_each(|(place, byte)| *place = *byte);
}

/// A number below 100.
fn two_digits(number: u64) -> [u8; 2] {
    [number / 10, number % 10].map(|digit| b'0' + digit as u8)
}

/// A number of exactly so many digits.
fn digits(text: &str, count: usize) -> Option<u64> {
    let good = text.len() == count && text.bytes().all(|c| c.is_ascii_digit());
    good.then(|| text.parse().ok())?
}

fn time_of_day(text: &str) -> Option<u64> {
    let mut parts = text.split(':').map(|part| digits(part, 2));
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    let good = parts.next().is_none() && hour < 24 && minute < 60 && second < 60;
    good.then_some(hour * 3600 + minute * 60 + second)
}

/// What all three forms have: the day's number, and the names that they have for it.
fn date(weekday: &str, (year, month, day): (u64, &str, u64), time: &str) -> Option<HttpDate> {
    let month = MONTHS.iter().position(|name| *name == month)? as u64 + 1;
    let days = days(year, month, day)?;
    // Neither 30 February nor a Monday that was none.
    let (short, long) = name(&DAYS, days % 7)?;
    let good = civil(days) == (year, month, day) && (weekday == short || weekday == long);
    let seconds = days * SECONDS_A_DAY + time_of_day(time)?;
    (good && seconds <= LAST).then_some(HttpDate { seconds })
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`.
fn imf(text: &str) -> Option<HttpDate> {
    let mut parts = text.strip_suffix(" GMT")?.split(' ');
    let weekday = parts.next()?.strip_suffix(',').filter(|name| name.len() == 3)?;
    let (day, month) = (digits(parts.next()?, 2)?, parts.next()?);
    let (year, time) = (digits(parts.next()?, 4)?, parts.next()?);
    parts.next().is_none().then(|| date(weekday, (year, month, day), time))?
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`; two digits stand for 1970 to 2069.
fn rfc850(text: &str) -> Option<HttpDate> {
    let mut parts = text.strip_suffix(" GMT")?.split(' ');
    let weekday = parts.next()?.strip_suffix(',').filter(|name| name.len() > 3)?;
    let (mut day, time) = (parts.next()?.split('-'), parts.next()?);
    let (number, month, year) = (digits(day.next()?, 2)?, day.next()?, digits(day.next()?, 2)?);
    let year = if year < 70 { 2000 + year } else { 1900 + year };
    let whole = parts.next().is_none() && day.next().is_none();
    whole.then(|| date(weekday, (year, month, number), time))?
}

/// `Sun Nov  6 08:49:37 1994`.
fn asctime(text: &str) -> Option<HttpDate> {
    let mut parts = text.split_ascii_whitespace();
    let (weekday, month) = (parts.next()?, parts.next()?);
    let day = parts.next()?;
    let (time, year) = (parts.next()?, digits(parts.next()?, 4)?);
    let whole = text.len() == 24 && parts.next().is_none() && weekday.len() == 3;
    whole.then(|| date(weekday, (year, month, digits(day, day.len())?), time))?
}

impl FromStr for HttpDate {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        imf(text).or_else(|| rfc850(text)).or_else(|| asctime(text)).ok_or(Error(()))
    }
}

/// Reads a date in any of HTTP's three forms.
///
/// # Errors
/// It is in none, or no such day was.
pub fn parse_http_date(text: &str) -> Result<SystemTime, Error> {
    text.parse::<HttpDate>().map(SystemTime::from)
}

/// A time as HTTP shows it, such as `Sun, 06 Nov 1994 08:49:37 GMT`.
pub fn fmt_http_date(time: SystemTime) -> String {
    HttpDate::from(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn the_three_forms_of_one_time_are_read_and_the_first_is_written() {
        let time = at(784_111_777);
        let text = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(fmt_http_date(time), text);
        for form in [text, "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(parse_http_date(form), Ok(time), "{form}");
        }
    }

    #[test]
    fn times_that_cannot_be_shown_are_shown_as_the_nearest() {
        let (first, last) = ("Thu, 01 Jan 1970 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT");
        for (time, text) in [
            (UNIX_EPOCH, first),
            (UNIX_EPOCH - Duration::from_nanos(1), first),
            (UNIX_EPOCH - Duration::from_secs(10 * 365 * SECONDS_A_DAY), first),
            (at(LAST), last),
            (at(LAST + 1), last),
            (at(LAST * 100), last),
        ] {
            assert_eq!(fmt_http_date(time), text);
            assert_eq!(text.len(), 29, "actix has room for no more");
            assert!(parse_http_date(text).is_ok());
        }
    }

    #[test]
    fn every_day_reads_back_as_it_is_shown() {
        let leap =
            |y: u64| y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400));
        let mut number = 0;
        for year in 1970..=9999 {
            let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
            for (month, length) in (1..).zip(lengths) {
                for day in 1..=length {
                    assert_eq!(civil(number), (year, month, day));
                    assert_eq!(days(year, month, day), Some(number));
                    number += 1;
                }
                let time = at((number - 1) * SECONDS_A_DAY + number % SECONDS_A_DAY);
                assert_eq!(parse_http_date(&fmt_http_date(time)), Ok(time));
            }
        }
        assert_eq!(number * SECONDS_A_DAY - 1, LAST);
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in [
            "",
            "Sun, 07 Nov 1994 08:48:37 GMT",
            "Tue, 30 Feb 1999 08:48:37 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 08:60:00 GMT",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 GMT x",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 94 08:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 06 nov 1994 08:49:37 GMT",
            "Sun Nov 10 08:00:00 1000",
            "Wed, 31 Dec 1969 23:59:59 GMT",
            "Sunday, 06-Nov-94 08+49:37 GMT",
            "Sunday, 06-Nov-1994 08:49:37 GMT",
            "Sonntag, 06-Nov-94 08:49:37 GMT",
            "é, 06 Nov 1994 08:49:37 GMT",
        ] {
            assert_eq!(parse_http_date(text), Err(Error(())), "{text:?}");
        }
    }

    #[test]
    fn dates_compare_as_their_times() {
        assert!(HttpDate::from(at(1)) < HttpDate::from(at(2)));
        assert_eq!(SystemTime::from(HttpDate::from(at(7))), at(7));
    }
}
