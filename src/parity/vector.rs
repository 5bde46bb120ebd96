//! The loops of a pass, written once over [`Vector`]: each goes two vectors at a time and reads every source once.
//!
//! There is one loop for each number of sources, so that it is unrolled and every source has a register that points to
//! it. What does not fill two vectors is left to the portable kernel.

use super::kernel::{PASS_SOURCES, PASS_SUMMANDS, Pass, Solve, Start, Weights};
use super::portable;

/// A register full of bytes. All methods ask that the processor supports its instructions.
pub(super) trait Vector: Copy {
    /// Bytes in it.
    const BYTES: usize;
    /// A factor in the form that products want.
    type Factor: Copy;

    /// The `BYTES` bytes at `from`, which must be readable.
    unsafe fn load(from: *const u8) -> Self;
    /// Writes the `BYTES` bytes at `to`, which must be writable.
    unsafe fn store(self, to: *mut u8);
    /// Writes past the caches the `BYTES` bytes at `to`, which must be writable and aligned to `BYTES`. Where there is no
    /// such instruction it is a store.
    unsafe fn stream(self, to: *mut u8);
    /// Puts what was streamed before into its place before what is stored after.
    unsafe fn fence();
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn double(self) -> Self;
    unsafe fn factor(factor: u8) -> Self::Factor;
    unsafe fn multiply(self, factor: Self::Factor) -> Self;
}

/// Calls the loop made for the number of sources.
macro_rules! for_count {
    ($count:expr, $K:ident => $call:expr, $($number:literal)*) => {
        match $count {
            $($number => {
                const $K: usize = $number;
                $call
            })*
            count => panic!("{count} sources in one pass"),
        }
    };
}
macro_rules! up_to_8 {
    ($count:expr, $K:ident => $call:expr) => { for_count!($count, $K => $call, 1 2 3 4 5 6 7 8) };
}
macro_rules! up_to_16 {
    ($count:expr, $K:ident => $call:expr) => {
        for_count!($count, $K => $call, 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16)
    };
}
const _: () = assert!(PASS_SOURCES == 8 && PASS_SUMMANDS == 16, "a loop for each number of sources");

/// Where a loop writes and reads: all pointers are good for its length, and the outputs of a streamed pass are aligned to
/// a vector.
#[derive(Clone, Copy)]
struct Places<'a, const K: usize> {
    length: usize,
    p: *mut u8,
    q: *mut u8,
    /// What the sums begin with; null for nothing.
    p_base: *const u8,
    q_base: *const u8,
    sources: [*const u8; K],
    solve: Option<Solve<'a>>,
}

/// Carries out a pass.
#[inline(always)]
pub(super) unsafe fn pass<V: Vector>(pass: &mut Pass<'_, '_>) {
    let length = pass.length();
    let whole = length - length % (2 * V::BYTES);
    let aligned = |out: &Option<&mut [u8]>| out.as_ref().is_none_or(|out| out.as_ptr().addr() % V::BYTES == 0);
    // SAFETY: this function asks the same of its caller.
    unsafe {
        if pass.streamed && aligned(&pass.p) && aligned(&pass.q) {
            body::<V, true>(pass, whole);
            V::fence();
        } else {
            body::<V, false>(pass, whole);
        }
    }
    if whole < length {
        pass.tail(whole, portable::pass);
    }
}

/// The first `whole` bytes of a pass.
#[inline(always)]
unsafe fn body<V: Vector, const STREAM: bool>(pass: &mut Pass<'_, '_>, whole: usize) {
    let (weights, count) = (pass.weights, pass.sources.len());
    // SAFETY: every slice of a pass is of its length, so at least `whole` bytes; there is a factor for each source; the
    // caller looked at the alignment of what is streamed.
    unsafe {
        match (pass.p.is_some(), pass.q.is_some(), weights) {
            (true, false, _) => up_to_16!(count, K => sum::<V, K, STREAM>(places(pass, whole))),
            (true, true, Weights::Doubling) => match pass.solve {
                Some(_) => up_to_8!(count, K => doubling::<V, K, true, true, STREAM>(places(pass, whole))),
                None => up_to_8!(count, K => doubling::<V, K, true, false, STREAM>(places(pass, whole))),
            },
            (false, true, Weights::Doubling) => {
                up_to_8!(count, K => doubling::<V, K, false, false, STREAM>(places(pass, whole)));
            }
            (true, true, Weights::Factors(factors)) => match pass.solve {
                Some(_) => up_to_8!(count, K => products::<V, K, true, true, STREAM>(places(pass, whole), factors)),
                None => up_to_8!(count, K => products::<V, K, true, false, STREAM>(places(pass, whole), factors)),
            },
            (false, true, Weights::Factors(factors)) => {
                up_to_8!(count, K => products::<V, K, false, false, STREAM>(places(pass, whole), factors));
            }
            (false, false, _) => {}
        }
    }
}

#[inline(always)]
fn places<'a, const K: usize>(pass: &mut Pass<'a, '_>, length: usize) -> Places<'a, K> {
    let mut sources = [std::ptr::null(); K];
    for (pointer, source) in sources.iter_mut().zip(pass.sources) {
        *pointer = source.as_ptr();
    }
    let at = |out: &mut Option<&mut [u8]>| out.as_mut().map_or(std::ptr::null_mut(), |out| out.as_mut_ptr());
    let (p, q) = (at(&mut pass.p), at(&mut pass.q));
    let (p_base, q_base) = match pass.start {
        Start::Zero => (std::ptr::null(), std::ptr::null()),
        Start::Kept => (p.cast_const(), q.cast_const()),
        Start::From { p, q } => (p.as_ptr(), q.as_ptr()),
    };
    Places { length, p, q, p_base, q_base, sources, solve: pass.solve }
}

#[inline(always)]
unsafe fn load<V: Vector>(from: *const u8, at: usize) -> (V, V) {
    // SAFETY: this function asks for two readable vectors.
    unsafe { (V::load(from.add(at)), V::load(from.add(at + V::BYTES))) }
}

#[inline(always)]
unsafe fn add<V: Vector>(one: (V, V), other: (V, V)) -> (V, V) {
    // SAFETY: this function asks the same of its caller.
    unsafe { (one.0.add(other.0), one.1.add(other.1)) }
}

#[inline(always)]
unsafe fn multiply<V: Vector>(one: (V, V), factor: V::Factor) -> (V, V) {
    // SAFETY: this function asks the same of its caller.
    unsafe { (one.0.multiply(factor), one.1.multiply(factor)) }
}

#[inline(always)]
unsafe fn put<V: Vector, const STREAM: bool>(pair: (V, V), to: *mut u8, at: usize) {
    // SAFETY: this function asks for two writable vectors, aligned where they are streamed.
    unsafe {
        if STREAM {
            pair.0.stream(to.add(at));
            pair.1.stream(to.add(at + V::BYTES));
        } else {
            pair.0.store(to.add(at));
            pair.1.store(to.add(at + V::BYTES));
        }
    }
}

/// P = Σ source.
#[expect(clippy::needless_range_loop, reason = "the compiler unrolls it; not so the iterators of an array")]
#[inline(always)]
unsafe fn sum<V: Vector, const K: usize, const STREAM: bool>(places: Places<'_, K>) {
    let Places { length, p, p_base, sources, .. } = places;
    let mut at = 0;
    while at < length {
        // SAFETY: two vectors from `at` on are inside every slice.
        unsafe {
            let mut sum = load::<V>(sources[0], at);
            if !p_base.is_null() {
                sum = add(sum, load(p_base, at));
            }
            for i in 1..K {
                sum = add(sum, load(sources[i], at));
            }
            put::<V, STREAM>(sum, p, at);
        }
        at += 2 * V::BYTES;
    }
}

/// Q by Horner's rule, and if `P` also P = Σ source; and if `SOLVE`, the last step to two unknowns.
#[expect(clippy::needless_range_loop, reason = "as in `sum`")]
#[inline(always)]
unsafe fn doubling<V: Vector, const K: usize, const P: bool, const SOLVE: bool, const STREAM: bool>(
    places: Places<'_, K>,
) {
    let Places { length, p, q, p_base, q_base, sources, solve } = places;
    // SAFETY: the processor supports the vector.
    let ready = unsafe { solution::<V>(solve) };
    let mut at = 0;
    while at < length {
        // SAFETY: two vectors from `at` on are inside every slice.
        unsafe {
            let mut weighted = load::<V>(sources[0], at);
            let mut sum = weighted;
            if !q_base.is_null() {
                let base = load::<V>(q_base, at);
                weighted = add(weighted, (base.0.double(), base.1.double()));
                if P {
                    sum = add(sum, load(p_base, at));
                }
            }
            for i in 1..K {
                let data = load::<V>(sources[i], at);
                weighted = add((weighted.0.double(), weighted.1.double()), data);
                if P {
                    sum = add(sum, data);
                }
            }
            if SOLVE {
                (sum, weighted) = solved(sum, weighted, at, ready);
            }
            put::<V, STREAM>(weighted, q, at);
            if P {
                put::<V, STREAM>(sum, p, at);
            }
        }
        at += 2 * V::BYTES;
    }
}

/// What [`solved`] needs: where P and Q are stored, and the factors.
type Solution<V> = (*const u8, *const u8, <V as Vector>::Factor, <V as Vector>::Factor);

#[inline(always)]
unsafe fn solution<V: Vector>(solve: Option<Solve<'_>>) -> Solution<V> {
    // SAFETY: this function asks that the processor supports the vector.
    unsafe {
        match solve {
            Some(Solve { p, q, of_p, of_q }) => (p.as_ptr(), q.as_ptr(), V::factor(of_p), V::factor(of_q)),
            None => (std::ptr::null(), std::ptr::null(), V::factor(0), V::factor(0)),
        }
    }
}

/// The last step to two unknowns, from both sums.
#[inline(always)]
unsafe fn solved<V: Vector>(
    sum: (V, V),
    weighted: (V, V),
    at: usize,
    (p, q, of_p, of_q): Solution<V>,
) -> ((V, V), (V, V)) {
    // SAFETY: this function asks for two readable vectors at both places.
    unsafe {
        let sum = add(sum, load(p, at));
        let weighted = add(weighted, load(q, at));
        let one = add(multiply(sum, of_p), multiply(weighted, of_q));
        (add(sum, one), one)
    }
}

/// Q = Σ factor · source, and if `P` also P = Σ source. There is a factor for each source. `SOLVE` as above.
#[inline(always)]
unsafe fn products<V: Vector, const K: usize, const P: bool, const SOLVE: bool, const STREAM: bool>(
    places: Places<'_, K>,
    factors: &[u8],
) {
    // SAFETY: the processor supports the vector.
    let mut ready = [unsafe { V::factor(factors[0]) }; K];
    for i in 1..K {
        // SAFETY: as above.
        ready[i] = unsafe { V::factor(factors[i]) };
    }
    let Places { length, p, q, p_base, q_base, sources, solve } = places;
    // SAFETY: as above.
    let last = unsafe { solution::<V>(solve) };
    let mut at = 0;
    while at < length {
        // SAFETY: two vectors from `at` on are inside every slice.
        unsafe {
            let mut sum = load::<V>(sources[0], at);
            let mut weighted = multiply(sum, ready[0]);
            if !q_base.is_null() {
                weighted = add(weighted, load(q_base, at));
                if P {
                    sum = add(sum, load(p_base, at));
                }
            }
            for i in 1..K {
                let data = load::<V>(sources[i], at);
                weighted = add(weighted, multiply(data, ready[i]));
                if P {
                    sum = add(sum, data);
                }
            }
            if SOLVE {
                (sum, weighted) = solved(sum, weighted, at, last);
            }
            put::<V, STREAM>(weighted, q, at);
            if P {
                put::<V, STREAM>(sum, p, at);
            }
        }
        at += 2 * V::BYTES;
    }
}
