//! The reference: one byte at a time, every product looked up.

use super::gf;
use super::kernel::{Start, Weights};

/// One pass of P: `out` becomes (or gains) the sum of the sources.
pub fn sum(out: &mut [u8], sources: &[&[u8]], start: Start) {
    for (at, out) in out.iter_mut().enumerate() {
        let mut byte = start.of(*out);
        for source in sources {
            byte ^= source[at];
        }
        *out = byte;
    }
}

/// One pass of Q, and of P where it is asked for.
pub fn weigh(p: Option<&mut [u8]>, q: &mut [u8], sources: &[&[u8]], weights: Weights<'_>, start: Start) {
    if let Some(p) = p {
        sum(p, sources, start);
    }
    for (at, out) in q.iter_mut().enumerate() {
        let mut byte = start.of(*out);
        for (i, source) in sources.iter().enumerate() {
            byte = match weights {
                Weights::Doubling => gf::multiply(2, byte) ^ source[at],
                Weights::Factors(factors) => byte ^ gf::multiply(factors[i], source[at]),
            };
        }
        *out = byte;
    }
}
