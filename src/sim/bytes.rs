//! From any bytes to a scenario.
//!
//! A fuzzer changes bytes and looks which branches are taken for the first time. It gets far only if every change leaves
//! a valid input, and a small change a similar one. So bytes are read as decisions: each question takes as many as its
//! answer needs, and no byte, once none is left, answers 0. The array comes first, then operations and steps in their
//! order, until nothing is left: bytes behind add to the story, bytes taken out take something out of it.

use std::time::Duration;

use super::array::PathOrder;
use super::fabrics::{Fabrics, Part, PartKind, Side};
use super::scenario::{Act, Clients, CrashPoint, Disks, Moment, Regime, Scenario, Step, Target, When};
use super::{CacheLoss, Choose, ClientOp, Shape};
use crate::block::{Durability, Extent, Lba, Sectors};
use crate::disk::FaultKind;
use crate::fabric::emulated::Health;
use crate::raid::level::Level;

/// Operations of a story, at most.
const OPS: usize = 48;
/// Steps of a story, at most.
const STEPS: usize = 12;

/// Answers from bytes.
struct Bytes<'a>(&'a [u8]);

impl Choose for Bytes<'_> {
    fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "no number is below zero");
        let width = (u64::BITS - (bound - 1).leading_zeros()).div_ceil(8) as usize;
        let (taken, rest) = self.0.split_at(width.min(self.0.len()));
        self.0 = rest;
        taken.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)) % bound
    }
}

impl Scenario {
    /// The scenario of some bytes: every string of bytes has one, which [checks](Scenario::check) well and is small.
    pub fn from_bytes(bytes: &[u8]) -> Scenario {
        let mut bytes = Bytes(bytes);
        let level = Level::ALL[bytes.below(6) as usize];
        let mut array = Shape::of(level, &mut bytes);
        if level == Level::Raid0 {
            array.spares = 0;
        } else {
            array.spares = bytes.below(3) as usize;
        }
        match bytes.below(4) {
            // As small as md's metadata allows.
            1 if level != Level::Raid1 && array.bitmap.is_none() => {
                (array.chunk, array.member) = (Sectors(1), Sectors(10 + bytes.below(6)));
            }
            2 => array.block = Sectors(8),
            _ => {}
        }
        let regime = if bytes.below(2) == 0 { Regime::Budgeted } else { Regime::Unbudgeted };
        let depth = 1 + bytes.below(6) as usize;
        let seed = bytes.below(256);
        let mut scenario = Scenario::new(seed, regime, array, Clients { depth, ops: Vec::new() });
        match bytes.below(8) {
            7 => scenario.disks = Disks::Hdd,
            reached @ 4..7 => scenario.paths = Fabrics::ALL[reached as usize - 3],
            _ => {}
        }
        let mut writer = Writer { capacity: scenario.capacity(), bytes, scenario };
        while !writer.bytes.0.is_empty() && writer.scenario.clients.ops.len() < OPS {
            match writer.bytes.below(8) {
                0 if writer.scenario.crash.is_none() => writer.crash(),
                1 | 2 if writer.scenario.steps.len() < STEPS => writer.step(),
                _ => writer.op(),
            }
        }
        writer.scenario
    }
}

/// Writes a scenario as bytes will have it.
struct Writer<'a> {
    bytes: Bytes<'a>,
    scenario: Scenario,
    capacity: Sectors,
}

impl Writer<'_> {
    fn op(&mut self) {
        let kind = self.bytes.below(16);
        let op = if kind == 0 {
            ClientOp::Flush
        } else {
            let extent = self.extent(self.capacity, 48);
            let forced = if self.bytes.below(4) == 3 { Durability::Fua } else { Durability::Volatile };
            match kind {
                1..=4 => ClientOp::Read(extent),
                5 => ClientOp::Discard(extent),
                6 => ClientOp::WriteZeroes(extent, forced),
                _ => ClientOp::Write(extent, forced),
            }
        };
        self.scenario.clients.ops.push(op);
    }

    /// Sectors below `end`, on whole blocks.
    fn extent(&mut self, end: Sectors, longest: u64) -> Extent {
        let block = self.scenario.array.block.0;
        let blocks = end.0 / block;
        let start = self.bytes.below(blocks);
        let length = 1 + self.bytes.below((longest / block).max(1).min(blocks - start));
        Extent::new(Lba(start * block), Sectors(length * block))
    }

    fn add(&mut self, when: When, act: Act) {
        let id = self.scenario.steps.len() as u32 + 1;
        self.scenario.steps.push(Step { id, when, act });
    }

    fn step(&mut self) {
        let act = self.act();
        let when = if act.is_for_power_off() { self.off() } else { Some(self.moment()) };
        // Without a power cut nothing happens in the dark.
        if let Some(when) = when {
            self.add(when, act);
        }
    }

    fn off(&mut self) -> Option<When> {
        let cut = |step: &&Step| matches!(step.act, Act::Restart | Act::PowerCut(_));
        self.scenario.steps.iter().rev().find(cut).map(|step| When::Off(step.id))
    }

    fn moment(&mut self) -> When {
        let here = self.scenario.clients.ops.len();
        let last = self.scenario.steps.last().map(|step| step.id);
        match (self.bytes.below(8), last) {
            (1, Some(id)) => When::After(self.bytes.below(200), id),
            (2, _) => When::Recovery(self.bytes.below(101)),
            (3, _) => {
                When::Phase(Moment::ALL[self.bytes.below(Moment::ALL.len() as u64) as usize], 1 + self.bytes.below(30))
            }
            (4, _) => When::Io(self.target(), self.bytes.below(400)),
            (5, _) => When::Answered(here),
            (6, _) => When::Event(self.bytes.below(1000)),
            (7, _) => When::Time(Duration::from_micros(self.bytes.below(1 << 16))),
            _ => When::Op(here),
        }
    }

    fn target(&mut self) -> Target {
        let all = self.scenario.array.disks as u64 + self.scenario.array.spares as u64;
        match self.bytes.below(8) {
            0 => Target::Disk(self.bytes.below(all) as u32),
            1 => Target::Filling,
            2 => Target::Faulty,
            3 => Target::Spare,
            _ => self.slot(),
        }
    }

    fn slot(&mut self) -> Target {
        Target::Slot(self.bytes.below(self.scenario.array.disks as u64) as u8)
    }

    fn act(&mut self) -> Act {
        let number = self.bytes.below(32);
        if number >= 24
            && let Some(act) = self.path_act()
        {
            return act;
        }
        match number {
            0 | 1 => Act::Stop(self.target()),
            2 => Act::Fail(self.target()),
            3 => Act::Remove(self.target()),
            4 => Act::ReAdd(self.target()),
            5 | 6 => Act::Add,
            7 => Act::Replace(self.slot()),
            8 => Act::Check,
            9 => Act::Repair { trust_data: false },
            10 => Act::Freeze,
            11 => Act::Thaw,
            12 => Act::Rest,
            13 => Act::Restart,
            14 | 15 => Act::PowerCut(self.loss()),
            16 => Act::Return(self.target()),
            17 | 18 => {
                let (target, member) = (self.target(), self.scenario.array.member);
                Act::Unreadable(target, self.extent(member, 8))
            }
            19 => Act::Hang(self.target(), Duration::from_secs(1 + self.bytes.below(30))),
            20 => Act::Slow(self.target(), 10_u32.pow(1 + self.bytes.below(3) as u32)),
            21 => Act::LoseFlush(self.target(), 1),
            22 => Act::Fill(self.target()),
            23 => Act::Mend,
            24 => Act::Snapshot(self.target()),
            25 => Act::Restore(Target::Disk(self.bytes.below(self.scenario.array.disks as u64) as u32)),
            26 => Act::Swap(self.slot(), self.slot()),
            27 => Act::Duplicate(self.slot()),
            28 => Act::RotSuperblock(self.slot()),
            _ => self.fault(),
        }
    }

    /// Something is done to paths, where there are some.
    fn path_act(&mut self) -> Option<Act> {
        let paths = self.scenario.paths;
        let side = match (paths.volume, paths.members) {
            (None, None) => return None,
            (Some(_), None) => Side::Volume,
            (None, Some(_)) => Side::Members,
            (Some(_), Some(_)) => [Side::Volume, Side::Members][self.bytes.below(2) as usize],
        };
        let kind = [PartKind::Hba, PartKind::Cable, PartKind::Switch, PartKind::Port][self.bytes.below(4) as usize];
        let part = Part { side, kind, number: self.bytes.below(2) as u16 };
        Some(match self.bytes.below(12) {
            0 => Act::Path(side, PathOrder::Fail, self.bytes.below(4) as u16),
            1 => Act::Path(side, PathOrder::Reinstate, self.bytes.below(4) as u16),
            2 => Act::Path(side, PathOrder::SwitchGroup, self.bytes.below(2) as u16),
            3 => Act::Component(part, Health::Down),
            4 => Act::Component(part, Health::Stalled),
            5 => Act::Component(part, Health::Slow(100)),
            way @ 6..9 => Act::Component(part, Health::BlackHole { tx: way != 7, rx: way != 8 }),
            _ => Act::Component(part, Health::Up),
        })
    }

    fn loss(&mut self) -> CacheLoss {
        CacheLoss::ALL[self.bytes.below(CacheLoss::ALL.len() as u64) as usize]
    }

    fn fault(&mut self) -> Act {
        let (target, Shape { member, block, .. }) = (self.target(), self.scenario.array);
        let extent = self.extent(member, 64);
        let times = Some(1 + self.bytes.below(4));
        let some = Sectors(self.bytes.below(6));
        // Within the data of the disk.
        let after = (member.0 - extent.end().0) / block.0;
        let before = extent.start.0 / block.0;
        let (room, sign) = if after >= before { (after, 1) } else { (before, -1) };
        let distance = sign * (block.0 * (1 + self.bytes.below(room.max(1)))) as i64;
        let (bits, seed) = (1 + self.bytes.below(8) as u32, self.bytes.below(256));
        match self.bytes.below(13) {
            0 => Act::Fault(target, FaultKind::Transient(1 + some.0), Some(extent), None),
            1 => Act::Fault(target, FaultKind::Torn(some), Some(extent), times),
            2 => Act::Fault(target, FaultKind::FlushFail, None, times),
            3 => Act::Fault(target, FaultKind::ReadOnly, Some(extent), times),
            4 => Act::Fault(target, FaultKind::Bitflip { bits, seed, sticky: false }, Some(extent), None),
            5 => Act::Fault(target, FaultKind::Lost, Some(extent), times),
            6 => Act::Fault(target, FaultKind::TornSilent(some), Some(extent), times),
            7 => Act::Fault(target, FaultKind::Misdirected(distance), Some(extent), times),
            8 => Act::Fault(target, FaultKind::MisdirectedRead(distance), Some(extent), times),
            9 => Act::Fault(target, FaultKind::CorruptWrite { bits, seed }, Some(extent), times),
            10 => Act::Fault(target, FaultKind::FlushLie, None, None),
            _ => Act::Fault(target, FaultKind::WriteMedium, Some(extent), times),
        }
    }

    /// The power of a copy is cut, and the story ends there if it comes so far.
    fn crash(&mut self) {
        let (event, seed) = (self.bytes.below(1 << 11), self.bytes.below(1 << 16));
        self.scenario.crash = Some(CrashPoint::drawn(seed, event));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::any;
    use proptest::{prop_assert_eq, proptest};

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_a_scenario_that_is_read_back_from_its_text(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let scenario = Scenario::from_bytes(&bytes);
            let text = scenario.to_toml();
            match Scenario::parse(&text) {
                Ok(read) => prop_assert_eq!(read, scenario),
                Err(error) => panic!("{error}\n{text}"),
            }
        }
    }

    #[test]
    fn bytes_behind_only_add_to_the_story() {
        let bytes: Vec<u8> = (0..200_u32).map(|at| (at * 37 % 251) as u8).collect();
        let (short, long) = (Scenario::from_bytes(&bytes[..90]), Scenario::from_bytes(&bytes));
        assert_eq!(short.array, long.array);
        // The last one may have had too few bytes.
        let ops = short.clients.ops.len() - 1;
        assert!(ops > 4, "{ops}");
        assert_eq!(short.clients.ops[..ops], long.clients.ops[..ops]);
    }
}
