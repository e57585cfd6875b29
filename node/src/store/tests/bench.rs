//! How fast the store is and what it writes; by hand:
//! `cargo test --release -p layermesh --lib store::tests::bench -- --ignored --nocapture`.

use std::fs;

use super::*;

/// Bytes that this process had written to storage so far (proc(5), `/proc/pid/io`).
fn written() -> u64 {
    let io = fs::read_to_string("/proc/self/io").unwrap();
    io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, not a check; needs 256 MiB of disk"]
async fn write_complete_and_read_256_mib() {
    // Beside the build, since /tmp may be in memory.
    let dir = tempfile::tempdir_in(std::env::current_dir().unwrap()).unwrap();
    let (content, bytes) = blob(1, 256 << 20);
    let Opened { store, .. } = open(dir.path()).await;
    let clock = tokio::time::Instant::now;
    let (before, start) = (written(), clock());
    let partial = store.begin(content, bytes.len() as u64).await.unwrap();
    for index in 0..partial.layout().count() {
        partial.write(index, piece(&bytes, index), None).await.unwrap();
        if index % 8 == 7 {
            partial.sync().await.unwrap();
        }
    }
    store.complete(content).await.unwrap();
    let (wrote, took) = (written() - before, start.elapsed());
    eprintln!("write and complete: {:.0} MB/s", bytes.len() as f64 / 1e6 / took.as_secs_f64());
    eprintln!("bytes written: {wrote}, {:.4} of the blob", wrote as f64 / bytes.len() as f64);
    let start = clock();
    let mut reader = store.reader(content);
    let mut offset = 0;
    while offset < bytes.len() as u64 {
        offset += reader.read(offset, 64 << 10).await.unwrap().len() as u64;
    }
    eprintln!("read: {:.0} MB/s", bytes.len() as f64 / 1e6 / start.elapsed().as_secs_f64());
    let before = written();
    let (small, bytes) = blob(2, 1000);
    store.insert(small, bytes).await.unwrap();
    eprintln!("bytes written for a blob of 1000: {}", written() - before);
}
