//! How good paths are: the prioritizers.

use std::time::Duration;

use super::Multipath;
use super::errand::Errand;
use super::map::PathState;
use super::settings::Prio;
use crate::block::Instant;
use crate::fabric::{Access, Fabric};

/// The priority of an access state (`alua`).
fn alua(access: Access) -> i32 {
    match access {
        Access::Optimized => 50,
        Access::NonOptimized => 10,
        Access::Standby => 1,
        Access::Unavailable | Access::Transitioning => 0,
    }
}

/// The same by ANA's scale: inaccessible and change are 1.
fn ana(access: Access) -> i32 {
    alua(access).max(1)
}

impl<F: Fabric> Multipath<F> {
    /// Whether a priority is another now.
    pub(super) fn read_priorities(&mut self, map: usize) -> bool {
        let mut changed = false;
        for at in 0..self.maps[map].paths.len() {
            let path = &self.maps[map].paths[at];
            let id = path.id;
            let prio = match self.settings.prio {
                Prio::Const => 1,
                Prio::Alua => alua(self.fabric.access(id)),
                Prio::Ana => ana(self.fabric.access(id)),
                Prio::Weighted(weights) => {
                    let info = &self.fabric.paths()[usize::from(id.0)];
                    weights.of(&info.hctl, &info.name)
                }
                Prio::Latency(_) => path.latency_prio,
                Prio::Random(seed) => 1 + (self.chance(seed) % 10) as i32,
            };
            changed |= std::mem::replace(&mut self.maps[map].paths[at].prio, prio) != prio;
        }
        changed
    }

    /// A number that depends on the seed and on how many were drawn.
    fn chance(&mut self, seed: u64) -> u64 {
        self.drawn += 1;
        let mut x = seed ^ self.drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// Begins to measure how long reads take on a path that was found well.
    pub(super) fn measure(&mut self, map: usize, at: usize, now: Instant) {
        let Prio::Latency(latency) = self.settings.prio else { return };
        let path = &mut self.maps[map].paths[at];
        if path.measured.0 == 0 && path.state == PathState::Up {
            path.measured = (latency.reads, 0.0);
            self.read_first(map, at, Errand::Latency, now);
        }
    }

    /// A read that was measured came back: the next one goes out, or the priority is known.
    pub(super) fn measured(&mut self, map: usize, at: usize, took: Duration, is_ok: bool, now: Instant) {
        let Prio::Latency(latency) = self.settings.prio else { return };
        let path = &mut self.maps[map].paths[at];
        path.measured.1 += latency.log(took);
        path.measured.0 = if is_ok { path.measured.0 - 1 } else { 0 };
        if path.measured.0 > 0 {
            return self.read_first(map, at, Errand::Latency, now);
        }
        let mean = path.measured.1 / f64::from(latency.reads);
        path.latency_prio = if is_ok { latency.prio(mean) } else { 0 };
        self.rate(map);
    }
}
