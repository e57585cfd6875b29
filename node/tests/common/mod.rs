//! A site on loopback: a registry in this process, nodes in processes of their own, clients as runtimes are.
//!
//! Invariants: no node outlives its test (its standard input is a pipe that this process holds, and it is killed when
//! its value is dropped); every wait has a deadline, and one that passes shows the ends of the nodes' logs.

// Each test program uses its own part of this.
#![allow(dead_code, unreachable_pub)]

pub mod client;
pub mod content;
pub mod disk;
pub mod liar;

use std::{
    fs::OpenOptions,
    future::Future,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use layermesh::{
    admin::{
        client::AdminClient,
        run_file::{ADMIN_SOCKET, RunFile},
        types::{Blob, NodeStatus, Peer},
    },
    embedded::Registry,
};
use layermesh_proto::ContentId;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

/// The registry of every site, as clients name it.
pub const REGISTRY: &str = "reg.test";
/// What nothing that works comes near, on a machine that is busy with something else. Where the product's own deadlines
/// are longer, the test says so.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Instead of a flag: the node is told of no fleet, not even of an open one.
pub const NO_FLEET: &str = "no fleet";
/// Between two looks at something that is waited for.
pub const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Lines of a node's log that a failure shows.
const LAST_LINES: usize = 40;

/// A registry and a directory for the nodes.
pub struct Site {
    dir: tempfile::TempDir,
    pub registry: Registry,
    fleet: String,
}

impl Site {
    pub async fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("lm-").tempdir().unwrap();
        // Neither this user's configuration nor credentials have a say.
        std::fs::write(dir.path().join("layermesh.toml"), "").unwrap();
        std::fs::write(dir.path().join("docker.json"), "{}").unwrap();
        let registry = Registry::start(([127, 0, 0, 1], 0).into()).await.unwrap();
        Self { dir, registry, fleet: format!("test-{:016x}", rand::random::<u64>()) }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn fleet(&self) -> &str {
        &self.fleet
    }

    /// Starts a node that knows these peers, and waits until it runs.
    pub async fn node(&self, name: &str, peers: &[&str]) -> Node {
        self.node_with(name, peers, &[]).await
    }

    /// As [`Site::node`], with further flags.
    pub async fn node_with(&self, name: &str, peers: &[&str], flags: &[&str]) -> Node {
        self.node_under(name, peers, flags, &[]).await
    }

    /// As [`Site::node_with`], by way of a command that becomes the node in the end.
    pub async fn node_under(&self, name: &str, peers: &[&str], flags: &[&str], wrapper: &[&str]) -> Node {
        let mut node = self.spawn(name, peers, flags, wrapper);
        node.ready().await;
        node
    }

    /// Starts a node without waiting for anything.
    pub fn spawn(&self, name: &str, peers: &[&str], flags: &[&str], wrapper: &[&str]) -> Node {
        let data_dir = self.dir.path().join(name);
        std::fs::create_dir_all(&data_dir).unwrap();
        let mut words: Vec<String> = wrapper.iter().map(ToString::to_string).collect();
        words.push(env!("CARGO_BIN_EXE_layermesh").to_owned());
        words.extend(["run", "--until-stdin-closes", "--no-mdns"].map(str::to_owned));
        // What these tests are about is not who is let in, but where they say so.
        if !flags.iter().any(|flag| flag.starts_with("--fleet-authority") || *flag == NO_FLEET) {
            words.push("--open".to_owned());
        }
        let mut flag = |name: &str, value: &str| words.extend([name.to_owned(), value.to_owned()]);
        flag("--config", &self.dir.path().join("layermesh.toml").to_string_lossy());
        flag("--docker-config", &self.dir.path().join("docker.json").to_string_lossy());
        flag("--data-dir", &data_dir.to_string_lossy());
        for address in ["--mirror-addr", "--peers-addr", "--bulk-addr", "--status-addr"] {
            flag(address, "127.0.0.1:0");
        }
        flag("--fleet", &self.fleet);
        flag("--origin", &format!("{REGISTRY}={}", self.registry.base_url()));
        peers.iter().for_each(|peer| flag("--peer", peer));
        words.extend(flags.iter().filter(|flag| **flag != NO_FLEET).map(ToString::to_string));

        let log = self.dir.path().join(format!("{name}.log"));
        let stderr = OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(stderr).kill_on_drop(true);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("LAYERMESH_")) {
            command.env_remove(name);
        }
        let child = command.spawn().unwrap();
        Node { name: name.to_owned(), data_dir, log, child, run: None }
    }
}

/// A node in a process of its own.
pub struct Node {
    pub name: String,
    pub data_dir: PathBuf,
    log: PathBuf,
    child: Child,
    run: Option<RunFile>,
}

impl Node {
    /// Waits until the node runs.
    pub async fn ready(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        // After a kill the run file of the process before is still there.
        let pid = self.child.id();
        loop {
            match RunFile::read(&self.data_dir) {
                Ok(run) if Some(run.pid) == pid => {
                    self.run = Some(run);
                    return;
                }
                _ => {}
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("{} ended at its start: {status}{}", self.name, self.last_words());
            }
            assert!(Instant::now() < deadline, "{} does not start{}", self.name, self.last_words());
            sleep(LOOK_AGAIN).await;
        }
    }

    pub fn run(&self) -> &RunFile {
        self.run.as_ref().expect("the node runs")
    }

    /// An address for other nodes.
    pub fn address(&self) -> &str {
        &self.run().peers[0]
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id().unwrap()).unwrap()).unwrap()
    }

    /// Where the mirror has an object of this site's registry.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}/v2/{REGISTRY}/{path}", self.run().mirror)
    }

    pub async fn status(&self) -> NodeStatus {
        let url = format!("http://{}/v1/status", self.run().status);
        let read = async {
            let response = client::http().get(url).send().await?.error_for_status()?;
            response.bytes().await
        };
        let bytes = match timeout(PATIENCE, read).await {
            Ok(Ok(bytes)) => bytes,
            other => panic!("{} does not say how it is: {other:?}{}", self.name, self.last_words()),
        };
        serde_json::from_slice(&bytes).unwrap()
    }

    pub async fn blobs(&self) -> Vec<Blob> {
        // Where this test sees it, should the node have mounted something there.
        AdminClient::new(&self.data_dir.join(ADMIN_SOCKET))
            .blobs()
            .await
            .unwrap_or_else(|error| panic!("{error}{}", self.last_words()))
    }

    pub async fn peers(&self) -> Vec<Peer> {
        AdminClient::new(&self.run().admin).peers().await.unwrap_or_else(|error| panic!("{error}{}", self.last_words()))
    }

    /// Waits until this node has heard that `peer` holds at least so many blobs.
    pub async fn has_heard(&self, peer: &str, blobs: usize) {
        let what = format!("hears that {peer} holds {blobs} blobs");
        self.wait_until(&what, async || {
            self.peers().await.iter().any(|other| other.peer_id == peer && other.blobs >= blobs)
        })
        .await;
    }

    /// Waits until this node holds all of these: a client has its last byte a moment before they are durable.
    pub async fn has_stored(&self, contents: impl IntoIterator<Item = &ContentId>) {
        let wanted: Vec<String> = contents.into_iter().map(ContentId::to_string).collect();
        self.wait_until("stores what was pulled", async || {
            let held = self.blobs().await;
            wanted.iter().all(|digest| held.iter().any(|blob| blob.digest == *digest))
        })
        .await;
    }

    /// Waits until something is so of this node.
    pub async fn wait_until<F: Future<Output = bool>>(&self, what: &str, mut so: impl FnMut() -> F) {
        let deadline = Instant::now() + PATIENCE;
        while !so().await {
            assert!(Instant::now() < deadline, "{} never {what}{}", self.name, self.last_words());
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Waits for something that this node has a part in.
    pub async fn patiently<T>(&self, what: &str, work: impl Future<Output = T>) -> T {
        self.within(PATIENCE, what, work).await
    }

    pub async fn within<T>(&self, limit: Duration, what: &str, work: impl Future<Output = T>) -> T {
        timeout(limit, work)
            .await
            .unwrap_or_else(|_| panic!("{}: {what}: not within {limit:?}{}", self.name, self.last_words()))
    }

    /// Kills the process as a power cut would, but for what the system has in memory.
    pub async fn kill(&mut self) {
        self.child.start_kill().unwrap();
        self.child.wait().await.unwrap();
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits until the process has ended, at most so long.
    pub async fn ended(&mut self, limit: Duration) -> ExitStatus {
        match timeout(limit, self.child.wait()).await {
            Ok(status) => status.unwrap(),
            Err(_) => panic!("{} does not end within {limit:?}{}", self.name, self.last_words()),
        }
    }

    /// Lets go of the node's standard input.
    pub fn close_stdin(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Stops the node cleanly.
    pub async fn stop(mut self) {
        self.signal(Signal::TERM);
        let status = self.ended(PATIENCE).await;
        assert!(status.success(), "{} ended with {status}{}", self.name, self.last_words());
    }

    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The end of the node's log, for a failure's message.
    pub fn last_words(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
        format!("\nthe end of {}'s log:\n  {}", self.name, last.join("\n  "))
    }
}

/// Waits until something is so that no node has to do with.
pub async fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(LOOK_AGAIN).await;
    }
}
