//! What a path has to its account: whether it may be taken again although it is found well.
//!
//! * `san_path_err_*` counts how often it was lost; too often, it is *delayed* for a while.
//! * `marginal_path_*` suspects a path that fails twice in a short time. It is *shaky* until reads say how many of a thousand fail.
//! * A checker may lie: probes are answered and requests fail. A path that was reinstated and failed again before it served anything is
//!   kept out for twice as long each time, so that it does not go up and down for ever.

use std::time::Duration;

use super::map::PathState;
use super::settings::{MarginalPath, SanPathErr, Settings};
use crate::block::Instant;

/// Reads at a time, ten times a second.
pub(super) const SAMPLES: u32 = 32;

/// Time between two bunches of them.
pub(super) const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);

/// A path that serves nothing is kept out for `polling_interval` times two to this at the most.
const BARREN_MAX: u32 = 6;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Suspicion {
    #[default]
    None,
    /// It failed then, and since then not again.
    Failed(Instant),
    /// It is tried when it is found well, but not before.
    ToBeTried(Instant),
    Tried {
        until: Instant,
        reads: u32,
        errors: u32,
        under_way: u32,
    },
}

/// A path's account.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Trial {
    losses: u32,
    good_checks: u32,
    out_until: Option<Instant>,
    suspicion: Suspicion,
    /// Times it was reinstated and served nothing.
    barren: u32,
    failed_at: Instant,
}

impl Trial {
    /// It was failed; `served` says whether it did anything since it was taken.
    pub(super) fn failed(&mut self, settings: &Settings, served: bool, now: Instant) {
        self.barren = if served { 0 } else { self.barren + 1 };
        self.failed_at = now;
        if settings.san_path_err.is_on() {
            self.losses += 1;
            self.good_checks = 0;
        }
        let MarginalPath { double_failed_time, .. } = settings.marginal_path;
        self.suspicion = match self.suspicion {
            _ if !settings.marginal_path.is_on() => Suspicion::None,
            Suspicion::Failed(before) if now <= before + double_failed_time => Suspicion::ToBeTried(now),
            Suspicion::None | Suspicion::Failed(_) => Suspicion::Failed(now),
            known => known,
        };
    }

    /// It was found well, and is in use.
    pub(super) fn forget(&mut self, san: &SanPathErr) {
        self.good_checks += 1;
        if san.is_on() && self.good_checks >= san.forget_rate {
            self.good_checks = 0;
            self.losses = self.losses.saturating_sub(1);
        }
    }

    /// It is found well: what it is instead, if there is something against it. `alone`: there is no other path, and nothing is.
    pub(super) fn judge(&mut self, settings: &Settings, alone: bool, now: Instant) -> Option<PathState> {
        if alone {
            (self.losses, self.out_until, self.suspicion) = (0, None, Suspicion::None);
            return None;
        }
        self.delayed(&settings.san_path_err, now).or_else(|| self.suspected(&settings.marginal_path, now))
    }

    fn delayed(&mut self, san: &SanPathErr, now: Instant) -> Option<PathState> {
        if self.out_until.is_none() && san.is_on() && self.losses > san.threshold {
            self.out_until = Some(now + san.recovery_time);
        }
        if self.out_until? <= now {
            (self.losses, self.out_until) = (0, None);
            return None;
        }
        Some(PathState::Delayed)
    }

    fn suspected(&mut self, marginal: &MarginalPath, now: Instant) -> Option<PathState> {
        match self.suspicion {
            Suspicion::None | Suspicion::Failed(_) => return None,
            Suspicion::ToBeTried(from) if from <= now => {
                let until = now + marginal.err_sample_time;
                self.suspicion = Suspicion::Tried { until, reads: 0, errors: 0, under_way: 0 };
            }
            Suspicion::ToBeTried(_) | Suspicion::Tried { .. } => {}
        }
        Some(PathState::Shaky)
    }

    /// Until when a path that serves nothing is kept out; at the most for `longest`.
    pub(super) fn barren_until(&self, polling_interval: Duration, longest: Duration) -> Option<Instant> {
        let time = polling_interval * (1 << self.barren.min(BARREN_MAX));
        (self.barren > 0).then(|| self.failed_at + time.min(longest))
    }

    /// Whether it is being tried.
    pub(super) fn is_tried(&self) -> bool {
        matches!(self.suspicion, Suspicion::Tried { .. })
    }

    /// How many reads are to be sent now. When the time is up, none: what has not come back by then has failed.
    pub(super) fn samples(&mut self, marginal: &MarginalPath, now: Instant) -> u32 {
        let Suspicion::Tried { until, reads, errors, under_way } = &mut self.suspicion else { return 0 };
        if now < *until {
            let more = SAMPLES - *under_way;
            *reads += more;
            *under_way = SAMPLES;
            return more;
        }
        let failed = u64::from(*errors + *under_way) * 1000;
        let is_fit = failed <= u64::from(marginal.err_rate_threshold) * u64::from(*reads);
        self.suspicion =
            if is_fit { Suspicion::None } else { Suspicion::ToBeTried(now + marginal.err_recheck_gap_time) };
        0
    }

    /// A read came back.
    pub(super) fn sampled(&mut self, is_ok: bool) {
        if let Suspicion::Tried { errors, under_way, .. } = &mut self.suspicion {
            *errors += u32::from(!is_ok && *under_way > 0);
            *under_way = under_way.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::START + Duration::from_secs(seconds)
    }

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_path_that_is_lost_too_often_is_delayed_and_good_checks_are_forgetful() {
        let san_path_err = SanPathErr { threshold: 2, forget_rate: 3, recovery_time: s(60) };
        let settings = Settings { san_path_err, ..Settings::default() };
        let mut trial = Trial::default();
        for second in [1, 2] {
            trial.failed(&settings, true, at(second));
            assert_eq!(trial.judge(&settings, false, at(second)), None);
        }
        let mut forgetful = trial;
        trial.failed(&settings, true, at(3));
        assert_eq!(trial.judge(&settings, false, at(10)), Some(PathState::Delayed));
        assert_eq!(trial.judge(&settings, false, at(69)), Some(PathState::Delayed));
        assert_eq!(trial.judge(&settings, true, at(69)), None, "alone, it is wanted");
        (0..3).for_each(|_| forgetful.forget(&san_path_err));
        forgetful.failed(&settings, true, at(3));
        assert_eq!(forgetful.judge(&settings, false, at(10)), None);
        forgetful.failed(&settings, true, at(4));
        assert_eq!(forgetful.judge(&settings, false, at(10)), Some(PathState::Delayed));
        assert_eq!(forgetful.judge(&settings, false, at(70)), None, "the time is over, and all is forgotten");
        forgetful.failed(&settings, true, at(71));
        assert_eq!(forgetful.judge(&settings, false, at(72)), None);
    }

    #[test]
    fn two_failures_in_a_short_time_are_suspect_and_reads_decide() {
        let marginal_path = MarginalPath {
            double_failed_time: s(10),
            err_sample_time: s(120),
            err_rate_threshold: 5,
            err_recheck_gap_time: s(300),
        };
        let settings = Settings { marginal_path, ..Settings::default() };
        let mut trial = Trial::default();
        trial.failed(&settings, true, at(0));
        assert_eq!(trial.judge(&settings, false, at(1)), None);
        trial.failed(&settings, true, at(11));
        assert_eq!(trial.judge(&settings, false, at(12)), None, "the first was too long ago");
        trial.failed(&settings, true, at(20));
        assert_eq!(trial.judge(&settings, false, at(21)), Some(PathState::Shaky));
        // Six reads in a thousand fail: one more than may.
        let outcome = |errors: u32, mut trial: Trial| {
            let mut failing = errors;
            for bunch in 0..125 {
                let more = trial.samples(&marginal_path, at(21) + SAMPLE_INTERVAL * bunch);
                for _ in 0..more {
                    trial.sampled(failing == 0);
                    failing = failing.saturating_sub(1);
                }
            }
            assert_eq!(trial.samples(&marginal_path, at(141)), 0);
            trial
        };
        let mut fit = outcome(20, trial);
        assert_eq!(fit.judge(&settings, false, at(142)), None);
        let mut unfit = outcome(21, trial);
        assert_eq!(unfit.judge(&settings, false, at(142)), Some(PathState::Shaky));
        assert!(!unfit.is_tried(), "not before the gap is over");
        assert_eq!(unfit.judge(&settings, false, at(441)), Some(PathState::Shaky));
        assert!(unfit.is_tried());
        // What is silent has failed.
        assert_eq!(unfit.samples(&marginal_path, at(442)), 32);
        assert_eq!(unfit.samples(&marginal_path, at(443)), 0);
        assert_eq!(unfit.samples(&marginal_path, at(561)), 0);
        assert!(!unfit.is_tried() && unfit.judge(&settings, false, at(562)) == Some(PathState::Shaky));
    }

    #[test]
    fn what_serves_nothing_is_kept_out_for_twice_as_long_each_time() {
        let settings = Settings::default();
        let mut trial = Trial::default();
        trial.failed(&settings, true, at(0));
        assert_eq!(trial.barren_until(s(5), Duration::MAX), None);
        let mut kept = Vec::new();
        for _ in 0..8 {
            trial.failed(&settings, false, at(0));
            kept.push(trial.barren_until(s(5), Duration::MAX).unwrap().since(Instant::START).as_secs());
        }
        assert_eq!(kept, [10, 20, 40, 80, 160, 320, 320, 320]);
        assert_eq!(trial.barren_until(s(5), s(20)), Some(at(20)), "alone, not for long");
    }
}
