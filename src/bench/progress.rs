//! The line on the terminal while a benchmark runs.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Step;

/// A bar with the step and an estimate of the time left, on standard error, where that is a
/// terminal; nothing elsewhere. Gone when dropped.
#[derive(Debug)]
pub struct ProgressLine {
    bar: ProgressBar,
}

/// The bar counts in thousandths of the planned time.
const WHOLE: u64 = 1000;

impl ProgressLine {
    /// A line that is drawn if `shown` and standard error is a terminal.
    pub fn new(shown: bool) -> ProgressLine {
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(WHOLE), target);
        let style = ProgressStyle::with_template("[{bar:24}] {percent:>3}%  eta {eta}  {msg}")
            .expect("the template is well formed")
            .progress_chars("=>.");
        bar.set_style(style);
        ProgressLine { bar }
    }

    /// Draws a step.
    pub fn step(&self, step: &Step) {
        self.bar.set_position((step.done * WHOLE as f64) as u64);
        self.bar.set_message(step.what.clone());
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
