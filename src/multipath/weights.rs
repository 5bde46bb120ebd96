//! Priorities by where a path is: the arguments of `weightedpath`.
//!
//! ```text
//!   prio_args "hbtl [1,3]:.:.+:.+ 50 .:.:2:. 10"
//!   prio_args "devname sd[a-d] 50 sde 10"
//! ```
//!
//! The first pattern that matches a path gives its weight. What is used of multipath-tools' regular expressions: of an address
//! `host:channel:target:unit` a field is a number, a set of numbers in brackets, or anything (`.`, `.+`, `.*`); a name holds what the
//! pattern says somewhere, in letters and digits, `.` for any one, and sets and ranges of them in brackets. Paths here have neither
//! serial numbers nor world-wide names of their own.

use std::fmt;

/// Patterns and their weights.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Weights {
    of_what: Of,
    rules: [Option<(Pattern, u8)>; Weights::RULES_MAX],
}

/// What patterns are held against.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
enum Of {
    #[default]
    Address,
    Name,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Pattern {
    /// The numbers that each field may be, as a set of bits.
    Address([u16; 4]),
    /// The pattern as it was typed, and zeroes behind it.
    Name([u8; TEXT_MAX]),
}

/// What no path's address is refused by.
const ANY: u16 = u16::MAX;

/// So many characters a pattern of names may have.
const TEXT_MAX: usize = 16;

/// What may stand in a name, by the number of its bit.
const LETTERS: &[u8] = b"-abcdefghijklmnopqrstuvwxyz0123456789_";

impl Of {
    fn word(self) -> &'static str {
        match self {
            Of::Address => "hbtl",
            Of::Name => "devname",
        }
    }

    fn pattern(self, text: &str) -> Result<Pattern, String> {
        match self {
            Of::Address => fields(text).map(Pattern::Address),
            Of::Name => {
                letters(text)?;
                let mut kept = [0; TEXT_MAX];
                kept[..text.len()].copy_from_slice(text.as_bytes());
                Ok(Pattern::Name(kept))
            }
        }
    }
}

impl Weights {
    /// So many patterns there may be.
    pub const RULES_MAX: usize = 8;

    /// Reads `hbtl PATTERN WEIGHT ...` or `devname PATTERN WEIGHT ...`.
    pub fn parse(text: &str) -> Result<Weights, String> {
        let mut words = text.split_whitespace();
        let of_what = match words.next() {
            Some("hbtl") => Of::Address,
            Some("devname") => Of::Name,
            Some(word @ ("serial" | "wwn")) => {
                return Err(format!("paths here have no {word} of their own: weightedpath takes hbtl or devname"));
            }
            other => {
                let other = other.unwrap_or("");
                return Err(format!("weightedpath takes hbtl or devname and patterns, not {other:?}"));
            }
        };
        let mut weights = Weights { of_what, ..Weights::default() };
        let mut at = 0;
        while let Some(pattern) = words.next() {
            let weight = words.next().ok_or_else(|| format!("the pattern {pattern} has no weight behind it"))?;
            let weight = weight.parse().map_err(|_| format!("a weight is a number from 0 to 255, not {weight:?}"))?;
            let rule = (of_what.pattern(pattern)?, weight);
            let max = Weights::RULES_MAX;
            *weights.rules.get_mut(at).ok_or_else(|| format!("there may be {max} patterns at the most"))? = Some(rule);
            at += 1;
        }
        if at == 0 {
            return Err("weightedpath has no pattern: type something like \"hbtl 0:.:.:. 50\"".to_owned());
        }
        Ok(weights)
    }

    /// The weight of the path at `host:channel:target:unit` that is called `name`; 1 if no pattern matches.
    pub fn of(&self, hctl: &str, name: &str) -> i32 {
        let mut rules = self.rules.iter().flatten();
        rules.find(|(pattern, _)| pattern.matches(hctl, name)).map_or(1, |(_, weight)| i32::from(*weight))
    }
}

impl Pattern {
    fn matches(&self, hctl: &str, name: &str) -> bool {
        match self {
            Pattern::Address(fields) => {
                let mut numbers = hctl.split(':');
                fields.iter().all(|field| {
                    let number = numbers.next().and_then(|number| number.parse::<u32>().ok());
                    *field == ANY || number.is_some_and(|number| number < 16 && field & 1 << number != 0)
                })
            }
            Pattern::Name(text) => {
                let sets = letters(typed(text)).expect("it was read before");
                let fits = |(letter, set): (&u8, &u64)| bit(*letter).is_some_and(|bit| set & bit != 0);
                name.as_bytes().windows(sets.len()).any(|part| part.iter().zip(&sets).all(fits))
            }
        }
    }
}

fn typed(text: &[u8; TEXT_MAX]) -> &str {
    let length = text.iter().take_while(|letter| **letter != 0).count();
    std::str::from_utf8(&text[..length]).expect("it was typed as text")
}

fn bit(letter: u8) -> Option<u64> {
    LETTERS.iter().position(|known| *known == letter).map(|at| 1 << at)
}

fn fields(pattern: &str) -> Result<[u16; 4], String> {
    let bad = |why: &str| {
        format!("the pattern {pattern} {why}: it is host:channel:target:unit, each a number up to 15, [1,3] or .")
    };
    let parts: Vec<&str> = pattern.split(':').collect();
    let parts: [&str; 4] = parts.try_into().map_err(|_| bad("has not four fields"))?;
    let mut fields = [ANY; 4];
    for (field, part) in fields.iter_mut().zip(parts) {
        if [".", ".+", ".*"].contains(&part) {
            continue;
        }
        let inner = part.strip_prefix('[').and_then(|part| part.strip_suffix(']')).unwrap_or(part);
        *field = 0;
        for number in inner.split(',') {
            let number: u32 = number.parse().ok().filter(|number| *number < 16).ok_or_else(|| bad("is none"))?;
            *field |= 1 << number;
        }
    }
    Ok(fields)
}

/// The letters and digits that each character of a name may be, as sets of bits.
fn letters(pattern: &str) -> Result<Vec<u64>, String> {
    let bad = || {
        format!(
            "{pattern} is no pattern of names: it is up to {TEXT_MAX} letters, digits, . and sets in brackets, as sda or sd[a-d]"
        )
    };
    let known = |letter: u8| bit(letter).ok_or_else(bad);
    let mut sets = Vec::new();
    let mut rest = pattern.as_bytes();
    if rest.len() > TEXT_MAX {
        return Err(bad());
    }
    while let [first, behind @ ..] = rest {
        rest = behind;
        sets.push(match first {
            b'.' => (1 << LETTERS.len()) - 1,
            b'[' => {
                let end = rest.iter().position(|letter| *letter == b']').filter(|end| *end > 0).ok_or_else(bad)?;
                let (mut inner, behind) = (&rest[..end], &rest[end + 1..]);
                rest = behind;
                let mut set = 0;
                while let [from, more @ ..] = inner {
                    inner = more;
                    set |= known(*from)?;
                    if let [b'-', to, more @ ..] = inner {
                        inner = more;
                        if from > to {
                            return Err(bad());
                        }
                        for letter in *from..=*to {
                            set |= known(letter)?;
                        }
                    }
                }
                set
            }
            letter => known(*letter)?,
        });
    }
    Ok(sets)
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::Address(fields) => {
                let words = fields.map(|field| {
                    let numbers: Vec<String> = (0..16).filter(|n| field & 1 << n != 0).map(|n| n.to_string()).collect();
                    match numbers.as_slice() {
                        _ if field == ANY => ".".to_owned(),
                        [only] => only.clone(),
                        several => format!("[{}]", several.join(",")),
                    }
                });
                f.write_str(&words.join(":"))
            }
            Pattern::Name(text) => f.write_str(typed(text)),
        }
    }
}

impl fmt::Display for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.of_what.word())?;
        self.rules.iter().flatten().try_for_each(|(pattern, weight)| write!(f, " {pattern} {weight}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_pattern_that_matches_gives_the_weight() {
        let text = "hbtl [1,3]:.:.+:.* 50 0:.:2:. 10";
        let weights = Weights::parse(text).unwrap();
        let of = ["1:0:7:0", "3:0:0:9", "0:0:2:0", "0:0:1:0", "11:0:2:0"].map(|hctl| weights.of(hctl, "sda"));
        assert_eq!(of, [50, 50, 10, 1, 1]);
        assert_eq!(weights.to_string(), "hbtl [1,3]:.:.:. 50 0:.:2:. 10");
        assert_eq!(Weights::parse(&weights.to_string()).unwrap(), weights);
    }

    #[test]
    fn a_name_that_holds_what_the_pattern_says_has_its_weight() {
        let text = "devname sd[a-c] 50 d[ex] 20 .q 10";
        let weights = Weights::parse(text).unwrap();
        let of = ["sda", "sdc", "sde", "sdx", "sdad", "sdq", "sdf", "s"].map(|name| weights.of("0:0:0:0", name));
        assert_eq!(of, [50, 50, 20, 20, 50, 10, 1, 1]);
        assert_eq!(weights.to_string(), text);
        assert_eq!(Weights::parse(&weights.to_string()).unwrap(), weights);
        let dashes = Weights::parse("devname [-_a]x 5").unwrap();
        assert_eq!(["-x", "ax", "bx"].map(|name| dashes.of("", name)), [5, 5, 1]);
    }

    #[test]
    fn what_is_no_pattern_is_named() {
        for (text, named) in [
            ("serial 123 5", "no serial"),
            ("wwn 0x5000:.:.:. 5", "no wwn"),
            ("name sda 5", "\"name\""),
            ("hbtl", "no pattern"),
            ("devname", "no pattern"),
            ("hbtl 0:.:.:.", "no weight"),
            ("devname sda", "no weight"),
            ("hbtl 0:.:. 5", "four fields"),
            ("hbtl 99:.:.:. 5", "99"),
            ("hbtl 0:.:.:. many", "many"),
            ("devname sd[d-a] 5", "sd[d-a]"),
            ("devname sd[] 5", "sd[]"),
            ("devname sd[a 5", "sd[a"),
            ("devname SDA 5", "SDA"),
            ("devname abcdefghijklmnopq 5", "abcdefghijklmnopq"),
        ] {
            let error = Weights::parse(text).unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
