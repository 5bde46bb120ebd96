//! How fast the simulator is here.
//!
//! A simulation is worth what it visits: simulated I/Os, and above all *crash points*: the world is copied at an event,
//! the power of the copy is cut, what is left is assembled, and every sector is read and judged. So these are counted,
//! in seconds of processor time of one thread: what one core does, whatever else the machine is busy with.
//!
//! Each round does the same work, drawn from one seed, so rounds differ by noise alone (other threads share caches and
//! memory with this one, and on a virtual machine the processor itself); all kinds of work take turns in a round.
//!
//! The work:
//!
//! * *Disk I/Os*: a RAID5 of five members with chunks of eight sectors and a bitmap takes reads, writes, zeroes, discards
//!   and flushes, eight at a time, each answer judged by the oracle. Counted are the requests to simulated disks.
//! * *Forks*: the world is cloned and dropped.
//! * *Crash points*: a RAID5 of five members and 64 stripes of one-sector chunks, 64 bytes a sector, lives through such a
//!   load. At each event: clone, power cut (all four kinds in turn), assembly from md's metadata, every sector read
//!   through the volume and judged, the copy dropped. What the cut left in doubt is read as it is, the resync held back
//!   (md's `frozen`); or, *settled*, it is resynced first. Without a bitmap that is every stripe after every cut; with one
//!   (of 16 sectors a bit) fewer, but md has no room for a bitmap on members of less than 128 sectors, so that there are
//!   128 stripes to be read.
//! * *Crash points with views*: settled, and then, for each of the five members, a copy without it is read all over.

use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use super::report::Spread;
use super::turns::processor_time;
use crate::block::{Bank, DeviceId, Limits, SECTOR_BYTES, Sectors};
use crate::disk::Fault;
use crate::multipath::Paths;
use crate::raid::assemble::{AssembleOptions, Candidate, assemble};
use crate::raid::create::{NewArray, NewDevice, create};
use crate::raid::level::{Layout, Level};
use crate::raid::set::SlotSet;
use crate::raid::superblock::{DeviceUuid, SetName, SetUuid, Timestamp};
use crate::raid::sync::SyncOptions;
use crate::raid::{Array, VOLUME};
use crate::sim::array::{Lab, SimArray};
use crate::sim::losses::earned;
use crate::sim::{CacheLoss, DiskModel, Mix, Rng, Script, Shape, SimBank, World};

/// Decides everything that is drawn.
const SEED: u64 = 3;

/// Members of every array here.
const MEMBERS: usize = 5;

/// Client operations in flight.
const DEPTH: usize = 8;

/// Where data begins on every member.
const METADATA: Sectors = Sectors(2048);

/// More events than anything here takes.
const EVENTS_MAX: u64 = 1_000_000;

/// What a bit of a bitmap covers on each member.
const BITMAP_CHUNK: Sectors = Sectors(16);

const LOSSES: [CacheLoss; 4] = [CacheLoss::PerSector, CacheLoss::DropAll, CacheLoss::PerDisk, CacheLoss::KeepAll];

/// How much to do in a round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// How often everything is done.
    pub rounds: usize,
    /// Client operations of which disk I/Os are counted.
    pub io_ops: usize,
    /// Client operations of the life whose power is cut at every event.
    pub life_ops: usize,
    /// Clones at each event of it, to be timed.
    pub forks: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options { rounds: 7, io_ops: 4000, life_ops: 40, forks: 20 }
    }
}

/// A kind of work.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(tag = "work", rename_all = "snake_case")]
pub enum Work {
    /// Requests to simulated disks.
    DiskIo {
        /// Bytes of each sector.
        grain: u32,
    },
    /// Clones of a world, dropped again.
    Fork,
    /// Power cuts with assembly, resync and a whole audit.
    CrashPoint {
        /// Stripes of the array, of one-sector chunks.
        stripes: u64,
        /// Whether it has a bitmap.
        bitmap: bool,
        /// What is looked at.
        audit: Audit,
    },
}

/// How much of a world is looked at after its power was cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Audit {
    /// Every sector, before anything is resynced.
    AtOnce,
    /// Every sector, after the resync.
    Settled,
    /// Every sector after the resync, and then without each of the members.
    Views,
}

impl Work {
    /// Every kind.
    pub const ALL: [Work; 9] = [
        Work::DiskIo { grain: 512 },
        Work::DiskIo { grain: 64 },
        Work::Fork,
        Work::CrashPoint { stripes: 64, bitmap: false, audit: Audit::AtOnce },
        Work::CrashPoint { stripes: 64, bitmap: false, audit: Audit::Settled },
        Work::CrashPoint { stripes: 64, bitmap: false, audit: Audit::Views },
        Work::CrashPoint { stripes: 128, bitmap: true, audit: Audit::AtOnce },
        Work::CrashPoint { stripes: 128, bitmap: true, audit: Audit::Settled },
        Work::CrashPoint { stripes: 128, bitmap: true, audit: Audit::Views },
    ];

    /// What is counted, in words.
    pub fn name(self) -> String {
        match self {
            Work::DiskIo { grain } => format!("disk I/Os, {grain} bytes a sector"),
            Work::Fork => "forks of a busy world".to_owned(),
            Work::CrashPoint { stripes, bitmap, audit } => {
                let audit = match audit {
                    Audit::AtOnce => "",
                    Audit::Settled => " settled",
                    Audit::Views => " with views",
                };
                let bitmap = if bitmap { "a bitmap" } else { "no bitmap" };
                format!("crash points{audit}, {stripes} stripes, {bitmap}")
            }
        }
    }

    /// The array and its load, made before the clock runs.
    pub fn prepare(self, options: &Options) -> Box<dyn Job> {
        match self {
            Work::DiskIo { grain } => Box::new(Busy::new(grain, options.io_ops)),
            Work::Fork => Box::new(Crashes::new(64, false, AtEvent::Fork(options.forks), options.life_ops)),
            Work::CrashPoint { stripes, bitmap, audit } => {
                Box::new(Crashes::new(stripes, bitmap, AtEvent::Cut(audit), options.life_ops))
            }
        }
    }
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The form of this report.
    pub schema: &'static str,
    /// How often everything was done.
    pub rounds: usize,
    /// One for each kind of work.
    pub rates: Vec<Rate>,
}

/// How fast one kind of work is done.
#[derive(Clone, Debug, Serialize)]
pub struct Rate {
    /// What.
    #[serde(flatten)]
    pub work: Work,
    /// How many in a round.
    pub count: u64,
    /// Requests to simulated disks for each.
    pub disk_ios_each: f64,
    /// How many a second of processor time.
    pub per_s: Spread,
}

/// Work that is the same each time.
pub trait Job {
    /// Does it. Gives what was counted, and the requests to simulated disks it took.
    fn run(&self) -> (u64, u64);
}

/// Measures. `progress` is told the pieces of work done and those in all.
pub fn measure(options: &Options, mut progress: impl FnMut(usize, usize)) -> Report {
    assert!(options.rounds > 0, "no rounds");
    let jobs = Work::ALL.map(|work| (work, work.prepare(options)));
    let mut counts = [(0, 0); Work::ALL.len()];
    let mut rounds: [Vec<f64>; Work::ALL.len()] = Default::default();
    for round in 0..options.rounds {
        for (at, (_, job)) in jobs.iter().enumerate() {
            let before = processor_time();
            counts[at] = job.run();
            let took = processor_time() - before;
            rounds[at].push(counts[at].0 as f64 / took.as_secs_f64());
            progress(round * jobs.len() + at + 1, options.rounds * jobs.len());
        }
    }
    let rates = jobs.iter().zip(counts).zip(rounds).map(|(((work, _), (count, ios)), rounds)| Rate {
        work: *work,
        count,
        disk_ios_each: ios as f64 / count as f64,
        per_s: Spread::of(&rounds),
    });
    Report { schema: "raidlab-bench-sim/v1", rounds: options.rounds, rates: rates.collect() }
}

/// An array under load, whose disk I/Os are counted.
struct Busy {
    world: World<SimArray>,
    script: Script,
}

impl Busy {
    fn new(grain: u32, ops: usize) -> Busy {
        let array = new_array(grain, Sectors(1024));
        let limits = array.limits(VOLUME);
        let script = Script::new(Mix::of_all(&limits).draw(&limits, ops, &mut Rng::new(SEED, 1)), DEPTH);
        Busy { world: World::new(array, earned), script }
    }
}

impl Job for Busy {
    fn run(&self) -> (u64, u64) {
        let mut world = self.world.clone();
        world.run(&mut self.script.clone(), EVENTS_MAX).unwrap_or_else(|failure| panic!("{failure}"));
        let ios = world.stack.bank().bank().inner().io_count();
        (ios, ios)
    }
}

/// A RAID5 with chunks of eight sectors on members with `data` sectors of data.
fn new_array(grain: u32, data: Sectors) -> SimArray {
    let size = METADATA + data;
    let mut bank = SimBank::new(SEED);
    let mut model = DiskModel::small(size, METADATA);
    model.limits = Limits { grain, ..model.limits };
    let disks: Vec<DeviceId> = (0..MEMBERS).map(|_| bank.add_disk(model)).collect();
    let new = NewArray {
        level: Level::Raid5,
        layout: Layout::default_of(Level::Raid5),
        chunk: Sectors(8),
        raid_disks: MEMBERS,
        bitmap: true,
        name: SetName::new("bench").expect("it is short"),
        uuid: SetUuid([7; 16]),
        created: Timestamp::new(1, 0),
        in_sync: true,
        devices: disks.iter().map(|disk| NewDevice { size, uuid: DeviceUuid([disk.0 as u8 + 1; 16]) }).collect(),
    };
    let (_, members) = create(&new).expect("it is an ordinary array");
    for (disk, member) in disks.iter().zip(members) {
        member.writes.iter().for_each(|(at, bytes)| bank.write_media(*disk, *at, bytes));
    }
    let candidates = disks.iter().map(|disk| {
        let read = |at, length: Sectors| -> Result<_, std::convert::Infallible> {
            let extent = crate::block::Extent::new(at, length);
            // Behind the metadata a sector may hold less than a superblock.
            let is_whole = extent.end().0 <= METADATA.0;
            Ok(if is_whole { bank.read_media(*disk, extent) } else { vec![0; (length.0 * SECTOR_BYTES) as usize] })
        };
        Candidate::read(*disk, size, read).expect("it was just created")
    });
    let assembly = assemble(candidates.collect(), AssembleOptions::default()).expect("all members are there");
    Array::start(Paths::Direct(Fault::new(bank)), assembly.geometry, assembly.start, SyncOptions::UNLIMITED)
}

/// What is done at each event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum AtEvent {
    /// So many clones.
    Fork(usize),
    /// The power of a clone is cut.
    Cut(Audit),
}

/// An array that is disturbed at every event of a life.
struct Crashes {
    lab: Lab,
    script: Script,
    what: AtEvent,
}

impl Crashes {
    fn new(stripes: u64, bitmap: bool, what: AtEvent, ops: usize) -> Crashes {
        let shape = Shape {
            level: Level::Raid5,
            layout: Layout::default_of(Level::Raid5),
            chunk: Sectors(1),
            disks: MEMBERS,
            spares: 0,
            member: Sectors(stripes),
            bitmap: bitmap.then_some(BITMAP_CHUNK),
            ..Shape::plain(Level::Raid5, 5)
        };
        let lab = Lab::new(shape, SEED);
        let limits = lab.array().limits(VOLUME);
        let mix = Mix { length_max: Sectors(32), ..Mix::of_all(&limits) };
        let script = Script::new(mix.draw(&limits, ops, &mut Rng::new(SEED, 2)), DEPTH);
        Crashes { lab, script, what }
    }

    fn at_event(&self, lab: &Lab, choose: &mut Rng, ios: &mut u64) -> u64 {
        let loss = LOSSES[(lab.world.events() % 4) as usize];
        let audit = match self.what {
            AtEvent::Fork(count) => {
                (0..count).for_each(|_| drop(std::hint::black_box(lab.clone())));
                return count as u64;
            }
            AtEvent::Cut(audit) => audit,
        };
        let cut = audited(lab.clone(), loss, audit != Audit::AtOnce, choose);
        *ios += lab_ios(&cut) - lab_ios(lab);
        if audit == Audit::Views {
            for slot in 0..MEMBERS {
                let mut view = cut.clone();
                view.lose(SlotSet::only(slot));
                view.world.read_all(EVENTS_MAX).unwrap_or_else(|failure| panic!("without {slot}: {failure}"));
                *ios += lab_ios(&view) - lab_ios(&cut);
            }
        }
        1
    }
}

impl Job for Crashes {
    fn run(&self) -> (u64, u64) {
        let (mut lab, mut script) = (self.lab.clone(), self.script.clone());
        let mut choose = Rng::new(SEED, 3);
        let (mut count, mut ios) = (0, 0);
        while lab.world.advance(&mut script).unwrap_or_else(|failure| panic!("{failure}")) {
            count += self.at_event(&lab, &mut choose, &mut ios);
        }
        (count, ios)
    }
}

fn lab_ios(lab: &Lab) -> u64 {
    lab.bank().io_count()
}

/// Cuts the power, assembles, lets everything agree again if asked to, and reads every sector.
fn audited(lab: Lab, loss: CacheLoss, settle: bool, choose: &mut Rng) -> Lab {
    let event = lab.world.events();
    let off = lab.cut_power(loss, false, choose);
    let sync = SyncOptions { frozen: !settle, ..SyncOptions::UNLIMITED };
    let assembled = off.assemble_with(false, sync);
    let mut lab = assembled.unwrap_or_else(|refused| panic!("event {event}, {loss:?}: {}", refused.1));
    let mut audit = || {
        while settle && lab.array().is_syncing() {
            lab.world.step()?;
        }
        lab.world.read_all(EVENTS_MAX)
    };
    audit().unwrap_or_else(|failure| panic!("event {event}, {loss:?}: {failure}"));
    lab
}

impl Report {
    /// A row for each kind of work. How it is drawn, and how wide, is left to the caller.
    pub fn table(&self) -> Table {
        let mut table = Table::new();
        table.set_header(["", "a second", "slowest", "fastest", "us each", "disk I/Os each"]);
        for Rate { work, per_s, disk_ios_each, .. } in &self.rates {
            let Spread { min, median, max } = *per_s;
            let rates = [median, min, max].map(|rate| format!("{rate:.0}"));
            let more = [format!("{:.1}", 1e6 / median), format!("{disk_ios_each:.0}")];
            table.add_row([work.name()].into_iter().chain(rates).chain(more));
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_work_has_a_rate_in_the_json_and_in_the_table() {
        let options = Options { rounds: 1, io_ops: 20, life_ops: 4, forks: 1 };
        let report = measure(&options, |_, _| {});
        let json = serde_json::to_value(&report).expect("a report is JSON");
        assert_eq!(json["schema"], "raidlab-bench-sim/v1");
        let rates = json["rates"].as_array().expect("a list");
        assert_eq!(rates.len(), Work::ALL.len());
        for rate in rates {
            assert!(rate["work"].is_string() && rate["per_s"]["median"].as_f64() > Some(0.0), "{rate}");
        }
        assert_eq!(report.table().row_count(), Work::ALL.len());
    }

    /// A crash point reads 256 sectors in requests of one sector each, and no view reads fewer.
    #[test]
    fn a_crash_point_reads_everything() {
        for audit in [Audit::AtOnce, Audit::Settled, Audit::Views] {
            let (count, ios) = Crashes::new(64, false, AtEvent::Cut(audit), 4).run();
            assert!(count > 0 && ios >= count * 256, "{count} crash points, {ios} disk I/Os");
        }
    }
}
