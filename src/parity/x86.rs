//! Vectors of x86-64: AVX2 and AVX-512, each with and without the Galois field instructions (GFNI).
//!
//! XOR is plain `vpxor`: `vpternlog` takes two sources at once but was slower from memory operands. A product with a
//! constant is linear in the bits of a byte. GFNI takes it as an 8x8 matrix of bits in one instruction; without it, it is
//! the sum of the products of the two halves of the byte, each from a table of 16 that `vpshufb` looks up.

use std::arch::x86_64::*;

use super::gf::{self, HALVES};
use super::kernel::Pass;
use super::vector::{self, Vector};

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
    unsafe fn stream(self, to: *mut u8) {
        // SAFETY: the caller vouches for 32 writable bytes, aligned to as many.
        unsafe { _mm256_stream_si256(to.cast(), self.0) };
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn fence() {
        _mm_sfence();
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
    unsafe fn stream(self, to: *mut u8) {
        // SAFETY: the caller vouches for 32 writable bytes, aligned to as many.
        unsafe { _mm256_stream_si256(to.cast(), self.0) };
    }

    #[inline]
    #[target_feature(enable = "avx2,gfni")]
    unsafe fn fence() {
        _mm_sfence();
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
    unsafe fn stream(self, to: *mut u8) {
        // SAFETY: the caller vouches for 64 writable bytes, aligned to as many.
        unsafe { _mm512_stream_si512(to.cast(), self.0) };
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn fence() {
        _mm_sfence();
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
    unsafe fn stream(self, to: *mut u8) {
        // SAFETY: the caller vouches for 64 writable bytes, aligned to as many.
        unsafe { _mm512_stream_si512(to.cast(), self.0) };
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,gfni")]
    unsafe fn fence() {
        _mm_sfence();
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

/// The entry points: the loops, compiled for the instructions of one vector.
macro_rules! entry_points {
    ($($features:literal, $vector:ty, $pass:ident;)*) => {
        $(
            /// Carries out a pass. The processor must support the instructions.
            #[target_feature(enable = $features)]
            pub(super) unsafe fn $pass(pass: &mut Pass<'_, '_>) {
                // SAFETY: this function asks the same of its caller.
                unsafe { vector::pass::<$vector>(pass) };
            }
        )*
    };
}

entry_points! {
    "avx2", Avx2, pass_avx2;
    "avx2,gfni", Gfni256, pass_gfni256;
    "avx512f,avx512bw", Avx512, pass_avx512;
    "avx512f,avx512bw,gfni", Gfni, pass_gfni;
}

/// The size of the second-level cache, by the processor's own description: leaf 0x8000001d (AMD, "APM volume 3", E.4.15) or
/// 4 (Intel, "SDM volume 2A", CPUID). `None` if it does not tell.
pub(super) fn second_level_cache() -> Option<usize> {
    if cfg!(miri) {
        return None; // an interpreter has no processor to ask
    }
    let amd = __cpuid(0x8000_0000).eax >= 0x8000_001d && __cpuid(0x8000_0001).ecx >> 22 & 1 == 1;
    let leaf = if amd { 0x8000_001d } else { 4 };
    if __cpuid(0).eax < 4 && !amd {
        return None;
    }
    for index in 0..8 {
        let about = __cpuid_count(leaf, index);
        let (kind, level) = (about.eax & 0x1f, about.eax >> 5 & 7);
        if kind == 0 {
            break;
        }
        if level == 2 {
            let ways = (about.ebx >> 22) + 1;
            let partitions = (about.ebx >> 12 & 0x3ff) + 1;
            let line = (about.ebx & 0xfff) + 1;
            let sets = about.ecx + 1;
            return Some(ways as usize * partitions as usize * line as usize * sets as usize);
        }
    }
    None
}
