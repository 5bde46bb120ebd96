//! How fast parity is computed here.
//!
//! A parity kernel reads the data of a stripe once and writes a column or two, so it is bound by memory as soon as the
//! stripe is out of the caches; beside every rate stands that of memcpy over the same bytes, which says where that is.
//! All rates are bytes of *source* read in a second: the data of the stripe, or what is left of it and the parity.
//!
//! Numbers of different minutes do not compare on a shared machine. So every kernel, every kind of work and memcpy take
//! turns in short windows, for a few rounds; ratios are taken inside a round. A window in which the thread lost the
//! processor is measured again. The data is random: some processors store zeroes faster.

use std::hint::black_box;
use std::time::{Duration, Instant};

use comfy_table::{CellAlignment, ContentArrangement, Table};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use serde::Serialize;

use super::report::Spread;
use super::turns::{Arena, take_turns};
use crate::parity::{Column, Kernel};

/// Columns start at whole pages, as the buffers of disks do, and a page further apart than a chunk, so that chunks of a
/// power of two do not all fall into the same lines of a cache.
const PAGE_BYTES: usize = 4096;

/// What to measure, and for how long.
#[derive(Clone, Debug)]
pub struct Options {
    /// The kernels, in the order of the report.
    pub kernels: Vec<Kernel>,
    /// Bytes of one column.
    pub chunk_bytes: Vec<usize>,
    /// Data columns of a stripe, at least two.
    pub data_disks: Vec<usize>,
    /// Windows of each measurement.
    pub rounds: usize,
    /// The length of a window; at least one computation is done in it.
    pub window: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            kernels: Kernel::all_supported().collect(),
            chunk_bytes: vec![4 << 10, 64 << 10, 1 << 20],
            data_disks: vec![4, 8],
            rounds: 7,
            window: Duration::from_millis(8),
        }
    }
}

/// A kind of work.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// P from the data.
    EncodeP,
    /// P and Q from the data.
    EncodePq,
    /// One lost data column from P and the rest.
    RecoverFromP,
    /// One lost data column from Q and the rest.
    RecoverFromQ,
    /// Two lost data columns from P, Q and the rest.
    RecoverTwo,
}

impl Work {
    /// Every kind.
    pub const ALL: [Work; 5] =
        [Work::EncodeP, Work::EncodePq, Work::RecoverFromP, Work::RecoverFromQ, Work::RecoverTwo];

    fn name(self) -> &'static str {
        match self {
            Work::EncodeP => "encode P",
            Work::EncodePq => "encode P+Q",
            Work::RecoverFromP => "recover 1 from P",
            Work::RecoverFromQ => "recover 1 from Q",
            Work::RecoverTwo => "recover 2",
        }
    }
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The form of this report.
    pub schema: &'static str,
    /// The kernel this process uses when not told otherwise.
    pub kernel_current: &'static str,
    /// Windows of each measurement.
    pub rounds: usize,
    /// The length of a window.
    pub window_ms: f64,
    /// Windows taken although the thread lost the processor in them, every time they were tried.
    pub windows_disturbed: usize,
    /// One for each number of disks and size of chunk.
    pub stripes: Vec<Stripe>,
}

/// The rates over one shape of stripe.
#[derive(Clone, Debug, Serialize)]
pub struct Stripe {
    /// Data columns.
    pub data_disks: usize,
    /// Bytes of one column.
    pub chunk_bytes: usize,
    /// All data columns copied elsewhere; GB (10^9 bytes) copied a second.
    pub memcpy_gb_per_s: Spread,
    /// Every kernel and kind of work.
    pub rates: Vec<Rate>,
}

/// How fast one kernel does one kind of work.
#[derive(Clone, Debug, Serialize)]
pub struct Rate {
    /// What it does.
    pub work: Work,
    /// The name of the kernel.
    pub kernel: &'static str,
    /// GB (10^9 bytes) of source read a second.
    pub gb_per_s: Spread,
    /// The median over the rounds of this rate over that of memcpy.
    pub of_memcpy: f64,
}

/// Measures. `progress` is told the windows done and those in all after each round.
pub fn measure(options: &Options, mut progress: impl FnMut(usize, usize)) -> Report {
    assert!(options.rounds > 0, "no rounds");
    let stripes_total = options.chunk_bytes.len() * options.data_disks.len();
    let mut report = Report {
        schema: "raidlab-bench-parity/v1",
        kernel_current: Kernel::current().name(),
        rounds: options.rounds,
        window_ms: options.window.as_secs_f64() * 1e3,
        windows_disturbed: 0,
        stripes: Vec::new(),
    };
    for &data_disks in &options.data_disks {
        for &chunk_bytes in &options.chunk_bytes {
            let mut pool = Pool::new(data_disks, chunk_bytes);
            let stripes_done = report.stripes.len();
            let mut round_done =
                |round| progress(stripes_done * options.rounds + round, stripes_total * options.rounds);
            let stripe = measure_stripe(options, &mut pool, &mut report.windows_disturbed, &mut round_done);
            report.stripes.push(stripe);
        }
    }
    report
}

fn measure_stripe(
    options: &Options,
    pool: &mut Pool,
    windows_disturbed: &mut usize,
    round_done: &mut dyn FnMut(usize),
) -> Stripe {
    let (data_disks, chunk_bytes) = (pool.data_disks, pool.chunk_bytes);
    let works: Vec<_> =
        Work::ALL.iter().flat_map(|work| options.kernels.iter().map(|kernel| (*work, *kernel))).collect();
    pool.works = std::iter::once(None).chain(works.iter().copied().map(Some)).collect();
    let turns = take_turns(pool, options.rounds, options.window, &mut |round| {
        round_done(round);
        true
    });
    *windows_disturbed += turns.disturbed;

    let gb = (data_disks * chunk_bytes) as f64 / 1e9;
    let mut contestants =
        turns.rates.into_iter().map(|rounds| rounds.into_iter().map(|calls| calls * gb).collect::<Vec<f64>>());
    let memcpy = contestants.next().expect("the first is memcpy");
    let rates = works.into_iter().zip(contestants).map(|((work, kernel), rounds)| {
        let ratios: Vec<f64> = rounds.iter().zip(&memcpy).map(|(rate, memcpy)| rate / memcpy).collect();
        Rate { work, kernel: kernel.name(), of_memcpy: Spread::of(&ratios).median, gb_per_s: Spread::of(&rounds) }
    });
    let rates = rates.collect();
    Stripe { data_disks, chunk_bytes, rates, memcpy_gb_per_s: Spread::of(&memcpy) }
}

/// The columns of a stripe, and room for what is made from them.
struct Pool {
    data_disks: usize,
    chunk_bytes: usize,
    memory: Vec<u8>,
    /// Who takes turns; none for memcpy.
    works: Vec<Option<(Work, Kernel)>>,
}

/// The pool taken apart.
struct Parts<'a> {
    data: Vec<&'a mut [u8]>,
    p: &'a mut [u8],
    q: &'a mut [u8],
    made: [&'a mut [u8]; 2],
    copies: Vec<&'a mut [u8]>,
}

impl Pool {
    fn new(data_disks: usize, chunk_bytes: usize) -> Pool {
        assert!(data_disks >= 2, "two columns cannot be lost of {data_disks}");
        let columns = 2 * data_disks + 4;
        let mut memory = vec![0; (columns * (chunk_bytes.next_multiple_of(PAGE_BYTES) + PAGE_BYTES)) + PAGE_BYTES];
        ChaCha8Rng::seed_from_u64(0).fill_bytes(&mut memory);
        let mut pool = Pool { data_disks, chunk_bytes, memory, works: Vec::new() };
        let Parts { data, p, q, .. } = pool.parts();
        Kernel::current().encode_pq(p, q, &columns_of(&data));
        pool
    }

    fn parts(&mut self) -> Parts<'_> {
        let stride = self.chunk_bytes.next_multiple_of(PAGE_BYTES) + PAGE_BYTES;
        let skip = self.memory.as_ptr().align_offset(PAGE_BYTES);
        let mut columns = self.memory[skip..].chunks_exact_mut(stride).map(|column| &mut column[..self.chunk_bytes]);
        let mut next = || columns.next().expect("the pool is large enough");
        Parts {
            p: next(),
            q: next(),
            made: [next(), next()],
            data: (0..self.data_disks).map(|_| next()).collect(),
            copies: (0..self.data_disks).map(|_| next()).collect(),
        }
    }
}

impl Arena for Pool {
    fn contestants(&self) -> usize {
        self.works.len()
    }

    fn run(&mut self, contestant: usize, count: u64) -> Duration {
        let work = self.works[contestant];
        let Parts { data, p, q, made: [first, second], mut copies } = self.parts();
        let columns = columns_of(&data);
        let slices: Vec<&[u8]> = columns.iter().map(|column| column.0).collect();
        let started = Instant::now();
        for _ in 0..count {
            match work {
                None => {
                    for (copy, column) in copies.iter_mut().zip(&slices) {
                        copy.copy_from_slice(black_box(column));
                        black_box(&mut **copy);
                    }
                }
                Some((Work::EncodeP, kernel)) => kernel.encode_p(first, black_box(&slices)),
                Some((Work::EncodePq, kernel)) => kernel.encode_pq(first, second, black_box(&columns)),
                Some((Work::RecoverFromP, kernel)) => kernel.recover_from_p(first, p, black_box(&slices[1..])),
                Some((Work::RecoverFromQ, kernel)) => kernel.recover_from_q(first, 0, q, black_box(&columns[1..])),
                Some((Work::RecoverTwo, kernel)) => {
                    kernel.recover_two((first, 0), (second, 1), p, q, black_box(&columns[2..]));
                }
            }
            black_box((&mut *first, &mut *second));
        }
        started.elapsed()
    }

    fn check(&mut self, contestant: usize) {
        let Some((work, kernel)) = self.works[contestant] else { return };
        let Parts { data, p, q, made: [first, second], .. } = self.parts();
        let (first_right, second_right) = match work {
            Work::EncodeP => (*first == *p, true),
            Work::EncodePq => (*first == *p, *second == *q),
            Work::RecoverFromP | Work::RecoverFromQ => (*first == *data[0], true),
            Work::RecoverTwo => (*first == *data[0], *second == *data[1]),
        };
        assert!(first_right && second_right, "the kernel {kernel} did not {}", work.name());
    }
}

fn columns_of<'a>(data: &'a [&mut [u8]]) -> Vec<Column<'a>> {
    data.iter().enumerate().map(|(exponent, column)| (&**column, exponent as u8)).collect()
}

impl Report {
    /// A row for each kind of work and stripe, a column for memcpy and each kernel: medians in GB/s. How it is drawn, and
    /// how wide, is left to the caller.
    pub fn table(&self) -> Table {
        let mut table = Table::new();
        table.set_content_arrangement(ContentArrangement::Dynamic);
        let kernels = self.stripes.first().map_or(&[][..], |stripe| &stripe.rates);
        let kernels = kernels.iter().filter(|rate| rate.work == Work::ALL[0]).map(|rate| rate.kernel);
        table.set_header(["GB/s", "data disks", "chunk", "memcpy"].into_iter().chain(kernels));
        for work in Work::ALL {
            for stripe in &self.stripes {
                let rates = stripe.rates.iter().filter(|rate| rate.work == work).map(|rate| rate.gb_per_s);
                let spreads = std::iter::once(stripe.memcpy_gb_per_s).chain(rates);
                let about = [work.name().to_owned(), stripe.data_disks.to_string(), size(stripe.chunk_bytes)];
                table.add_row(about.into_iter().chain(spreads.map(rate)));
            }
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }
}

fn rate(Spread { median, .. }: Spread) -> String {
    let digits = if median < 10.0 { 1 } else { 0 };
    format!("{median:.digits$}")
}

fn size(bytes: usize) -> String {
    match bytes {
        _ if bytes > 0 && bytes.is_multiple_of(1 << 20) => format!("{}M", bytes >> 20),
        _ if bytes > 0 && bytes.is_multiple_of(1 << 10) => format!("{}K", bytes >> 10),
        _ => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_and_kind_of_work_has_a_rate_in_the_json_and_in_the_table() {
        let options = Options {
            chunk_bytes: vec![1000, 4096],
            data_disks: vec![2, 3],
            rounds: 2,
            window: Duration::from_micros(10),
            ..Options::default()
        };
        let mut told = Vec::new();
        let report = measure(&options, |done, total| told.push((done, total)));

        assert_eq!(told, (1..=8).map(|done| (done, 8)).collect::<Vec<_>>());
        let json = serde_json::to_value(&report).expect("a report is JSON");
        assert_eq!(json["schema"], "raidlab-bench-parity/v1");
        for stripe in json["stripes"].as_array().expect("a list") {
            let rates = stripe["rates"].as_array().expect("a list");
            assert_eq!(rates.len(), Work::ALL.len() * options.kernels.len());
            for rate in rates {
                let spread = &rate["gb_per_s"];
                let [min, median, max] = ["min", "median", "max"].map(|key| spread[key].as_f64().expect("a number"));
                assert!(0.0 < min && min <= median && median <= max, "{rate}");
            }
        }
        let table = report.table();
        assert_eq!(table.row_count(), Work::ALL.len() * 4);
        assert!(table.to_string().contains("recover 1 from Q"));
    }
}
