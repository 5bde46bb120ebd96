//! Arrays in the simulator: power cuts, and faults told one by one.

use std::time::Duration;

use super::array::Lab;
use super::{CacheLoss, Effort, Failure, Report, Rng, Rule, Scenario, Shape, Verdict, Wish, draw, live};
use crate::block::{DeviceId, Durability, Extent, Lba, Sectors};
use crate::disk::FaultKind;
use crate::raid::geometry::Slot;
use crate::raid::level::Level;
use crate::raid::member::Place;

const EVENTS_MAX: u64 = 20_000;

/// Lives the scenario, which must come to a good end.
#[track_caller]
fn lives_well(scenario: &Scenario, effort: Effort) -> Report {
    let (report, verdict) = live(scenario, effort);
    match verdict {
        Verdict::Finding(finding) => panic!("{finding}\n{}", finding.scenario.to_toml()),
        Verdict::Pass | Verdict::NoPromise(_) | Verdict::Budget => report,
    }
}

#[test]
fn no_seed_finds_anything_and_each_is_the_same_twice() {
    for seed in 0..40 {
        let scenario = draw(seed, &Wish::default());
        let report = lives_well(&scenario, Effort::SAMPLE);
        assert_eq!(live(&scenario, Effort::SAMPLE).0, report, "seed {seed}");
    }
}

/// Every event of a short life, on every level.
#[test]
fn the_power_can_go_at_any_event() {
    for (seed, level) in (0..).zip(Level::ALL) {
        let mut scenario = draw(seed, &Wish { level: Some(level), ..Wish::default() });
        scenario.clients.ops.truncate(12);
        let report = lives_well(&scenario, Effort::FULL);
        assert!(report.tally.cuts * 3 >= report.events, "{level}: {report:?}");
    }
}

/// What a seed is drawn into is all there is to it.
#[test]
fn a_scenario_is_the_same_when_it_was_written_down() {
    for seed in 0..20 {
        let scenario = draw(seed, &Wish::default());
        let read = Scenario::parse(&scenario.to_toml()).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!(read, scenario);
        assert_eq!(live(&read, Effort::PLAIN), live(&scenario, Effort::PLAIN));
    }
}

fn filled(level: Level, disks: usize, spares: usize, member: Sectors) -> Lab {
    let mut lab = Lab::new(Shape { spares, member, ..Shape::plain(level, disks) }, 1);
    let capacity = lab.array().geometry().capacity();
    lab.world.submit_write(Extent::new(Lba(0), capacity), Durability::Volatile);
    lab.world.run_until_idle(EVENTS_MAX).unwrap();
    lab.world.submit_flush();
    lab.world.run_until_idle(EVENTS_MAX).unwrap();
    lab
}

fn recover(lab: &mut Lab) {
    while lab.array().is_syncing() {
        assert!(lab.world.step().unwrap(), "recovery goes on");
        lab.array().check_invariants();
    }
}

/// Sectors of the volume that cannot be read.
fn unreadable(lab: &Lab) -> Vec<u64> {
    let capacity = lab.array().geometry().capacity().0;
    let fails = |lba: &u64| {
        let mut lab = lab.clone();
        lab.world.submit_read(Extent::new(Lba(*lba), Sectors(1)));
        lab.world.forbid_errors();
        match lab.world.run_until_idle(EVENTS_MAX) {
            Ok(()) => false,
            Err(Failure::Wrong(violation)) if violation.rule == Rule::ErrorsEarned => true,
            Err(failure) => panic!("sector {lba}: {failure}"),
        }
    };
    (0..capacity).filter(fails).collect()
}

/// The last copy of some sectors turns out to be unreadable while a spare is filled from it: these are lost, they are
/// on record, and nothing else is.
#[test]
fn an_unreadable_sector_during_recovery_loses_itself_and_what_it_would_have_restored() {
    let mut lab = filled(Level::Raid5, 3, 1, Sectors(64));
    let data = lab.array().members().get(DeviceId(1)).unwrap().data_offset();
    lab.bank_mut().fail_medium(DeviceId(1), Extent::new(data + Sectors(16), Sectors(2)));

    lab.array_mut().fail(DeviceId(0)).unwrap();
    recover(&mut lab);

    let spare = lab.array().members().get(DeviceId(3)).unwrap();
    assert_eq!(spare.place, Place::Slot(Slot(0)));
    let listed: Vec<Extent> = spare.bad.iter().collect();
    assert_eq!(listed, [Extent::new(data + Sectors(16), Sectors(2))]);
    // Row 16 of the members is stripe 2, whose parity lies on slot 0: only slot 1's own chunk is lost.
    let geometry = lab.array().geometry();
    let stripe = geometry.stripe(geometry.stripe_at(Slot(1), Lba(16)).unwrap());
    let lost: Vec<u64> = (0..stripe.data_chunks as u64)
        .filter(|chunk| stripe.columns[*chunk as usize].slot.0 < 2)
        .flat_map(|chunk| (0..2).map(move |row| (chunk, row)))
        .map(|(chunk, row)| stripe.start.0 + chunk * 8 + row)
        .collect();
    assert_eq!(unreadable(&lab), lost);
}

/// A second member of a RAID5 stops while a spare is being filled: what the spare holds by then counts.
#[test]
fn sectors_below_the_watermark_survive_a_second_failure() {
    let mut lab = filled(Level::Raid5, 4, 1, Sectors(512));
    lab.array_mut().fail(DeviceId(0)).unwrap();
    let total = lab.array().geometry().capacity().0 as usize;
    let spare = DeviceId(4);
    while lab.array().members().get(spare).unwrap().watermark().is_none_or(|mark| mark < 32) {
        assert!(lab.world.step().unwrap());
    }
    let held = lab.array().members().get(spare).unwrap().watermark().expect("it is not full");
    lab.bank_mut().fail_stop(DeviceId(1));
    recover(&mut lab);
    let lost = unreadable(&lab).len();
    assert!(lost > 0 && lost <= total - held as usize * 3, "{lost} of {total} sectors lost, {held} rows were held");
}

/// Two members of a RAID6 stop at once, then the first spare: another one steps in.
#[test]
fn a_spare_that_fails_is_followed_by_the_next() {
    let mut lab = filled(Level::Raid6, 5, 3, Sectors(64));
    lab.bank_mut().fail_stop(DeviceId(0));
    lab.bank_mut().fail_stop(DeviceId(1));
    lab.world.read_all(EVENTS_MAX).unwrap();
    for _ in 0..40 {
        lab.world.step().unwrap();
    }
    lab.bank_mut().fail_stop(DeviceId(5));
    recover(&mut lab);
    assert_eq!(lab.array().members().get(DeviceId(5)).unwrap().place, Place::Faulty);
    assert!(lab.array().degraded().is_empty());
    assert_eq!(unreadable(&lab), Vec::<u64>::new());
}

/// A region is written once, then left alone while others are written without a pause and without a flush: the array stays
/// dirty, so nothing but the bitmap's daemon has reason to flush. What it cleared must survive the power.
#[test]
fn a_bit_is_cleared_only_when_its_region_is_on_the_medium() {
    let shape = Shape { bitmap: Some(Sectors(32)), ..Shape::plain(Level::Raid5, 4) };
    let mut lab = Lab::new(shape, 1);
    let (left_alone, busy) = (Extent::new(Lba(0), Sectors(8)), Extent::new(Lba(288), Sectors(8)));
    let write = |lab: &mut Lab, extent| {
        lab.world.submit_write(extent, Durability::Volatile);
        lab.world.run_until_idle(EVENTS_MAX).unwrap();
    };
    // A slow disk, so that the daemon comes round before the caches are full and write back by themselves.
    let (disk, now) = (lab.disks()[0], lab.world.now());
    lab.faults_mut().arm(disk, FaultKind::Latency(Duration::from_millis(500)).into(), now).unwrap();
    write(&mut lab, left_alone);
    let marked = |lab: &Lab| lab.array().is_marked_dirty(left_alone.start);
    assert!(marked(&lab));
    while marked(&lab) || lab.array().is_recording() {
        write(&mut lab, busy);
    }
    for seed in 0..32 {
        let mut choose = Rng::new(seed, 1);
        let mut cut = lab.clone().cut_power(CacheLoss::PerDisk, false, &mut choose).assemble(false).unwrap();
        recover(&mut cut);
        cut.check().unwrap_or_else(|failed| panic!("seed {seed}: {failed}"));
    }
}
