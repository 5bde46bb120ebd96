//! A guard against lost pages.
//!
//! A memory-mapped file can lose a page under the mapping: someone truncates it, the file system
//! has no space for a page of a sparse file, the disk below cannot read it. The next access raises
//! SIGBUS, which ends the process unless it is handled.
//!
//! The handler here looks the address up among the mappings that are watched. If it belongs to one,
//! the whole mapping is replaced by anonymous zero memory, so that the access goes on, and the
//! mapping is marked lost: whoever copied from or to it looks at the mark before it believes the
//! copy. Once lost a mapping stays lost. Any other fault goes to the handler that was there before.
//!
//! The handler takes no lock and allocates nothing: the mappings are in a static table of atomics.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering, compiler_fence};

/// How many mappings can be watched at once.
pub(super) const WATCHED_MAX: usize = 1024;

/// A mapping under guard. Drop it before the memory is unmapped.
#[derive(Debug)]
pub(super) struct Watch {
    entry: &'static Entry,
}

/// One place in the table. `version` is odd while `start` and `end` change.
#[derive(Debug)]
struct Entry {
    taken: AtomicBool,
    version: AtomicU32,
    start: AtomicUsize,
    end: AtomicUsize,
    lost: AtomicBool,
}

static TABLE: [Entry; WATCHED_MAX] = [const { Entry::free() }; WATCHED_MAX];

impl Watch {
    /// Watches the addresses of `range`: a mapping, page-aligned. `None` if the table is full.
    pub(super) fn new(range: Range<usize>) -> Option<Watch> {
        assert!(range.start > 0 && range.start < range.end, "{range:#x?} is no mapping");
        install();
        let claim =
            |entry: &&Entry| entry.taken.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok();
        let entry = TABLE.iter().find(claim)?;
        entry.lost.store(false, Ordering::SeqCst);
        entry.set(range);
        Some(Watch { entry })
    }

    /// Whether a page was lost. To be asked after each copy, on the thread that copied.
    pub(super) fn is_lost(&self) -> bool {
        // The handler runs on this thread, in the middle of the copy: the copy comes first.
        compiler_fence(Ordering::SeqCst);
        self.entry.lost.load(Ordering::SeqCst)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.entry.set(0..0);
        self.entry.taken.store(false, Ordering::Release);
    }
}

impl Entry {
    const fn free() -> Entry {
        Entry {
            taken: AtomicBool::new(false),
            version: AtomicU32::new(0),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            lost: AtomicBool::new(false),
        }
    }

    fn set(&self, range: Range<usize>) {
        self.version.fetch_add(1, Ordering::SeqCst);
        self.start.store(range.start, Ordering::SeqCst);
        self.end.store(range.end, Ordering::SeqCst);
        self.version.fetch_add(1, Ordering::SeqCst);
    }

    /// The range, unless it is changing: then nobody can be copying in it.
    fn range(&self) -> Option<Range<usize>> {
        let before = self.version.load(Ordering::SeqCst);
        let range = self.start.load(Ordering::SeqCst)..self.end.load(Ordering::SeqCst);
        let stable = before.is_multiple_of(2) && before == self.version.load(Ordering::SeqCst);
        stable.then_some(range)
    }
}

/// The action that was there before, written once before the handler is installed.
struct Previous(UnsafeCell<MaybeUninit<libc::sigaction>>);

// SAFETY: written once, by `install`, before the handler that reads it exists; never after.
unsafe impl Sync for Previous {}

static PREVIOUS: Previous = Previous(UnsafeCell::new(MaybeUninit::uninit()));

fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // SAFETY: `Once` makes this the only writer, and no handler reads yet. A null action only
        // asks for the present one.
        let asked = unsafe { libc::sigaction(libc::SIGBUS, std::ptr::null(), (*PREVIOUS.0.get()).as_mut_ptr()) };
        assert_eq!(asked, 0, "SIGBUS has an action");
        // SAFETY: a zeroed sigaction is a valid one: no flags, an empty mask.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_sigbus as *const () as usize;
        // On the alternate stack if the thread has one, as the standard library's handler.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: `on_sigbus` has the signature SA_SIGINFO asks for and is async-signal-safe.
        let set = unsafe { libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) };
        assert_eq!(set, 0, "SIGBUS can be handled");
    });
}

extern "C" fn on_sigbus(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes a valid siginfo; for a SIGBUS it raised itself
    // (a positive code) that holds an address.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    if code <= 0 || !replace_mapping(address) {
        forward(signal, info, context, code);
    }
}

/// Marks the watched mapping that holds `address` lost and puts zero memory in its place. False if
/// there is none, or no memory.
fn replace_mapping(address: usize) -> bool {
    for entry in &TABLE {
        let Some(range) = entry.range().filter(|range| range.contains(&address)) else { continue };
        // First the mark: whoever sees the zeroes must see it.
        entry.lost.store(true, Ordering::SeqCst);
        // SAFETY: errno is this thread's.
        let errno = unsafe { *libc::__errno_location() };
        // SAFETY: the range is a live mapping of ours (its watch is dropped before it is unmapped),
        // reached through raw pointers only; replacing it leaves every address in it valid.
        let replaced = unsafe {
            libc::mmap(
                range.start as *mut libc::c_void,
                range.len(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        // SAFETY: as above.
        unsafe { *libc::__errno_location() = errno };
        return replaced != libc::MAP_FAILED;
    }
    false
}

/// Does what would have happened without us.
fn forward(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void, code: libc::c_int) {
    // SAFETY: `install` wrote it before this handler was installed.
    let previous = unsafe { (*PREVIOUS.0.get()).assume_init_ref() };
    match previous.sa_sigaction {
        libc::SIG_IGN if code <= 0 => {}
        libc::SIG_DFL | libc::SIG_IGN => {
            // SAFETY: zeroed is a valid sigaction with SIG_DFL. The signal is blocked while we are
            // in its handler, so the raised one ends the process when we return.
            unsafe {
                let default: libc::sigaction = std::mem::zeroed();
                libc::sigaction(signal, &raw const default, std::ptr::null_mut());
                libc::raise(signal);
            }
        }
        handler if previous.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: whoever installed it with SA_SIGINFO promised this signature.
            unsafe {
                let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                    std::mem::transmute(handler);
                handler(signal, info, context);
            }
        }
        handler => {
            // SAFETY: whoever installed it without SA_SIGINFO promised this signature.
            unsafe {
                let handler: extern "C" fn(libc::c_int) = std::mem::transmute(handler);
                handler(signal);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use memmap2::MmapOptions;

    use super::*;

    /// A file mapped and then emptied: its first byte is lost.
    fn emptied() -> memmap2::MmapRaw {
        let file = tempfile::tempfile().unwrap();
        file.set_len(8192).unwrap();
        let map = MmapOptions::new().map_raw(&file).unwrap();
        file.set_len(0).unwrap();
        map
    }

    fn first_byte(map: &memmap2::MmapRaw) -> u8 {
        // SAFETY: within the mapping; a fault is what the test is about.
        unsafe { map.as_ptr().read_volatile() }
    }

    #[test]
    fn a_lost_page_reads_zero_and_marks_its_mapping_alone() {
        let (lost, well) = (emptied(), emptied());
        let watch = |map: &memmap2::MmapRaw| Watch::new(map.as_ptr() as usize..map.as_ptr() as usize + map.len());
        let (lost_watch, well_watch) = (watch(&lost).unwrap(), watch(&well).unwrap());
        assert_eq!(first_byte(&lost), 0);
        assert!(lost_watch.is_lost() && !well_watch.is_lost());
    }

    /// A fault outside our mappings is not ours to hide: the test runs itself again in a child,
    /// which has such a fault and must end by it.
    #[test]
    fn a_fault_elsewhere_still_ends_the_process() {
        const CHILD: &str = "RAIDLAB_TEST_SIGBUS";
        if std::env::var_os(CHILD).is_some() {
            let (ours, foreign) = (emptied(), emptied());
            let _watch = Watch::new(ours.as_ptr() as usize..ours.as_ptr() as usize + ours.len()).unwrap();
            first_byte(&ours);
            first_byte(&foreign);
            return;
        }
        let name = "disk::sigbus::tests::a_fault_elsewhere_still_ends_the_process";
        let mut child = Command::new(std::env::current_exe().unwrap());
        let output = child.args([name, "--exact", "--nocapture"]).env(CHILD, "1").output().unwrap();
        assert_eq!(output.status.signal(), Some(libc::SIGBUS), "{output:?}");
    }
}
