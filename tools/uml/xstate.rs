//! Loaded before the C library of user-mode Linux (`LD_PRELOAD`), for processors whose floating-point state
//! has grown past what that kernel was built for, as AMX's tiles did.
//!
//! User-mode Linux sets the registers of its processes by `ptrace(PTRACE_SETREGSET, …, NT_X86_XSTATE)` with the
//! state it knows, up to AVX-512. The host takes the whole state or none of it (`EFAULT`, on which the kernel
//! panics before its first process runs), so zeros are put behind: no process asks for tiles, as its kernel
//! knows of none.

#![no_std]

use core::ffi::{c_char, c_int, c_long, c_void};

const PTRACE_GETREGSET: c_long = 0x4204;
const PTRACE_SETREGSET: c_long = 0x4205;
const NT_X86_XSTATE: usize = 0x202;
const RTLD_NEXT: *mut c_void = -1isize as *mut c_void;
/// More than any processor has: 11,008 bytes with AMX.
const ROOM: usize = 16384;

type Ptrace = unsafe extern "C" fn(c_long, c_int, usize, *mut c_void) -> c_long;

#[repr(C)]
struct Iovec {
    base: *mut u8,
    len: usize,
}

#[repr(C, align(64))]
struct State([u8; ROOM]);

/// Not on the stack: the caller's are those of a kernel, and too small. The kernel has one processor and is not
/// preempted here.
static mut STATE: State = State([0; ROOM]);
/// What the host calls the whole state, in bytes; 0 before it was asked.
static mut WHOLE: usize = 0;

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, symbol: *const c_char) -> *mut c_void;
}

/// The C library's function, which takes its arguments in the same registers.
///
/// # Safety
/// As for ptrace(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ptrace(request: c_long, pid: c_int, addr: usize, data: *mut c_void) -> c_long {
    // SAFETY: the next library with this symbol is the C library, whose ptrace this is.
    let next: Ptrace = unsafe { core::mem::transmute(dlsym(RTLD_NEXT, c"ptrace".as_ptr())) };
    if request == PTRACE_SETREGSET && addr == NT_X86_XSTATE {
        // SAFETY: with this request `data` is an iovec of the caller's; `iovec` is one of ours, over STATE.
        unsafe {
            let given = &*data.cast::<Iovec>();
            let mut iovec = Iovec { base: (&raw mut STATE).cast(), len: ROOM };
            if WHOLE == 0 && next(PTRACE_GETREGSET, pid, addr, (&raw mut iovec).cast()) == 0 {
                WHOLE = iovec.len;
                iovec.base.write_bytes(0, ROOM);
            }
            if given.len < WHOLE && WHOLE < ROOM {
                iovec.len = WHOLE;
                iovec.base.copy_from_nonoverlapping(given.base, given.len);
                return next(request, pid, addr, (&raw mut iovec).cast());
            }
        }
    }
    // SAFETY: as the caller's.
    unsafe { next(request, pid, addr, data) }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
