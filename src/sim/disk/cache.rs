//! Writes that are not on the medium yet.

use smallvec::SmallVec;

use crate::block::{Extent, Instant, Lba, Payload, Sectors};

/// Sectors that [`CacheLoss::PerBlock`] keeps or loses together: 4 KiB.
pub(super) const BLOCK: Sectors = Sectors(8);

/// What a power cut does to writes that no flush covered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CacheLoss {
    /// Completed writes stay, those in flight are torn: a process is killed, the disks keep their power.
    KeepAll,
    /// None of them lands, in flight or completed.
    DropAll,
    /// Each sector becomes any version it had since the last flush, each independently.
    PerSector,
    /// As `PerSector`, for aligned blocks of 4 KiB: each becomes what it was after any of the writes
    /// that touched it, or before the first.
    PerBlock,
    /// Each disk keeps all of them, in flight too, or none.
    PerDisk,
}

impl CacheLoss {
    /// All of them.
    pub const ALL: [CacheLoss; 5] =
        [CacheLoss::KeepAll, CacheLoss::DropAll, CacheLoss::PerSector, CacheLoss::PerBlock, CacheLoss::PerDisk];
}

/// A write that a power cut may undo.
#[derive(Clone, Debug)]
pub(super) struct Cached {
    pub(super) extent: Extent,
    /// `None` is zeroes.
    pub(super) data: Option<Payload>,
    pub(super) effect: Instant,
    pub(super) completed: u64,
}

impl Cached {
    /// What it stores in `extent`, which lies in its own.
    pub(super) fn part(&self, extent: Extent) -> Cached {
        let data = self.data.as_ref().map(|payload| {
            let grain = payload.len() / self.extent.length.0 as usize;
            let at = (extent.start - self.extent.start).0 as usize * grain;
            payload.cut(at..at + extent.length.0 as usize * grain)
        });
        Cached { extent, data, ..*self }
    }

    /// What it stores in `extent`, if anything.
    pub(super) fn within(&self, extent: Extent) -> Option<Cached> {
        let start = extent.start.max(self.extent.start);
        let end = extent.end().min(self.extent.end());
        (start < end).then(|| self.part(Extent::new(start, end - start)))
    }

    fn covers(&self, extent: Extent) -> bool {
        self.extent.start <= extent.start && extent.end() <= self.extent.end()
    }
}

/// Takes the sectors of `hole` out of `writes`.
pub(super) fn cut_out(writes: &mut Vec<Cached>, hole: Extent) {
    if !writes.iter().any(|write| write.extent.overlaps(hole)) {
        return;
    }
    for write in std::mem::take(writes) {
        if !write.extent.overlaps(hole) {
            writes.push(write);
            continue;
        }
        let (start, end) = (write.extent.start, write.extent.end());
        for (from, to) in [(start, hole.start), (hole.end(), end)] {
            if from < to {
                writes.push(write.part(Extent::new(from, to - from)));
            }
        }
    }
}

/// Each aligned unit written by any of `writes`, rising, with the writes that touched it.
pub(super) fn versions_by_unit(writes: &[Cached], unit: Sectors) -> Vec<(Extent, SmallVec<[usize; 4]>)> {
    let mut pairs: Vec<(u64, usize)> = Vec::new();
    for (index, write) in writes.iter().enumerate() {
        let units = write.extent.start.0 / unit.0..write.extent.end().0.div_ceil(unit.0);
        pairs.extend(units.map(|number| (number, index)));
    }
    pairs.sort_unstable();
    let of_one_unit = pairs.chunk_by(|a, b| a.0 == b.0);
    let extent = |number: u64| Extent::new(Lba(number * unit.0), unit);
    of_one_unit.map(|pairs| (extent(pairs[0].0), pairs.iter().map(|pair| pair.1).collect())).collect()
}

/// The last of `versions` that leave their mark on `unit`: those since it was last written as a whole.
pub(super) fn visible<'a>(writes: &'a [Cached], versions: &'a [usize], unit: Extent) -> impl Iterator<Item = Cached> {
    let whole = versions.iter().rposition(|version| writes[*version].covers(unit)).unwrap_or(0);
    versions[whole..].iter().filter_map(move |version| writes[*version].within(unit))
}

#[cfg(test)]
mod tests {
    use crate::block::{Durability, Request, RequestId};
    use crate::sim::disk::tests::{DISK, bank, do_one, extent, first_bytes, write};
    use crate::sim::{CacheLoss, Rng};

    /// Four blocks of 4 KiB, each with the list of all it was since the last flush.
    #[test]
    fn a_power_cut_leaves_each_block_as_it_was_after_one_of_its_writes_sooner_or_later() {
        for seed in 0..20 {
            let mut rng = Rng::new(seed, 0);
            let mut bank = bank();
            let mut was = vec![vec![[0_u8; 8]]; 4];
            for byte in 1..=6 {
                if rng.chance(20) {
                    do_one(&mut bank, Request::flush(RequestId(0)));
                    was.iter_mut().for_each(|was| drop(was.drain(..was.len() - 1)));
                }
                let start = rng.below(31);
                let length = 1 + rng.below((32 - start).min(12));
                do_one(&mut bank, write(16 + start, length, byte, Durability::Volatile));
                for (block, was) in was.iter_mut().enumerate() {
                    let mut now = was[was.len() - 1];
                    let written = |sector: &usize| (start..start + length).contains(&((block * 8 + sector) as u64));
                    let touched: Vec<usize> = (0..8).filter(written).collect();
                    touched.iter().for_each(|sector| now[*sector] = byte);
                    was.extend((!touched.is_empty()).then_some(now));
                }
            }

            let mut seen = vec![Vec::new(); 4];
            for cut in 0..200 {
                let mut fork = bank.clone();
                fork.power_cut(CacheLoss::PerBlock, &mut Rng::new(seed, 1 + cut));
                assert!(fork.unsettled(DISK).is_empty());
                for (block, seen) in seen.iter_mut().enumerate() {
                    seen.push(<[u8; 8]>::try_from(first_bytes(&fork, 16 + 8 * block as u64, 8)).unwrap());
                }
            }

            for (was, seen) in was.iter_mut().zip(&mut seen) {
                for states in [&mut *was, seen] {
                    states.sort_unstable();
                    states.dedup();
                }
                assert_eq!(was, seen, "seed {seed}");
            }
        }
    }

    #[test]
    fn a_block_of_4_kib_is_kept_or_lost_as_a_whole_and_its_sectors_are_not() {
        let mut bank = bank();
        do_one(&mut bank, write(24, 8, 1, Durability::Volatile));
        let mixed = |loss| {
            (0..50).any(|seed| {
                let mut fork = bank.clone();
                fork.power_cut(loss, &mut Rng::new(seed, 0));
                ![[0; 8], [1; 8]].contains(&first_bytes(&fork, 24, 8).try_into().unwrap())
            })
        };
        assert!(mixed(CacheLoss::PerSector) && !mixed(CacheLoss::PerBlock));
        assert_eq!(bank.unsettled(DISK), [extent(24, 8)]);
    }
}
