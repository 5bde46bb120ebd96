//! Plain loops over bytes, in a shape that compilers turn into whatever vector instructions the target
//! always has (SSE2, NEON). Also does the last few bytes for the kernels of wider vectors.

use super::gf;
use super::kernel::{Pass, Weights};

/// What is worked on at a time: the outputs stay in the first cache while the sources are added one after the other.
const TILE_BYTES: usize = 1024;

/// Carries out a pass.
pub(super) fn pass(pass: &mut Pass<'_, '_>) {
    pass.prepare();
    let Pass { p, q, sources, weights, solve, .. } = pass;
    if let Some(p) = p {
        sum(p, sources);
    }
    let Some(q) = q else { return };
    for (tile, q) in q.chunks_mut(TILE_BYTES).enumerate() {
        let at = tile * TILE_BYTES;
        match *weights {
            Weights::Doubling => {
                for source in *sources {
                    double_and_add(q, &source[at..]);
                }
            }
            Weights::Factors(factors) => add_products(q, sources, at, factors),
        }
    }
    if let (Some(solve), Some(p)) = (solve, p) {
        add(p, solve.p);
        add(q, solve.q);
        for (p, q) in p.chunks_mut(TILE_BYTES).zip(q.chunks_mut(TILE_BYTES)) {
            let mut sums = [0; TILE_BYTES];
            let sums = &mut sums[..q.len()];
            sums.copy_from_slice(q);
            q.fill(0);
            add_products(q, &[p, sums], 0, &[solve.of_p, solve.of_q]);
            add(p, q);
        }
    }
}

/// `out` gains the sum of the sources.
fn sum(out: &mut [u8], sources: &[&[u8]]) {
    for (tile, out) in out.chunks_mut(TILE_BYTES).enumerate() {
        let at = tile * TILE_BYTES;
        let (fours, rest) = sources.as_chunks::<4>();
        for four in fours {
            let [a, b, c, d] = four.map(|source| &source[at..][..out.len()]);
            for ((((out, a), b), c), d) in out.iter_mut().zip(a).zip(b).zip(c).zip(d) {
                *out ^= a ^ b ^ c ^ d;
            }
        }
        for source in rest {
            add(out, &source[at..]);
        }
    }
}

/// A tile of Σ factor · source, from `at` on, the bits of all factors together: from the highest bit down the sum is
/// doubled, then gains the sources whose factor has the bit. Eight doublings serve any number of sources.
fn add_products(q: &mut [u8], sources: &[&[u8]], at: usize, factors: &[u8]) {
    let mut products = [0; TILE_BYTES];
    let products = &mut products[..q.len()];
    for bit in (0..8).rev() {
        for byte in &mut *products {
            *byte = double(*byte);
        }
        for (source, factor) in sources.iter().zip(factors) {
            if factor >> bit & 1 == 1 {
                add(products, &source[at..]);
            }
        }
    }
    add(q, products);
}

/// `out` gains as much of `source` as it is long; so does [`double_and_add`].
fn add(out: &mut [u8], source: &[u8]) {
    for (out, byte) in out.iter_mut().zip(source) {
        *out ^= byte;
    }
}

fn double_and_add(out: &mut [u8], source: &[u8]) {
    for (out, byte) in out.iter_mut().zip(source) {
        *out = double(*out) ^ byte;
    }
}

/// 2 · x, with the carry spread over the byte by an arithmetic shift: a shape that vectorises.
#[inline]
fn double(x: u8) -> u8 {
    (x << 1) ^ ((x.cast_signed() >> 7).cast_unsigned() & gf::REDUCTION)
}
