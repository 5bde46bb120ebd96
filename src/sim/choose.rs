//! Whoever decides what is left open: chance, or somebody who tries everything.
//!
//! Code that asks for numbers below a bound does not care who answers. [`Rng`] answers by chance; an [`Odometer`] turns
//! its last wheel by one from run to run, so that all answers are given in the end, also where a later question depends
//! on an earlier answer (Claessen's exhaustive testing, as the `exhaustigen` crate has it).

use super::Rng;

/// Somebody who decides.
pub trait Choose {
    /// A number below `bound`, which is not zero.
    fn below(&mut self, bound: u64) -> u64;

    /// Yes or no; of chance yes `percent` times in a hundred.
    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

impl Choose for Rng {
    fn below(&mut self, bound: u64) -> u64 {
        Rng::below(self, bound)
    }
}

/// One series of answers after the other, until all were given.
///
/// A series has a number: its answers are the digits, the first one the lowest, each to the base of its bound.
#[derive(Clone, Debug, Default)]
pub struct Odometer {
    wheels: Vec<Wheel>,
    /// How many questions were asked in this run.
    asked: usize,
    /// What the answers to questions beyond the wheels are taken from.
    rest: u64,
}

#[derive(Clone, Copy, Debug)]
struct Wheel {
    digit: u64,
    bound: u64,
}

impl Odometer {
    /// The series of that number.
    pub fn at(number: u64) -> Odometer {
        Odometer { rest: number, ..Odometer::default() }
    }

    /// The number of the series that was just given; `u64::MAX` if it is above that.
    pub fn number(&self) -> u64 {
        let digits = self.wheels.iter().rev();
        digits.fold(0_u64, |number, wheel| number.saturating_mul(wheel.bound).saturating_add(wheel.digit))
    }

    /// In how many ways the questions of this run could be answered, if none depends on the answers before; 2^63 if in
    /// more.
    pub fn ways(&self) -> u64 {
        self.wheels.iter().fold(1_u64, |ways, wheel| ways.saturating_mul(wheel.bound)).min(1 << 63)
    }

    /// Goes on to the next series. `false`: all were given.
    pub fn advance(&mut self) -> bool {
        self.wheels.truncate(self.asked);
        self.asked = 0;
        while let Some(last) = self.wheels.last_mut() {
            last.digit += 1;
            if last.digit < last.bound {
                return true;
            }
            self.wheels.pop();
        }
        false
    }
}

impl Choose for Odometer {
    fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "no number is below zero");
        if self.asked == self.wheels.len() {
            self.wheels.push(Wheel { digit: self.rest % bound, bound });
            self.rest /= bound;
        }
        let wheel = self.wheels[self.asked];
        assert_eq!(wheel.bound, bound, "the same answers lead to the same questions");
        self.asked += 1;
        wheel.digit
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::{prop_assert, prop_assert_eq, proptest};

    use super::*;

    /// Questions of which each depends on the answers before.
    fn ask(choose: &mut impl Choose, seed: u64) -> Vec<u64> {
        let mut answers = Vec::new();
        let mut rng = Rng::new(seed, 0);
        while answers.len() < 6 {
            let bound = 1 + rng.below(3);
            let answer = choose.below(bound);
            answers.push(answer);
            if answer > 0 {
                rng = Rng::new(seed, answers.iter().fold(1, |hash, answer| hash * 4 + answer));
            }
            if rng.chance(20) {
                break;
            }
        }
        answers
    }

    proptest! {
        #[test]
        fn all_series_are_given_once_and_each_comes_back_by_its_number(seed: u64) {
            let mut odometer = Odometer::default();
            let mut seen = BTreeSet::new();
            loop {
                let answers = ask(&mut odometer, seed);
                prop_assert_eq!(&ask(&mut Odometer::at(odometer.number()), seed), &answers);
                prop_assert!(seen.insert(answers), "given twice");
                if !odometer.advance() {
                    break;
                }
            }
            for number in 0..2000 {
                prop_assert!(seen.contains(&ask(&mut Rng::new(seed, number), seed)), "missed");
            }
        }

        #[test]
        fn where_no_question_depends_on_an_answer_numbers_count_the_ways(bounds in proptest::collection::vec(1_u64..4, 0..6)) {
            let mut odometer = Odometer::default();
            let mut numbers = BTreeSet::new();
            loop {
                for bound in &bounds {
                    odometer.below(*bound);
                }
                numbers.insert(odometer.number());
                prop_assert_eq!(odometer.ways(), bounds.iter().product::<u64>());
                if !odometer.advance() {
                    break;
                }
            }
            prop_assert!(numbers.into_iter().eq(0..bounds.iter().product()));
        }
    }
}
