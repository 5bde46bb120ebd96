//! Parity from data, and parity brought up to date.

use std::ops::Range;

use super::gf;
use super::kernel::{Kernel, PASS_SOURCES, Start, TILE_BYTES, Weights};

/// A data column: its bytes, and its exponent in Q, 0 to 254. Every column of a stripe has another.
pub type Column<'a> = (&'a [u8], u8);

/// All slices of a call must be of the same length, which may be any, zero too, at any alignment. There may be any number
/// of columns; over none the sum is zero. Slices of different lengths panic.
impl Kernel {
    /// P = Σ D.
    pub fn encode_p(self, p: &mut [u8], data: &[&[u8]]) {
        self.sum_all(p, data.len(), |i| data[i], Start::Zero);
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
        self.sum_all(p, data.len(), |i| data[i], Start::Kept);
    }

    /// Q gains Σ 2^e · D: of what a column was and what it is now, with its exponent, Q is brought up to date.
    pub fn add_q(self, q: &mut [u8], data: &[Column<'_>]) {
        self.weigh_all(None, q, data.len(), |i| weighted(data[i]), Start::Kept);
    }

    /// [`Kernel::add_p`] and [`Kernel::add_q`] in one pass over the data.
    pub fn add_pq(self, p: &mut [u8], q: &mut [u8], data: &[Column<'_>]) {
        self.weigh_all(Some(p), q, data.len(), |i| weighted(data[i]), Start::Kept);
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
        match falling(data) {
            Some(order) => self.horner(p, q, data.len(), |i| data[usize::from(order[i])].0),
            None => self.weigh_all(p, q, data.len(), |i| weighted(data[i]), Start::Zero),
        }
    }

    /// `out` becomes (or gains) Σ source.
    pub(super) fn sum_all<'a>(self, out: &mut [u8], count: usize, source: impl Fn(usize) -> &'a [u8], start: Start) {
        let term = |i| (source(i), 1);
        in_passes(out.len(), count, term, start, |tile, sources, _, start| self.sum(&mut out[tile], sources, start));
    }

    /// `q` becomes (or gains) Σ factor · source, and `p`, where it is asked for, Σ source.
    pub(super) fn weigh_all<'a>(
        self,
        mut p: Option<&mut [u8]>,
        q: &mut [u8],
        count: usize,
        term: impl Fn(usize) -> (&'a [u8], u8),
        start: Start,
    ) {
        assert!(p.as_ref().is_none_or(|p| p.len() == q.len()), "P and Q of different lengths");
        in_passes(q.len(), count, term, start, |tile, sources, factors, start| {
            let p = p.as_deref_mut().map(|p| &mut p[tile.clone()]);
            self.weigh(p, &mut q[tile], sources, Weights::Factors(factors), start);
        });
    }

    /// `q` becomes Σ 2^e · source by Horner's rule, where e falls to 0, and `p`, where it is asked for, Σ source.
    fn horner<'a>(self, mut p: Option<&mut [u8]>, q: &mut [u8], count: usize, source: impl Fn(usize) -> &'a [u8]) {
        assert!(p.as_ref().is_none_or(|p| p.len() == q.len()), "P and Q of different lengths");
        let term = |i| (source(i), 1);
        in_passes(q.len(), count, term, Start::Zero, |tile, sources, _, start| {
            let p = p.as_deref_mut().map(|p| &mut p[tile.clone()]);
            self.weigh(p, &mut q[tile], sources, Weights::Doubling, start);
        });
    }
}

/// Cuts a sum over `count` terms into passes of few sources, and those into tiles where it takes several: `pass` is told
/// which bytes, the sources cut to them, their factors, and what it finds in the outputs.
fn in_passes<'a>(
    length: usize,
    count: usize,
    term: impl Fn(usize) -> (&'a [u8], u8),
    before: Start,
    mut pass: impl FnMut(Range<usize>, &[&[u8]], &[u8], Start),
) {
    for i in 0..count {
        assert_eq!(term(i).0.len(), length, "source {i} is not as long as what is made of it");
    }
    let tile_bytes = if count <= PASS_SOURCES { length.max(1) } else { TILE_BYTES };
    for at in (0..length).step_by(tile_bytes) {
        let tile = at..length.min(at + tile_bytes);
        let mut start = before;
        for first in (0..count.max(1)).step_by(PASS_SOURCES) {
            let (mut sources, mut factors) = ([&[][..]; PASS_SOURCES], [0; PASS_SOURCES]);
            let group = first..count.min(first + PASS_SOURCES);
            for (place, i) in group.clone().enumerate() {
                let (source, factor) = term(i);
                sources[place] = &source[tile.clone()];
                factors[place] = factor;
            }
            pass(tile.clone(), &sources[..group.len()], &factors[..group.len()], start);
            start = Start::Kept;
        }
    }
}

/// The columns by falling exponent, if the exponents are 0, 1, … without a gap: Horner's rule then needs no products.
fn falling(data: &[Column<'_>]) -> Option<[u8; 64]> {
    let mut order = [0; 64];
    let mut seen = 0_u64;
    for (i, &(_, exponent)) in data.iter().enumerate() {
        let place = data.len().checked_sub(1 + usize::from(exponent))?;
        *order.get_mut(place)? = i as u8;
        seen |= 1 << place;
    }
    (seen.count_ones() as usize == data.len()).then_some(order)
}

/// The column and its factor in Q.
fn weighted((data, exponent): Column<'_>) -> (&[u8], u8) {
    (data, gf::power(exponent))
}
