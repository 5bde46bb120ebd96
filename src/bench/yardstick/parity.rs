//! Parity kernels beside ISA-L, and beside a loop that only reads.
//!
//! *Hot* is the same stripe again and again; *cold* walks through more memory than caches hold. All rates are bytes of
//! source a second.

use std::hint::black_box;
use std::time::{Duration, Instant};

use memmap2::{Advice, MmapMut};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use super::isal::Isal;
use super::{Arena, Cell, Options, Row, take_turns};
use crate::parity::{Column, Kernel};

/// Data columns of a stripe.
const COUNTS: [usize; 3] = [4, 8, 16];

/// Bytes of one column.
const LENGTHS: [usize; 4] = [4 << 10, 64 << 10, 512 << 10, 1 << 20];

/// The memory that cold stripes lie in.
const POOL_BYTES: usize = 512 << 20;

/// Columns lie a page further apart than they are long, so that they do not all fall into the same lines of a cache.
const PAGE_BYTES: usize = 4096;

/// Who takes turns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Work {
    Xor(Kernel),
    Pq(Kernel),
    RecoverTwo(Kernel),
    IsalXor,
    IsalPq,
    Read,
}

/// Every claim about parity.
pub(super) fn rows(options: &Options, disturbed: &mut usize, progress: &mut dyn FnMut(f64) -> bool) -> Vec<Row> {
    let best = Kernel::current();
    let isal = Isal::load();
    // What a processor without AVX-512 has; the plain loops where there is not even that.
    let modest = Kernel::named("avx2").unwrap_or(Kernel::PORTABLE);
    let with_isal = |work: &str, least, each| {
        let row = Row::new(work, "ISA-L", least, each);
        Row { skipped: isal.as_ref().err().cloned(), ..row }
    };
    let mut rows = vec![
        with_isal("XOR", 1.15, Some(0.95)),
        with_isal("P+Q", 1.5, Some(1.0)),
        Row::new("XOR out of cache", "a loop that reads the same", 0.93, None),
        Row::new("P+Q out of cache", "a loop that reads the same", 0.93, None),
        Row::new("recover two", "P+Q", 0.8, None),
        with_isal(&format!("XOR, kernel {modest}"), 0.9, None),
        with_isal(&format!("P+Q, kernel {modest}"), 0.5, None),
    ];
    let pairs = [
        (Work::Xor(best), Work::IsalXor),
        (Work::Pq(best), Work::IsalPq),
        (Work::Xor(best), Work::Read),
        (Work::Pq(best), Work::Read),
        (Work::RecoverTwo(best), Work::Pq(best)),
        (Work::Xor(modest), Work::IsalXor),
        (Work::Pq(modest), Work::IsalPq),
    ];
    let mut works = vec![Work::Xor(best), Work::Pq(best), Work::RecoverTwo(best), Work::Read];
    if isal.is_ok() {
        works.extend([Work::IsalXor, Work::IsalPq, Work::Xor(modest), Work::Pq(modest)]);
    }

    let mut pool = match Pool::new() {
        Ok(pool) => pool,
        Err(error) => {
            let why = format!("there are no {} MiB of memory for it ({error})", POOL_BYTES >> 20);
            rows.iter_mut().for_each(|row| row.skipped = Some(why.clone()));
            return rows;
        }
    };
    let cells_total = 2 * COUNTS.len() * LENGTHS.len();
    let mut cells_done = 0;
    let mut goes_on = true;
    for cold in [false, true] {
        for count in COUNTS {
            for length in LENGTHS {
                if !goes_on {
                    return rows;
                }
                let mut stripes =
                    Stripes { pool: &mut pool, count, length, cold, next: 0, works: &works, isal: isal.as_ref().ok() };
                let turns = take_turns(&mut stripes, options.rounds, options.window, &mut |round| {
                    let within = round as f64 / options.rounds as f64;
                    goes_on = progress((f64::from(cells_done) + within) / cells_total as f64);
                    goes_on
                });
                *disturbed += turns.disturbed;
                cells_done += 1;
                let rate = |wanted: Work| {
                    let who = works.iter().position(|work| *work == wanted)?;
                    Some(turns.rates[who].iter().map(|calls| calls * (count * length) as f64 / 1e9).collect::<Vec<_>>())
                };
                let name = format!("{} {count}x{}K", if cold { "cold" } else { "hot" }, length >> 10);
                for (row, (ours, theirs)) in rows.iter_mut().zip(pairs) {
                    if theirs == Work::Read && !cold {
                        continue;
                    }
                    if let (Some(ours), Some(theirs)) = (rate(ours), rate(theirs)) {
                        row.cells.push(Cell::new(name.clone(), "GB/s", &ours, &theirs));
                    }
                }
            }
        }
    }
    rows
}

/// Memory full of random bytes: some processors store zeroes faster.
struct Pool(MmapMut);

impl Pool {
    fn new() -> std::io::Result<Pool> {
        let mut memory = MmapMut::map_anon(POOL_BYTES)?;
        // Where there are no huge pages, small ones do.
        let _ = memory.advise(Advice::HugePage);
        ChaCha8Rng::seed_from_u64(0).fill_bytes(&mut memory);
        Ok(Pool(memory))
    }
}

/// Stripes of one shape in the pool.
struct Stripes<'a> {
    pool: &'a mut Pool,
    count: usize,
    length: usize,
    cold: bool,
    /// The stripe that comes next.
    next: usize,
    works: &'a [Work],
    isal: Option<&'a Isal>,
}

impl Stripes<'_> {
    /// Bytes of a stripe: its data, P, Q.
    fn stripe_bytes(&self) -> usize {
        (self.count + 2) * (self.length + PAGE_BYTES)
    }

    /// Does `work` on the next stripe.
    fn work(&mut self, work: Work) {
        let stripe_bytes = self.stripe_bytes();
        let stripes = if self.cold { self.pool.0.len() / stripe_bytes } else { 1 };
        let stripe = &mut self.pool.0[self.next % stripes * stripe_bytes..][..stripe_bytes];
        self.next += 1;
        let mut columns = stripe.chunks_exact_mut(self.length + PAGE_BYTES).map(|column| &mut column[..self.length]);
        let (p, q) = (columns.next().expect("P"), columns.next().expect("Q"));
        let mut data: [Column<'_>; 16] = [(&[], 0); 16];
        let mut slices: [&[u8]; 16] = [&[]; 16];
        for (exponent, column) in columns.enumerate() {
            data[exponent] = (column, exponent as u8);
            slices[exponent] = data[exponent].0;
        }
        let (data, slices) = (&data[..self.count], &slices[..self.count]);
        match (work, self.isal) {
            (Work::Xor(kernel), _) => kernel.encode_p(p, black_box(slices)),
            (Work::Pq(kernel), _) => kernel.encode_pq(p, q, black_box(data)),
            // The first two stand in for P and Q: what comes out has no meaning, and takes as long.
            (Work::RecoverTwo(kernel), _) => {
                kernel.recover_two((p, 0), (q, 1), slices[0], slices[1], black_box(&data[2..]));
            }
            (Work::IsalXor, Some(isal)) => isal.xor(p, black_box(slices)),
            (Work::IsalPq, Some(isal)) => isal.pq(p, q, black_box(slices)),
            (Work::IsalXor | Work::IsalPq, None) => panic!("only those who are there take turns"),
            (Work::Read, _) => {
                black_box(read(black_box(slices)));
            }
        }
        black_box((p, q));
    }
}

impl Arena for Stripes<'_> {
    fn contestants(&self) -> usize {
        self.works.len()
    }

    fn run(&mut self, contestant: usize, count: u64) -> Duration {
        let work = self.works[contestant];
        let started = Instant::now();
        for _ in 0..count {
            self.work(work);
        }
        started.elapsed()
    }

    /// Compares what a kernel makes of the first stripe with what ISA-L makes.
    fn check(&mut self, contestant: usize) {
        let (work, theirs, outputs) = match self.works[contestant] {
            work @ Work::Xor(_) => (work, Work::IsalXor, 1),
            work @ Work::Pq(_) => (work, Work::IsalPq, 2),
            Work::RecoverTwo(_) | Work::IsalXor | Work::IsalPq | Work::Read => return,
        };
        if self.isal.is_none() {
            return;
        }
        let (pitch, length) = (self.length + PAGE_BYTES, self.length);
        let [ours, theirs] = [work, theirs].map(|work| {
            self.next = 0;
            self.work(work);
            [0, pitch].map(|at| self.pool.0[at..][..length].to_vec())
        });
        assert!(ours[..outputs] == theirs[..outputs], "{work:?} over {}x{length} is not ISA-L's", self.count);
    }
}

/// Reads all sources side by side, in the order of a kernel, and stores nothing.
fn read(sources: &[&[u8]]) -> u64 {
    let mut sums = [0_u64; 16];
    let length = sources[0].len();
    for at in (0..length).step_by(128) {
        for source in sources {
            let (words, _) = source[at..at + 128].as_chunks::<8>();
            for (sum, word) in sums.iter_mut().zip(words) {
                *sum ^= u64::from_ne_bytes(*word);
            }
        }
    }
    sums.into_iter().fold(0, |all, sum| all ^ sum)
}
