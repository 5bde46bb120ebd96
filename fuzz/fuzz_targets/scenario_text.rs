//! Any text is an error or a scenario that is read back from its own text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use raidlab::sim::Scenario;

fuzz_target!(|text: &str| {
    match Scenario::parse(text) {
        Ok(scenario) => {
            let again = Scenario::parse(&scenario.to_toml());
            assert_eq!(again.as_ref().ok(), Some(&scenario), "{again:?}");
        }
        Err(error) => drop(error.to_string()),
    }
});
