//! Priorities by where a path is: the arguments of `weightedpath`.
//!
//! ```text
//!   prio_args "hbtl [1,3]:.:.+:.+ 50 .:.:2:. 10"
//! ```
//!
//! The first pattern that a path's `host:channel:target:unit` matches gives its weight. A field is a number, a set of numbers in
//! brackets, or anything (`.`, `.+`, `.*`): what is used of multipath-tools' regular expressions.

use std::fmt;

/// Patterns and their weights.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Weights {
    rules: [Option<Rule>; Weights::RULES_MAX],
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Rule {
    /// The numbers that each field may be, as a set of bits.
    fields: [u16; 4],
    weight: u8,
}

/// What no path's address is refused by.
const ANY: u16 = u16::MAX;

impl Weights {
    /// So many patterns there may be.
    pub const RULES_MAX: usize = 8;

    /// Reads `hbtl PATTERN WEIGHT ...`.
    pub fn parse(text: &str) -> Result<Weights, String> {
        let mut words = text.split_whitespace();
        match words.next() {
            Some("hbtl") => {}
            other => return Err(format!("weightedpath takes hbtl and patterns, not {:?}", other.unwrap_or(""))),
        }
        let mut weights = Weights::default();
        let mut at = 0;
        while let Some(pattern) = words.next() {
            let weight = words.next().ok_or_else(|| format!("the pattern {pattern} has no weight behind it"))?;
            let weight = weight.parse().map_err(|_| format!("a weight is a number from 0 to 255, not {weight:?}"))?;
            let rule = Rule { fields: fields(pattern)?, weight };
            let max = Weights::RULES_MAX;
            *weights.rules.get_mut(at).ok_or_else(|| format!("there may be {max} patterns at the most"))? = Some(rule);
            at += 1;
        }
        if at == 0 {
            return Err("weightedpath has no pattern: type something like \"hbtl 0:.:.:. 50\"".to_owned());
        }
        Ok(weights)
    }

    /// The weight of the path at `host:channel:target:unit`; 1 if no pattern matches.
    pub fn of(&self, hctl: &str) -> i32 {
        let rules = self.rules.iter().flatten();
        rules.clone().find(|rule| rule.matches(hctl)).map_or(1, |rule| i32::from(rule.weight))
    }
}

impl Rule {
    fn matches(&self, hctl: &str) -> bool {
        let mut numbers = hctl.split(':');
        self.fields.iter().all(|field| {
            let number = numbers.next().and_then(|number| number.parse::<u32>().ok());
            *field == ANY || number.is_some_and(|number| number < 16 && field & 1 << number != 0)
        })
    }
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

impl fmt::Display for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hbtl")?;
        for Rule { fields, weight } in self.rules.iter().flatten() {
            let words = fields.map(|field| {
                let numbers: Vec<String> = (0..16).filter(|n| field & 1 << n != 0).map(|n| n.to_string()).collect();
                match numbers.as_slice() {
                    _ if field == ANY => ".".to_owned(),
                    [only] => only.clone(),
                    several => format!("[{}]", several.join(",")),
                }
            });
            write!(f, " {} {weight}", words.join(":"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_pattern_that_matches_gives_the_weight() {
        let text = "hbtl [1,3]:.:.+:.* 50 0:.:2:. 10";
        let weights = Weights::parse(text).unwrap();
        let of = ["1:0:7:0", "3:0:0:9", "0:0:2:0", "0:0:1:0", "11:0:2:0"].map(|hctl| weights.of(hctl));
        assert_eq!(of, [50, 50, 10, 1, 1]);
        assert_eq!(weights.to_string(), "hbtl [1,3]:.:.:. 50 0:.:2:. 10");
        assert_eq!(Weights::parse(&weights.to_string()).unwrap(), weights);
    }

    #[test]
    fn what_is_no_pattern_is_named() {
        for (text, named) in [
            ("devname sda 5", "devname"),
            ("hbtl", "no pattern"),
            ("hbtl 0:.:.:.", "no weight"),
            ("hbtl 0:.:. 5", "four fields"),
            ("hbtl 99:.:.:. 5", "99"),
            ("hbtl 0:.:.:. many", "many"),
        ] {
            let error = Weights::parse(text).unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
