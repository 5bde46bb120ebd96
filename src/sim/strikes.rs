//! Which faults of the table have struck, on what, and while what was going on.
//!
//! What is done to a disk may lie there for a while; it counts when a request meets it. So before every event the
//! situation is taken down, and after it the counters of disks and faults say what was met.

use smallvec::SmallVec;

use super::array::{Lab, SimArray};
use super::coverage::{Coverage, Doing, FaultClass, MemberState};
use super::scenario::{Act, Target};
use super::{CacheLoss, Hits};
use crate::block::DeviceId;
use crate::disk::FaultKind;
use crate::raid::member::Member;

/// What a fault would strike now.
#[derive(Clone, Default, Debug)]
pub(super) struct Situation {
    members: SmallVec<[MemberState; 8]>,
    doing: SmallVec<[Doing; 8]>,
}

/// What has been counted.
#[derive(Clone, Default, Debug)]
pub(super) struct Seen {
    hits: SmallVec<[Hits; 8]>,
    strikes: SmallVec<[u64; 8]>,
    visits: Visits,
}

/// For each state of a member, the events while there was one; for each, those while the array did something.
#[derive(Clone, Default, Debug)]
struct Visits([(u64, Vec<u64>); MemberState::ALL.len()]);

impl Visits {
    fn count(&mut self, situation: &Situation) {
        let mut states = [false; MemberState::ALL.len()];
        situation.members.iter().for_each(|member| states[*member as usize] = true);
        // Several bands may do the same.
        let mut doing: SmallVec<[usize; 8]> = situation.doing.iter().map(|doing| doing.index()).collect();
        doing.sort_unstable();
        doing.dedup();
        for (events, seen) in self.0.iter_mut().zip(states).filter(|(_, there)| *there).map(|(visits, _)| visits) {
            *events += 1;
            for at in &doing {
                seen.resize(seen.len().max(at + 1), 0);
                seen[*at] += 1;
            }
        }
    }
}

impl Situation {
    /// Of the array as it is.
    pub(super) fn of(array: &SimArray) -> Situation {
        let mut situation = Situation::default();
        situation.take(array);
        situation
    }

    /// The same, in place.
    pub(super) fn take(&mut self, array: &SimArray) {
        self.members.clear();
        self.members
            .extend(array.bank().bank().inner().devices().map(|device| MemberState::of(array.members().get(device))));
        self.doing.clear();
        self.doing.extend(Doing::now(array));
    }

    /// A fault strikes a disk in it.
    pub(super) fn strike(&self, coverage: &mut Coverage, fault: FaultClass, device: DeviceId) {
        coverage.strike(fault, self.member(device), self.doing.iter().copied());
    }

    fn member(&self, device: DeviceId) -> MemberState {
        self.members.get(device.0 as usize).copied().unwrap_or(MemberState::Absent)
    }
}

impl Seen {
    /// Counts what has struck since the last time, in the situation of before.
    pub(super) fn count(&mut self, coverage: &mut Coverage, before: &Situation, array: &SimArray) {
        self.visits.count(before);
        let bank = array.bank().bank();
        for device in bank.inner().devices() {
            let (now, at) = (bank.inner().hits(device), device.0 as usize);
            if self.hits.len() <= at {
                self.hits.resize(at + 1, Hits::default());
            }
            let then = std::mem::replace(&mut self.hits[at], now);
            if now == then {
                continue;
            }
            let recovers = array.is_syncing();
            let mut strike = |struck: bool, fault| {
                if struck {
                    before.strike(coverage, fault, device);
                }
            };
            strike(now.unreadable > then.unreadable, FaultClass::LatentSectorError);
            strike(now.unreadable > then.unreadable && recovers, FaultClass::UnreadableInRecovery);
            strike(now.hung > then.hung, FaultClass::Hang);
            strike(now.slowed > then.slowed, FaultClass::FailSlow);
            strike(now.flushes_lost > then.flushes_lost, FaultClass::FlushFail);
            strike(now.no_space > then.no_space, FaultClass::NoSpace);
        }
        for (at, fault) in bank.list().iter().enumerate() {
            if self.strikes.len() <= at {
                self.strikes.resize(at + 1, 0);
            }
            if std::mem::replace(&mut self.strikes[at], fault.strikes) < fault.strikes {
                before.strike(coverage, class_of(fault.spec.kind), fault.device);
            }
        }
    }

    /// Tells in which situations the array was, and how often.
    pub(super) fn tell_visits(&self, coverage: &mut Coverage) {
        for (member, (events, seen)) in MemberState::ALL.into_iter().zip(&self.visits.0) {
            coverage.visited(member, *events, Doing::all().zip(seen.iter().copied()));
        }
    }

    /// The list of armed faults is empty again.
    pub(super) fn forget_armed(&mut self) {
        self.strikes.clear();
    }
}

fn class_of(kind: FaultKind) -> FaultClass {
    match kind {
        FaultKind::Latency(_) => FaultClass::FailSlow,
        FaultKind::Medium { .. } => FaultClass::LatentSectorError,
        FaultKind::WriteMedium | FaultKind::ReadOnly => FaultClass::WriteError,
        FaultKind::Transient(_) => FaultClass::TransientRead,
        FaultKind::Torn(_) => FaultClass::TornError,
        FaultKind::TornSilent(_) | FaultKind::Lost => FaultClass::LostWrite,
        FaultKind::Misdirected(_) => FaultClass::MisdirectedWrite,
        FaultKind::MisdirectedRead(_) => FaultClass::MisdirectedRead,
        FaultKind::Bitflip { .. } => FaultClass::BitRot,
        FaultKind::FailStop => FaultClass::FailStop,
        FaultKind::FlushLie => FaultClass::FlushLie,
        FaultKind::FlushFail => FaultClass::FlushFail,
        FaultKind::Hang(_) => FaultClass::Hang,
        FaultKind::CorruptWrite { .. } => FaultClass::MemoryFlip,
        FaultKind::NoSpace => FaultClass::NoSpace,
    }
}

/// Counts what strikes at once when `act` is done to `device`.
pub(super) fn count_act(coverage: &mut Coverage, lab: &Lab, act: Act, device: DeviceId) {
    let (array, now) = (lab.array(), Situation::of(lab.array()));
    let mut strike = |fault| now.strike(coverage, fault, device);
    match act {
        Act::Stop(target) => {
            strike(FaultClass::FailStop);
            if !lab.is_whole() {
                strike(FaultClass::DoubleFailure);
            }
            let state = MemberState::of(array.members().get(device));
            if array.is_syncing() && state == MemberState::InSync {
                strike(FaultClass::SourceFailsInRecovery);
            }
            if target == Target::Filling || matches!(state, MemberState::Recovering | MemberState::Replacement) {
                strike(FaultClass::SpareFailsInRecovery);
            }
        }
        Act::Restore(_) => strike(FaultClass::StaleReturn),
        Act::Swap(..) | Act::Duplicate(_) => strike(FaultClass::IdentitySwap),
        Act::Split(_) if array.members().get(device).is_some_and(Member::serves) => strike(FaultClass::SplitBrain),
        Act::RotSuperblock(_) => strike(FaultClass::SuperblockRot),
        _ => {}
    }
}

/// Counts what a power cut strikes, on every disk in the box.
pub(super) fn count_cut(coverage: &mut Coverage, lab: &Lab, loss: CacheLoss) {
    let (array, now) = (lab.array(), Situation::of(lab.array()));
    for &device in lab.disks().iter().filter(|disk| now.member(**disk) != MemberState::Absent) {
        let serves = array.members().get(device).is_some_and(Member::serves);
        let mut strike = |struck: bool, fault| {
            if struck {
                now.strike(coverage, fault, device);
            }
        };
        let bank = lab.bank();
        strike(loss == CacheLoss::KeepAll, FaultClass::ProcessKill);
        if loss == CacheLoss::KeepAll {
            continue;
        }
        let writes = bank.writes_inflight(device);
        strike(writes && loss == CacheLoss::PerSector, FaultClass::TornAtCut);
        strike(writes && loss == CacheLoss::PerBlock, FaultClass::TornBlock);
        strike(!bank.unsettled(device).is_empty(), FaultClass::CacheLoss);
        strike(serves && array.is_flushing(), FaultClass::CutAcrossFlush);
        strike(array.is_syncing(), FaultClass::CutInRecovery);
        strike(array.is_recording(), FaultClass::CutInSuperblockUpdate);
        strike(serves && !bank.is_online(device), FaultClass::CutAndMemberMissing);
    }
}
