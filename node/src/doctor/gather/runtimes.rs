//! The container runtimes of this device: which there are, how they are set, and what their environment says.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use super::{kernel, pull};
use crate::{
    admin::client::AdminClient,
    doctor::{
        facts::{PullFacts, RuntimeFacts},
        settings,
    },
    setup::{
        Disk, Runtime,
        ask::{ask, program},
    },
};

/// The runtimes of this device. Each pulls, if there is a node to pull from.
pub(super) async fn gather(mirror: SocketAddr, node: Option<&AdminClient>) -> Vec<RuntimeFacts> {
    let mut found = Vec::new();
    for runtime in Runtime::ALL {
        if !is_installed(program(runtime)) {
            continue;
        }
        let facts = ask(runtime).await;
        // Docker brings a containerd along that nobody else pulls with; k3s has one of its own.
        let settings = settings::inspect(runtime, &mirror.to_string(), facts, &Disk::new("/"));
        let pull = match node {
            Some(client) => pull::pull(runtime, client).await,
            None => PullFacts::NotTried("there is no node to pull from, or --no-pull was given".to_owned()),
        };
        found.push(RuntimeFacts {
            runtime,
            version: facts.version,
            settings: settings.map_err(|error| error.to_string().replace('\n', " ")),
            proxy: proxy(runtime, mirror),
            pull,
        });
    }
    found
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// A proxy in the environment of a runtime's process that would be asked for the mirror. Go's programs never ask one
/// for loopback, so that is about mirrors elsewhere.
fn proxy(runtime: Runtime, mirror: SocketAddr) -> Option<String> {
    let process = process_of(program(runtime))?;
    let environment = kernel(process.join("environ"))?;
    proxy_for(mirror, environment.split('\0'))
}

fn proxy_for<'a>(mirror: SocketAddr, variables: impl Iterator<Item = &'a str>) -> Option<String> {
    let (mut proxy, mut exempt) = (None, String::new());
    for (name, value) in variables.filter_map(|variable| variable.split_once('=')) {
        match name {
            "HTTP_PROXY" | "http_proxy" | "ALL_PROXY" if !value.is_empty() => proxy = Some(format!("{name}={value}")),
            "NO_PROXY" | "no_proxy" => exempt.push_str(value),
            _ => {}
        }
    }
    let host = mirror.ip().to_string();
    let is_exempt = exempt.split(',').map(str::trim).any(|one| one == host || one == "*" || one == mirror.to_string());
    proxy.filter(|_| !mirror.ip().is_loopback() && !is_exempt)
}

fn process_of(program: &str) -> Option<PathBuf> {
    let processes = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    processes.map(|process| process.path()).find(|path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(|c: char| c.is_ascii_digit()))
            && kernel(Path::new(path).join("comm")).is_some_and(|name| name.trim() == program)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_stands_only_before_mirrors_elsewhere() {
        let of = |mirror: &str, variables: &[&str]| proxy_for(mirror.parse().unwrap(), variables.iter().copied());
        let proxy = "HTTP_PROXY=http://proxy.test:3128";
        assert_eq!(of("127.0.0.1:7117", &[proxy]), None);
        assert_eq!(of("10.0.0.5:7117", &["A=B", proxy]).as_deref(), Some(proxy));
        assert_eq!(of("10.0.0.5:7117", &[proxy, "NO_PROXY=localhost, 10.0.0.5"]), None);
        assert_eq!(of("10.0.0.5:7117", &["HTTP_PROXY="]), None);
    }
}
