//! Random sequences of requests and failures, shrunk to the shortest that fails, against a flat model.

use proptest::prelude::*;

use super::level::{Layout, Level};
use super::tests::Lab;
use crate::block::{DeviceId, Durability, Extent, Lba, Op, Payload, Sectors};

#[derive(Clone, Debug)]
enum Step {
    Write {
        at: u16,
        length: u8,
        fill: u8,
    },
    Zero {
        at: u16,
        length: u8,
    },
    Read,
    /// Fails the member of this slot, if the array can do without it.
    Fail {
        slot: u8,
    },
    /// Removes what is faulty and adds as many blank disks.
    Replenish,
    /// Lets recovery run to its end.
    Settle,
    /// Stops the array and assembles it again.
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (any::<u16>(), 1..200_u8, any::<u8>()).prop_map(|(at, length, fill)| Step::Write { at, length, fill }),
        1 => (any::<u16>(), 1..200_u8).prop_map(|(at, length)| Step::Zero { at, length }),
        2 => Just(Step::Read),
        2 => (0..6_u8).prop_map(|slot| Step::Fail { slot }),
        1 => Just(Step::Replenish),
        1 => Just(Step::Settle),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..30)
}

fn shape() -> impl Strategy<Value = (Level, Layout, usize)> {
    let layouts = |level: Level, names: &[&str]| -> Vec<(Level, Layout)> {
        names.iter().map(|name| (level, Layout::parse(level, name).expect("these are layouts"))).collect()
    };
    let mut all = vec![(Level::Raid1, Layout::None), (Level::Raid4, Layout::None)];
    all.extend(layouts(Level::Raid5, &["ls", "la", "rs", "ra", "parity-first", "parity-last"]));
    all.extend(layouts(Level::Raid6, &["ls", "la", "ddf-N-restart", "ddf-N-continue", "right-asymmetric-6"]));
    all.extend(layouts(Level::Raid10, &["n2", "f2", "o2", "n3", "f3"]));
    (prop::sample::select(all), 4..=6_usize).prop_map(|((level, layout), disks)| (level, layout, disks))
}

fn extent(lab: &Lab, at: u16, length: u8) -> Extent {
    let capacity = lab.array.geometry().capacity().0;
    let start = u64::from(at) % capacity;
    Extent::new(Lba(start), Sectors(u64::from(length).min(capacity - start)))
}

fn take(lab: &mut Lab, step: &Step) {
    match *step {
        Step::Write { at, length, fill } => {
            let extent = extent(lab, at, length);
            let bytes: Vec<u8> = (0..extent.length.bytes()).map(|i| fill.wrapping_add((i % 251) as u8)).collect();
            let done = lab.request(extent, Op::Write(Payload::copy_of(&bytes), Durability::Volatile));
            assert_eq!(done.result, Ok(()), "{step:?}");
            lab.model[extent.start.bytes() as usize..extent.end().bytes() as usize].copy_from_slice(&bytes);
        }
        Step::Zero { at, length } => {
            let extent = extent(lab, at, length);
            assert_eq!(lab.request(extent, Op::WriteZeroes(Durability::Volatile)).result, Ok(()), "{step:?}");
            lab.model[extent.start.bytes() as usize..extent.end().bytes() as usize].fill(0);
        }
        Step::Read => lab.verify(),
        Step::Fail { slot } => {
            let seat = lab.array.members().seats().get(usize::from(slot)).and_then(|seat| seat.member);
            if let Some(device) = seat {
                // Refused where the array would fail: that is an answer too.
                let _ = lab.array.fail(device);
            }
        }
        Step::Replenish => {
            let faulty: Vec<DeviceId> = lab.array.members().iter().filter(|m| !m.serves()).map(|m| m.device).collect();
            for device in faulty {
                lab.array.remove(device).expect("what does not serve can be removed");
                lab.add_blank();
            }
        }
        Step::Settle => {
            lab.drive(|array| !array.is_syncing());
        }
        Step::Restart => lab.restart(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_done_to_an_array_it_returns_what_was_written(
        (level, layout, disks) in shape(),
        bitmap: bool,
        steps in steps(),
    ) {
        let mut lab = Lab::new(level, layout, disks, 1, bitmap);
        for step in &steps {
            take(&mut lab, step);
        }
        lab.verify();
        lab.drive(|array| !array.is_syncing());
        lab.verify();
        lab.check();
    }
}
