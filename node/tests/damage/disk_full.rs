//! A disk that is full: told so before anything is begun, and met on the way.

use std::{
    fs::{self, File},
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use reqwest::StatusCode;

use crate::{
    SIZE,
    common::{
        Node, Site,
        client::{Naming, pull_image},
        content::{self, RawImage},
        disk::Disk,
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_room_says_so_and_sends_the_runtime_on() {
    let site = Site::new().await;
    let image = RawImage::put(&site.registry, "app", "v1", "no room", &[SIZE]);
    let node = site.node_with("node", &[], &["--free-bytes-min", "1000000TiB"]).await;
    for path in ["app/manifests/v1".to_owned(), format!("app/blobs/{}", image.blobs[0].0)] {
        let answer = node.get(&path).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}{}", answer.shown(), node.last_words());
        assert!(answer.shown().contains("no room"), "the answer says why: {}", answer.shown());
    }
    let log = node.log();
    let line = log.lines().find(|line| line.contains("WARN") && line.contains("no room"));
    let line = line.unwrap_or_else(|| panic!("the log does not warn{}", node.last_words()));
    assert!(line.contains("free disk space"), "the log says what to do: {line}");
    node.stop().await;
    // With room again, nothing of it is left.
    let node = site.node("node", &[]).await;
    pull_image(&node, Naming::Query, "app", "v1").await;
}

/// A shell command that gives the node a small file system of its own for its data directory. Mount namespaces need
/// no root where user namespaces are allowed.
const SMALL_DISK: &str = r#"mount -t tmpfs -o size=24m,mode=0700 layermesh "$0" && exec "$@""#;

fn unshare(dir: &str) -> Vec<&str> {
    vec!["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", SMALL_DISK, dir]
}

/// Whether this machine lets anybody have a small file system.
fn can_mount(dir: &str) -> bool {
    let words = unshare(dir);
    let tried = Command::new(words[0]).args(&words[1..]).arg("true").stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success())
}

/// The node's data directory as the node sees it.
fn seen_by(node: &Node) -> PathBuf {
    let inside = node.data_dir.strip_prefix("/").unwrap();
    PathBuf::from(format!("/proc/{}/root", node.pid().as_raw_nonzero())).join(inside)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_costs_nothing_but_what_does_not_fit() {
    let site = Site::new().await;
    let data_dir = site.dir().join("node");
    fs::create_dir(&data_dir).unwrap();
    let dir = data_dir.to_string_lossy().into_owned();
    if !can_mount(&dir) {
        // Nothing is shown then, which is for whoever reads the test's output to know.
        #[allow(clippy::print_stderr)]
        {
            eprintln!("skipped: this machine does not let tests mount a file system");
        }
        return;
    }
    let mut node = site.spawn("node", &[], &["--free-bytes-min", "0"], &unshare(&dir));
    node.data_dir = loop_until_mounted(&node).await;
    node.ready().await;
    let disk = Disk::of(&node.data_dir);
    let blob = |seed: &str, len| site.registry.put_blob(content::bytes(seed, len));
    let (kept, large, late) = (blob("kept", SIZE), blob("too large", 30 << 20), blob("late", SIZE));
    node.pull_blob("app", &kept).await;

    // Larger than the disk: refused before a byte is written.
    let answer = node.get(&format!("app/blobs/{large}")).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}{}", answer.shown(), node.last_words());

    // Filled to the last byte by somebody else.
    let filler = node.data_dir.join("filler");
    fill(&filler);
    let answer = node.get(&format!("app/blobs/{late}")).await;
    assert!(answer.is_clear_failure(), "{}{}", answer.shown(), node.last_words());
    node.pull_blob("app", &kept).await;
    assert!(node.log().contains("no room") || node.log().contains("disk is full"), "{}", node.last_words());

    fs::remove_file(&filler).unwrap();
    node.pull_blob("app", &late).await;
    assert_eq!(disk.wrong_blobs(), Vec::<PathBuf>::new());

    // Filled while a blob comes, which has its room already, so that all but the last records may fail to be written.
    let growing = blob("growing", SIZE);
    site.registry.set_rate(Some(2 << 20));
    let url = node.url(&format!("app/blobs/{growing}"));
    let pull = tokio::spawn(async move { crate::common::client::ask(reqwest::Method::GET, &url, None).await.unwrap() });
    node.wait_until("begins a blob", async || disk.partial_data(&growing).exists()).await;
    fill(&filler);
    let answer = node.patiently("the pull ends", pull).await.unwrap();
    assert!(answer.is(&growing) || answer.is_clear_failure(), "{}{}", answer.shown(), node.last_words());
    fs::remove_file(&filler).unwrap();
    node.pull_blob("app", &growing).await;
    assert_eq!(disk.wrong_blobs(), Vec::<PathBuf>::new());
}

/// Waits until the process has its own file system, and says where that is for others.
async fn loop_until_mounted(node: &Node) -> PathBuf {
    let seen = seen_by(node);
    node.wait_until("writes into its own file system", async || seen.join("identity").exists()).await;
    seen
}

/// Writes until nothing more fits.
fn fill(path: &PathBuf) {
    let mut file = File::create(path).unwrap();
    for len in [64 << 10, 4096, 1] {
        while file.write_all(&vec![1; len]).is_ok() {}
    }
}
