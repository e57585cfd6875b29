//! The `layermesh` program. All of it is in the library; see [`layermesh::cli`].

fn main() -> std::process::ExitCode {
    layermesh::cli::main()
}
