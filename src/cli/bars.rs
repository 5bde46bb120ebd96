//! Progress of long work, for a person who waits: on standard error, and on a terminal only.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output;
use crate::block::Sectors;

/// One line: what is being done, how far it is, how fast, how long it will take. Gone when dropped.
pub struct Bar {
    line: ProgressBar,
}

impl Bar {
    /// A bar for work on `total` sectors, named by a word (`recovery`); none is drawn when `quiet`, or
    /// when standard error is not a terminal.
    pub fn new(what: &str, total: Sectors, quiet: bool) -> Bar {
        let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let template = "{msg} [{bar:30}] {percent}%  {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left";
        let style = ProgressStyle::with_template(template).expect("the template is one");
        let style = style.progress_chars(if output::is_utf8() { "█▉▊▋▌▍▎▏ " } else { "=> " });
        let line =
            ProgressBar::with_draw_target(Some(total.bytes()), target).with_style(style).with_message(what.to_owned());
        Bar { line }
    }

    /// So much is done by now.
    pub fn set(&self, done: Sectors) {
        self.line.set_position(done.bytes());
    }

    /// Writes a line above the bar, to standard error.
    pub fn note(&self, line: &str) {
        self.line.suspend(|| anstream::eprintln!("{line}"));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.line.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_bar_counts_and_draws_nothing() {
        let bar = Bar::new("recovery", Sectors(100), true);
        bar.set(Sectors(50));
        assert!(bar.line.is_hidden());
        assert_eq!(bar.line.position(), 25600);
    }
}
