//! Lost columns from the rest, and the one wrong column by its traces in P and Q.

use super::encode::{Column, Rule, falling};
use super::gf;
use super::kernel::{Kernel, Solve, Start};

/// `survivors` are all data columns but the lost. A lost P or Q is encoded again once the data is whole.
impl Kernel {
    /// The one lost data column, from P: D = P + Σ survivors.
    pub fn recover_from_p(self, lost: &mut [u8], p: &[u8], survivors: &[&[u8]]) {
        self.sum_all(lost, survivors.len() + 1, |i| survivors.get(i).copied().unwrap_or(p), Start::Zero);
    }

    /// The one lost data column, from Q: D = (Q + Σ 2^e · survivor) / 2^x, x the exponent of the lost.
    pub fn recover_from_q(self, lost: &mut [u8], exponent: u8, q: &[u8], survivors: &[Column<'_>]) {
        for &(_, e) in survivors {
            assert!(e != exponent, "a survivor has the exponent {e} of the lost column");
        }
        let inverse = gf::inverse(gf::power(exponent));
        let term = |i: usize| match survivors.get(i) {
            Some(&(survivor, e)) => (survivor, gf::multiply(inverse, gf::power(e))),
            None => (q, inverse),
        };
        self.weigh_all(None, lost, survivors.len() + 1, term, Start::Zero);
    }

    /// Two lost data columns, each given with its exponent, from P and Q.
    ///
    /// With P' = P + Σ survivors and Q' = Q + Σ 2^e · survivor, what remains is X + Y = P' and
    /// 2^x · X + 2^y · Y = Q'. So X = (2^y · P' + Q') / (2^x + 2^y) and Y = P' + X: one pass like any P and Q, two products
    /// more.
    pub fn recover_two(
        self,
        (x, x_exponent): (&mut [u8], u8),
        (y, y_exponent): (&mut [u8], u8),
        p: &[u8],
        q: &[u8],
        survivors: &[Column<'_>],
    ) {
        assert!(x_exponent != y_exponent, "both lost columns have the exponent {x_exponent}");
        for other in [&*y, p, q] {
            assert_eq!(other.len(), x.len(), "slices of different lengths");
        }
        let of_q = gf::inverse(gf::power(x_exponent) ^ gf::power(y_exponent));
        let of_p = gf::multiply(of_q, gf::power(y_exponent));
        for &(survivor, e) in survivors {
            assert!(e != x_exponent && e != y_exponent, "a survivor has the exponent {e} of a lost column");
            assert_eq!(survivor.len(), x.len(), "slices of different lengths");
        }

        let solve = Some(Solve { p, q, of_p, of_q });
        // The lost ones are columns of zeroes.
        let lost = [(None, x_exponent), (None, y_exponent)];
        let column = |i: usize| match survivors.get(i) {
            Some(&(survivor, exponent)) => (Some(survivor), exponent),
            None => lost[i - survivors.len()],
        };
        let count = survivors.len() + lost.len();
        let outputs = (Some(y), Some(x));
        match falling(count, |i| column(i).1) {
            Some(order) => {
                let term = |i: usize| (column(usize::from(order[i])).0, 1);
                self.run(outputs, count, term, Rule::Doubling, Start::Zero, solve);
            }
            None => {
                let term = |i: usize| (column(i).0, gf::power(column(i).1));
                self.run(outputs, survivors.len().max(1), term, Rule::Factors, Start::Zero, solve);
            }
        }
    }
}

/// Which column of a stripe is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Culprit {
    /// P and Q are those of the data.
    None,
    /// P alone.
    P,
    /// Q alone.
    Q,
    /// The data column with this exponent. Its right bytes are its wrong bytes plus the syndrome of P.
    Data {
        /// Its exponent in Q.
        exponent: u8,
    },
    /// More than one column, and there is no telling which.
    Unknown,
}

/// Names the wrong column by the syndromes: what is stored in P and Q plus what they should be by the data. `exponents` are
/// those of all data columns of the stripe.
///
/// A data column wrong by d leaves d in P and 2^e · d in Q, so at every byte that is wrong at all the quotient is 2^e. Two
/// wrong columns can look like a third one at one byte; hardly at all bytes of a range.
pub fn locate(p_syndrome: &[u8], q_syndrome: &[u8], exponents: &[u8]) -> Culprit {
    assert_eq!(p_syndrome.len(), q_syndrome.len(), "syndromes of different lengths");
    let mut culprit = Culprit::None;
    for (&p, &q) in p_syndrome.iter().zip(q_syndrome) {
        let here = match (p, q) {
            (0, 0) => continue,
            (_, 0) => Culprit::P,
            (0, _) => Culprit::Q,
            _ => Culprit::Data { exponent: gf::exponent_of_quotient(q, p) },
        };
        if culprit == Culprit::None {
            culprit = here;
        } else if culprit != here {
            return Culprit::Unknown;
        }
    }
    match culprit {
        Culprit::Data { exponent } if !exponents.contains(&exponent) => Culprit::Unknown,
        known => known,
    }
}
