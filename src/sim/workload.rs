//! What clients do: plain data, drawn from a seed before the run begins.

use serde::{Deserialize, Serialize};

use super::Rng;
use crate::block::{Durability, Extent, Lba, Limits, Sectors};

/// One operation of a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ClientOp {
    /// Read.
    Read(Extent),
    /// Write tokens.
    Write(Extent, Durability),
    /// Write zeroes.
    WriteZeroes(Extent, Durability),
    /// Discard.
    Discard(Extent),
    /// Flush.
    Flush,
}

impl ClientOp {
    /// The sectors it concerns; none for a flush, which concerns all.
    pub fn extent(self) -> Option<Extent> {
        match self {
            ClientOp::Read(extent)
            | ClientOp::Write(extent, _)
            | ClientOp::WriteZeroes(extent, _)
            | ClientOp::Discard(extent) => Some(extent),
            ClientOp::Flush => None,
        }
    }
}

/// How often a workload does what, and where. The weights are relative to each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mix {
    /// Weight of reads.
    pub reads: u64,
    /// Weight of writes.
    pub writes: u64,
    /// Weight of writes of zeroes.
    pub zeroes: u64,
    /// Weight of discards.
    pub discards: u64,
    /// Weight of flushes.
    pub flushes: u64,
    /// How many writes in a hundred force unit access.
    pub fua_percent: u64,
    /// The longest operation; shorter ones are more frequent.
    pub length_max: Sectors,
    /// Where operations meet each other.
    pub hot: Extent,
    /// How many in a hundred begin there.
    pub hot_percent: u64,
}

impl Mix {
    /// A bit of everything, a third of it in one hot place of a few stripes.
    pub fn of_all(limits: &Limits) -> Mix {
        let capacity = limits.capacity;
        let length_max = Sectors((limits.preferred.0 * 2).min(capacity.0));
        let hot = Sectors((limits.preferred.0 * 2).min(capacity.0));
        Mix {
            reads: 30,
            writes: 45,
            zeroes: 4,
            discards: 4,
            flushes: 8,
            fua_percent: 12,
            length_max,
            hot: Extent::new(Lba((capacity.0 - hot.0) / 3), hot),
            hot_percent: 40,
        }
    }

    /// A mix drawn at random, often without some kinds of operation: what one kind hides, a mix
    /// without it shows (Groce et al., Swarm Testing, ISSTA '12). Some writes are always left.
    pub fn drawn(limits: &Limits, rng: &mut Rng) -> Mix {
        let mut weight = |max: u64| if rng.chance(25) { 0 } else { 1 + rng.below(max) };
        let (reads, zeroes, discards, flushes) = (weight(60), weight(10), weight(10), weight(20));
        let fua_percent = weight(40);
        let all = Mix::of_all(limits);
        let length_max = Sectors(rng.range(1..all.length_max.0 + 1).max(limits.logical_block.0));
        let hot_start = Lba(rng.below(limits.capacity.0));
        let hot_length = Sectors(rng.range(1..all.hot.length.0 + 1).min(limits.capacity.0 - hot_start.0));
        let hot = Extent::new(hot_start, hot_length);
        let writes = 10 + rng.below(50);
        let hot_percent = rng.below(100);
        Mix { reads, writes, zeroes, discards, flushes, fua_percent, length_max, hot, hot_percent }
    }

    /// `count` operations on a volume with `limits`.
    pub fn draw(&self, limits: &Limits, count: usize, rng: &mut Rng) -> Vec<ClientOp> {
        (0..count).map(|_| self.draw_one(limits, rng)).collect()
    }

    fn draw_one(&self, limits: &Limits, rng: &mut Rng) -> ClientOp {
        let Mix { reads, writes, zeroes, discards, flushes, .. } = *self;
        let extent = self.draw_extent(limits, rng);
        let durability = if rng.chance(self.fua_percent) { Durability::Fua } else { Durability::Volatile };
        let mut draw = rng.below(reads + writes + zeroes + discards + flushes);
        let weighted = [
            (reads, ClientOp::Read(extent)),
            (writes, ClientOp::Write(extent, durability)),
            (zeroes, ClientOp::WriteZeroes(extent, durability)),
            (discards, ClientOp::Discard(extent)),
        ];
        for (weight, op) in weighted {
            if draw < weight {
                return op;
            }
            draw -= weight;
        }
        ClientOp::Flush
    }

    fn draw_extent(&self, limits: &Limits, rng: &mut Rng) -> Extent {
        let block = limits.logical_block;
        let blocks = limits.capacity.0 / block.0;
        let longest = (self.length_max.0 / block.0).clamp(1, blocks);
        let bound = 1 + rng.below(longest);
        let length = 1 + rng.below(bound);
        let near = if rng.chance(self.hot_percent) { self.hot } else { Extent::new(Lba(0), limits.capacity) };
        let mut start = (near.start.0 + rng.below(near.length.0)) / block.0;
        if rng.chance(25) {
            start -= start % (limits.preferred.0 / block.0).max(1);
        }
        let start = start.min(blocks - length);
        Extent::new(Lba(start * block.0), Sectors(length * block.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_lies_in_the_volume_on_whole_blocks() {
        let limits = Limits { logical_block: Sectors(8), preferred: Sectors(24), ..Limits::of_disk(Sectors(203)) };
        for seed in 0..200 {
            let mut rng = Rng::new(seed, 0);
            let mix = Mix::drawn(&limits, &mut rng);
            for op in mix.draw(&limits, 50, &mut rng) {
                let (ClientOp::Read(extent)
                | ClientOp::Write(extent, _)
                | ClientOp::WriteZeroes(extent, _)
                | ClientOp::Discard(extent)) = op
                else {
                    continue;
                };
                assert!(extent.length.0 > 0 && extent.end().0 <= 203, "{extent:?}");
                assert!(extent.start.0.is_multiple_of(8) && extent.length.0.is_multiple_of(8), "{extent:?}");
            }
        }
    }
}
