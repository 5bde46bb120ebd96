//! Parity from data, and parity brought up to date.

use std::ops::Range;

use smallvec::SmallVec;

use super::gf;
use super::kernel::{Kernel, PASS_SOURCES, Start, TILE_BYTES, Weights};

/// A data column: its bytes, and its exponent in Q, 0 to 254. Every column of a stripe has another.
pub type Column<'a> = (&'a [u8], u8);

/// The columns of a stripe, mostly few.
pub(super) type List<T> = SmallVec<[T; 16]>;

/// All slices of a call must be of the same length, which may be any, zero too, at any alignment. There may be any number
/// of columns; over none the sum is zero. Slices of different lengths panic.
impl Kernel {
    /// P = Σ D.
    pub fn encode_p(self, p: &mut [u8], data: &[&[u8]]) {
        self.sum_all(p, data, Start::Zero);
    }

    /// Q = Σ 2^e · D.
    pub fn encode_q(self, q: &mut [u8], data: &[Column<'_>]) {
        self.encode(None, q, data);
    }

    /// P = Σ D and Q = Σ 2^e · D in one pass over the data.
    pub fn encode_pq(self, p: &mut [u8], q: &mut [u8], data: &[Column<'_>]) {
        self.encode(Some(p), q, data);
    }

    /// P gains Σ D: of what a column was and what it is now, P is brought up to date.
    pub fn add_p(self, p: &mut [u8], data: &[&[u8]]) {
        self.sum_all(p, data, Start::Kept);
    }

    /// Q gains Σ 2^e · D: of what a column was and what it is now, with its exponent, Q is brought up to date.
    pub fn add_q(self, q: &mut [u8], data: &[Column<'_>]) {
        let (sources, factors) = weighted(data);
        self.weigh_all(None, q, &sources, Weights::Factors(&factors), Start::Kept);
    }

    /// [`Kernel::add_p`] and [`Kernel::add_q`] in one pass over the data.
    pub fn add_pq(self, p: &mut [u8], q: &mut [u8], data: &[Column<'_>]) {
        let (sources, factors) = weighted(data);
        self.weigh_all(Some(p), q, &sources, Weights::Factors(&factors), Start::Kept);
    }

    /// Brings P up to date after a column changed from `old` to `new`.
    pub fn update_p(self, p: &mut [u8], old: &[u8], new: &[u8]) {
        self.add_p(p, &[old, new]);
    }

    /// Brings Q up to date after the column with this exponent changed from `old` to `new`.
    pub fn update_q(self, q: &mut [u8], old: &[u8], new: &[u8], exponent: u8) {
        self.add_q(q, &[(old, exponent), (new, exponent)]);
    }

    fn encode(self, p: Option<&mut [u8]>, q: &mut [u8], data: &[Column<'_>]) {
        if let Some(sources) = falling(data) {
            self.weigh_all(p, q, &sources, Weights::Doubling, Start::Zero);
        } else {
            let (sources, factors) = weighted(data);
            self.weigh_all(p, q, &sources, Weights::Factors(&factors), Start::Zero);
        }
    }

    /// Any number of sources, in as many passes as it takes.
    pub(super) fn sum_all(self, out: &mut [u8], sources: &[&[u8]], before: Start) {
        check(out.len(), sources);
        if sources.is_empty() {
            return before.prepare(out);
        }
        for tile in tiles(out.len(), sources.len()) {
            let mut start = before;
            for group in sources.chunks(PASS_SOURCES) {
                self.sum(&mut out[tile.clone()], &cut(group, &tile), start);
                start = Start::Kept;
            }
        }
    }

    /// Any number of sources, in as many passes as it takes.
    pub(super) fn weigh_all(
        self,
        mut p: Option<&mut [u8]>,
        q: &mut [u8],
        sources: &[&[u8]],
        weights: Weights<'_>,
        before: Start,
    ) {
        check(q.len(), sources);
        assert!(p.as_ref().is_none_or(|p| p.len() == q.len()), "P and Q of different lengths");
        if sources.is_empty() {
            if let Some(p) = p {
                before.prepare(p);
            }
            return before.prepare(q);
        }
        for tile in tiles(q.len(), sources.len()) {
            let mut start = before;
            for (pass, group) in sources.chunks(PASS_SOURCES).enumerate() {
                let p = p.as_deref_mut().map(|p| &mut p[tile.clone()]);
                let weights = match weights {
                    Weights::Doubling => Weights::Doubling,
                    Weights::Factors(factors) => Weights::Factors(&factors[pass * PASS_SOURCES..][..group.len()]),
                };
                self.weigh(p, &mut q[tile.clone()], &cut(group, &tile), weights, start);
                start = Start::Kept;
            }
        }
    }
}

/// The columns by falling exponent, if the exponents are 0, 1, … without a gap: Horner's rule then needs no products.
fn falling<'a>(data: &[Column<'a>]) -> Option<List<&'a [u8]>> {
    let mut sources: List<Option<&[u8]>> = SmallVec::from_elem(None, data.len());
    for &(source, exponent) in data {
        let place = data.len().checked_sub(1 + exponent as usize)?;
        assert!(sources[place].replace(source).is_none(), "two columns with the exponent {exponent}");
    }
    sources.into_iter().collect()
}

/// The columns and their factors in Q.
fn weighted<'a>(data: &[Column<'a>]) -> (List<&'a [u8]>, List<u8>) {
    data.iter().map(|&(source, exponent)| (source, gf::power(exponent))).unzip()
}

/// `0..length` in one piece where one pass does, else in tiles.
fn tiles(length: usize, sources: usize) -> impl Iterator<Item = Range<usize>> {
    let tile = if sources <= PASS_SOURCES { length.max(1) } else { TILE_BYTES };
    (0..length).step_by(tile).map(move |start| start..length.min(start + tile))
}

/// The same range of each source.
pub(super) fn cut<'a>(sources: &[&'a [u8]], range: &Range<usize>) -> SmallVec<[&'a [u8]; PASS_SOURCES]> {
    sources.iter().map(|source| &source[range.clone()]).collect()
}

fn check(length: usize, sources: &[&[u8]]) {
    for (i, source) in sources.iter().enumerate() {
        assert_eq!(source.len(), length, "source {i} is not as long as the parity");
    }
}
