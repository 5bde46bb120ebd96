//! P and Q over byte slices.
//!
//! RAID5 adds one column to a stripe: P, the XOR of its data. Any one lost column is the XOR of the
//! rest. RAID6 adds a second, independent sum: bytes are taken as elements of the field GF(2^8) with
//! the polynomial x^8 + x^4 + x^3 + x^2 + 1 (0x11d) and the generator 2, and Q = Σ 2^e · D, where
//! every data column has an exponent e of its own. Two equations give back any two lost columns.
//! (H. P. Anvin, "The mathematics of RAID-6".)
//!
//! Addition is XOR; so subtraction is too, and a parity is brought up to date by adding what the data
//! was and what it is now. The exponent of a column is *not* its number: most md layouts count
//! from the disk after Q, the DDF layouts by disk, skipping the places of P and Q. Geometry says
//! which; here an exponent is just given.
//!
//! All work is done by a [`Kernel`]: the obvious one in tables, kept for ever as the reference, a
//! portable one, and those for the vector instructions of x86-64 and of AArch64. They differ in speed alone.

mod encode;
mod gf;
mod kernel;
mod naive;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
mod recover;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod vector;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use encode::Column;
pub use kernel::{KERNEL_VARIABLE, Kernel, KernelError};
pub use recover::{Culprit, locate};

#[cfg(test)]
mod tests;
