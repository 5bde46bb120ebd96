//! Workloads, in fio's words.
//!
//! fio describes a load by its access pattern (`rw`), the share of reads in a mix (`rwmixread`), the
//! block size (`bs`) and how many requests are kept in flight (`iodepth`). So does [`Workload`]; its
//! name spells the four out (`rand-mix70-4K-q32`) and reads back as the same workload.
//!
//! What is written is random and does not repeat: processors and devices have short cuts for zeroes
//! and other constant data that no real data takes.

use std::fmt;
use std::str::FromStr;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::block::{BUFFER_ALIGN, Buf, Extent, Lba, Payload, SECTOR_BYTES, Sectors};
use crate::text::as_string;

/// The order in which blocks are visited.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Access {
    /// One after the other, from the start again after the last.
    Sequential,
    /// Uniformly at random, with replacement (fio's `norandommap`).
    Random,
}

/// Which of the requests are reads.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mix {
    /// All.
    Read,
    /// None.
    Write,
    /// So many in a hundred, drawn for each request.
    Mixed {
        /// Percent of reads, 1 to 99.
        read_percent: u8,
    },
}

/// What is asked of a device.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Workload {
    /// The order of the blocks.
    pub access: Access,
    /// Reads, writes, or both.
    pub mix: Mix,
    /// Length of each request, which begins at a multiple of it.
    pub block: Sectors,
    /// Requests kept in flight, at least 1.
    pub queue_depth: u32,
}

/// A name that is not a workload's.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "`{name}` is not a workload: {reason}. Write seq- or rand-, then read, write or mix70 (percent of reads), \
     then if wanted a block size and a queue depth: rand-read, seq-write-1M-q4, rand-mix70-4K-q32"
)]
pub struct BadWorkload {
    /// What was written.
    pub name: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Workload {
    /// Sequential requests of 1 MiB, four in flight.
    pub const fn sequential(mix: Mix) -> Workload {
        Workload { access: Access::Sequential, mix, block: Sectors::floor_bytes(1 << 20), queue_depth: 4 }
    }

    /// Random requests of 4 KiB.
    pub const fn random(mix: Mix, queue_depth: u32) -> Workload {
        Workload { access: Access::Random, mix, block: Sectors::floor_bytes(4096), queue_depth }
    }

    /// What a benchmark runs unless told otherwise.
    pub fn defaults() -> Vec<Workload> {
        let mixed = Mix::Mixed { read_percent: 70 };
        let mut list = vec![Workload::sequential(Mix::Read), Workload::sequential(Mix::Write)];
        list.extend(
            [Mix::Read, Mix::Write, mixed].into_iter().flat_map(|mix| [1, 32].map(|q| Workload::random(mix, q))),
        );
        list
    }

    /// What a degraded array is asked unless told otherwise: reads, which now reconstruct.
    pub fn degraded_defaults() -> Vec<Workload> {
        vec![Workload::sequential(Mix::Read), Workload::random(Mix::Read, 32)]
    }

    /// Share of the requests that are reads, 0 to 1.
    pub fn read_share(&self) -> f64 {
        match self.mix {
            Mix::Read => 1.0,
            Mix::Write => 0.0,
            Mix::Mixed { read_percent } => f64::from(read_percent) / 100.0,
        }
    }

    /// The same requests, all of them reads or all of them writes.
    pub fn pure(self, mix: Mix) -> Workload {
        Workload { mix, ..self }
    }

    /// What fio would be told.
    pub fn fio_arguments(&self) -> String {
        let rw = match (self.access, self.mix) {
            (Access::Sequential, Mix::Read) => "read",
            (Access::Sequential, Mix::Write) => "write",
            (Access::Sequential, Mix::Mixed { .. }) => "rw",
            (Access::Random, Mix::Read) => "randread --norandommap",
            (Access::Random, Mix::Write) => "randwrite --norandommap",
            (Access::Random, Mix::Mixed { .. }) => "randrw --norandommap",
        };
        let mix = match self.mix {
            Mix::Mixed { read_percent } => format!(" --rwmixread={read_percent}"),
            Mix::Read | Mix::Write => String::new(),
        };
        format!("--rw={rw}{mix} --bs={} --iodepth={}", size(self.block).to_lowercase(), self.queue_depth)
    }

    /// Two lines for people: "Random read", "4 KiB, queue depth 32".
    pub fn title(&self) -> (String, String) {
        let access = match self.access {
            Access::Sequential => "Sequential",
            Access::Random => "Random",
        };
        let what = match self.mix {
            Mix::Read => format!("{access} read"),
            Mix::Write => format!("{access} write"),
            Mix::Mixed { read_percent } => format!("{access} {read_percent}/{} mix", 100 - read_percent),
        };
        let size = size(self.block);
        let (number, unit) = size.split_at(size.trim_end_matches(char::is_alphabetic).len());
        let unit = if unit.is_empty() { "bytes".to_owned() } else { format!("{unit}iB") };
        (what, format!("{number} {unit}, queue depth {}", self.queue_depth))
    }
}

/// `4K`, `1M`, `512`: powers of 1024, as mdadm and fio write them.
fn size(length: Sectors) -> String {
    match length.bytes() {
        bytes if bytes.is_multiple_of(1 << 20) => format!("{}M", bytes >> 20),
        bytes if bytes.is_multiple_of(1 << 10) => format!("{}K", bytes >> 10),
        bytes => bytes.to_string(),
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.access {
            Access::Sequential => "seq-",
            Access::Random => "rand-",
        })?;
        match self.mix {
            Mix::Read => f.write_str("read")?,
            Mix::Write => f.write_str("write")?,
            Mix::Mixed { read_percent } => write!(f, "mix{read_percent}")?,
        }
        write!(f, "-{}-q{}", size(self.block), self.queue_depth)
    }
}

impl FromStr for Workload {
    type Err = BadWorkload;

    /// Reads a name. Without block size and queue depth they are 1M and 4 for a sequential
    /// workload, 4K and 32 for a random one.
    fn from_str(name: &str) -> Result<Workload, BadWorkload> {
        let bad = |reason: &str| BadWorkload { name: name.to_owned(), reason: reason.to_owned() };
        let mut parts = name.split('-');
        let random = match parts.next() {
            Some("seq") => false,
            Some("rand") => true,
            _ => return Err(bad("it begins with neither seq- nor rand-")),
        };
        let mix = match parts.next() {
            Some("read") => Mix::Read,
            Some("write") => Mix::Write,
            Some(mix) => match mix.strip_prefix("mix").and_then(|percent| percent.parse().ok()) {
                Some(read_percent @ 1..=99) => Mix::Mixed { read_percent },
                _ => return Err(bad("the second word is none of read, write and mix1 to mix99")),
            },
            None => return Err(bad("it does not say read, write or mix")),
        };
        let mut workload = if random { Workload::random(mix, 32) } else { Workload::sequential(mix) };
        for part in parts {
            if let Some(depth) = part.strip_prefix('q') {
                workload.queue_depth = match depth.parse() {
                    Ok(depth @ 1..=4096) => depth,
                    _ => return Err(bad("a queue depth is 1 to 4096")),
                };
            } else {
                workload.block = parse_block(part)
                    .ok_or_else(|| bad("a block is a multiple of 512 bytes up to 64M, such as 4K or 1M"))?;
            }
        }
        Ok(workload)
    }
}

fn parse_block(text: &str) -> Option<Sectors> {
    let digits = text.trim_end_matches(char::is_alphabetic);
    let unit = match &text[digits.len()..] {
        "" => 1,
        "K" | "k" | "KiB" => 1 << 10,
        "M" | "m" | "MiB" => 1 << 20,
        _ => return None,
    };
    let bytes = digits.parse::<u64>().ok()?.checked_mul(unit)?;
    (bytes.is_multiple_of(SECTOR_BYTES) && (1..=64 << 20).contains(&bytes)).then(|| Sectors::floor_bytes(bytes))
}

as_string!(Workload);

/// Where the next request goes and whether it reads: the same seed gives the same requests.
#[derive(Clone, Debug)]
pub struct Offsets {
    workload: Workload,
    blocks: u64,
    next: u64,
    rng: ChaCha8Rng,
}

impl Offsets {
    /// Requests within the first `span` sectors, which hold at least one block. A sequential run
    /// begins at a block the seed chooses, so that repetitions do not all visit the same part.
    pub fn new(workload: Workload, span: Sectors, seed: u64) -> Offsets {
        let blocks = span.0 / workload.block.0;
        assert!(blocks > 0, "{span:?} hold no block of {:?}", workload.block);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let next = below(&mut rng, blocks);
        Offsets { workload, blocks, next, rng }
    }

    /// The workload these are the requests of.
    pub fn workload(&self) -> Workload {
        self.workload
    }

    /// From the first block on, as a file is filled.
    pub fn from_the_start(self) -> Offsets {
        Offsets { next: 0, ..self }
    }

    /// The next request's extent, and whether it is a read.
    pub fn step(&mut self) -> (Extent, bool) {
        let block = match self.workload.access {
            Access::Sequential => {
                let block = self.next;
                self.next = if block + 1 == self.blocks { 0 } else { block + 1 };
                block
            }
            Access::Random => below(&mut self.rng, self.blocks),
        };
        let read = match self.workload.mix {
            Mix::Read => true,
            Mix::Write => false,
            Mix::Mixed { read_percent } => below(&mut self.rng, 100) < u64::from(read_percent),
        };
        (Extent::new(Lba(block * self.workload.block.0), self.workload.block), read)
    }
}

/// A number below `bound`: the high half of a product, off from uniform by less than one in 2⁴⁰ for
/// any bound below 2²⁴ (Lemire, "Fast random integer generation in an interval", without rejection).
fn below(rng: &mut ChaCha8Rng, bound: u64) -> u64 {
    ((u128::from(rng.next_u64()) * u128::from(bound)) >> 64) as u64
}

/// Random bytes to write, cut at ever other places.
#[derive(Clone, Debug)]
pub struct PayloadPool {
    bytes: Payload,
    rng: ChaCha8Rng,
}

impl PayloadPool {
    /// Bytes in a pool: more than the caches next to a core hold, quickly made.
    const BYTES: usize = 16 << 20;

    /// A pool that can give out payloads of up to `longest` bytes.
    pub fn new(longest: usize, seed: u64) -> PayloadPool {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut buf = Buf::zeroed(Self::BYTES.max(4 * longest).next_multiple_of(BUFFER_ALIGN));
        buf.parts_mut().for_each(|part| rng.fill_bytes(part));
        PayloadPool { bytes: buf.freeze(), rng }
    }

    /// `length` random bytes, aligned for direct I/O.
    pub fn cut(&mut self, length: usize) -> Payload {
        let places = (self.bytes.len() - length) / BUFFER_ALIGN + 1;
        let at = below(&mut self.rng, places as u64) as usize * BUFFER_ALIGN;
        self.bytes.cut(at..at + length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_back_as_the_workload_it_names() {
        for workload in Workload::defaults() {
            assert_eq!(workload.to_string().parse(), Ok(workload));
        }
        let names: Vec<_> = Workload::defaults().iter().map(ToString::to_string).collect();
        assert_eq!((names[0].as_str(), names[7].as_str()), ("seq-read-1M-q4", "rand-mix70-4K-q32"));
        assert_eq!("rand-write".parse(), Ok(Workload::random(Mix::Write, 32)));
        assert_eq!("seq-mix5-512-q1".parse::<Workload>().unwrap().block, Sectors(1));
    }

    #[test]
    fn a_name_that_is_none_is_refused_with_the_reason() {
        for bad in ["", "read", "rand-", "rand-mix0", "rand-mix100", "seq-read-0K", "seq-read-513", "seq-read-4K-q0"] {
            assert!(bad.parse::<Workload>().is_err(), "{bad}");
        }
        let huge = format!("seq-read-{}M", u64::MAX);
        assert!(huge.parse::<Workload>().is_err());
    }

    #[test]
    fn fio_is_told_the_same() {
        let workload: Workload = "rand-mix70-4K-q32".parse().unwrap();
        assert_eq!(workload.fio_arguments(), "--rw=randrw --norandommap --rwmixread=70 --bs=4k --iodepth=32");
        assert_eq!(workload.title(), ("Random 70/30 mix".to_owned(), "4 KiB, queue depth 32".to_owned()));
    }

    #[test]
    fn requests_stay_within_the_span_and_a_seed_repeats_them() {
        let span = Sectors(8 * 10 + 3);
        for workload in [Workload::random(Mix::Mixed { read_percent: 70 }, 1), "seq-read-4K".parse().unwrap()] {
            let mut first = Offsets::new(workload, span, 5);
            let mut again = Offsets::new(workload, span, 5);
            let mut visited = [0; 10];
            let mut reads = 0;
            for _ in 0..10_000 {
                let (extent, read) = first.step();
                assert_eq!((extent, read), again.step());
                assert!(extent.end().0 <= span.0);
                visited[(extent.start.0 / 8) as usize] += 1;
                reads += u32::from(read);
            }
            assert!(visited.iter().all(|&count| (800..1200).contains(&count)), "{visited:?}");
            assert!(workload.mix == Mix::Read || (6800..7200).contains(&reads), "{reads}");
        }
    }

    #[test]
    fn payloads_differ_and_hold_no_run_of_zeroes() {
        let mut pool = PayloadPool::new(4096, 1);
        let payloads: Vec<_> = (0..50).map(|_| pool.cut(4096).to_vec()).collect();
        for (at, payload) in payloads.iter().enumerate() {
            assert!(payload.windows(16).all(|bytes| bytes != [0; 16]));
            assert!(payloads[..at].iter().filter(|other| *other == payload).count() <= 1);
        }
    }
}
