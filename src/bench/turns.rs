//! Turns: contestants on one arena, each in a short window, one after the other, for a few rounds.
//!
//! Numbers of different minutes do not compare on a shared machine, and those of neighbouring milliseconds do: a ratio is
//! taken inside a round. A window in which the thread lost the processor is measured again.

use std::time::Duration;

/// A window whose thread got less than this share of its time as processor time was disturbed.
const UNDISTURBED_SHARE: f64 = 0.97;

/// How often a disturbed window is measured again before it is taken as it is.
const RETRIES: usize = 3;

/// Where contestants compete.
pub trait Arena {
    /// How many there are.
    fn contestants(&self) -> usize;

    /// Has one of them do its work so many times, and says how long that took.
    fn run(&mut self, contestant: usize, count: u64) -> Duration;

    /// Panics if what one of them did last is wrong. Asked for once, before it is timed.
    fn check(&mut self, contestant: usize);
}

/// What came of it.
#[derive(Clone, PartialEq, Debug)]
pub struct Turns {
    /// For each contestant, how often it did its work in a second, round by round.
    pub rates: Vec<Vec<f64>>,
    /// Windows taken although the thread lost the processor in them, every time they were tried.
    pub disturbed: usize,
}

/// Lets all contestants take turns; `go_on` is told the number of each round that is over, from 1, and may end it there.
pub fn take_turns(
    arena: &mut dyn Arena,
    rounds: usize,
    window: Duration,
    go_on: &mut dyn FnMut(usize) -> bool,
) -> Turns {
    assert!(rounds > 0, "no rounds");
    let counts: Vec<u64> = (0..arena.contestants()).map(|who| count_for(arena, who, window)).collect();
    let mut turns = Turns { rates: vec![Vec::with_capacity(rounds); counts.len()], disturbed: 0 };
    for round in 1..=rounds {
        for (who, count) in counts.iter().enumerate() {
            let (took, disturbed) = one_window(arena, who, *count);
            turns.disturbed += usize::from(disturbed);
            turns.rates[who].push(*count as f64 / took.as_secs_f64().max(1e-9));
        }
        if !go_on(round) {
            break;
        }
    }
    turns
}

/// How often the work is done in a window. Also warms up, and has it checked.
fn count_for(arena: &mut dyn Arena, who: usize, window: Duration) -> u64 {
    let enough = window / 4;
    let mut count = 1;
    let took = loop {
        let took = arena.run(who, count);
        if took >= enough {
            break took;
        }
        count *= 2;
    };
    arena.check(who);
    ((count as f64 * window.as_secs_f64() / took.as_secs_f64()) as u64).max(1)
}

/// The time a window took, and whether the thread lost the processor meanwhile.
fn one_window(arena: &mut dyn Arena, who: usize, count: u64) -> (Duration, bool) {
    for _ in 0..RETRIES {
        let before = processor_time();
        let took = arena.run(who, count);
        if (processor_time() - before).as_secs_f64() >= took.as_secs_f64() * UNDISTURBED_SHARE {
            return (took, false);
        }
    }
    (arena.run(who, count), true)
}

/// Processor time this thread has had.
pub fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("processor time is not negative")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Contestants that take so many nanoseconds, by their word alone.
    struct Told(Vec<u64>, Vec<usize>);

    impl Arena for Told {
        fn contestants(&self) -> usize {
            self.0.len()
        }

        fn run(&mut self, contestant: usize, count: u64) -> Duration {
            self.1.push(contestant);
            Duration::from_nanos(self.0[contestant] * count)
        }

        fn check(&mut self, _contestant: usize) {}
    }

    #[test]
    fn each_has_a_window_in_every_round_and_its_rate_is_what_it_did_in_it() {
        let mut arena = Told(vec![100, 250], Vec::new());
        let mut rounds = Vec::new();
        let turns = take_turns(&mut arena, 9, Duration::from_micros(10), &mut |round| {
            rounds.push(round);
            round < 3
        });
        assert_eq!(rounds, [1, 2, 3]);
        assert_eq!(turns.rates.len(), 2);
        for rate in &turns.rates[0] {
            assert!((rate / 1e7 - 1.0).abs() < 1e-9, "{rate}");
        }
        assert_eq!(turns.rates[1].len(), 3);
        let order: Vec<usize> = arena.1.into_iter().rev().take(12).collect();
        assert!(order.contains(&0) && order.contains(&1));
    }
}
