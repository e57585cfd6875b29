//! A device of the demo: a node in a process of its own.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use futures::future::join_all;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    time::{Instant, timeout},
};

use super::{POLL_INTERVAL, source};
use crate::admin::{client::AdminClient, run_file::RunFile, types::NodeStatus};

/// How long a node may take to start: it makes a key and binds four ports.
const READY_TIME_MAX: Duration = Duration::from_secs(30);
/// How long a node may take to stop before it is killed.
const STOP_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a node may take to say how it is.
const STATUS_TIME_MAX: Duration = Duration::from_secs(10);
/// Log lines shown when something goes wrong.
const LAST_WORDS_LINES: usize = 12;
/// How much of a log is read for them.
const LAST_WORDS_BYTES: usize = 64 << 10;

/// What the devices of a demo have in common.
#[derive(Debug)]
pub(super) struct Site {
    program: PathBuf,
    dir: PathBuf,
    fleet: String,
    origin: String,
    /// Addresses of the devices so far, for the next.
    pub(super) peers: Vec<String>,
}

impl Site {
    /// A site in `dir` whose registry is at `registry_url`.
    pub(super) fn new(dir: &Path, registry_url: String) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find the program itself")?;
        Self::with_program(dir, registry_url, program)
    }

    pub(super) fn with_program(dir: &Path, registry_url: String, program: PathBuf) -> anyhow::Result<Self> {
        // Neither this user's configuration nor credentials are the demo's business.
        std::fs::write(dir.join("layermesh.toml"), "")?;
        std::fs::write(dir.join("docker.json"), "{}")?;
        let fleet = format!("demo-{:08x}", rand::random::<u32>());
        let origin = format!("{}={registry_url}", source::REGISTRY);
        Ok(Self { program, dir: dir.to_owned(), fleet, origin, peers: Vec::new() })
    }

    fn command(&self, data_dir: &Path) -> Command {
        let mut command = Command::new(&self.program);
        // All nodes are this machine's, listen on loopback alone and share a name that nobody else knows.
        command.arg("run").arg("--open").arg("--until-stdin-closes").arg("--no-mdns");
        command.arg("--config").arg(self.dir.join("layermesh.toml"));
        command.arg("--docker-config").arg(self.dir.join("docker.json"));
        command.arg("--data-dir").arg(data_dir);
        for flag in ["--mirror-addr", "--peers-addr", "--bulk-addr", "--status-addr"] {
            command.args([flag, "127.0.0.1:0"]);
        }
        command.args(["--fleet", &self.fleet, "--origin", &self.origin, "--log-format", "text"]);
        for peer in &self.peers {
            command.args(["--peer", peer]);
        }
        let ours = |name: &std::ffi::OsString| name.to_string_lossy().starts_with("LAYERMESH_");
        for (name, _) in std::env::vars_os().filter(|(name, _)| ours(name)) {
            command.env_remove(name);
        }
        command
    }
}

/// A node in a process of its own.
#[derive(Debug)]
pub(super) struct Device {
    number: usize,
    // Its standard input stays open as long as this process lives; the node ends with it.
    child: Child,
    data_dir: PathBuf,
    log: PathBuf,
    run: Option<RunFile>,
    client: reqwest::Client,
}

impl Device {
    /// Starts a node. It is killed when the value is dropped.
    pub(super) fn spawn(site: &Site, number: usize) -> anyhow::Result<Self> {
        let data_dir = site.dir.join(format!("device-{number}"));
        let log = site.dir.join(format!("device-{number}.log"));
        std::fs::create_dir_all(&data_dir)?;
        let mut command = site.command(&data_dir);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(File::create(&log)?).kill_on_drop(true);
        // A group of its own: a terminal's ctrl-c reaches the demo alone, which then stops the devices.
        command.process_group(0);
        let child = command.spawn().with_context(|| format!("cannot start {}", site.program.display()))?;
        let client = reqwest::Client::builder().no_proxy().timeout(STATUS_TIME_MAX).build()?;
        Ok(Self { number, child, data_dir, log, run: None, client })
    }

    /// Waits until the node listens.
    pub(super) async fn ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_TIME_MAX;
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("device {} ended at its start ({status}){}", self.number, self.last_words());
            }
            if let Ok(run) = RunFile::read(&self.data_dir) {
                self.run = Some(run);
                return Ok(());
            }
            if Instant::now() > deadline {
                let seconds = READY_TIME_MAX.as_secs();
                bail!("device {} was not ready within {seconds} s{}", self.number, self.last_words());
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    pub(super) const fn number(&self) -> usize {
        self.number
    }

    fn run_file(&self) -> anyhow::Result<&RunFile> {
        self.run.as_ref().ok_or_else(|| anyhow!("device {} is not ready", self.number))
    }

    /// Multiaddresses of its control plane.
    pub(super) fn peer_addresses(&self) -> Vec<String> {
        self.run.as_ref().map(|run| run.peers.clone()).unwrap_or_default()
    }

    /// Where its mirror is.
    pub(super) fn mirror_url(&self) -> String {
        self.run.as_ref().map_or_else(String::new, |run| format!("http://{}", run.mirror))
    }

    /// How the node is, by its status address.
    pub(super) async fn status(&self) -> anyhow::Result<NodeStatus> {
        let url = format!("http://{}/v1/status", self.run_file()?.status);
        let response = self.client.get(url).send().await?.error_for_status()?;
        Ok(serde_json::from_slice(&response.bytes().await?)?)
    }

    /// Blobs that the node's peers say they hold, the most of any one.
    pub(super) async fn peers_blobs(&self) -> anyhow::Result<usize> {
        let peers = AdminClient::new(&self.run_file()?.admin).peers().await?;
        Ok(peers.iter().map(|peer| peer.blobs).max().unwrap_or(0))
    }

    /// The last lines of its log, for an error message.
    pub(super) fn last_words(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text[text.len().saturating_sub(LAST_WORDS_BYTES)..]).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(LAST_WORDS_LINES)..];
        if last.is_empty() {
            return format!("\ndevice {} logged nothing", self.number);
        }
        format!("\nthe end of device {}'s log:\n  {}", self.number, last.join("\n  "))
    }

    /// Asks the node to end, and kills it if it does not.
    async fn stop(mut self) -> std::io::Result<ExitStatus> {
        if let Some(pid) = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)) {
            let _ = kill_process(pid, Signal::TERM);
        }
        match timeout(STOP_TIME_MAX, self.child.wait()).await {
            Ok(status) => status,
            Err(_) => {
                self.child.kill().await?;
                self.child.wait().await
            }
        }
    }
}

/// Ends all devices, at the same time.
pub(super) async fn stop_all(devices: Vec<Device>) {
    // A device that cannot be waited for is killed when its value is dropped.
    let _ = join_all(devices.into_iter().map(Device::stop)).await;
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn site(dir: &Path, script: &str) -> Site {
        let program = dir.join("program");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        Site::with_program(dir, "http://127.0.0.1:1".to_owned(), program).unwrap()
    }

    #[tokio::test]
    async fn a_node_that_ends_at_its_start_is_reported_with_its_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let mut device = Device::spawn(&site(dir.path(), "echo port taken >&2; exit 7"), 3).unwrap();
        let error = device.ready().await.unwrap_err().to_string();
        assert!(error.contains("device 3 ended") && error.contains("port taken"), "{error}");
    }

    #[tokio::test]
    async fn a_ready_node_tells_its_addresses_and_ends_with_its_standard_input() {
        let dir = tempfile::tempdir().unwrap();
        let run = r#"{"pid":1,"peer_id":"x","version":"0","mirror":"127.0.0.1:11","peers":["/ip4/127.0.0.1/tcp/12"],"bulk":"127.0.0.1:13","status":"127.0.0.1:14","admin":"/x"}"#;
        let data = dir.path().join("device-1");
        // Like a node it is ready once its file appears, and it ignores SIGTERM until its standard input closes.
        let script =
            format!("trap '' TERM; echo '{run}' > {0}/new; mv {0}/new {0}/run.json; read never", data.display());
        let mut device = Device::spawn(&site(dir.path(), &script), 1).unwrap();
        device.ready().await.unwrap();
        assert_eq!(device.peer_addresses(), ["/ip4/127.0.0.1/tcp/12"]);
        assert_eq!(device.mirror_url(), "http://127.0.0.1:11");
        assert!(device.status().await.is_err());
        let pid = Pid::from_raw(i32::try_from(device.child.id().unwrap()).unwrap()).unwrap();
        stop_all(vec![device]).await;
        assert!(rustix::process::test_kill_process(pid).is_err(), "it is gone");
    }

    #[test]
    fn nodes_are_started_with_nothing_of_this_users() {
        let dir = tempfile::tempdir().unwrap();
        let mut site = site(dir.path(), "");
        site.peers.push("/ip4/127.0.0.1/tcp/9".to_owned());
        let command = site.command(Path::new("/data"));
        let arguments: Vec<_> = command.as_std().get_args().map(|word| word.to_string_lossy().into_owned()).collect();
        let cli = <crate::cli::Cli as clap::Parser>::try_parse_from(
            std::iter::once("layermesh".to_owned()).chain(arguments.iter().cloned()),
        );
        assert!(cli.is_ok(), "{arguments:?}");
        assert!(arguments.contains(&"demo.layermesh.test=http://127.0.0.1:1".to_owned()));
        assert!(arguments.contains(&"/ip4/127.0.0.1/tcp/9".to_owned()));
    }
}
