//! The threads that live lives, and the one that hears of them.

use std::cell::{Cell, RefCell};
use std::panic::{set_hook, take_hook};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use indicatif::ProgressBar;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag::{register, register_conditional_shutdown};

use crate::cli::Failure;

/// How often the bar is drawn when nothing is heard.
const TICK: Duration = Duration::from_millis(200);

/// Lets `jobs` threads `live`, as many as there are cores if nothing else was asked for, and `hear`s here what they
/// send. Where hearing fails, there is `enough`.
pub(super) fn work<T: Send>(
    jobs: Option<u32>,
    bar: &ProgressBar,
    enough: &AtomicBool,
    live: impl Fn(&Sender<T>) + Sync,
    mut hear: impl FnMut(T) -> Result<(), Failure>,
) -> Result<(), Failure> {
    silence_panics_of_lives();
    let cores = || thread::available_parallelism().map_or(1, usize::from);
    let jobs = jobs.map_or_else(cores, |jobs| jobs as usize);
    thread::scope(|scope| {
        let (send, receive) = channel();
        for _ in 0..jobs {
            let (send, live) = (send.clone(), &live);
            scope.spawn(move || live(&send));
        }
        drop(send);
        loop {
            match receive.recv_timeout(TICK) {
                Ok(heard) => hear(heard).inspect_err(|_| enough.store(true, Ordering::Relaxed))?,
                Err(RecvTimeoutError::Timeout) => bar.tick(),
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    })
}

/// Set by the first Ctrl-C or SIGTERM; lives that are under way come to their end. The second one ends the program.
pub(super) fn stop_flag() -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        let registered = register_conditional_shutdown(signal, 4, Arc::clone(&flag));
        registered.and_then(|_| register(signal, Arc::clone(&flag))).expect("these signals can be caught");
    }
    flag
}

/// Microseconds, for sums.
pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

thread_local! {
    static IN_LIFE: Cell<bool> = const { Cell::new(false) };
    /// Where this thread's last panic in a life came from.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Lives a life; where it panicked, if it did.
pub(super) fn in_life<T>(life: impl FnOnce() -> T) -> (T, Option<String>) {
    IN_LIFE.set(true);
    let lived = life();
    IN_LIFE.set(false);
    (lived, PLACE.take())
}

/// A panic in a life is a finding, told like every other.
fn silence_panics_of_lives() {
    let before = take_hook();
    set_hook(Box::new(move |panic| {
        if IN_LIFE.get() {
            PLACE.set(panic.location().map(|place| format!("{}:{}", place.file(), place.line())));
        } else {
            before(panic);
        }
    }));
}
