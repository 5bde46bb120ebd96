//! Vectors of x86-64: AVX2 and AVX-512, each with and without the Galois field instructions (GFNI).
//!
//! One loop for each number of sources, written once over [`Vector`]; each goes two vectors at a time and reads every
//! source once. XOR is plain `vpxor`: `vpternlog` takes two sources at once but was slower from memory operands.
//! What does not fill two vectors is left to the portable kernel.
//!
//! A product with a constant is linear in the bits of a byte. GFNI takes it as an 8x8 matrix of bits in one
//! instruction; without it, it is the sum of the products of the two halves of the byte, each from a table of
//! 16 that `vpshufb` looks up.

use std::arch::x86_64::*;

use super::kernel::{PASS_SOURCES, Start, Weights};
use super::{gf, portable};

/// A register full of bytes. All methods ask that the processor supports its instructions.
trait Vector: Copy {
    /// Bytes in it.
    const BYTES: usize;
    /// A factor in the form that products want.
    type Factor: Copy;

    /// The `BYTES` bytes at `from`, which must be readable.
    unsafe fn load(from: *const u8) -> Self;
    /// Writes the `BYTES` bytes at `to`, which must be writable.
    unsafe fn store(self, to: *mut u8);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn double(self) -> Self;
    unsafe fn factor(factor: u8) -> Self::Factor;
    unsafe fn multiply(self, factor: Self::Factor) -> Self;
}

/// `HALVES[f]`: the products of f with 0 … 15, then those with 0 … 15 times 16.
static HALVES: [[u8; 32]; 256] = {
    let mut tables = [[0; 32]; 256];
    let mut factor = 0;
    while factor < 256 {
        let mut half = 0;
        while half < 16 {
            tables[factor][half] = gf::multiply_slowly(factor as u8, half as u8);
            tables[factor][16 + half] = gf::multiply_slowly(factor as u8, (half << 4) as u8);
            half += 1;
        }
        factor += 1;
    }
    tables
};

/// `MATRICES[f]`: the product with f as `vgf2p8affineqb` wants it: the row of result bit i is byte 7 - i, and its bit j
/// says whether bit j of the operand counts, that is bit i of f · 2^j.
static MATRICES: [u64; 256] = {
    let mut matrices = [0; 256];
    let mut factor = 0;
    while factor < 256 {
        let mut j = 0;
        while j < 8 {
            let product = gf::multiply_slowly(factor as u8, 1 << j);
            let mut i = 0;
            while i < 8 {
                matrices[factor] |= ((product >> i & 1) as u64) << (8 * (7 - i) + j);
                i += 1;
            }
            j += 1;
        }
        factor += 1;
    }
    matrices
};

#[derive(Clone, Copy)]
struct Avx2(__m256i);

impl Vector for Avx2 {
    const BYTES: usize = 32;
    type Factor = (__m256i, __m256i);

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: the caller vouches for 32 readable bytes.
        Avx2(unsafe { _mm256_loadu_si256(from.cast()) })
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: the caller vouches for 32 writable bytes.
        unsafe { _mm256_storeu_si256(to.cast(), self.0) };
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn add(self, other: Self) -> Self {
        Avx2(_mm256_xor_si256(self.0, other.0))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn double(self) -> Self {
        let carries = _mm256_cmpgt_epi8(_mm256_setzero_si256(), self.0);
        let reduction = _mm256_and_si256(carries, _mm256_set1_epi8(gf::REDUCTION.cast_signed()));
        Avx2(_mm256_xor_si256(_mm256_add_epi8(self.0, self.0), reduction))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn factor(factor: u8) -> Self::Factor {
        let table = HALVES[factor as usize].as_ptr();
        // SAFETY: a table is 32 bytes.
        let (low, high) = unsafe { (_mm_loadu_si128(table.cast()), _mm_loadu_si128(table.add(16).cast())) };
        (_mm256_broadcastsi128_si256(low), _mm256_broadcastsi128_si256(high))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn multiply(self, (low, high): Self::Factor) -> Self {
        let half = _mm256_set1_epi8(0x0f);
        let of_low = _mm256_shuffle_epi8(low, _mm256_and_si256(self.0, half));
        let of_high = _mm256_shuffle_epi8(high, _mm256_and_si256(_mm256_srli_epi64::<4>(self.0), half));
        Avx2(_mm256_xor_si256(of_low, of_high))
    }
}

#[derive(Clone, Copy)]
struct Gfni256(__m256i);

impl Vector for Gfni256 {
    const BYTES: usize = 32;
    type Factor = __m256i;

    #[inline]
    #[target_feature(enable = "avx2,gfni")]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: the caller vouches for 32 readable bytes.
        Gfni256(unsafe { _mm256_loadu_si256(from.cast()) })
    }

    #[inline]
    #[target_feature(enable = "avx2,gfni")]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: the caller vouches for 32 writable bytes.
        unsafe { _mm256_storeu_si256(to.cast(), self.0) };
    }

    #[inline]
    #[target_feature(enable = "avx2,gfni")]
    unsafe fn add(self, other: Self) -> Self {
        Gfni256(_mm256_xor_si256(self.0, other.0))
    }

    #[inline]
    #[target_feature(enable = "avx2,gfni")]
    unsafe fn double(self) -> Self {
        Gfni256(_mm256_gf2p8affine_epi64_epi8::<0>(self.0, _mm256_set1_epi64x(MATRICES[2].cast_signed())))
    }

    #[inline]
    #[target_feature(enable = "avx2,gfni")]
    unsafe fn factor(factor: u8) -> Self::Factor {
        _mm256_set1_epi64x(MATRICES[factor as usize].cast_signed())
    }

    #[inline]
    #[target_feature(enable = "avx2,gfni")]
    unsafe fn multiply(self, factor: Self::Factor) -> Self {
        Gfni256(_mm256_gf2p8affine_epi64_epi8::<0>(self.0, factor))
    }
}

#[derive(Clone, Copy)]
struct Avx512(__m512i);

impl Vector for Avx512 {
    const BYTES: usize = 64;
    type Factor = (__m512i, __m512i);

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: the caller vouches for 64 readable bytes.
        Avx512(unsafe { _mm512_loadu_si512(from.cast()) })
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: the caller vouches for 64 writable bytes.
        unsafe { _mm512_storeu_si512(to.cast(), self.0) };
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn add(self, other: Self) -> Self {
        Avx512(_mm512_xor_si512(self.0, other.0))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn double(self) -> Self {
        let reduction = _mm512_set1_epi8(gf::REDUCTION.cast_signed());
        let reduction = _mm512_maskz_mov_epi8(_mm512_movepi8_mask(self.0), reduction);
        Avx512(_mm512_xor_si512(_mm512_add_epi8(self.0, self.0), reduction))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn factor(factor: u8) -> Self::Factor {
        let table = HALVES[factor as usize].as_ptr();
        // SAFETY: a table is 32 bytes.
        let (low, high) = unsafe { (_mm_loadu_si128(table.cast()), _mm_loadu_si128(table.add(16).cast())) };
        (_mm512_broadcast_i32x4(low), _mm512_broadcast_i32x4(high))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn multiply(self, (low, high): Self::Factor) -> Self {
        let half = _mm512_set1_epi8(0x0f);
        let of_low = _mm512_shuffle_epi8(low, _mm512_and_si512(self.0, half));
        let of_high = _mm512_shuffle_epi8(high, _mm512_and_si512(_mm512_srli_epi64::<4>(self.0), half));
        Avx512(_mm512_xor_si512(of_low, of_high))
    }
}

#[derive(Clone, Copy)]
struct Gfni(__m512i);

impl Vector for Gfni {
    const BYTES: usize = 64;
    type Factor = __m512i;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,gfni")]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: the caller vouches for 64 readable bytes.
        Gfni(unsafe { _mm512_loadu_si512(from.cast()) })
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,gfni")]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: the caller vouches for 64 writable bytes.
        unsafe { _mm512_storeu_si512(to.cast(), self.0) };
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,gfni")]
    unsafe fn add(self, other: Self) -> Self {
        Gfni(_mm512_xor_si512(self.0, other.0))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,gfni")]
    unsafe fn double(self) -> Self {
        Gfni(_mm512_gf2p8affine_epi64_epi8::<0>(self.0, _mm512_set1_epi64(MATRICES[2].cast_signed())))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,gfni")]
    unsafe fn factor(factor: u8) -> Self::Factor {
        _mm512_set1_epi64(MATRICES[factor as usize].cast_signed())
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,gfni")]
    unsafe fn multiply(self, factor: Self::Factor) -> Self {
        Gfni(_mm512_gf2p8affine_epi64_epi8::<0>(self.0, factor))
    }
}

/// The entry points: the loops below, compiled for the instructions of one vector.
macro_rules! entry_points {
    ($features:literal, $vector:ty, $weigh:ident $(, $sum:ident)?) => {
        $(
            /// One pass of P over 1 to [`PASS_SOURCES`] sources as long as `out`.
            #[target_feature(enable = $features)]
            pub unsafe fn $sum(out: &mut [u8], sources: &[&[u8]], start: Start) {
                // SAFETY: this function asks the same of its caller.
                unsafe { sum::<$vector>(out, sources, start) };
            }
        )?

        /// One pass of Q, and of P where it is asked for, over 1 to [`PASS_SOURCES`] sources, all slices of one length.
        #[target_feature(enable = $features)]
        pub unsafe fn $weigh(p: Option<&mut [u8]>, q: &mut [u8], sources: &[&[u8]], weights: Weights<'_>, start: Start) {
            // SAFETY: this function asks the same of its caller.
            unsafe { weigh::<$vector>(p, q, sources, weights, start) };
        }
    };
}

entry_points!("avx2", Avx2, weigh_avx2, sum_avx2);
entry_points!("avx2,gfni", Gfni256, weigh_gfni256);
entry_points!("avx512f,avx512bw", Avx512, weigh_avx512, sum_avx512);
entry_points!("avx512f,avx512bw,gfni", Gfni, weigh_gfni);

/// Calls the loop made for the number of sources.
macro_rules! for_count {
    ($count:expr, $K:ident => $call:expr) => {
        match $count {
            1 => {
                const $K: usize = 1;
                $call
            }
            2 => {
                const $K: usize = 2;
                $call
            }
            3 => {
                const $K: usize = 3;
                $call
            }
            4 => {
                const $K: usize = 4;
                $call
            }
            5 => {
                const $K: usize = 5;
                $call
            }
            6 => {
                const $K: usize = 6;
                $call
            }
            7 => {
                const $K: usize = 7;
                $call
            }
            8 => {
                const $K: usize = 8;
                $call
            }
            count => panic!("{count} sources in one pass"),
        }
    };
}
const _: () = assert!(PASS_SOURCES == 8, "a loop for each number of sources");

#[inline(always)]
unsafe fn sum<V: Vector>(out: &mut [u8], sources: &[&[u8]], start: Start) {
    let whole = out.len() - out.len() % (2 * V::BYTES);
    let (body, tail) = out.split_at_mut(whole);
    // SAFETY: every source is as long as `out`, so at least `whole` bytes.
    for_count!(sources.len(), K => unsafe { sum_of::<V, K>(body, pointers(sources), start) });
    if !tail.is_empty() {
        let mut tails = [&[][..]; PASS_SOURCES];
        portable::sum(tail, tails_of(&mut tails, sources, whole), start);
    }
}

#[inline(always)]
unsafe fn weigh<V: Vector>(p: Option<&mut [u8]>, q: &mut [u8], sources: &[&[u8]], weights: Weights<'_>, start: Start) {
    let whole = q.len() - q.len() % (2 * V::BYTES);
    let (body, tail) = q.split_at_mut(whole);
    let (p_body, p_tail) = p.map(|p| p.split_at_mut(whole)).unzip();
    // SAFETY: P and every source are as long as `q`, so at least `whole` bytes; there is a factor for each source.
    unsafe {
        match (p_body, weights) {
            (Some(p), Weights::Doubling) => {
                for_count!(sources.len(), K => doubling::<V, K, true>(p, body, pointers(sources), start));
            }
            (None, Weights::Doubling) => {
                for_count!(sources.len(), K => doubling::<V, K, false>(&mut [], body, pointers(sources), start));
            }
            (Some(p), Weights::Factors(factors)) => {
                for_count!(sources.len(), K => products::<V, K, true>(p, body, pointers(sources), factors, start));
            }
            (None, Weights::Factors(factors)) => {
                for_count!(sources.len(), K => products::<V, K, false>(&mut [], body, pointers(sources), factors, start));
            }
        }
    }
    if !tail.is_empty() {
        let mut tails = [&[][..]; PASS_SOURCES];
        portable::weigh(p_tail, tail, tails_of(&mut tails, sources, whole), weights, start);
    }
}

/// `out` = Σ source. The length of `out` is a multiple of two vectors, and every source is at least as long.
#[expect(clippy::needless_range_loop, reason = "the compiler unrolls it; not so the iterators of an array")]
#[inline(always)]
unsafe fn sum_of<V: Vector, const K: usize>(out: &mut [u8], sources: [*const u8; K], start: Start) {
    let (length, out) = (out.len(), out.as_mut_ptr());
    let mut at = 0;
    while at < length {
        let next = at + V::BYTES;
        // SAFETY: two vectors from `at` on are inside `out` and every source.
        unsafe {
            let mut sum = (V::load(sources[0].add(at)), V::load(sources[0].add(next)));
            if start == Start::Kept {
                sum = (sum.0.add(V::load(out.add(at))), sum.1.add(V::load(out.add(next))));
            }
            for i in 1..K {
                sum = (sum.0.add(V::load(sources[i].add(at))), sum.1.add(V::load(sources[i].add(next))));
            }
            sum.0.store(out.add(at));
            sum.1.store(out.add(next));
        }
        at += 2 * V::BYTES;
    }
}

/// `q` by Horner's rule, and if `P` also `p` = Σ source. The length of `q` is a multiple of two vectors, and `p` and every
/// source are at least as long.
#[expect(clippy::needless_range_loop, reason = "as in `sum_of`")]
#[inline(always)]
unsafe fn doubling<V: Vector, const K: usize, const P: bool>(
    p: &mut [u8],
    q: &mut [u8],
    sources: [*const u8; K],
    start: Start,
) {
    let (length, p, q) = (q.len(), p.as_mut_ptr(), q.as_mut_ptr());
    let mut at = 0;
    while at < length {
        let next = at + V::BYTES;
        // SAFETY: two vectors from `at` on are inside `p`, `q` and every source.
        unsafe {
            let mut weighted = (V::load(sources[0].add(at)), V::load(sources[0].add(next)));
            let mut sum = weighted;
            if start == Start::Kept {
                weighted.0 = V::load(q.add(at)).double().add(weighted.0);
                weighted.1 = V::load(q.add(next)).double().add(weighted.1);
                if P {
                    sum = (sum.0.add(V::load(p.add(at))), sum.1.add(V::load(p.add(next))));
                }
            }
            for i in 1..K {
                let data = (V::load(sources[i].add(at)), V::load(sources[i].add(next)));
                weighted = (weighted.0.double().add(data.0), weighted.1.double().add(data.1));
                if P {
                    sum = (sum.0.add(data.0), sum.1.add(data.1));
                }
            }
            weighted.0.store(q.add(at));
            weighted.1.store(q.add(next));
            if P {
                sum.0.store(p.add(at));
                sum.1.store(p.add(next));
            }
        }
        at += 2 * V::BYTES;
    }
}

/// `q` = Σ factor · source, and if `P` also `p` = Σ source. The length of `q` is a multiple of two vectors, `p` and every
/// source are at least as long, and there is a factor for each source.
#[inline(always)]
unsafe fn products<V: Vector, const K: usize, const P: bool>(
    p: &mut [u8],
    q: &mut [u8],
    sources: [*const u8; K],
    factors: &[u8],
    start: Start,
) {
    // SAFETY: the processor supports the vector.
    let mut ready = [unsafe { V::factor(factors[0]) }; K];
    for i in 1..K {
        // SAFETY: as above.
        ready[i] = unsafe { V::factor(factors[i]) };
    }
    let (length, p, q) = (q.len(), p.as_mut_ptr(), q.as_mut_ptr());
    let mut at = 0;
    while at < length {
        let next = at + V::BYTES;
        // SAFETY: two vectors from `at` on are inside `p`, `q` and every source.
        unsafe {
            let mut sum = (V::load(sources[0].add(at)), V::load(sources[0].add(next)));
            let mut weighted = (sum.0.multiply(ready[0]), sum.1.multiply(ready[0]));
            if start == Start::Kept {
                weighted = (weighted.0.add(V::load(q.add(at))), weighted.1.add(V::load(q.add(next))));
                if P {
                    sum = (sum.0.add(V::load(p.add(at))), sum.1.add(V::load(p.add(next))));
                }
            }
            for i in 1..K {
                let data = (V::load(sources[i].add(at)), V::load(sources[i].add(next)));
                weighted.0 = weighted.0.add(data.0.multiply(ready[i]));
                weighted.1 = weighted.1.add(data.1.multiply(ready[i]));
                if P {
                    sum = (sum.0.add(data.0), sum.1.add(data.1));
                }
            }
            weighted.0.store(q.add(at));
            weighted.1.store(q.add(next));
            if P {
                sum.0.store(p.add(at));
                sum.1.store(p.add(next));
            }
        }
        at += 2 * V::BYTES;
    }
}

#[inline(always)]
fn pointers<const K: usize>(sources: &[&[u8]]) -> [*const u8; K] {
    let mut pointers = [std::ptr::null(); K];
    for (pointer, source) in pointers.iter_mut().zip(sources) {
        *pointer = source.as_ptr();
    }
    pointers
}

/// What each source has from `whole` on.
fn tails_of<'t, 's>(tails: &'t mut [&'s [u8]; PASS_SOURCES], sources: &[&'s [u8]], whole: usize) -> &'t [&'s [u8]] {
    for (tail, source) in tails.iter_mut().zip(sources) {
        *tail = &source[whole..];
    }
    &tails[..sources.len()]
}
