//! The command line: one file a subcommand, each turning its arguments into a validated request and running it.
//!
//! [`main`] is the whole program. What people read goes to standard output, tidy for a terminal and plain without
//! one; `--json` prints JSON instead. Errors and logs go to standard error. Exit statuses are those of [`Exit`].

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, Parser, Subcommand};

mod arena;
mod attach;
mod blobs;
mod bring;
mod bundle;
mod check;
mod config;
mod delta;
mod demo;
mod doctor;
mod exit;
mod fleet;
mod gc;
mod generate;
mod logging;
mod node;
mod output;
mod peers;
mod pin;
mod progress;
mod pull;
mod release;
mod run;
mod seed;
mod setup;
mod signals;
mod status;
mod tags;
mod top;
mod verify;
mod words;

pub use exit::Exit;
use exit::Failure;

/// Worker threads: a small device has few cores, and its disk and network are slower than one of them.
const WORKER_THREADS: usize = 2;
/// Threads for file system calls. More than the store's queue depth gains nothing.
const BLOCKING_THREADS_MAX: usize = 16;
/// Stack of each thread, in bytes. Futures live on the heap; the deepest call is a TLS handshake.
const THREAD_STACK_BYTES: usize = 1 << 20;
/// How long file system calls that nobody waits for may go on at the end.
const EXIT_GRACE: Duration = Duration::from_secs(2);

/// Shares container image layers between the devices of a site, so that each crosses the uplink once.
#[derive(Debug, Parser)]
#[command(name = "layermesh", version, max_term_width = 100, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of all subcommands.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of all commands")]
struct Global {
    /// Admin socket of the node [default: admin.sock in its data directory; environment: LAYERMESH_ADMIN]
    #[arg(long, global = true, value_name = "SOCKET")]
    admin: Option<PathBuf>,
    /// Data directory of the node [default: /var/lib/layermesh if writable, else ~/.local/share/layermesh]
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the node
    Run(Box<run::RunArgs>),
    /// Tell a container runtime on this device of the mirror, or take that back
    Setup(setup::SetupArgs),
    /// Say what is wrong with this device's node, its site and its runtimes, why, and what to do
    Doctor(doctor::DoctorArgs),
    /// Show whether the node works, and what it did
    Status,
    /// Show the site live: its devices, what is under way and where from, the uplink, and what is wrong
    Top(top::TopArgs),
    /// List the nodes that this one is connected to
    Peers,
    /// List the blobs that this node holds
    Blobs,
    /// List what this site knows of tags: what serves while a registry is out of reach
    Tags,
    /// Pull an image into this node's store
    Pull(pull::PullArgs),
    /// Tell whether this device, or its site, holds everything that an image needs; asks no registry
    Check(check::CheckArgs),
    /// Bring an image from a registry, a file or a directory into the mesh, and keep it
    Seed(seed::SeedArgs),
    /// Carry images in a file to a site that has no uplink
    Bundle(bundle::BundleArgs),
    /// Keep images, or blobs by their digests, however little they are used
    Pin(pin::PinArgs),
    /// Let go of what was pinned or seeded
    Unpin(pin::UnpinArgs),
    /// Hold the blobs of a directory where they are, such as containerd's or a stick's; alone, show what is attached
    Attach(attach::AttachArgs),
    /// Let go of an attached directory
    Detach(attach::DetachArgs),
    /// Read all that is held, and repair what is damaged from peers or its registry
    Verify(verify::VerifyArgs),
    /// Remove what nobody needs: what was abandoned, and what is used least beyond the quota or --to
    Gc(gc::GcArgs),
    /// Make releases: signed sets of images that devices fetch ahead of time and install by tag
    #[command(subcommand)]
    Release(release::ReleaseCommand),
    /// Make patches between layers and images, apply them, and look at what they need
    #[command(subcommand)]
    Delta(delta::DeltaCommand),
    /// Say which devices belong to the fleet; nobody else is let in
    #[command(subcommand)]
    Fleet(fleet::FleetCommand),
    /// Show, check or begin a configuration
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Write man pages and shell completions
    Generate(generate::GenerateArgs),
    /// Show the mesh at work: devices on this machine share an image while its registry is switched off
    Demo(demo::DemoArgs),
}

/// The program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Where standard error is closed there is nobody to tell.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() };
        }
    };
    if matches!(cli.command, Command::Run(_)) {
        arena::start_with_one();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_stack_size(THREAD_STACK_BYTES)
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(Box::pin(dispatch(cli)));
            runtime.shutdown_timeout(EXIT_GRACE);
            result
        }
        Err(error) => Err(anyhow::Error::new(error).context("cannot start").into()),
    };
    match result {
        Ok(exit) => exit.into(),
        Err(failure) => {
            output::complain(&failure);
            failure.exit.into()
        }
    }
}

async fn dispatch(cli: Cli) -> Result<Exit, Failure> {
    let Cli { global, command } = cli;
    match command {
        Command::Run(args) => run::run(*args, global).await,
        Command::Setup(args) => setup::run(args, &global).await,
        Command::Doctor(args) => doctor::run(args, &global).await,
        Command::Status => status::run(&global).await,
        Command::Top(args) => Box::pin(top::run(args, &global)).await,
        Command::Peers => peers::run(&global).await,
        Command::Blobs => blobs::run(&global).await,
        Command::Tags => tags::run(&global).await,
        Command::Pull(args) => pull::run(args, &global).await,
        Command::Check(args) => check::run(args, &global).await,
        Command::Seed(args) => seed::run(args, &global).await,
        Command::Bundle(args) => bundle::run(args, &global).await,
        Command::Pin(args) => pin::pin(args, &global).await,
        Command::Unpin(args) => pin::unpin(args, &global).await,
        Command::Attach(args) => attach::attach(args, &global).await,
        Command::Detach(args) => attach::detach(args, &global).await,
        Command::Verify(args) => verify::run(args, &global).await,
        Command::Gc(args) => gc::run(args, &global).await,
        Command::Release(command) => Box::pin(release::run(command, &global)).await,
        Command::Delta(command) => delta::run(command, &global).await,
        Command::Fleet(command) => Box::pin(fleet::run(command, &global)).await,
        Command::Config(command) => config::run(command, &global),
        Command::Generate(args) => generate::run(&args),
        Command::Demo(args) => demo::run(args, &global).await,
    }
}

#[cfg(test)]
mod tests;
