//! Known bugs, put back one at a time: a simulator that lives with them is worth nothing.
//!
//! Seeded lives are to find them all (`tools/mutants`). Those that are found late have a story each, which the engine survives
//! and the mutant does not.

use std::time::Duration;

use super::array::Lab;
use super::fabrics::Fabrics;
use super::{CacheLoss, Cuts, Effort, Failed, Rng, Scenario, Shape, Verdict, Wish, draw, live};
use crate::block::{DeviceId, Durability, Extent, Lba, Sectors};
use crate::disk::FaultKind;
use crate::raid::geometry::StripeIndex;
use crate::raid::level::Level;
use crate::raid::mutant::{Mutant, switch_on};
use crate::raid::sync::Scrub;

const EVENTS_MAX: u64 = 20_000;

/// The engine survives the story, and `mutant` does not.
fn tells(mutant: Mutant, story: impl Fn() -> Result<(), Failed>) {
    {
        let _off = switch_on(None);
        story().unwrap_or_else(|failed| panic!("{mutant} is off: {failed}"));
    }
    let _on = switch_on(Some(mutant));
    let failed = story().expect_err("the mutant shows");
    println!("{mutant}: {} {failed}", mutant.breaks());
}

fn lab(level: Level, disks: usize, spares: usize) -> Lab {
    let mut lab = Lab::new(Shape { spares, ..Shape::plain(level, disks) }, 1);
    let whole = Extent::new(Lba(0), lab.array().geometry().capacity());
    lab.world.submit_write(whole, Durability::Fua);
    lab.world.run_until_idle(EVENTS_MAX).unwrap();
    while lab.world.step().unwrap() {}
    lab
}

fn write(lab: &mut Lab, lba: u64, durability: Durability) -> Result<(), Failed> {
    lab.world.submit_write(Extent::new(Lba(lba), Sectors(1)), durability);
    Ok(lab.world.run_until_idle(EVENTS_MAX)?)
}

fn read(lab: &mut Lab, lba: u64) -> Result<(), Failed> {
    lab.world.submit_read(Extent::new(Lba(lba), Sectors(1)));
    Ok(lab.world.run_until_idle(EVENTS_MAX)?)
}

fn flush(lab: &mut Lab) -> Result<(), Failed> {
    lab.world.submit_flush();
    Ok(lab.world.run_until_idle(EVENTS_MAX)?)
}

fn cut(lab: &Lab, loss: CacheLoss, seed: u64) -> Result<Lab, Failed> {
    let off = lab.clone().cut_power(loss, false, &mut Rng::new(seed, 1));
    off.assemble(false).map_err(|refused| Failed::Refused(refused.1))
}

fn repair(lab: &mut Lab, trust_data: bool) {
    let end = Lba(lab.array().geometry().capacity().0);
    lab.array_mut().start_scrub(Scrub::Repair { trust_data }, Lba(0)..end);
}

/// The device a data chunk of the first stripe lies on.
fn device_of(lab: &Lab, chunk: usize) -> DeviceId {
    let slot = lab.array().geometry().stripe(StripeIndex(0)).columns[chunk].slot;
    lab.array().members().seats()[slot.0 as usize].member.expect("the slot is taken")
}

/// Two members of a RAID6 are gone; a sector of one of them is written.
#[test]
fn a_write_to_a_missing_member_comes_to_its_end() {
    tells(Mutant::ParityNeverLoaded, || {
        let mut lab = lab(Level::Raid6, 5, 0);
        for device in [device_of(&lab, 0), device_of(&lab, 1)] {
            lab.array_mut().fail(device).expect("two can be lost");
        }
        write(&mut lab, 0, Durability::Volatile)
    });
}

/// Clients write single sectors while everything is repaired, data being trusted.
#[test]
fn a_repair_keeps_writes_out_of_the_stripe_it_mends() {
    tells(Mutant::RepairWithoutLock, || {
        let mut lab = lab(Level::Raid5, 4, 0);
        let mut rng = Rng::new(1, 1);
        let capacity = lab.array().geometry().capacity().0;
        for _ in 0..20 {
            for step in 0..200 {
                if step == 50 {
                    repair(&mut lab, true);
                }
                if step < 150 && lab.world.inflight() < 4 {
                    lab.world.submit_write(Extent::new(Lba(rng.below(capacity)), Sectors(1)), Durability::Volatile);
                }
                lab.world.step()?;
            }
            while lab.world.inflight() > 0 || lab.array().is_scrubbing() {
                lab.world.step()?;
            }
            lab.check()?;
        }
        Ok(())
    });
}

/// A sector of a RAID6 rots in silence. Repair knows which member lies.
#[test]
fn a_repair_mends_the_column_it_located() {
    tells(Mutant::CulpritIntoParity, || {
        let mut lab = lab(Level::Raid6, 5, 0);
        let device = device_of(&lab, 0);
        let data = lab.array().members().get(device).expect("it is a member").data_offset();
        lab.bank_mut().write_media(device, data, &[0xa5; 64]);
        repair(&mut lab, false);
        while lab.array().is_scrubbing() {
            lab.world.step()?;
        }
        Ok(lab.world.read_all(EVENTS_MAX)?)
    });
}

/// A sector of a RAID6 is not written, in silence: nobody vouches for its row, and yet repair must not make parity agree.
#[test]
fn a_repair_is_judged_where_nobody_vouches_for_the_data() {
    tells(Mutant::CulpritIntoParity, || {
        let text = r#"
            schema = "raidlab-scenario/v1"
            seed = 1
            regime = "budgeted"
            array = { level = "raid6", disks = 5, chunk = 8, member = 128 }
            clients = { depth = 1, ops = ["write 0+24 fua", "write 0+1 fua"] }
            [[step]]
            id = 1
            when = "answered 1"
            do = "fault slot-1 lost x1"
        "#;
        lived(&Scenario::parse(text).expect("it is a scenario"), Effort::PLAIN)
    });
}

fn lived(scenario: &Scenario, effort: Effort) -> Result<(), Failed> {
    match live(scenario, effort).1 {
        Verdict::Finding(finding) => Err(finding.failed),
        _ => Ok(()),
    }
}

/// `tools/mutants` does it with all of them.
#[test]
fn drawn_lives_find_known_bugs() {
    let effort = Effort { cuts: Cuts::Every(37), ..Effort::PLAIN };
    let quick =
        [Mutant::ReplacementWindow, Mutant::DirtyDegradedStarts, Mutant::FreshestByTime, Mutant::FlushBeforeLast];
    for mutant in quick {
        let fails = |seed: &u64| {
            let scenario = draw(*seed, &Wish::default());
            let shows = {
                let _on = switch_on(Some(mutant));
                lived(&scenario, effort).is_err()
            };
            shows && lived(&scenario, effort).is_ok()
        };
        let found = (1..40).find(fails).unwrap_or_else(|| panic!("{mutant}: {}", mutant.breaks()));
        println!("{mutant}: seed {found}");
    }
}

/// A disk takes a write into its cache, is gone when the flush comes, and is back, without it, after the power was cut.
#[test]
fn a_member_that_could_not_be_flushed_does_not_count() {
    tells(Mutant::FlushErrorIgnored, || {
        let mut lab = lab(Level::Raid1, 2, 0);
        write(&mut lab, 5, Durability::Volatile)?;
        lab.bank_mut().fail_stop(DeviceId(0));
        flush(&mut lab)?;
        lab.bank_mut().bring_back(DeviceId(0));
        let mut lab = cut(&lab, CacheLoss::DropAll, 1)?;
        Ok(lab.world.read_all(EVENTS_MAX)?)
    });
}

/// A region is written once, others without a pause and without a flush, until the daemon has cleared its bit.
#[test]
fn a_cleared_bit_means_that_the_region_is_on_the_medium() {
    tells(Mutant::BitBeforeFlush, || {
        let bitmap = Some(Sectors(32));
        let shape = Shape { bitmap, ..Shape::plain(Level::Raid5, 4) };
        let mut lab = Lab::new(shape, 1);
        // A slow disk, so that the daemon comes round before the caches are full and write back by themselves.
        let now = lab.world.now();
        let slow = FaultKind::Latency(Duration::from_millis(500));
        lab.faults_mut().arm(DeviceId(0), slow.into(), now).expect("it can be slow");
        write(&mut lab, 0, Durability::Volatile)?;
        while lab.array().is_marked_dirty(Lba(0)) || lab.array().is_recording() {
            write(&mut lab, 288, Durability::Volatile)?;
        }
        (0..32).try_for_each(|seed| cut(&lab, CacheLoss::PerDisk, seed)?.check())
    });
}

/// After a crash in the middle of a write a member fails, before the resync has read all it needs. Another sector of the row is
/// written, which only a difference can do, and the lost one is read.
#[test]
fn a_difference_does_not_make_parity_right() {
    tells(Mutant::DifferenceAgrees, || {
        let mut before = lab(Level::Raid5, 4, 0);
        before.world.submit_write(Extent::new(Lba(0), Sectors(1)), Durability::Volatile);
        while before.world.inflight() > 0 {
            for seed in 0..16 {
                let mut lab = cut(&before, CacheLoss::PerDisk, seed)?;
                let lost = device_of(&lab, 1);
                lab.array_mut().fail(lost).expect("one can be lost");
                write(&mut lab, 0, Durability::Volatile)?;
                // By itself: the rows beside it are still in doubt, and a request is refused as a whole.
                read(&mut lab, 8)?;
            }
            before.world.step()?;
        }
        Ok(())
    });
}

/// The power is cut while a replacement takes over; then another member is lost.
#[test]
fn a_replacement_takes_over_when_it_is_on_record_that_it_is_full() {
    tells(Mutant::ReplacementBeforeRecord, || {
        let mut lab = lab(Level::Raid5, 3, 1);
        lab.array_mut().replace(DeviceId(0), None).expect("there is a spare");
        let mut more = true;
        while more {
            for seed in 0..4 {
                let mut fork = cut(&lab, CacheLoss::PerSector, seed)?;
                fork.world.forbid_errors();
                fork.bank_mut().fail_stop(DeviceId(1));
                fork.world.read_all(EVENTS_MAX)?;
            }
            more = lab.world.step()?;
        }
        Ok(())
    });
}

/// The power is cut while superblocks are written, and again in the next update: nobody is two events behind.
#[test]
fn members_one_event_behind_catch_up_first() {
    tells(Mutant::NoCatchUp, || {
        let mut lab = lab(Level::Raid5, 3, 0);
        lab.world.submit_write(Extent::new(Lba(0), Sectors(1)), Durability::Volatile);
        for seed in 0..40 {
            let mut again = cut(&lab, CacheLoss::KeepAll, seed)?;
            again.world.submit_write(Extent::new(Lba(0), Sectors(1)), Durability::Volatile);
            for _ in 0..12 {
                cut(&again, CacheLoss::KeepAll, seed)?;
                if !again.world.step()? {
                    break;
                }
            }
            if !lab.world.step()? {
                break;
            }
        }
        Ok(())
    });
}

/// The same of bugs of a multipath layer, in lives with paths over the array, under it, or both.
#[test]
fn drawn_lives_with_paths_find_known_bugs_of_paths() {
    let quick = [
        Mutant::RetryWithoutFence,
        Mutant::HoldTooShort,
        Mutant::BackAtOnce,
        Mutant::FlushNotSent,
        Mutant::TargetErrorFailsPath,
        Mutant::AnsweredTwice,
        Mutant::StaleBuffer,
        Mutant::WorstGroup,
        Mutant::FailedPathUsed,
        Mutant::CheckerProlongsWait,
        Mutant::OverlapsWrites,
    ];
    for mutant in quick {
        let fails = |seed: &u64| {
            let scenario = draw(*seed, &Wish { paths: Fabrics::in_turn(*seed), ..Wish::default() });
            let _on = switch_on(Some(mutant));
            lived(&scenario, Effort::PLAIN).is_err()
        };
        let found = (0..40).find(fails).unwrap_or_else(|| panic!("{mutant}: {}", mutant.breaks()));
        println!("{mutant}: seed {found}");
    }
}

/// A mirror behind paths is lived, with these operations and steps.
fn lived_behind_paths(ops: &[&str], steps: &[(&str, &str)]) -> Result<(), Failed> {
    let mut text = format!(
        "schema = \"raidlab-scenario/v1\"\nseed = 1\nregime = \"budgeted\"\n[array]\nlevel = \"raid1\"\ndisks = 2\n\
         chunk = 8\nmember = 128\n[paths]\nvolume = \"san\"\n[clients]\ndepth = 1\nops = {ops:?}\n"
    );
    for (at, (when, act)) in steps.iter().enumerate() {
        text += &format!("[[step]]\nid = {}\nwhen = \"{when}\"\ndo = \"{act}\"\n", at + 1);
    }
    lived(&Scenario::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}")), Effort::PLAIN)
}

/// All paths are lost with a write on its way, which is given up; nobody could ask for an end of its nexus on the way that it went.
/// The other side comes back, a newer write goes there, and then the first side delivers what it has kept.
#[test]
fn what_was_given_up_does_not_land_over_what_is_newer() {
    tells(Mutant::GivenUpForgotten, || {
        let steps = [
            ("op 1", "fail-path volume 1"),
            ("op 1", "fail-path volume 2"),
            ("op 1", "fail-path volume 3"),
            ("op 1", "component volume hba-0 stalled"),
            ("op 1", "component volume hba-1 down"),
            ("op 2", "rest"),
            ("time 15s", "component volume hba-1 up"),
            ("answered 3", "component volume hba-0 up"),
        ];
        let reads = ["read 0+4"; 12];
        lived_behind_paths(&[&["write 0+4"; 3][..], &reads].concat(), &steps)
    });
}
