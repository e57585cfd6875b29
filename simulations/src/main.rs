//! The `layermesh-sim` program. All of it is in the library; see [`layermesh_sim::cli`].

fn main() -> std::process::ExitCode {
    layermesh_sim::cli::main()
}
