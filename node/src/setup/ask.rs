//! What a runtime on this machine says of itself.

use std::{process::Stdio, time::Duration};

use tokio::{process::Command, time::timeout};

use super::{Facts, Runtime, Version};

/// How long a runtime may take to say what it is.
const ASK_TIME_MAX: Duration = Duration::from_secs(5);
/// Most bytes taken of what a program prints: a firewall's rules on a Kubernetes node have a few MiB.
const SAID_BYTES_MAX: usize = 16 << 20;

/// The program that is the runtime.
pub fn program(runtime: Runtime) -> &'static str {
    if runtime == Runtime::Docker { "dockerd" } else { runtime.name() }
}

/// What a runtime says; nothing if it is not there or does not answer.
pub async fn ask(runtime: Runtime) -> Facts {
    let mut facts = Facts::default();
    let mut answer = None;
    if runtime == Runtime::Docker {
        answer = said(&["docker", "info", "--format", "{{.ServerVersion}} {{json .DriverStatus}}"]).await;
        answer = answer.filter(|answer| Version::find(answer).is_some());
        facts.containerd_store = answer.as_ref().map(|answer| answer.contains("io.containerd.snapshotter"));
    }
    if answer.is_none() {
        answer = said(&[program(runtime), "--version"]).await;
    }
    facts.version = answer.as_deref().and_then(Version::find);
    facts
}

/// What a command prints, if it succeeds in time.
pub async fn said(words: &[&str]) -> Option<String> {
    let (program, arguments) = words.split_first()?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let output = timeout(ASK_TIME_MAX, command.output()).await.ok()?.ok()?;
    let text = output.stdout.get(..SAID_BYTES_MAX.min(output.stdout.len()))?;
    output.status.success().then(|| String::from_utf8_lossy(text).into_owned())
}
