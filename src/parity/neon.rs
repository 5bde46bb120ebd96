//! Vectors of AArch64: NEON (Advanced SIMD), which every such processor has.
//!
//! A product with a constant is the sum of the products of the two halves of the byte, each from a table of 16 that
//! `tbl` looks up. There is no store past the caches that takes one register; a pair of them (`stnp`) has no intrinsic.

use std::arch::aarch64::*;

use super::gf::{self, HALVES};
use super::kernel::Pass;
use super::vector::{self, Vector};

#[derive(Clone, Copy)]
struct Neon(uint8x16_t);

impl Vector for Neon {
    const BYTES: usize = 16;
    type Factor = (uint8x16_t, uint8x16_t);

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: the caller vouches for 16 readable bytes.
        Neon(unsafe { vld1q_u8(from) })
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: the caller vouches for 16 writable bytes.
        unsafe { vst1q_u8(to, self.0) };
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn stream(self, to: *mut u8) {
        // SAFETY: as for `store`.
        unsafe { self.store(to) };
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn fence() {}

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn add(self, other: Self) -> Self {
        Neon(veorq_u8(self.0, other.0))
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn double(self) -> Self {
        let carries = vcltzq_s8(vreinterpretq_s8_u8(self.0));
        let reduction = vandq_u8(carries, vdupq_n_u8(gf::REDUCTION));
        Neon(veorq_u8(vshlq_n_u8::<1>(self.0), reduction))
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn factor(factor: u8) -> Self::Factor {
        let table = HALVES[factor as usize].as_ptr();
        // SAFETY: a table is 32 bytes.
        unsafe { (vld1q_u8(table), vld1q_u8(table.add(16))) }
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn multiply(self, (low, high): Self::Factor) -> Self {
        let of_low = vqtbl1q_u8(low, vandq_u8(self.0, vdupq_n_u8(0x0f)));
        let of_high = vqtbl1q_u8(high, vshrq_n_u8::<4>(self.0));
        Neon(veorq_u8(of_low, of_high))
    }
}

/// Carries out a pass. The processor must have NEON.
#[target_feature(enable = "neon")]
pub(super) unsafe fn pass(pass: &mut Pass<'_, '_>) {
    // SAFETY: this function asks the same of its caller.
    unsafe { vector::pass::<Neon>(pass) };
}
