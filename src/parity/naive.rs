//! The reference: one byte at a time, every product looked up.

use super::gf;
use super::kernel::{Pass, Weights};

/// Carries out a pass.
pub(super) fn pass(pass: &mut Pass<'_, '_>) {
    pass.prepare();
    let Pass { p, q, sources, weights, solve, .. } = pass;
    if let Some(p) = p {
        for (at, byte) in p.iter_mut().enumerate() {
            for source in *sources {
                *byte ^= source[at];
            }
        }
    }
    if let Some(q) = q {
        for (at, byte) in q.iter_mut().enumerate() {
            for (i, source) in sources.iter().enumerate() {
                *byte = match *weights {
                    Weights::Doubling => gf::multiply(2, *byte) ^ source[at],
                    Weights::Factors(factors) => *byte ^ gf::multiply(factors[i], source[at]),
                };
            }
        }
    }
    if let (Some(solve), Some(p), Some(q)) = (solve, p, q) {
        for (at, (p, q)) in p.iter_mut().zip(q.iter_mut()).enumerate() {
            *p ^= solve.p[at];
            *q = gf::multiply(solve.of_p, *p) ^ gf::multiply(solve.of_q, *q ^ solve.q[at]);
            *p ^= *q;
        }
    }
}
