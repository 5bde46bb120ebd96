//! Parity from data, and parity brought up to date.

use super::gf;
use super::kernel::{Kernel, PASS_SOURCES, PASS_SUMMANDS, Pass, Solve, Start, TILE_BYTES, Weights};

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
        match falling(data.len(), |i| data[i].1) {
            Some(order) => {
                let term = |i: usize| (Some(data[usize::from(order[i])].0), 1);
                self.run((p, Some(q)), data.len(), term, Rule::Doubling, Start::Zero, None);
            }
            None => self.weigh_all(p, q, data.len(), |i| weighted(data[i]), Start::Zero),
        }
    }

    /// `out` becomes (or gains) Σ source.
    pub(super) fn sum_all<'a>(
        self,
        out: &mut [u8],
        count: usize,
        source: impl Fn(usize) -> &'a [u8],
        start: Start<'_>,
    ) {
        self.run((Some(out), None), count, |i| (Some(source(i)), 1), Rule::Factors, start, None);
    }

    /// `q` becomes (or gains) Σ factor · source, and `p`, where it is asked for, Σ source.
    pub(super) fn weigh_all<'a>(
        self,
        p: Option<&mut [u8]>,
        q: &mut [u8],
        count: usize,
        term: impl Fn(usize) -> (&'a [u8], u8),
        start: Start<'_>,
    ) {
        let term = |i| {
            let (source, factor) = term(i);
            (Some(source), factor)
        };
        self.run((p, Some(q)), count, term, Rule::Factors, start, None);
    }

    /// Cuts sums over `count` terms into passes of few sources, and those into tiles where it takes several. A term without
    /// a source is one of zeroes. What is too large for the caches is made in a tile of its own and written past them.
    pub(super) fn run<'a>(
        self,
        (mut p, mut q): (Option<&mut [u8]>, Option<&mut [u8]>),
        count: usize,
        term: impl Fn(usize) -> (Option<&'a [u8]>, u8),
        rule: Rule,
        before: Start<'_>,
        solve: Option<Solve<'_>>,
    ) {
        let length = p.as_ref().or(q.as_ref()).map_or(0, |out| out.len());
        for i in 0..count {
            let as_long = term(i).0.is_none_or(|source| source.len() == length);
            assert!(as_long, "source {i} is not as long as what is made of it");
        }
        let has_gaps = (0..count).any(|i| term(i).0.is_none());
        for out in [&p, &q].into_iter().flatten() {
            assert_eq!(out.len(), length, "P and Q of different lengths");
        }
        let outputs = usize::from(p.is_some()) + usize::from(q.is_some());
        let streamed = matches!(before, Start::Zero) && (count + outputs) * length > Kernel::cached_bytes();
        // Short sources are all in the first cache, or nearly: the more at once, the fewer times the outputs are written.
        let at_once = if q.is_none() && length <= TILE_BYTES { PASS_SUMMANDS } else { PASS_SOURCES };
        let in_passes = count > at_once;
        let tile_bytes = if in_passes || has_gaps { TILE_BYTES } else { length.max(1) };
        // The sums over all but the last few sources, where they would be read back from beyond the caches.
        let mut room = (in_passes && streamed).then(|| Box::new([Tile([0; TILE_BYTES]), Tile([0; TILE_BYTES])]));
        for at in (0..length).step_by(tile_bytes) {
            let tile = at..length.min(at + tile_bytes);
            for first in (0..count.max(1)).step_by(at_once) {
                let group = first..count.min(first + at_once);
                let is_last = group.end >= count;
                let (mut sources, mut factors) = ([&[][..]; PASS_SUMMANDS], [0; PASS_SUMMANDS]);
                for (place, i) in group.clone().enumerate() {
                    let (source, factor) = term(i);
                    sources[place] = match source {
                        Some(source) => &source[tile.clone()],
                        None => &ZEROES.0[..tile.len()],
                    };
                    factors[place] = factor;
                }
                let mut outs = [&mut p, &mut q].map(|out| out.as_deref_mut().map(|out| &mut out[tile.clone()]));
                let mut start = if first == 0 { before.cut(tile.clone()) } else { Start::Kept };
                if let Some(tiles) = room.as_deref_mut() {
                    let [p_kept, q_kept] = tiles.each_mut().map(|kept| &mut kept.0[..tile.len()]);
                    if is_last {
                        start = Start::From { p: p_kept, q: q_kept };
                    } else {
                        outs = [outs[0].is_some().then_some(p_kept), outs[1].is_some().then_some(q_kept)];
                    }
                }
                let [p, q] = outs;
                self.pass(Pass {
                    p,
                    q,
                    sources: &sources[..group.len()],
                    weights: match rule {
                        Rule::Doubling => Weights::Doubling,
                        Rule::Factors => Weights::Factors(&factors[..group.len()]),
                    },
                    start,
                    solve: solve.filter(|_| is_last).map(|solve| solve.cut(tile.clone())),
                    streamed: streamed && is_last,
                });
            }
        }
    }
}

/// Room for the sums of a tile.
#[repr(align(64))]
struct Tile([u8; TILE_BYTES]);

static ZEROES: Tile = Tile([0; TILE_BYTES]);

/// How the sources of Q are weighed.
#[derive(Clone, Copy)]
pub(super) enum Rule {
    /// By Horner's rule: 2^e, where e falls to 0.
    Doubling,
    /// Each by its factor.
    Factors,
}

/// The columns by falling exponent, if the exponents are 0, 1, … without a gap: Horner's rule then needs no products.
pub(super) fn falling(count: usize, exponent: impl Fn(usize) -> u8) -> Option<[u8; 64]> {
    let mut order = [0; 64];
    let mut seen = 0_u64;
    for i in 0..count {
        let place = count.checked_sub(1 + usize::from(exponent(i)))?;
        *order.get_mut(place)? = i as u8;
        seen |= 1 << place;
    }
    (seen.count_ones() as usize == count).then_some(order)
}

/// The column and its factor in Q.
fn weighted((data, exponent): Column<'_>) -> (&[u8], u8) {
    (data, gf::power(exponent))
}
