//! How fast a mirror gives what its node holds: `cargo bench -p layermesh --bench mirror`.
//!
//! One blob from a node in a process of its own to one plain client, against nginx with the same bytes as a static
//! file, with and without sendfile, in turn; then the time to the first byte of a manifest, connecting included. The
//! client reads and drops what comes. Without nginx on the path there is no ratio. `LAYERMESH_BENCH_MIB` is the blob's
//! size.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]
#![allow(clippy::print_stdout, reason = "its result is the lines that it prints")]
#![allow(
    clippy::disallowed_methods,
    reason = "it measures time, and waits for nginx, which tells nobody that it is ready"
)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use common::{Node, REGISTRY, Site, content};

/// Size of the blob in MiB, unless the environment says otherwise: a large layer that still fits in the page cache.
const BLOB_MIB: usize = 256;
/// Rounds of each kind that count, after one that does not.
const ROUNDS: usize = 7;
/// Times that a manifest is asked for.
const MANIFESTS: usize = 200;
/// The aim: the mirror's rate to nginx's.
const RATIO_MIN: f64 = 0.70;
/// The aim: the median time to a manifest's first byte, in milliseconds.
const FIRST_BYTE_MS_MAX: f64 = 2.0;
/// What the client reads at once: large, so that it is not what is measured.
const READ_BYTES: usize = 256 << 10;
/// Longest head of an answer.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// For nginx to listen, and for an answer to go on.
const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() {
    // Tests of all targets run this too, without the flag that `cargo bench` gives.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let mib = std::env::var("LAYERMESH_BENCH_MIB").map_or(BLOB_MIB, |text| text.parse().unwrap());
    let site = Site::new().await;
    let bytes = content::bytes("bench", mib << 20);
    let image = content::RawImage::put(&site.registry, "app", "v1", "small", &[1000]);
    let blob = site.registry.put_blob(bytes.clone());
    let node = site.node("node", &[]).await;
    let blob = format!("app/blobs/{blob}");
    let manifest = format!("app/manifests/{}", image.manifest);
    for path in [&blob, &manifest] {
        assert!(node.get(path).await.status.is_success(), "{path}{}", node.last_words());
    }
    let nginx = Nginx::start(site.dir(), &bytes);
    drop(bytes);

    // The client's calls block, and the registry is not asked any more.
    tokio::task::block_in_place(|| {
        measure_blob(&node, &blob, nginx.as_ref(), mib);
        measure_manifest(&node, &manifest);
    });
    node.stop().await;
}

fn mirror_target(node: &Node, path: &str) -> (SocketAddr, String) {
    (node.run().mirror, format!("/v2/{REGISTRY}/{path}"))
}

fn measure_blob(node: &Node, blob: &str, nginx: Option<&Nginx>, mib: usize) {
    let mut targets = vec![("mirror", mirror_target(node, blob))];
    if let Some(nginx) = nginx {
        targets.push(("nginx, sendfile off", (nginx.copying, "/blob".to_owned())));
        targets.push(("nginx, sendfile on", (nginx.sendfile, "/blob".to_owned())));
    }
    let mut rates = vec![Vec::new(); targets.len()];
    for round in 0..=ROUNDS {
        for ((_, target), rates) in targets.iter().zip(&mut rates) {
            let got = get(target);
            assert_eq!(got.body_bytes, (mib as u64) << 20);
            if round > 0 {
                rates.push(got.body_bytes as f64 / 1e6 / got.took.as_secs_f64());
            }
        }
    }
    let medians: Vec<f64> = rates.into_iter().map(median).collect();
    println!(
        "mirror | {mib} MiB blob, median of {ROUNDS} rounds | MB/s | the mirror to it (aim: at least {RATIO_MIN})"
    );
    for ((name, _), rate) in targets.iter().zip(&medians) {
        println!("mirror | {name} | {rate:.0} | {:.2}", medians[0] / rate);
    }
    if nginx.is_none() {
        println!("mirror | nginx | not on the path, left out | -");
    }
}

fn measure_manifest(node: &Node, manifest: &str) {
    let target = mirror_target(node, manifest);
    let mut all: Vec<f64> = (0..MANIFESTS).map(|_| get(&target).first_byte.as_secs_f64() * 1e3).collect();
    all.sort_by(f64::total_cmp);
    let (half, most) = (all[all.len() / 2], all[all.len() * 99 / 100]);
    println!("mirror | manifest's first byte of {MANIFESTS}, in ms | median (aim: at most {FIRST_BYTE_MS_MAX}) | 99 %");
    println!("mirror | new connection each | {half:.2} | {most:.2}");
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

struct Got {
    /// From before connecting to the first byte of the answer.
    first_byte: Duration,
    took: Duration,
    body_bytes: u64,
}

/// Asks on a connection of its own and reads to its end.
fn get((addr, path): &(SocketAddr, String)) -> Got {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {addr}\r\nAccept: */*\r\nConnection: close\r\n\r\n").unwrap();
    let (mut buffer, mut filled) = (vec![0; READ_BYTES], stream.peek(&mut [0]).unwrap());
    assert_eq!(filled, 1, "{path}: no answer");
    let first_byte = begun.elapsed();
    filled = 0;
    let head_end = loop {
        filled += stream.read(&mut buffer[filled..HEAD_BYTES_MAX]).unwrap();
        if let Some(at) = buffer[..filled].windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        assert!(filled < HEAD_BYTES_MAX, "{path}: an endless head");
    };
    assert!(buffer.starts_with(b"HTTP/1.1 200"), "{path}: {}", String::from_utf8_lossy(&buffer[..head_end]));
    let mut body_bytes = (filled - head_end) as u64;
    loop {
        match stream.read(&mut buffer).unwrap() {
            0 => return Got { first_byte, took: begun.elapsed(), body_bytes },
            more => body_bytes += more as u64,
        }
    }
}

/// An nginx that serves one file at two addresses.
struct Nginx {
    child: Child,
    copying: SocketAddr,
    sendfile: SocketAddr,
}

impl Nginx {
    /// `None` if there is no nginx here.
    fn start(dir: &Path, bytes: &[u8]) -> Option<Self> {
        let dir = dir.join("nginx");
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("blob"), bytes).unwrap();
        let free = || TcpListener::bind("127.0.0.1:0").unwrap();
        // Both at once, so that they differ; nginx takes them over in a moment.
        let (copying, sendfile) = {
            let listeners = (free(), free());
            (listeners.0.local_addr().unwrap(), listeners.1.local_addr().unwrap())
        };
        std::fs::write(dir.join("nginx.conf"), Self::config(&dir, copying, sendfile)).unwrap();
        let log = std::fs::File::create(dir.join("log")).unwrap();
        let mut command = Command::new("nginx");
        command.arg("-p").arg(&dir).arg("-c").arg(dir.join("nginx.conf")).args(["-e", "stderr"]);
        // One process: its end takes nothing else.
        command.args(["-g", "daemon off; master_process off;"]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        let nginx = match child {
            Ok(child) => Self { child, copying, sendfile },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(error) => panic!("nginx cannot be started: {error}"),
        };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(nginx.sendfile).is_err() {
            let log = || std::fs::read_to_string(dir.join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "nginx does not listen: {}", log());
            sleep(Duration::from_millis(20));
        }
        Some(nginx)
    }

    fn config(dir: &Path, copying: SocketAddr, sendfile: SocketAddr) -> String {
        let dir = dir.display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|what| format!("{what}_temp_path {dir}/{what};\n"))
            .concat();
        let server = |addr, sendfile| {
            format!("server {{ listen {addr}; root {dir}; sendfile {sendfile}; tcp_nopush {sendfile}; }}\n")
        };
        let servers = server(copying, "off") + &server(sendfile, "on");
        format!("pid {dir}/pid;\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}{servers}}}\n")
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
