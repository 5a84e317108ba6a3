//! Two kinds of time that cannot be mixed up.
//!
//! [`Instant`] drives timers and orders things; it is monotonic and means nothing to anybody else. [`WallTime`] is for
//! display and for cursors of foreign systems, and orders nothing: a wall-clock step of any size changes no decision
//! (`[CORE-10]`).
//!
//! Deliberately absent: a way to ask what time it is, and a conversion between the two.

use std::ops::Add;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A point on a monotonic time line, in milliseconds since an arbitrary origin.
///
/// Comparable only with instants of the same process run.
///
/// ```
/// use std::time::Duration;
/// use gapless::recovery::Instant;
///
/// let start = Instant::from_millis(1_000);
/// let due = start + Duration::from_secs(2);
/// assert_eq!(due.as_millis(), 3_000);
/// assert_eq!(due.saturating_since(start), Duration::from_secs(2));
/// assert_eq!(start.saturating_since(due), Duration::ZERO);
/// ```
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Instant(u64);

impl Instant {
    /// The instant `ms` milliseconds after the origin.
    #[must_use]
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the origin.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The span since `earlier`; zero if `earlier` is in fact later.
    #[must_use]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Saturates at the end of the time line. A fraction of a millisecond counts as a whole one, so that nothing is due
/// before its time.
impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        let ms = span.as_nanos().div_ceil(1_000_000);
        Self(self.0.saturating_add(u64::try_from(ms).unwrap_or(u64::MAX)))
    }
}

/// Calendar time in milliseconds since the Unix epoch, for display and foreign cursors only.
///
/// It is `Ord` so that it can be a key or a column; no decision about order or expiry may rest on it.
///
/// ```
/// use gapless::recovery::WallTime;
///
/// let time = WallTime::parse_rfc3339("2024-02-29T13:00:00.25+01:00").unwrap();
/// assert_eq!(time.to_rfc3339(), "2024-02-29T12:00:00.250Z");
/// assert_eq!(WallTime::parse_rfc3339("2023-02-29T12:00:00Z"), None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WallTime(i64);

impl WallTime {
    /// The time `ms` milliseconds after the Unix epoch; negative is before it.
    #[must_use]
    pub const fn from_millis(ms: i64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// The time `span` earlier, in whole milliseconds, at the least the first one that can be represented.
    #[must_use]
    pub fn saturating_sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
    }

    /// RFC 3339 in UTC with milliseconds: `2024-02-29T12:00:00.250Z`.
    ///
    /// The format has four digits for the year: a time outside the years 0 to 9999 is shown as the nearest inside.
    #[must_use]
    pub fn to_rfc3339(self) -> String {
        let ms = self.0.clamp(RFC3339_MIN_MS, RFC3339_MAX_MS);
        let (year, month, day) = civil_from_days(ms.div_euclid(DAY_MS));
        let in_day = ms.rem_euclid(DAY_MS);
        format!(
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
            in_day / HOUR_MS,
            in_day % HOUR_MS / MINUTE_MS,
            in_day % MINUTE_MS / SECOND_MS,
            in_day % SECOND_MS,
        )
    }

    /// Reads RFC 3339 with `Z` or an offset. Digits below the millisecond are cut off; second 60 is the next minute's
    /// first.
    ///
    /// `None` for anything else, also for dates that do not exist.
    #[must_use]
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let mut rest = Scanner(text.as_bytes());
        let year = rest.number(4)?;
        rest.one_of(b"-")?;
        let month = rest.number(2)?;
        rest.one_of(b"-")?;
        let day = rest.number(2)?;
        rest.one_of(b"Tt ")?;
        let hour = rest.number(2)?;
        rest.one_of(b":")?;
        let minute = rest.number(2)?;
        rest.one_of(b":")?;
        let second = rest.number(2)?;
        let fraction_ms = rest.fraction_ms()?;
        let offset_ms = rest.offset_ms()?;

        let date_exists =
            (1..=12).contains(&month) && (1..=days_in_month(year, month)).contains(&day);
        if !rest.0.is_empty() || !date_exists || hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let local_ms = days_from_civil(year, month, day) * DAY_MS
            + hour * HOUR_MS
            + minute * MINUTE_MS
            + second * SECOND_MS
            + fraction_ms;
        Some(Self(local_ms - offset_ms))
    }
}

const SECOND_MS: i64 = 1_000;
const MINUTE_MS: i64 = 60 * SECOND_MS;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;
const RFC3339_MIN_MS: i64 = days_from_civil(0, 1, 1) * DAY_MS;
const RFC3339_MAX_MS: i64 = days_from_civil(10_000, 1, 1) * DAY_MS - 1;

/// The bytes that are not read yet.
struct Scanner<'a>(&'a [u8]);

impl Scanner<'_> {
    fn one_of(&mut self, wanted: &[u8]) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        wanted.contains(&first).then_some(first)
    }

    fn digit(&mut self) -> Option<i64> {
        self.one_of(b"0123456789").map(|byte| i64::from(byte - b'0'))
    }

    fn number(&mut self, digits: usize) -> Option<i64> {
        (0..digits).try_fold(0, |value, _| Some(value * 10 + self.digit()?))
    }

    fn fraction_ms(&mut self) -> Option<i64> {
        if self.0.first() != Some(&b'.') {
            return Some(0);
        }
        self.one_of(b".")?;
        let mut ms = self.digit()? * 100;
        let mut weight = 10;
        while self.0.first().is_some_and(u8::is_ascii_digit) {
            ms += self.digit()? * weight;
            weight /= 10;
        }
        Some(ms)
    }

    fn offset_ms(&mut self) -> Option<i64> {
        let sign = match self.one_of(b"Zz+-")? {
            b'+' => 1,
            b'-' => -1,
            _ => return Some(0),
        };
        let hours = self.number(2)?;
        self.one_of(b":")?;
        let minutes = self.number(2)?;
        (hours <= 23 && minutes <= 59).then_some(sign * (hours * HOUR_MS + minutes * MINUTE_MS))
    }
}

const fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

// Both conversions count in eras of 400 years that begin on 1 March, so that the leap day is the last of its year.
const ERA_DAYS: i64 = 146_097;
const ERA_START_TO_UNIX_DAYS: i64 = 719_468;

const fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * ERA_DAYS + day_of_era - ERA_START_TO_UNIX_DAYS
}

const fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + ERA_START_TO_UNIX_DAYS;
    let day_of_era = days.rem_euclid(ERA_DAYS);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let months_since_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * months_since_march + 2) / 5 + 1;
    let month = (months_since_march + 2) % 12 + 1;
    let year = year_of_era + days.div_euclid(ERA_DAYS) * 400;
    (if month <= 2 { year + 1 } else { year }, month, day)
}
