//! The proof that a runtime pulls through the node: a tiny image that nobody but the node has.
//!
//! The node is given the image, by digest alone, so that no tag comes to stand for it; the runtime's own client pulls
//! it by its digest; then both let go of it. A pull that goes past the node finds nothing.

use std::{io, process::Stdio, time::Duration};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures::stream;
use layermesh_proto::{Algorithm, ContentId};
use serde_json::json;
use tokio::{process::Command, time::timeout};

use crate::{
    admin::{
        client::AdminClient,
        types::{SeedBlob, SeedRequest, UnpinRequest},
    },
    contents::Platform,
    doctor::facts::PullFacts,
    setup::{Disk, Runtime, ask::said, containerd},
};

/// The image's name. Of docker.io, since that is what each runtime mirrors if it mirrors anything.
const IMAGE: &str = "docker.io/layermesh/doctor";
/// How long a pull may take. Runtimes try again for a while what their mirror and the registry refuse.
const PULL_TIME_MAX: Duration = Duration::from_secs(60);
/// What clients say when they cannot reach their own daemon.
const NO_DAEMON: [&str; 4] = ["Cannot connect to the", "cannot access socket", "dial unix", "permission denied"];

/// The image: config and layer, then the manifest.
fn image() -> io::Result<[Bytes; 3]> {
    let mut tar = tar::Builder::new(Vec::new());
    let text = b"The image of `layermesh doctor`. It may be removed.\n";
    let mut header = tar::Header::new_ustar();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(0);
    tar.append_data(&mut header, "README", text.as_slice())?;
    let tar = tar.into_inner()?;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    io::Write::write_all(&mut gzip, &tar)?;
    let layer = gzip.finish()?;
    let platform = Platform::of_this_device();
    let mut config = json!({
        "architecture": platform.architecture, "os": platform.os, "config": {},
        "rootfs": {"type": "layers", "diff_ids": [digest(&tar)]},
    });
    if let Some(variant) = platform.variant {
        config["variant"] = variant.into();
    }
    let config = config.to_string().into_bytes();
    let described = |kind: &str, bytes: &[u8]| {
        let media_type = format!("application/vnd.oci.image.{kind}");
        json!({"mediaType": media_type, "digest": digest(bytes), "size": bytes.len()})
    };
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": described("config.v1+json", &config), "layers": [described("layer.v1.tar+gzip", &layer)],
    });
    Ok([config.into(), layer.into(), manifest.to_string().into_bytes().into()])
}

fn digest(bytes: &[u8]) -> String {
    ContentId::of(Algorithm::Sha256, bytes).to_string()
}

/// Has a runtime pull the image.
pub(super) async fn pull(runtime: Runtime, node: &AdminClient) -> PullFacts {
    let Some(client) = Client::of(runtime).await else {
        return PullFacts::NotTried("its client is not installed".to_owned());
    };
    let manifest = match give(node).await {
        Ok(manifest) => manifest,
        Err(error) => return PullFacts::NotTried(format!("the node does not take the image: {error}")),
    };
    let reference = format!("{IMAGE}@{manifest}");
    // What an earlier pull left would make this one nothing.
    let _ = run(&client.remove(&reference)).await;
    let pulled = run(&client.pull(&reference)).await;
    let _ = run(&client.remove(&reference)).await;
    let let_go = UnpinRequest { images: vec![reference], owners: Vec::new() };
    // It is as small as this; what is left of it goes when room is needed.
    let _ = node.unpin(&let_go).await;
    match pulled {
        Ok(()) => PullFacts::Came,
        Err(said) => judged(said),
    }
}

/// What a pull that failed shows.
fn judged(said: String) -> PullFacts {
    if NO_DAEMON.iter().any(|word| said.contains(word)) {
        return PullFacts::NotTried(format!("it cannot be asked: {said}"));
    }
    PullFacts::Failed(said)
}

/// Gives the node the image, and returns its digest.
async fn give(node: &AdminClient) -> anyhow::Result<String> {
    let blobs = image()?;
    let manifest = digest(&blobs[2]);
    let plan = blobs.iter().map(|blob| SeedBlob { digest: digest(blob), size: blob.len() as u64 }).collect();
    let needs = node.seed_plan(None, plan).await?;
    for (blob, need) in blobs.iter().zip(needs) {
        let Some(from) = need.from else { continue };
        let rest = blob.slice(usize::try_from(from)?.min(blob.len())..);
        let content = ContentId::of(Algorithm::Sha256, blob);
        node.send_blob(&content, blob.len() as u64, from, stream::iter([Ok(rest)])).await?;
    }
    let image = format!("{IMAGE}@{manifest}");
    node.seed_image(&SeedRequest { image, digest: manifest.clone(), platform: None, bind: false }).await?;
    Ok(manifest)
}

/// A runtime's client: the words before its commands, and those after `pull`.
struct Client {
    words: Vec<String>,
    pull: &'static [&'static str],
    more: Vec<String>,
    remove: &'static [&'static str],
}

impl Client {
    async fn of(runtime: Runtime) -> Option<Self> {
        let client = |words: &[&str], pull, remove| Self {
            words: words.iter().map(|word| (*word).to_owned()).collect(),
            pull,
            more: Vec::new(),
            remove,
        };
        Some(match runtime {
            Runtime::Docker => client(&["docker"], &["pull", "--quiet"], &["image", "rm"]),
            Runtime::Podman => client(&["podman"], &["pull", "--quiet"], &["image", "rm"]),
            Runtime::K3s => client(&["k3s", "crictl"], &["pull"], &["rmi"]),
            Runtime::Crio | Runtime::Containerd if said(&["crictl", "--version"]).await.is_some() => {
                client(&["crictl"], &["pull"], &["rmi"])
            }
            Runtime::Crio => return None,
            // Without Kubernetes' client: the hosts of its configuration, by containerd's own.
            Runtime::Containerd => {
                let found = containerd::inspect(runtime.config_file(), &Disk::new("/")).unwrap_or_default();
                let dir = found.dirs().into_iter().next().unwrap_or_else(|| containerd::HOSTS_DIR.into());
                let mut ctr = client(&["ctr", "--namespace", "k8s.io"], &["images", "pull"], &["images", "rm"]);
                ctr.more = vec!["--hosts-dir".to_owned(), dir.to_string_lossy().into_owned()];
                ctr
            }
        })
    }

    fn pull(&self, reference: &str) -> Vec<String> {
        self.line(self.pull, &self.more, reference)
    }

    fn remove(&self, reference: &str) -> Vec<String> {
        self.line(self.remove, &[], reference)
    }

    fn line(&self, command: &[&str], more: &[String], reference: &str) -> Vec<String> {
        let command = command.iter().map(|word| (*word).to_owned());
        self.words.iter().cloned().chain(command).chain(more.iter().cloned()).chain([reference.to_owned()]).collect()
    }
}

/// Runs a command to its end; the error is the last line that it says.
async fn run(words: &[String]) -> Result<(), String> {
    let Some((program, arguments)) = words.split_first() else { return Err("no command".to_owned()) };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = match timeout(PULL_TIME_MAX, command.output()).await {
        Err(_) => return Err(format!("no end within {} s", PULL_TIME_MAX.as_secs())),
        Ok(Err(error)) => return Err(format!("{program} cannot be run: {error}")),
        Ok(Ok(output)) => output,
    };
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(said.lines().next_back().unwrap_or("it failed and said nothing").chars().take(400).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contents::Document;

    #[test]
    fn a_daemon_that_does_not_run_is_not_a_pull_that_goes_past_the_node() {
        let silent = "Cannot connect to the Docker daemon at unix:///run/docker.sock. Is the docker daemon running?";
        assert!(matches!(judged(silent.to_owned()), PullFacts::NotTried(why) if why.contains(silent)));
        let past = "Get \"https://registry-1.docker.io/v2/\": dial tcp: lookup registry-1.docker.io on 127.0.0.1:53: \
                    read udp 127.0.0.1:1->127.0.0.1:53: read: connection refused";
        assert_eq!(judged(past.to_owned()), PullFacts::Failed(past.to_owned()));
    }

    #[test]
    fn the_image_is_always_the_same_and_whole() {
        let [config, layer, manifest] = image().unwrap();
        assert_eq!([&config, &layer, &manifest], image().unwrap().each_ref());
        let parsed: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        assert_eq!(parsed["config"]["digest"], digest(&config));
        assert_eq!(parsed["layers"][0]["digest"], digest(&layer));
        assert!(Document::parse(&manifest).is_ok());
    }
}
