//! ISA-L, Intel's library of storage kernels, where it is installed: the parity of others.
//!
//! It is found at run time under the name it has on Linux, and never needed. Signatures: `raid.h` of ISA-L 2.30.

use std::ffi::{c_int, c_void};

use libloading::Library;

/// The most sources of a call here.
pub(super) const SOURCES_MAX: usize = 16;

/// `int xor_gen(int vects, int len, void **array)`: the last of `vects` buffers becomes the XOR of the others. All are
/// aligned to 32 bytes. `pq_gen` is the same with P and Q in the last two, and `len` a multiple of 32.
type Gen = unsafe extern "C" fn(c_int, c_int, *mut *mut c_void) -> c_int;

/// The library, loaded.
pub(super) struct Isal {
    xor_gen: Gen,
    pq_gen: Gen,
    /// Keeps the functions where they are.
    _library: Library,
}

impl Isal {
    /// Loads it.
    ///
    /// # Errors
    /// In words, if it is not there.
    pub(super) fn load() -> Result<Isal, String> {
        let absent = |error: libloading::Error| format!("ISA-L is not there ({error}); Debian has it as libisal2");
        // SAFETY: the library runs nothing when it is loaded but its choice of functions, and its two functions have the
        // signatures of its header.
        unsafe {
            let library = Library::new("libisal.so.2").map_err(absent)?;
            let xor_gen = *library.get::<Gen>(b"xor_gen\0").map_err(absent)?;
            let pq_gen = *library.get::<Gen>(b"pq_gen\0").map_err(absent)?;
            Ok(Isal { xor_gen, pq_gen, _library: library })
        }
    }

    /// P of the sources.
    pub(super) fn xor(&self, p: &mut [u8], sources: &[&[u8]]) {
        call(self.xor_gen, sources, &mut [p]);
    }

    /// P and Q of the sources, the exponents of which are their places.
    pub(super) fn pq(&self, p: &mut [u8], q: &mut [u8], sources: &[&[u8]]) {
        call(self.pq_gen, sources, &mut [p, q]);
    }
}

fn call(function: Gen, sources: &[&[u8]], outputs: &mut [&mut [u8]]) {
    let mut buffers = [std::ptr::null_mut(); SOURCES_MAX + 2];
    let length = outputs[0].len();
    assert!(sources.len() <= SOURCES_MAX && length.is_multiple_of(32));
    for (buffer, source) in buffers.iter_mut().zip(sources) {
        assert!(source.len() == length && source.as_ptr().addr().is_multiple_of(32));
        *buffer = source.as_ptr().cast_mut().cast();
    }
    let count = sources.len() + outputs.len();
    for (buffer, output) in buffers[sources.len()..].iter_mut().zip(outputs) {
        assert!(output.len() == length && output.as_ptr().addr().is_multiple_of(32));
        *buffer = output.as_mut_ptr().cast();
    }
    // SAFETY: `count` buffers of `length` bytes, aligned as asked for; the sources are only read.
    let refused = unsafe { function(count as c_int, length as c_int, buffers.as_mut_ptr()) };
    assert_eq!(refused, 0, "ISA-L takes {count} buffers of {length} bytes");
}
