//! All targets of the node in one program, since each would be a hundred megabytes: `LAYERMESH_FUZZ_TARGET` names the one
//! that is meant. What each is given and what must hold is in `layermesh::fuzzing`.

#![no_main]

use std::sync::OnceLock;

use layermesh::fuzzing::{TARGETS, Target, target};
use libfuzzer_sys::fuzz_target;

static CHOSEN: OnceLock<Target> = OnceLock::new();

fn choose() -> Target {
    let name = std::env::var("LAYERMESH_FUZZ_TARGET").unwrap_or_default();
    target(&name).unwrap_or_else(|| {
        let known: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
        panic!("`{name}` is no target; set LAYERMESH_FUZZ_TARGET to one of {}", known.join(", "))
    })
}

fuzz_target!(|bytes: &[u8]| CHOSEN.get_or_init(choose)(bytes));
