//! The clocks of a benchmark.
//!
//! The core is told the time; a benchmark is where somebody has to look at it. It does so through
//! [`Clock`] alone, so that its own tests run on a clock they turn by hand.

use std::time::SystemTime;

use crate::block::Instant;

/// Tells the time.
pub trait Clock {
    /// Now, counted from a start of the clock's own.
    fn now(&self) -> Instant;
}

/// The monotonic clock of this computer, counted from when this was made.
#[derive(Clone, Copy, Debug)]
pub struct RealClock {
    start: std::time::Instant,
}

impl RealClock {
    /// A clock that starts now.
    #[allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
    pub fn start() -> RealClock {
        RealClock { start: std::time::Instant::now() }
    }
}

impl Clock for RealClock {
    fn now(&self) -> Instant {
        Instant::START + self.start.elapsed()
    }
}

/// The date and time in UTC as ISO 8601 writes it, for the head of a report.
#[allow(clippy::disallowed_methods, reason = "a report carries its date")]
pub fn utc_now() -> String {
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |passed| passed.as_secs());
    iso_8601(seconds)
}

/// Seconds since 1970 as a date, by counting years of 365.2425 days from 1 March of the year 0
/// (Howard Hinnant, "chrono-compatible low-level date algorithms", `civil_from_days`).
fn iso_8601(seconds: u64) -> String {
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_become_the_date_they_are() {
        // Taken from `date --utc --date=@N`.
        assert_eq!(iso_8601(0), "1970-01-01T00:00:00Z");
        assert_eq!(iso_8601(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(iso_8601(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(iso_8601(1_735_689_599), "2024-12-31T23:59:59Z");
        assert_eq!(iso_8601(4_107_542_399), "2100-02-28T23:59:59Z");
    }
}
