//! One malloc arena for all threads of a node.
//!
//! glibc gives each thread an arena of its own, up to eight for each processor, and much of what is freed in one stays
//! with the process. Pieces of a mebibyte pass through all of a node's threads, so a node that uses 8 MiB at most while
//! a large layer lands had 20 to 46 MiB of its own resident, and most of it afterwards too (docs/benchmarks.md). With
//! one arena it has those 8 MiB.
//!
//! glibc is told so in its environment, when a process starts. Its other way, `mallopt`, is a foreign call, and
//! `unsafe` is forbidden here. Other C libraries have no such arenas.

use std::{env, os::unix::process::CommandExt as _, process::Command};

/// How many arenas glibc makes at most (mallopt(3)).
const ARENAS_MAX: &str = "MALLOC_ARENA_MAX";

/// Starts the program again, in the same process and with the same arguments, unless its environment says already how
/// many arenas there shall be. Returns if there is nothing to do or it cannot be done: a node works either way.
pub(super) fn start_with_one() {
    if cfg!(target_env = "gnu") && env::var_os(ARENAS_MAX).is_none() {
        let _ = again();
    }
}

/// Returns only after a failure.
fn again() -> std::io::Error {
    let program = match env::current_exe() {
        Ok(program) => program,
        Err(error) => return error,
    };
    let mut arguments = env::args_os();
    let mut command = Command::new(program);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command.args(arguments).env(ARENAS_MAX, "1").exec()
}
