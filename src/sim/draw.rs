//! From a seed to a scenario.
//!
//! A life is put together from short stories: a fault; a disk lost and its recovery disturbed; a member that leaves
//! and comes back; a replacement; a disk that dies slowly; a power cut in a chosen phase. Which faults and which stories
//! a seed may use is drawn first, so that most seeds lack some: what one kind hides, a life without it shows (Groce et
//! al., Swarm Testing, ISSTA '12). A life has at least 200 operations, three faults and a power cut, every second one
//! a recovery; where nothing may be lost any more, faults are held back, so each has one story that begins with all well,
//! and ends with disks that are only slow.

use std::time::Duration;

use super::fabrics::Fabrics;
use super::path_stories::PathTeller;
use super::scenario::{Act, Clients, Disks, Moment, Regime, Scenario, Step, Target, When};
use super::{CacheLoss, Mix, Rng, Shape};
use crate::block::{Extent, Lba, Sectors};
use crate::disk::FaultKind;
use crate::raid::level::Level;

/// What seeds are drawn for.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Wish {
    /// Only this level.
    pub level: Option<Level>,
    /// Only arrays of so many members.
    pub disks: Option<usize>,
    /// Only these faults; all if empty.
    pub faults: Vec<Harm>,
    /// These paths: what fails there is drawn beside what fails otherwise, which stays as it is.
    pub paths: Fabrics,
    /// Disks that lend what they hold: see [`Scenario::mapped`].
    pub mapped: bool,
}

/// What can be done to a disk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Harm {
    /// It answers no more.
    Stop,
    /// An administrator fails it.
    Fail,
    /// Sectors become unreadable, several together.
    Unreadable,
    /// Requests fail and succeed when repeated.
    Transient,
    /// Writes fail.
    WriteError,
    /// Writes fail with a part of them stored.
    Torn,
    /// Requests time out, their outcome unknown.
    Hang,
    /// Everything takes longer.
    Slow,
    /// A flush fails.
    FlushFail,
    /// A flush fails and what it should have stored is lost.
    LoseFlush,
    /// Its file system is full.
    Fill,
    /// It takes no writes any more.
    ReadOnly,
    /// It comes back as it was long ago.
    Stale,
    /// Disks change places in the box.
    Swap,
    /// A copy of it is in the box, too.
    Duplicate,
    /// Half of a mirror is started apart and written to, and both are put together.
    Split,
    /// Its superblock rots.
    RotSuperblock,
    /// Silent: bits rot.
    BitRot,
    /// Silent: writes are acknowledged and not stored.
    Lost,
    /// Silent: writes are acknowledged and stored in part.
    TornSilent,
    /// Silent: writes land elsewhere.
    Misdirected,
    /// Silent: reads return what lies elsewhere.
    MisdirectedRead,
    /// Silent: bytes change on their way to the disk.
    CorruptWrite,
    /// Flushes are acknowledged and not carried out.
    FlushLie,
}

impl Harm {
    /// Every one, with its word.
    pub const ALL: [(Harm, &'static str); 24] = [
        (Harm::Stop, "stop"),
        (Harm::Fail, "fail"),
        (Harm::Unreadable, "unreadable"),
        (Harm::Transient, "transient"),
        (Harm::WriteError, "write-error"),
        (Harm::Torn, "torn"),
        (Harm::Hang, "hang"),
        (Harm::Slow, "slow"),
        (Harm::FlushFail, "flush-fail"),
        (Harm::LoseFlush, "lose-flush"),
        (Harm::Fill, "fill"),
        (Harm::ReadOnly, "read-only"),
        (Harm::Stale, "stale"),
        (Harm::Swap, "swap"),
        (Harm::Duplicate, "duplicate"),
        (Harm::Split, "split"),
        (Harm::RotSuperblock, "rot-superblock"),
        (Harm::BitRot, "bit-rot"),
        (Harm::Lost, "lost"),
        (Harm::TornSilent, "torn-silent"),
        (Harm::Misdirected, "misdirected"),
        (Harm::MisdirectedRead, "misdirected-read"),
        (Harm::CorruptWrite, "corrupt-write"),
        (Harm::FlushLie, "flush-lie"),
    ];

    /// Its word.
    pub fn name(self) -> &'static str {
        Harm::ALL.iter().find(|(harm, _)| *harm == self).expect("every harm has a word").1
    }

    /// The one of that word.
    pub fn parse(word: &str) -> Option<Harm> {
        Harm::ALL.iter().find(|(_, name)| *name == word).map(|(harm, _)| *harm)
    }

    /// Whether its victim notices nothing.
    pub fn is_silent(self) -> bool {
        self >= Harm::BitRot
    }

    /// Whether a disk that has it is still of use, and may have more.
    fn is_symptom(self) -> bool {
        matches!(self, Harm::Unreadable | Harm::Transient | Harm::Slow | Harm::WriteError | Harm::Torn)
    }

    /// Whether it is done while the power is off.
    fn is_in_the_dark(self) -> bool {
        matches!(self, Harm::Stale | Harm::Swap | Harm::Duplicate | Harm::Split | Harm::RotSuperblock)
    }
}

/// Operations of a life, at least, and up to how many more.
const OPS: (u64, u64) = (200, 40);

/// The scenario of a seed.
pub fn draw(seed: u64, wish: &Wish) -> Scenario {
    let mut rng = Rng::new(seed, 100);
    let level = wish.level.unwrap_or_else(|| Level::ALL[rng.below(6) as usize]);
    let mut array = Shape::of(level, &mut rng);
    if let Some(disks) = wish.disks {
        array.disks = disks;
    }
    array.spares = if level == Level::Raid0 { 0 } else { rng.below(3) as usize };
    if rng.chance(15) {
        array.block = Sectors(8);
    }
    let tolerant = level != Level::Raid0;
    let regime = if tolerant && rng.chance(75) { Regime::Budgeted } else { Regime::Unbudgeted };
    let depth = 1 + rng.below(6) as usize;
    let limits = array.volume();
    let mix = Mix::drawn(&limits, &mut rng);
    let count = (OPS.0 + rng.below(OPS.1)) as usize;
    let ops = mix.draw(&limits, count, &mut Rng::new(seed, 104));
    let mut scenario = Scenario::new(seed, regime, array, Clients { depth, ops });
    if rng.chance(10) {
        scenario.disks = Disks::Hdd;
    }
    scenario.mapped = wish.mapped;
    // From a stream of their own: without paths a seed's life is as it would be if there were none.
    let paths = Rng::new(seed, 107);
    scenario.paths = wish.paths;
    let mut teller = Teller { rng: Rng::new(seed, 106), allowed: allowed(seed, wish, level), scenario, harms: 0 };
    teller.tell();
    let scenario = teller.scenario;
    if scenario.paths.any() { PathTeller::new(paths, scenario).tell() } else { scenario }
}

/// The faults a seed may use.
fn allowed(seed: u64, wish: &Wish, level: Level) -> Vec<Harm> {
    let mut rng = Rng::new(seed, 105);
    let (silent, lies) = (rng.chance(25), rng.chance(15));
    let wished = |harm: &Harm| wish.faults.is_empty() || wish.faults.contains(harm);
    let mut drawn = |harm: &Harm| {
        let coin = rng.chance(55);
        let fits = match harm {
            Harm::FlushLie => silent && lies,
            harm if harm.is_silent() => silent,
            // Of other arrays no member starts alone.
            Harm::Split => level == Level::Raid1,
            // Where nothing can be restored, all is lost with it, and nothing more can be learnt.
            Harm::LoseFlush | Harm::Stale | Harm::RotSuperblock => level != Level::Raid0,
            _ => true,
        };
        (coin || !wish.faults.is_empty()) && (fits || !wish.faults.is_empty())
    };
    let all = Harm::ALL.map(|(harm, _)| harm);
    let mut allowed: Vec<Harm> = all.into_iter().filter(|harm| drawn(harm) && wished(harm)).collect();
    if !allowed.iter().any(|harm| harm.is_symptom()) {
        allowed.extend([Harm::Unreadable, Harm::Slow].into_iter().filter(|harm| wished(harm)));
    }
    allowed
}

/// Tells the stories of one life.
struct Teller {
    rng: Rng,
    allowed: Vec<Harm>,
    scenario: Scenario,
    harms: usize,
}

impl Teller {
    fn tell(&mut self) {
        let ops = self.scenario.clients.ops.len();
        let stories = 3 + self.rng.below(6) as usize;
        let recovers = self.rng.chance(60) && self.scenario.array.level != Level::Raid0;
        let recovery_at = self.rng.below(stories as u64) as usize;
        let cut_at = self.rng.below(stories as u64) as usize;
        let dies_at = self.rng.below(stories as u64) as usize;
        for story in 0..stories {
            let share = ops / stories;
            let at = story * share + self.rng.below(share as u64) as usize;
            if story == dies_at {
                self.dying(at);
            }
            if recovers && story == recovery_at {
                self.recovery(at);
            } else if story != dies_at {
                self.story(at);
            }
            if story == cut_at {
                let at = at + self.rng.below((share as u64 / 2).max(1)) as usize;
                self.cut(When::Op(at.min(ops - 1)));
            }
            if self.rng.chance(40) {
                let at = (story + 1) * share - 1;
                let act = if self.rng.chance(70) { Act::Mend } else { Act::Rest };
                self.step(When::Op(at), act);
            }
        }
        while self.harms < 4 {
            let at = self.rng.below(ops as u64) as usize;
            self.harm(When::Op(at));
        }
        self.slow_end(ops);
    }

    /// Three faults for sure: a disk that is slow loses nothing, so it is never held back.
    fn slow_end(&mut self, ops: usize) {
        let Shape { disks, spares, .. } = self.scenario.array;
        let first = self.rng.below((disks + spares) as u64) as usize;
        for number in 0..3 {
            let disk = Target::Disk(((first + number) % (disks + spares)) as u32);
            let factor = 10_u32.pow(1 + self.rng.below(2) as u32);
            self.step(When::Op(ops - 12 + 3 * number), Act::Slow(disk, factor));
            self.harms += 1;
        }
    }

    fn step(&mut self, when: When, act: Act) -> u32 {
        let id = self.scenario.steps.len() as u32 + 1;
        self.scenario.steps.push(Step { id, when, act });
        id
    }

    fn story(&mut self, at: usize) {
        let redundant = self.scenario.array.level != Level::Raid0;
        match self.rng.below(if redundant { 12 } else { 5 }) {
            0 | 1 => self.harm(When::Op(at)),
            2 => {
                let when = self.moment(at);
                self.harm(when);
            }
            3 => {
                let id = self.step(When::Op(at), Act::Restart);
                self.in_the_dark(id);
            }
            4 => {
                self.harm(When::Op(at));
                let when = self.moment(at);
                self.cut(when);
            }
            5 | 6 => self.recovery(at),
            7 => self.return_home(at),
            8 => self.replacement(at),
            9 => {
                let act = match self.rng.below(5) {
                    0..3 => Act::Check,
                    3 => Act::Repair { trust_data: false },
                    _ => Act::Repair { trust_data: true },
                };
                let id = self.step(When::Op(at), act);
                let events = self.rng.below(60);
                self.harm(When::After(events, id));
            }
            10 => {
                self.step(When::Op(at), Act::Freeze);
                self.recovery(at + 1);
                let later = at + 2 + self.rng.below(12) as usize;
                self.step(When::Op(later), Act::Thaw);
            }
            _ => self.double(at),
        }
    }

    /// A member is lost, a spare steps in, and something comes between.
    fn recovery(&mut self, at: usize) {
        let slot = self.slot();
        if self.rng.chance(60) {
            self.step(When::Op(at), Act::Add);
        }
        let lost = if self.rng.chance(60) { Act::Stop(slot) } else { Act::Fail(slot) };
        let id = self.step(When::Op(at), lost);
        self.harms += 1;
        let percent = self.rng.below(100);
        let when = match self.rng.below(4) {
            0 => When::After(self.rng.below(80), id),
            _ => When::Recovery(percent),
        };
        match self.rng.below(8) {
            0 => {
                self.step(when, Act::Stop(Target::Filling));
                self.harms += 1;
            }
            1 | 2 => self.harm(when),
            3 | 4 => {
                self.cut(when);
            }
            5 => {
                let id = self.step(when, Act::Restart);
                self.in_the_dark(id);
            }
            6 => {
                let id = self.step(when, Act::Return(slot));
                let events = self.rng.below(40);
                self.step(When::After(events, id), Act::ReAdd(Target::Faulty));
            }
            _ => {
                let unreadable = self.unreadable();
                self.step(when, unreadable);
                self.harms += 1;
            }
        }
    }

    /// All is well; then one disk shows one symptom after the other, until it is gone.
    fn dying(&mut self, at: usize) {
        if self.scenario.array.level != Level::Raid0 {
            self.step(When::Op(at), Act::Add);
        }
        self.step(When::Op(at), Act::Mend);
        self.step(When::Op(at), Act::Rest);
        let slot = self.slot();
        let symptoms: Vec<Harm> = self.allowed.iter().copied().filter(|harm| harm.is_symptom()).collect();
        // Steps that clients do not pause for would not wait until all is well.
        let mut at = at + 1;
        for _ in 0..3 + self.rng.below(2) {
            match self.one_of(&symptoms) {
                Some(harm) => self.harm_to(slot, harm, When::Op(at)),
                None => self.harm(When::Op(at)),
            }
            at += self.rng.below(8) as usize;
        }
        if self.rng.chance(50) {
            self.step(When::Op(at), Act::Stop(slot));
            self.harms += 1;
        }
    }

    /// A member leaves and comes back after a while.
    fn return_home(&mut self, at: usize) {
        if self.allowed.contains(&Harm::Split) && self.rng.chance(40) {
            return self.split_brain(at);
        }
        let slot = self.slot();
        let lost = if self.rng.chance(50) { Act::Stop(slot) } else { Act::Fail(slot) };
        let id = self.step(When::Op(at), lost);
        self.harms += 1;
        let later = at + 1 + self.rng.below(20) as usize;
        if self.rng.chance(30) {
            let events = self.rng.below(120);
            self.cut(When::After(events, id));
        }
        self.step(When::Op(later), Act::ReAdd(Target::Faulty));
        if self.rng.chance(40) {
            let percent = self.rng.below(100);
            self.harm(When::Recovery(percent));
        }
    }

    /// A member leaves, is started without the others, and comes back as if it had been the array all the time.
    fn split_brain(&mut self, at: usize) {
        let disk = Target::Disk(self.rng.below(self.scenario.array.disks as u64) as u32);
        self.step(When::Op(at), Act::Stop(disk));
        // Each time the array is marked clean and dirty again it counts more events than the half will.
        for more in 1..4 {
            self.step(When::Op(at + more), Act::Rest);
        }
        let loss = CacheLoss::ALL[self.rng.below(5) as usize];
        let later = at + 4 + self.rng.below(8) as usize;
        let cut = self.step(When::Op(later), Act::PowerCut(loss));
        self.step(When::Off(cut), Act::Split(disk));
        self.harms += 2;
    }

    /// A member is replaced, and something comes between.
    fn replacement(&mut self, at: usize) {
        let slot = self.slot();
        if self.rng.chance(70) {
            self.step(When::Op(at), Act::Add);
        }
        let id = self.step(When::Op(at), Act::Replace(slot));
        let when = match self.rng.below(3) {
            0 => When::After(self.rng.below(120), id),
            _ => When::Recovery(self.rng.below(100)),
        };
        match self.rng.below(6) {
            0 => {
                self.step(when, Act::Stop(Target::Filling));
                self.harms += 1;
            }
            1 => {
                self.step(when, Act::Stop(slot));
                self.harms += 1;
            }
            2 => {
                self.cut(when);
            }
            // Late, so that it may be just taking the slot; what it has taken over is then all there is.
            3 => {
                let (percent, later) = (50 + self.rng.below(50), self.rng.below(60));
                let almost = self.step(When::Recovery(percent), Act::Add);
                let cut = self.cut(When::After(later, almost));
                let (other, events) = (self.slot(), self.rng.below(30));
                self.step(When::After(events, cut), Act::Stop(other));
                self.harms += 1;
            }
            _ => self.harm(when),
        }
    }

    /// Two faults close together.
    fn double(&mut self, at: usize) {
        let before = self.scenario.steps.len();
        self.harm(When::Op(at));
        if let Some(first) = self.scenario.steps.get(before) {
            let (id, events) = (first.id, self.rng.below(30));
            self.harm(When::After(events, id));
        }
    }

    fn cut(&mut self, when: When) -> u32 {
        let loss = CacheLoss::ALL[self.rng.below(5) as usize];
        let id = self.step(when, Act::PowerCut(loss));
        self.in_the_dark(id);
        id
    }

    /// While the power is off, now and then, disks change behind the array's back.
    fn in_the_dark(&mut self, id: u32) {
        let dark: Vec<Harm> = self.allowed.iter().copied().filter(|harm| harm.is_in_the_dark()).collect();
        if dark.is_empty() || self.rng.chance(60) {
            return;
        }
        let (slot, other) = (self.slot(), self.slot());
        match dark[self.rng.below(dark.len() as u64) as usize] {
            Harm::Swap => {
                self.step(When::Off(id), Act::Swap(slot, other));
            }
            Harm::Duplicate => {
                self.step(When::Off(id), Act::Duplicate(slot));
            }
            Harm::Split => {
                self.step(When::Off(id), Act::Split(slot));
            }
            Harm::RotSuperblock => {
                self.step(When::Off(id), Act::RotSuperblock(slot));
            }
            _ => {
                let disk = Target::Disk(self.rng.below(self.scenario.array.disks as u64) as u32);
                let at = self.rng.below(self.scenario.clients.ops.len() as u64) as usize;
                self.step(When::Op(at), Act::Snapshot(disk));
                self.step(When::Off(id), Act::Restore(disk));
            }
        }
        self.harms += 1;
    }

    /// One of the faults this seed may use, on some member.
    fn harm(&mut self, when: When) {
        let light: Vec<Harm> = self.allowed.iter().copied().filter(|harm| !harm.is_in_the_dark()).collect();
        let slot = self.victim();
        match self.one_of(&light) {
            Some(harm) => self.harm_to(slot, harm, when),
            None => {
                let id = self.step(when, Act::Restart);
                self.in_the_dark(id);
                self.harms += 1;
            }
        }
    }

    fn one_of(&mut self, harms: &[Harm]) -> Option<Harm> {
        let count = harms.len() as u64;
        (count > 0).then(|| harms[self.rng.below(count) as usize])
    }

    fn harm_to(&mut self, slot: Target, harm: Harm, when: When) {
        let times = Some(1 + self.rng.below(4));
        let fault = |kind, extent| Act::Fault(slot, kind, Some(extent), times);
        let extent = self.extent(64);
        let act = match harm {
            Harm::Stop => Act::Stop(slot),
            Harm::Fail => Act::Fail(slot),
            Harm::Transient => Act::Fault(slot, FaultKind::Transient(1 + self.rng.below(3)), Some(extent), None),
            Harm::WriteError => fault(FaultKind::WriteMedium, extent),
            Harm::Torn => fault(FaultKind::Torn(self.some_sectors()), extent),
            Harm::Hang => Act::Hang(slot, Duration::from_secs(1 + self.rng.below(30))),
            Harm::Slow => Act::Slow(slot, 10_u32.pow(1 + self.rng.below(3) as u32)),
            Harm::FlushFail => Act::Fault(slot, FaultKind::FlushFail, None, times),
            Harm::LoseFlush => Act::LoseFlush(slot, 1),
            Harm::Fill => Act::Fill(slot),
            Harm::ReadOnly => Act::Fault(slot, FaultKind::ReadOnly, Some(extent), times),
            Harm::BitRot => {
                let (bits, seed) = (1 + self.rng.below(8) as u32, self.rng.below(1000));
                Act::Fault(slot, FaultKind::Bitflip { bits, seed, sticky: false }, Some(extent), None)
            }
            Harm::Lost => fault(FaultKind::Lost, extent),
            Harm::TornSilent => fault(FaultKind::TornSilent(self.some_sectors()), extent),
            Harm::Misdirected => fault(FaultKind::Misdirected(self.distance(extent)), extent),
            Harm::MisdirectedRead => fault(FaultKind::MisdirectedRead(self.distance(extent)), extent),
            Harm::CorruptWrite => fault(
                FaultKind::CorruptWrite { bits: 1 + self.rng.below(8) as u32, seed: self.rng.below(1000) },
                extent,
            ),
            Harm::FlushLie => Act::Fault(slot, FaultKind::FlushLie, None, None),
            Harm::Unreadable => Act::Unreadable(slot, self.extent(6)),
            Harm::Stale | Harm::Swap | Harm::Duplicate | Harm::Split | Harm::RotSuperblock => {
                unreachable!("{} is for when the power is off", harm.name())
            }
        };
        self.harms += 1;
        self.step(when, act);
    }

    fn unreadable(&mut self) -> Act {
        let slot = self.slot();
        Act::Unreadable(slot, self.extent(6))
    }

    /// Mostly a member; now and then a disk that is no whole one, if there is one at that moment.
    fn victim(&mut self) -> Target {
        let redundant = self.scenario.array.level != Level::Raid0;
        match self.rng.below(12) {
            0 | 1 if redundant => Target::Filling,
            2 if redundant => Target::Spare,
            _ => self.slot(),
        }
    }

    fn slot(&mut self) -> Target {
        Target::Slot(self.rng.below(self.scenario.array.disks as u64) as u8)
    }

    /// Some data sectors of a member, on whole blocks.
    fn extent(&mut self, longest: u64) -> Extent {
        let block = self.scenario.array.block.0;
        let blocks = self.scenario.array.member.0 / block;
        let start = self.rng.below(blocks);
        let length = 1 + self.rng.below((longest / block).max(1).min(blocks - start));
        Extent::new(Lba(start * block), Sectors(length * block))
    }

    fn some_sectors(&mut self) -> Sectors {
        Sectors(self.rng.below(6))
    }

    /// How far a request goes astray: within the data of the disk, wherever in the extent it was meant for.
    fn distance(&mut self, extent: Extent) -> i64 {
        let Shape { block, member, .. } = self.scenario.array;
        let after = (member.0 - extent.end().0) / block.0;
        let before = extent.start.0 / block.0;
        let (room, sign) = if after >= before { (after, 1) } else { (before, -1) };
        sign * (block.0 * (1 + self.rng.below(room.max(1)))) as i64
    }

    /// A moment soon after an operation began.
    fn moment(&mut self, at: usize) -> When {
        let last = self.scenario.steps.last().map(|step| step.id);
        match (self.rng.below(4), last) {
            (0, _) => When::Phase(Moment::ALL[self.rng.below(8) as usize], 1 + self.rng.below(20)),
            (1, _) => When::Io(self.slot(), 20 + self.rng.below(400)),
            (2, Some(id)) => When::After(self.rng.below(40), id),
            _ => When::Op(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{Effort, Verdict, live};

    /// What is drawn may be held back, find no disk, or wait for a moment that never comes: only a life tells what a
    /// seed is worth. A life of which nothing is promised may end before its time.
    #[test]
    fn a_life_has_200_operations_three_faults_and_a_power_cut_and_every_second_one_a_recovery() {
        let (mut whole, mut recovered) = (0, 0);
        for seed in 0..300 {
            let (report, verdict) = live(&draw(seed, &Wish::default()), Effort::PLAIN);
            if matches!(verdict, Verdict::NoPromise(_)) {
                continue;
            }
            assert_eq!(verdict, Verdict::Pass, "seed {seed}");
            whole += 1;
            recovered += u64::from(report.recoveries > 0);
            let counts = (report.ops, report.faults, report.cuts);
            assert!(report.ops >= 200 && report.faults >= 3 && report.cuts >= 1, "seed {seed}: {counts:?}");
        }
        assert!(whole >= 294 && recovered * 2 >= whole, "{recovered} of {whole} recovered");
    }
}
