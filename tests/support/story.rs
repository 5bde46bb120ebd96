//! A story is a test with a sentence for a name, the tools it needs, and perhaps a sample to draw from.

use std::panic::{AssertUnwindSafe, catch_unwind};

use libtest_mimic::{Failed, Trial};

use super::sample::{self, Sample};
use super::tools;

/// A story that is yet to be told.
pub struct Story {
    name: &'static str,
    needs: Vec<&'static str>,
    obstacle: Option<&'static str>,
}

/// A story called `name`: its module, `::`, and the sentence it shows to be true.
pub fn story(name: &'static str) -> Story {
    Story { name, needs: Vec::new(), obstacle: None }
}

impl Story {
    /// It calls these programs of `tools/packages.txt`.
    pub fn needs(mut self, programs: &[&'static str]) -> Story {
        self.needs.extend(programs);
        self
    }

    /// It can be told only where `condition` holds; elsewhere it is ignored, for the reason `why`.
    pub fn only_if(mut self, condition: bool, why: &'static str) -> Story {
        self.obstacle = self.obstacle.or((!condition).then_some(why));
        self
    }

    /// It is told by `tell`, which panics where the sentence is not true.
    pub fn told_by(self, tell: impl FnOnce() + Send + 'static) -> Trial {
        let name = self.name;
        self.trial(tell, move || format!("cargo test --test stories -- --exact '{name}'"))
    }

    /// It is told by `tell` on the cases it draws.
    pub fn sampled_by(self, tell: impl FnOnce(Sample) + Send + 'static) -> Trial {
        let name = self.name;
        self.trial(
            move || tell(Sample::of(name)),
            move || {
                let full = if sample::is_full() { "RAIDLAB_FULL=1 " } else { "" };
                let seed = sample::seed();
                format!("{full}RAIDLAB_SEED={seed} cargo test --test stories -- --exact '{name}'")
            },
        )
    }

    fn trial(self, tell: impl FnOnce() + Send + 'static, replay: impl FnOnce() -> String + Send + 'static) -> Trial {
        if let Some(why) = self.obstacle {
            return Trial::test(self.name, || Ok(())).with_ignored_flag(true).with_kind(why);
        }
        let missing = tools::missing(&self.needs);
        let install = format!("apt-get install {}", missing.join(" "));
        if missing.is_empty() {
            return Trial::test(self.name, move || {
                catch_unwind(AssertUnwindSafe(tell)).map_err(|panic| {
                    let message = panic.downcast_ref::<String>().cloned();
                    let message = message.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
                    Failed::from(format!("{}\nagain: {}", message.unwrap_or_default(), replay()))
                })
            });
        }
        if tools::required() {
            return Trial::test(self.name, move || Err(Failed::from(install)));
        }
        Trial::test(self.name, || Ok(())).with_ignored_flag(true).with_kind(install)
    }
}
