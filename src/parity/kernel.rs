//! The choice of a kernel.
//!
//! What a processor can do is known only at run time. The best kernel it supports is taken, unless the
//! environment names another.

use std::fmt;
use std::sync::OnceLock;

#[cfg(target_arch = "aarch64")]
use super::neon;
#[cfg(target_arch = "x86_64")]
use super::x86;
use super::{naive, portable};

/// The environment variable that names the kernel to use.
pub const KERNEL_VARIABLE: &str = "RAIDLAB_PARITY";

/// Sources taken in one pass: few enough for the processor to follow all their streams, and for a
/// kernel to have a loop made for each number.
pub(super) const PASS_SOURCES: usize = 8;

/// The same where there is no Q: short sources of a plain sum.
pub(super) const PASS_SUMMANDS: usize = 16;

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
    #[cfg(target_arch = "aarch64")]
    Neon,
}

/// Every name there is on any processor, slowest first.
const NAMES: [&str; 7] = ["naive", "portable", "neon", "avx2", "gfni256", "avx512", "gfni"];

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
            #[cfg(target_arch = "aarch64")]
            Kind::Neon,
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
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => "neon",
        }
    }

    /// The bytes a computation may touch before what it makes is better written past the caches: those of the second
    /// level, which is the last one that a core has for itself. Where the processor does not tell, 1 MiB.
    pub(super) fn cached_bytes() -> usize {
        static CACHED: OnceLock<usize> = OnceLock::new();
        #[cfg(target_arch = "x86_64")]
        let told = x86::second_level_cache;
        #[cfg(not(target_arch = "x86_64"))]
        let told = || None;
        *CACHED.get_or_init(|| told().unwrap_or(1 << 20))
    }

    /// Carries out one pass.
    pub(super) fn pass(self, mut pass: Pass<'_, '_>) {
        pass.check();
        if pass.sources.is_empty() {
            assert!(pass.solve.is_none(), "two unknowns of nothing known");
            return pass.prepare();
        }
        let pass = &mut pass;
        match self.0 {
            Kind::Naive => naive::pass(pass),
            Kind::Portable => portable::pass(pass),
            // SAFETY: the value exists, so the processor supports these instructions; lengths were checked above.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { x86::pass_avx2(pass) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Kind::Gfni256 => unsafe { x86::pass_gfni256(pass) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => unsafe { x86::pass_avx512(pass) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Kind::Gfni => unsafe { x86::pass_gfni(pass) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => unsafe { neon::pass(pass) },
        }
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
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => std::arch::is_aarch64_feature_detected!("neon"),
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

/// One pass: P, or Q, or both, over a few sources. All slices are of one length.
pub(super) struct Pass<'a, 'o> {
    /// Becomes (or gains) the sum of the sources.
    pub p: Option<&'o mut [u8]>,
    /// Becomes (or gains) their weighted sum.
    pub q: Option<&'o mut [u8]>,
    /// Up to [`PASS_SOURCES`], or [`PASS_SUMMANDS`] where there is no Q.
    pub sources: &'a [&'a [u8]],
    /// What the sources are multiplied by in Q.
    pub weights: Weights<'a>,
    /// What the sums begin with.
    pub start: Start<'a>,
    /// What is done to both sums at last.
    pub solve: Option<Solve<'a>>,
    /// The outputs are too large to stay in the caches: they may be written past them.
    pub streamed: bool,
}

/// What the sums of a pass begin with.
#[derive(Clone, Copy, Debug)]
pub(super) enum Start<'a> {
    /// Nothing: what is in the outputs is of no worth.
    Zero,
    /// What is in the outputs.
    Kept,
    /// Sums kept elsewhere; one that is not asked for is empty.
    From {
        /// For P.
        p: &'a [u8],
        /// For Q.
        q: &'a [u8],
    },
}

/// What the sources of a pass are multiplied by in Q.
#[derive(Clone, Copy, Debug)]
pub(super) enum Weights<'a> {
    /// Horner's rule: before each source is added, the sum is doubled. The last source is multiplied by 1.
    Doubling,
    /// One factor for each source.
    Factors(&'a [u8]),
}

/// The last step to two unknowns, from the sums over what is known: P gains `p`, Q gains `q`; Q becomes
/// `of_p` · P + `of_q` · Q; P gains that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Solve<'a> {
    /// As stored.
    pub p: &'a [u8],
    /// As stored.
    pub q: &'a [u8],
    /// A factor.
    pub of_p: u8,
    /// A factor.
    pub of_q: u8,
}

impl<'a> Solve<'a> {
    /// The same for a part of the bytes.
    pub fn cut(self, range: std::ops::Range<usize>) -> Solve<'a> {
        Solve { p: &self.p[range.clone()], q: &self.q[range], ..self }
    }
}

impl Start<'_> {
    /// The same for a part of the bytes.
    pub fn cut(&self, range: std::ops::Range<usize>) -> Start<'_> {
        let part = |base: &'_ [u8]| if base.is_empty() { 0..0 } else { range.clone() };
        match *self {
            Start::From { p, q } => Start::From { p: &p[part(p)], q: &q[part(q)] },
            Start::Zero => Start::Zero,
            Start::Kept => Start::Kept,
        }
    }
}

impl Pass<'_, '_> {
    /// Bytes of every slice.
    pub fn length(&self) -> usize {
        self.p.as_ref().or(self.q.as_ref()).map_or(0, |out| out.len())
    }

    /// Puts into the outputs what the sums begin with.
    pub fn prepare(&mut self) {
        for (out, from) in [(&mut self.p, true), (&mut self.q, false)] {
            let Some(out) = out else { continue };
            match self.start {
                Start::Zero => out.fill(0),
                Start::Kept => {}
                Start::From { p, q } => out.copy_from_slice(if from { p } else { q }),
            }
        }
    }

    /// Has `rest` do what lies from byte `at` on.
    pub fn tail(&mut self, at: usize, rest: fn(&mut Pass<'_, '_>)) {
        let mut tails = [&[][..]; PASS_SUMMANDS];
        for (tail, source) in tails.iter_mut().zip(self.sources) {
            *tail = &source[at..];
        }
        let length = self.length();
        rest(&mut Pass {
            p: self.p.as_deref_mut().map(|p| &mut p[at..]),
            q: self.q.as_deref_mut().map(|q| &mut q[at..]),
            sources: &tails[..self.sources.len()],
            weights: self.weights,
            start: self.start.cut(at..length),
            solve: self.solve.map(|solve| solve.cut(at..length)),
            streamed: self.streamed,
        });
    }

    fn check(&self) {
        let length = self.length();
        let most = if self.q.is_some() { PASS_SOURCES } else { PASS_SUMMANDS };
        assert!(self.sources.len() <= most, "{} sources in one pass", self.sources.len());
        for source in self.sources {
            assert_eq!(source.len(), length, "a source of another length");
        }
        if let (Some(p), Some(q)) = (&self.p, &self.q) {
            assert_eq!(p.len(), q.len(), "P and Q of different lengths");
        }
        if let Weights::Factors(factors) = self.weights {
            assert_eq!(factors.len(), self.sources.len(), "a factor for each source");
        }
        if let Some(solve) = &self.solve {
            assert!(solve.p.len() == length && solve.q.len() == length, "P and Q of other lengths");
            assert!(self.p.is_some() && self.q.is_some(), "two unknowns have two outputs");
        }
        if let Start::From { p, q } = self.start {
            assert!(self.p.is_none() || p.len() == length, "a sum of another length to begin with");
            assert!(self.q.is_none() || q.len() == length, "a sum of another length to begin with");
        }
    }
}
