//! Stacks that are wrong on purpose: an oracle that lets one of them pass is no oracle.

use std::collections::BTreeMap;

use super::{CacheLoss, DiskModel, Failure, Mix, Rng, Rule, Script, SimBank, World};
use crate::block::{Bank, Buf, Completion, DeviceId, Durability, Extent, Instant, IoError, Lba, Limits, Op, Payload};
use crate::block::{Request, RequestId, Sectors};

const SECTORS: u64 = 48;
const DISK: DeviceId = DeviceId(0);

/// What is wrong with a stack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wrong {
    /// Flushes are acknowledged and not passed on.
    FlushLies,
    /// Force unit access is not passed on.
    FuaLies,
    /// One write in eight is acknowledged and not passed on.
    DropsWrites,
    /// One read in eight returns what the first read of each sector did.
    ReturnsOldData,
    /// One read in eight has its first two sectors swapped.
    SwapsSectors,
    /// One read in eight returns the exclusive or of its first two sectors.
    MixesSectors,
    /// One write in eight lands a sector further.
    Misdirects,
    /// Discards are acknowledged and not passed on.
    KeepsDiscarded,
    /// One request in eight fails for no reason.
    FailsForNothing,
    /// One write in eight fails, and is carried out when a later flush comes.
    WritesLate,
    /// One request in eight is never answered.
    Forgets,
}

/// A disk behind a layer that is wrong.
#[derive(Clone, Debug)]
struct WrongBank {
    disk: SimBank,
    wrong: Wrong,
    rng: Rng,
    answered: Vec<(DeviceId, Completion)>,
    /// Requests whose completion is to be spoilt; those it makes itself begin at `OWN`.
    spoilt: Vec<RequestId>,
    /// What each sector read as first.
    old: BTreeMap<u64, Vec<u8>>,
    late: Vec<Request>,
    extents: Vec<(RequestId, Extent)>,
}

const OWN: u64 = 1 << 40;

impl WrongBank {
    fn new(wrong: Wrong, seed: u64) -> WrongBank {
        WrongBank {
            disk: one_disk(seed),
            wrong,
            rng: Rng::new(seed, 99),
            answered: Vec::new(),
            spoilt: Vec::new(),
            old: BTreeMap::new(),
            late: Vec::new(),
            extents: Vec::new(),
        }
    }

    fn answer(&mut self, request: Request, result: Result<(), IoError>) {
        self.answered.push((DISK, request.complete(result)));
    }

    fn spoil(&mut self, extent: Extent, buf: &mut Buf) {
        let mut bytes = buf.to_vec();
        match self.wrong {
            Wrong::ReturnsOldData => {
                for (lba, sector) in extent.range().zip(bytes.chunks_exact_mut(64)) {
                    sector.copy_from_slice(self.old.entry(lba).or_insert_with(|| sector.to_vec()));
                }
            }
            Wrong::SwapsSectors if extent.length.0 > 1 => bytes[..128].rotate_left(64),
            Wrong::MixesSectors if extent.length.0 > 1 => (0..64).for_each(|at| bytes[at] ^= bytes[at + 64]),
            _ => {}
        }
        buf.copy_from(&bytes);
    }
}

impl Bank for WrongBank {
    fn limits(&self, device: DeviceId) -> Limits {
        self.disk.limits(device)
    }

    fn submit(&mut self, device: DeviceId, mut request: Request, now: Instant) {
        let now_and_then = self.rng.chance(12);
        self.extents.push((request.id, request.extent));
        match (self.wrong, &mut request.op) {
            (Wrong::FlushLies, Op::Flush) | (Wrong::KeepsDiscarded, Op::Discard) => {
                return self.answer(request, Ok(()));
            }
            (Wrong::DropsWrites, Op::Write(..)) if now_and_then => return self.answer(request, Ok(())),
            (Wrong::FailsForNothing, _) if now_and_then => return self.answer(request, Err(IoError::Medium)),
            (Wrong::WritesLate, Op::Write(..)) if now_and_then => {
                self.late.push(Request { id: RequestId(OWN + request.id.0), ..request.clone() });
                return self.answer(request, Err(IoError::Timeout));
            }
            (Wrong::WritesLate, Op::Flush) => {
                for late in std::mem::take(&mut self.late) {
                    self.disk.submit(device, late, now);
                }
            }
            (Wrong::FuaLies, Op::Write(_, durability) | Op::WriteZeroes(durability)) => {
                *durability = Durability::Volatile;
            }
            (Wrong::Misdirects, Op::Write(..)) if now_and_then && request.extent.end().0 < SECTORS => {
                request.extent.start = Lba(request.extent.start.0 + 1);
            }
            (Wrong::Forgets, _) if now_and_then => return,
            _ if now_and_then => self.spoilt.push(request.id),
            _ => {}
        }
        self.disk.submit(device, request, now);
    }

    fn poll(&mut self, now: Instant, done: &mut Vec<(DeviceId, Completion)>) {
        done.append(&mut self.answered);
        let first = done.len();
        self.disk.poll(now, done);
        done.retain(|(_, completion)| completion.id.0 < OWN);
        for (_, completion) in &mut done[first..] {
            let Op::Read(buf) = &mut completion.op else { continue };
            let extent = self.extents.iter().find(|(id, _)| *id == completion.id).expect("it was submitted").1;
            if self.spoilt.contains(&completion.id) {
                self.spoil(extent, buf);
            } else {
                for (lba, sector) in extent.range().zip(buf.to_vec().chunks_exact(64)) {
                    self.old.entry(lba).or_insert_with(|| sector.to_vec());
                }
            }
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        if self.answered.is_empty() { self.disk.next_deadline() } else { Some(Instant::START) }
    }
}

fn one_disk(seed: u64) -> SimBank {
    let mut bank = SimBank::new(seed);
    let mut model = DiskModel::small(Sectors(SECTORS), Sectors::ZERO);
    model.limits.preferred = Sectors(4);
    bank.add_disk(model);
    bank
}

fn never<S>(_: &S, _: Lba) -> bool {
    false
}

/// Cuts the power at the end of the run, reads everything twice, and tells what was wrong.
fn verdict(wrong: Wrong, seed: u64) -> Result<(), Failure> {
    let bank = WrongBank::new(wrong, seed);
    let limits = bank.limits(DISK);
    let mut rng = Rng::new(seed, 100);
    let mut mix = Mix::of_all(&limits);
    if wrong == Wrong::FuaLies {
        mix.flushes = 0; // They would make good what the writes did not keep.
    }
    let mut script = Script::new(mix.draw(&limits, 120, &mut rng), 4);
    // A late write has its moment after a flush; a power cut would only hide it.
    let mut world = World::new(bank, if wrong == Wrong::WritesLate { |_, _| true } else { never });
    world.run(&mut script, 10_000)?;
    world.read_all(1000)?;
    let Ok(mut world) = world.restart::<std::convert::Infallible>(|mut stack| {
        stack.disk.power_cut(CacheLoss::DropAll, &mut rng);
        Ok(stack)
    });
    world.read_all(1000)?;
    world.read_all(1000)
}

/// The rules that a stack with this fault breaks; none of them: it may only get stuck.
fn caught(wrong: Wrong) -> Vec<Rule> {
    let mut rules = Vec::new();
    let mut passed = 0;
    for seed in 0..40 {
        match verdict(wrong, seed) {
            Ok(()) => passed += 1,
            Err(Failure::Wrong(violation)) => rules.push(violation.rule),
            Err(Failure::Stuck { .. }) => {}
        }
    }
    assert!(passed < 20, "{wrong:?}: {passed} of 40 seeds saw nothing wrong");
    rules.sort_unstable();
    rules.dedup();
    rules
}

#[test]
fn a_layer_that_lies_about_durability_breaks_the_flush_rule() {
    assert!(caught(Wrong::FlushLies).contains(&Rule::Flush));
    assert!(caught(Wrong::FuaLies).contains(&Rule::Flush));
}

#[test]
fn lost_and_stale_data_break_the_register_rule() {
    assert!(caught(Wrong::DropsWrites).contains(&Rule::Register));
    assert!(caught(Wrong::ReturnsOldData).contains(&Rule::Register));
}

#[test]
fn sectors_of_elsewhere_are_garbage() {
    assert!(caught(Wrong::SwapsSectors).contains(&Rule::NeverGarbage));
    assert!(caught(Wrong::MixesSectors).contains(&Rule::NeverGarbage));
    assert!(caught(Wrong::Misdirects).contains(&Rule::NeverGarbage));
}

#[test]
fn a_discard_that_is_not_done_breaks_the_discard_rule() {
    assert!(caught(Wrong::KeepsDiscarded).contains(&Rule::Discard));
}

#[test]
fn an_error_without_a_fault_is_not_earned() {
    assert_eq!(caught(Wrong::FailsForNothing), [Rule::ErrorsEarned]);
}

#[test]
fn a_failed_write_that_lands_over_a_newer_one_is_a_late_effect() {
    assert!(caught(Wrong::WritesLate).contains(&Rule::NoLateEffect));
}

#[test]
fn a_request_without_an_answer_is_noticed() {
    assert_eq!(caught(Wrong::Forgets), []);
}

/// Two disks written together and read by turns. It does not resync after a crash: where the disks
/// then differ, it answers now this, now that.
#[derive(Clone, Debug)]
struct TurningMirror {
    disks: SimBank,
    turn: u32,
    half_done: Vec<(RequestId, bool)>,
}

impl Bank for TurningMirror {
    fn limits(&self, _: DeviceId) -> Limits {
        self.disks.limits(DISK)
    }

    fn submit(&mut self, _: DeviceId, request: Request, now: Instant) {
        if matches!(request.op, Op::Read(_)) {
            self.turn = 1 - self.turn;
            self.disks.submit(DeviceId(self.turn), request, now);
        } else {
            self.half_done.push((request.id, false));
            self.disks.submit(DeviceId(0), request.clone(), now);
            self.disks.submit(DeviceId(1), request, now);
        }
    }

    fn poll(&mut self, now: Instant, done: &mut Vec<(DeviceId, Completion)>) {
        self.disks.poll(now, done);
        let half_done = &mut self.half_done;
        done.retain_mut(|(device, completion)| {
            *device = DISK;
            let Some((_, half)) = half_done.iter_mut().find(|(id, _)| *id == completion.id) else { return true };
            std::mem::replace(half, true)
        });
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.disks.next_deadline()
    }
}

#[test]
fn a_mirror_that_answers_by_turns_after_a_crash_breaks_the_crash_choice() {
    let mut rules = Vec::new();
    for seed in 0..20 {
        let mut disks = one_disk(seed);
        disks.add_disk(DiskModel::small(Sectors(SECTORS), Sectors::ZERO));
        let mut world = World::new(TurningMirror { disks, turn: 0, half_done: Vec::new() }, never);
        for start in (0..SECTORS).step_by(8) {
            world.submit_write(Extent::new(Lba(start), Sectors(8)), Durability::Volatile);
        }
        world.run_until_idle(1000).unwrap();

        let Ok(mut world) = world.restart::<std::convert::Infallible>(|mut stack| {
            stack.disks.power_cut(CacheLoss::PerSector, &mut Rng::new(seed, 1));
            Ok(stack)
        });
        if let Err(Failure::Wrong(violation)) = world.read_all(1000).and_then(|()| world.read_all(1000)) {
            rules.push(violation.rule);
        }
    }
    assert_eq!(rules, [Rule::CrashChoice; 20]);
}

#[test]
fn a_payload_of_nobody_is_garbage() {
    let mut world = World::new(one_disk(1), never);
    let extent = Extent::new(Lba(3), Sectors(1));
    world.stack.write_media(DISK, extent.start, &Payload::copy_of(&[5; 64]).to_vec());
    world.submit_read(extent);
    let Err(Failure::Wrong(violation)) = world.run_until_idle(10) else { panic!("garbage was taken") };
    assert_eq!(
        violation.to_string(),
        "R2 (never garbage) broken: operation 1 on sector 3 returned garbage; legal: zeroes"
    );
}
