//! Any text is one scenario or a list of mistakes, and a scenario is read back as it was written.

#![no_main]

use layermesh_sim::scenario::Scenario;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match Scenario::parse("fuzzed", text) {
        Ok(scenario) => assert_eq!(Scenario::parse("fuzzed", &scenario.to_toml()), Ok(scenario)),
        Err(mistakes) => assert!(!mistakes.to_string().is_empty()),
    }
});
