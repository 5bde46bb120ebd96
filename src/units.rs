//! Sizes, durations and ranges as they are typed.
//!
//! mdadm counts in powers of two: `64K` is 64 KiB to it, and so it is here. Drive makers count in
//! powers of ten, and `64kB` says so; `64KiB` leaves no doubt. A number alone is bytes (mdadm would
//! read KiB), and `s` means 512-byte sectors.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

/// A number of bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Size(pub u64);

/// A stretch of time, in text its largest unit that says it exactly: `30s`, `250ms`, `2m`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Span(pub Duration);

/// Why a word is not the size, duration or range that it should be.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum NotUnderstood {
    /// It does not begin with digits.
    #[error("{0:?} does not begin with a number: type something like {1}")]
    NoNumber(String, &'static str),
    /// What follows the digits is no unit.
    #[error("{unit:?} in {text:?} is not a unit: known are {known}")]
    Unit {
        /// All that was typed.
        text: String,
        /// What stands where the unit should.
        unit: String,
        /// The units there are.
        known: &'static str,
    },
    /// It names a part of a byte or of a nanosecond.
    #[error("{0:?} is not a whole number of {1}")]
    NotWhole(String, &'static str),
    /// It does not fit into 64 bits.
    #[error("{0:?} is too large: the most is {1}")]
    TooLarge(String, &'static str),
    /// A range has two ends with `..` between them.
    #[error("{0:?} is not a range: type A..B, from A up to but not including B")]
    NoRange(String),
    /// A range that holds nothing.
    #[error("{0:?} is empty: the end must be above the beginning")]
    EmptyRange(String),
}

const SIZE_UNITS: &[(&str, u64)] = &[
    ("", 1),
    ("B", 1),
    ("s", 512),
    ("K", 1 << 10),
    ("M", 1 << 20),
    ("G", 1 << 30),
    ("T", 1 << 40),
    ("P", 1 << 50),
    ("k", 1 << 10),
    ("m", 1 << 20),
    ("g", 1 << 30),
    ("t", 1 << 40),
    ("p", 1 << 50),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("PiB", 1 << 50),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("PB", 1_000_000_000_000_000),
];

/// In nanoseconds. A number alone has no obvious unit and is refused, except for 0.
const SPAN_UNITS: &[(&str, u64)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("min", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

impl FromStr for Size {
    type Err = NotUnderstood;

    fn from_str(text: &str) -> Result<Size, NotUnderstood> {
        let known = "K M G T P (powers of 1024, also KiB ...), kB MB GB TB PB (powers of 1000), s (512 bytes)";
        let number = Number::parse(text).ok_or_else(|| NotUnderstood::NoNumber(text.into(), "64K or 1G"))?;
        let unit = number.unit_of(text, SIZE_UNITS, known)?;
        number.times(unit, text, "bytes", "16 EiB").map(Size)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("P", 50), ("T", 40), ("G", 30), ("M", 20), ("K", 10)];
        let (unit, shift) =
            units.into_iter().find(|(_, shift)| self.0 != 0 && self.0.trailing_zeros() >= *shift).unwrap_or(("", 0));
        write!(f, "{}{unit}", self.0 >> shift)
    }
}

impl FromStr for Span {
    type Err = NotUnderstood;

    fn from_str(text: &str) -> Result<Span, NotUnderstood> {
        if text == "0" {
            return Ok(Span(Duration::ZERO));
        }
        let number = Number::parse(text).ok_or_else(|| NotUnderstood::NoNumber(text.into(), "30s or 250ms"))?;
        let unit = number.unit_of(text, SPAN_UNITS, "ns us ms s m h d")?;
        number.times(unit, text, "nanoseconds", "584 years").map(|nanoseconds| Span(Duration::from_nanos(nanoseconds)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanoseconds = self.0.as_nanos();
        let units = ["d", "h", "m", "s", "ms", "us", "ns"];
        let (unit, length) = SPAN_UNITS
            .iter()
            .rev()
            .filter(|(name, _)| units.contains(name))
            .find(|(_, length)| nanoseconds != 0 && nanoseconds.is_multiple_of(u128::from(*length)))
            .unwrap_or(&("s", 1));
        write!(f, "{}{unit}", nanoseconds / u128::from(*length))
    }
}

/// `A..B`, from `A` up to but not including `B`, for numbers and sizes.
///
/// # Errors
/// When there are not two ends, an end is not understood, or nothing is between them.
pub fn range<T>(text: &str) -> Result<Range<T>, Box<dyn std::error::Error + Send + Sync>>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static> + PartialOrd,
{
    let (start, end) = text.split_once("..").ok_or_else(|| NotUnderstood::NoRange(text.into()))?;
    if start.is_empty() || end.is_empty() {
        return Err(NotUnderstood::NoRange(text.into()).into());
    }
    let range = start.parse()?..end.parse()?;
    if range.is_empty() { Err(NotUnderstood::EmptyRange(text.into()).into()) } else { Ok(range) }
}

/// Digits with perhaps a fraction, and what follows them.
struct Number<'a> {
    digits: u128,
    /// How many of the digits stand behind the point.
    decimals: u32,
    unit: &'a str,
}

impl Number<'_> {
    /// `None` where there is no digit, or more than anyone types.
    fn parse(text: &str) -> Option<Number<'_>> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let is_well_formed = !whole.is_empty() && number.len() <= 30 && !number.ends_with('.');
        let digits = is_well_formed.then(|| format!("{whole}{fraction}").parse().ok())??;
        Some(Number { digits, decimals: fraction.len() as u32, unit })
    }

    fn unit_of(&self, text: &str, units: &[(&str, u64)], known: &'static str) -> Result<u64, NotUnderstood> {
        let found = units.iter().find(|(name, _)| *name == self.unit).map(|(_, length)| *length);
        found.ok_or_else(|| NotUnderstood::Unit { text: text.into(), unit: self.unit.into(), known })
    }

    fn times(&self, unit: u64, text: &str, of: &'static str, most: &'static str) -> Result<u64, NotUnderstood> {
        let too_large = || NotUnderstood::TooLarge(text.into(), most);
        let product = self.digits.checked_mul(u128::from(unit)).ok_or_else(too_large)?;
        let divisor = 10_u128.pow(self.decimals);
        if !product.is_multiple_of(divisor) {
            return Err(NotUnderstood::NotWhole(text.into(), of));
        }
        u64::try_from(product / divisor).map_err(|_| too_large())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_k_alone_is_1024_as_it_is_to_mdadm() {
        let sizes = [
            ("0", 0),
            ("4096", 4096),
            ("64K", 65536),
            ("64k", 65536),
            ("64KiB", 65536),
            ("64kB", 64000),
            ("64KB", 64000),
            ("8s", 4096),
            ("1G", 1 << 30),
            ("1.5G", 3 << 29),
            ("2TB", 2_000_000_000_000),
            ("17B", 17),
        ];
        for (text, bytes) in sizes {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_shown_can_be_typed_and_is_the_same() {
        for bytes in [0, 1, 512, 1000, 1023, 1024, 65536, 3 << 29, 1 << 40, (1 << 40) + 1024, u64::MAX, 1 << 63] {
            assert_eq!(Size(bytes).to_string().parse(), Ok(Size(bytes)));
        }
        for nanoseconds in [0, 1, 1_000, 250_000_000, 30_000_000_000, 120_000_000_000, 86_400_000_000_000, u64::MAX] {
            let span = Span(Duration::from_nanos(nanoseconds));
            assert_eq!(span.to_string().parse(), Ok(span));
        }
        assert_eq!(Size(65536).to_string(), "64K");
        assert_eq!(Span(Duration::from_millis(90_000)).to_string(), "90s");
        assert_eq!(Span(Duration::from_millis(250)).to_string(), "250ms");
    }

    #[test]
    fn durations_say_their_unit() {
        assert_eq!("30s".parse(), Ok(Span(Duration::from_secs(30))));
        assert_eq!("1.5s".parse(), Ok(Span(Duration::from_millis(1500))));
        assert_eq!("2m".parse(), Ok(Span(Duration::from_secs(120))));
        assert!(matches!("30".parse::<Span>(), Err(NotUnderstood::Unit { .. })));
    }

    #[test]
    fn a_message_names_what_was_typed_and_what_could_be() {
        let message = |text: &str| text.parse::<Size>().unwrap_err().to_string();
        assert!(message("64Q").starts_with(r#""Q" in "64Q" is not a unit: known are K M G"#));
        assert!(message("").contains("type something like 64K"));
        assert!(message("-1").contains("does not begin with a number"));
        assert!(message("1.0001K").contains("not a whole number of bytes"));
        for text in ["16384P", "18446744073709551616", "999999999999999999999999999999P"] {
            assert!(message(text).contains("too large: the most is 16 EiB"), "{text}");
        }
        for text in ["1.", ".5G", "1..2", "1.2.3", "1 G", "K"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn ranges_have_two_ends_and_something_between() {
        assert_eq!(range::<Size>("1M..2M").unwrap(), Size(1 << 20)..Size(2 << 20));
        assert_eq!(range::<u64>("0..1000").unwrap(), 0..1000);
        for text in ["", "5", "..", "5..", "..5", "5..5", "6..5", "a..b"] {
            assert!(range::<u64>(text).is_err(), "{text}");
        }
    }
}
