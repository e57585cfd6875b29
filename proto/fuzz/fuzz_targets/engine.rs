//! Any bytes draw a story of events: the engine keeps its word and its limits, and ends what was begun.

#![no_main]

use layermesh_proto::engine::model::{drawn, run};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let (uplink, story) = drawn(bytes);
    run(uplink, story);
});
