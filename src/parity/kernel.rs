//! The choice of a kernel.
//!
//! What a processor can do is known only at run time. The best kernel it supports is taken, unless the
//! environment names another.

use std::fmt;
use std::sync::OnceLock;

use super::{naive, portable};

/// The environment variable that names the kernel to use.
pub const KERNEL_VARIABLE: &str = "RAIDLAB_PARITY";

/// Sources taken in one pass: few enough for the processor to follow all their streams, and for a
/// kernel to have a loop made for each number.
pub(super) const PASS_SOURCES: usize = 8;

/// The bytes of each source worked on before the next pass begins, where there are several: the
/// outputs stay in the first cache.
pub(super) const TILE_BYTES: usize = 4096;

/// A way to compute parity. That a value exists means that this processor supports it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Kernel(Kind);

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Kind {
    Naive,
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Gfni256,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Gfni,
}

/// Every name there is on any processor, slowest first.
const NAMES: [&str; 6] = ["naive", "portable", "avx2", "gfni256", "avx512", "gfni"];

/// A kernel was asked for by a name that cannot be followed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KernelError {
    /// No kernel has this name.
    #[error("there is no parity kernel {name:?}; there are {}", NAMES.join(", "))]
    Unknown {
        /// The name asked for.
        name: String,
    },
    /// This processor lacks the instructions for it.
    #[error("this processor does not support the parity kernel {name:?}; it supports {}", supported_names())]
    Unsupported {
        /// The name asked for.
        name: String,
    },
}

fn supported_names() -> String {
    Kernel::all_supported().map(Kernel::name).collect::<Vec<_>>().join(", ")
}

impl Kernel {
    /// The reference: obvious, slow, on every processor.
    pub const NAIVE: Kernel = Kernel(Kind::Naive);

    /// Plain loops, on every processor.
    pub const PORTABLE: Kernel = Kernel(Kind::Portable);

    /// Every kernel this processor supports, slowest first.
    pub fn all_supported() -> impl DoubleEndedIterator<Item = Kernel> {
        let all = [
            Kind::Naive,
            Kind::Portable,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2,
            #[cfg(target_arch = "x86_64")]
            Kind::Gfni256,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512,
            #[cfg(target_arch = "x86_64")]
            Kind::Gfni,
        ];
        all.into_iter().filter(|kind| kind.is_supported()).map(Kernel)
    }

    /// The fastest this processor supports.
    pub fn best() -> Kernel {
        Kernel::all_supported().next_back().expect("the naive kernel is always supported")
    }

    /// The kernel with this name, as [`Kernel::name`] gives it.
    pub fn named(name: &str) -> Result<Kernel, KernelError> {
        match Kernel::all_supported().find(|kernel| kernel.name() == name) {
            Some(kernel) => Ok(kernel),
            None if NAMES.contains(&name) => Err(KernelError::Unsupported { name: name.to_owned() }),
            None => Err(KernelError::Unknown { name: name.to_owned() }),
        }
    }

    /// The kernel that [`KERNEL_VARIABLE`] names; the best where it is not set or empty.
    pub fn from_env() -> Result<Kernel, KernelError> {
        match std::env::var_os(KERNEL_VARIABLE) {
            Some(name) if !name.is_empty() => Kernel::named(&name.to_string_lossy()),
            _ => Ok(Kernel::best()),
        }
    }

    /// The kernel this process uses: that of [`Kernel::from_env`] on the first call, the best where that is an error.
    pub fn current() -> Kernel {
        static CURRENT: OnceLock<Kernel> = OnceLock::new();
        *CURRENT.get_or_init(|| Kernel::from_env().unwrap_or_else(|_| Kernel::best()))
    }

    /// The name by which [`KERNEL_VARIABLE`] asks for it.
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Naive => "naive",
            Kind::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Gfni256 => "gfni256",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Kind::Gfni => "gfni",
        }
    }

    /// One pass of P: `out` becomes (or gains) the sum of up to [`PASS_SOURCES`] sources of its length.
    pub(super) fn sum(self, out: &mut [u8], sources: &[&[u8]], start: Start) {
        if sources.is_empty() {
            return start.prepare(out);
        }
        check(out.len(), sources);
        match self.0 {
            Kind::Naive => naive::sum(out, sources, start),
            Kind::Portable => portable::sum(out, sources, start),
            // SAFETY: the value exists, so the processor supports these instructions; lengths were checked above.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 | Kind::Gfni256 => unsafe { super::x86::sum_avx2(out, sources, start) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 | Kind::Gfni => unsafe { super::x86::sum_avx512(out, sources, start) },
        }
    }

    /// One pass of Q, and of P where it is asked for, over up to [`PASS_SOURCES`] sources of its length.
    pub(super) fn weigh(
        self,
        p: Option<&mut [u8]>,
        q: &mut [u8],
        sources: &[&[u8]],
        weights: Weights<'_>,
        start: Start,
    ) {
        if sources.is_empty() {
            p.into_iter().for_each(|p| start.prepare(p));
            return start.prepare(q);
        }
        check(q.len(), sources);
        assert!(p.as_ref().is_none_or(|p| p.len() == q.len()), "P and Q of different lengths");
        if let Weights::Factors(factors) = weights {
            assert_eq!(factors.len(), sources.len(), "a factor for each source");
        }
        match self.0 {
            Kind::Naive => naive::weigh(p, q, sources, weights, start),
            Kind::Portable => portable::weigh(p, q, sources, weights, start),
            // SAFETY: the value exists, so the processor supports these instructions; lengths were checked above.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { super::x86::weigh_avx2(p, q, sources, weights, start) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Kind::Gfni256 => unsafe { super::x86::weigh_gfni256(p, q, sources, weights, start) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => unsafe { super::x86::weigh_avx512(p, q, sources, weights, start) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Kind::Gfni => unsafe { super::x86::weigh_gfni(p, q, sources, weights, start) },
        }
    }
}

fn check(length: usize, sources: &[&[u8]]) {
    assert!(sources.len() <= PASS_SOURCES, "{} sources in one pass", sources.len());
    for source in sources {
        assert_eq!(source.len(), length, "a source of another length");
    }
}

impl Kind {
    fn is_supported(self) -> bool {
        match self {
            Kind::Naive | Kind::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => is_x86_feature_detected!("avx2"),
            #[cfg(target_arch = "x86_64")]
            Kind::Gfni256 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("gfni"),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw"),
            #[cfg(target_arch = "x86_64")]
            Kind::Gfni => Kind::Avx512.is_supported() && is_x86_feature_detected!("gfni"),
        }
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a pass finds in its output.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Start {
    /// Nothing of worth: the sum begins at zero.
    Zero,
    /// A sum to go on from.
    Kept,
}

impl Start {
    /// What the sum begins with where `byte` is in the output.
    pub(super) fn of(self, byte: u8) -> u8 {
        match self {
            Start::Zero => 0,
            Start::Kept => byte,
        }
    }

    /// Puts into `out` what the sum begins with.
    pub(super) fn prepare(self, out: &mut [u8]) {
        if self == Start::Zero {
            out.fill(0);
        }
    }
}

/// What the sources of a pass are multiplied by in Q.
#[derive(Clone, Copy, Debug)]
pub(super) enum Weights<'a> {
    /// Horner's rule: before each source is added, the sum is doubled. The last source is multiplied by 1.
    Doubling,
    /// One factor for each source.
    Factors(&'a [u8]),
}
