//! A node that is killed again and again in the middle of pulls: what it had made durable is there, what it calls whole
//! is whole, and nothing durable crosses the uplink again.
//!
//! The bounds. Within one life of the node each blob is asked of the registry at most once, from the first piece that is
//! not durable, since clients do not come back within a life. So the registry sends of a blob, from one kill to the next,
//! at most its size less what was durable at the first of the two. What a kill costs is what was not durable yet: a fetch
//! starts to make its pieces durable when [`SYNC_BYTES`] have come, and takes what comes meanwhile; so of a blob of which
//! several times as much came in one life, something is durable.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod common;

use std::time::Duration;

use common::{
    Node, PATIENCE, Site,
    client::{Naming, ask, pull_image},
    content::{Dice, RawImage},
    disk::{self, Disk},
};
use futures::future::join_all;
use layermesh::store::SYNC_BYTES;
use layermesh_proto::ContentId;
use reqwest::Method;
use tokio::{task::JoinHandle, time::timeout};

const KILLS: usize = 50;
/// What the registry sends in a second. The kills are spread over what it sends in 0.8 s, beyond what a fetch takes
/// until it makes its pieces durable, so that some lives get further and some do not.
const RATE: u64 = 40 << 20;
const KILL_WITHIN_BYTES: u64 = 32 << 20;
/// Layers of each image: some small enough to become whole in one life, one that outlasts several.
const LAYERS: [usize; 4] = [200_000, 3 << 20, 9 << 20, 64 << 20];
/// Set to repeat a run.
const SEED: &str = "LAYERMESH_TEST_SEED";

fn seed() -> u64 {
    let seed = std::env::var(SEED).ok().and_then(|text| text.parse().ok()).unwrap_or_else(rand::random);
    eprintln!("repeat with {SEED}={seed}");
    seed
}

/// How far a life of the node goes before it is killed.
#[derive(Debug)]
enum Until {
    /// This long after the start of the process, so that recovery and listening are met as well.
    Since(Duration),
    /// The registry has sent so much in this life.
    Sent(u64),
}

impl Until {
    fn roll(kill: usize, dice: &mut Dice) -> Self {
        match dice.below(5) {
            // Now and then as far as it goes.
            _ if kill % 10 == 9 => Self::Sent(KILL_WITHIN_BYTES),
            0 => Self::Since(Duration::from_millis(dice.below(400))),
            _ => Self::Sent(dice.below(KILL_WITHIN_BYTES)),
        }
    }
}

/// What of a blob is on the disk, in bytes.
fn stored(disk: &Disk, content: &ContentId, size: u64) -> u64 {
    match disk.blob(content).exists() {
        true => size,
        false => disk.durable_bytes(content, size),
    }
}

struct Pulling {
    image: RawImage,
    repository: String,
}

impl Pulling {
    fn put(site: &Site, n: usize, seed: u64) -> Self {
        let repository = format!("killed-{n}");
        let image = RawImage::put(&site.registry, &repository, "v1", &format!("{seed}/{n}"), &LAYERS);
        Self { image, repository }
    }

    fn sent(&self, site: &Site) -> Vec<u64> {
        let of = |(blob, _): &(ContentId, u64)| {
            site.registry.bytes_sent_under(&format!("/v2/{}/blobs/{blob}", self.repository))
        };
        self.image.blobs.iter().map(of).collect()
    }

    fn stored(&self, disk: &Disk) -> Vec<u64> {
        self.image.blobs.iter().map(|(blob, size)| stored(disk, blob, *size)).collect()
    }

    fn is_whole(&self, disk: &Disk) -> bool {
        self.image.blobs.iter().all(|(blob, _)| disk.blob(blob).exists())
    }

    /// Asks for everything at once, as a runtime does, and for nothing twice.
    fn pull(&self, node: &Node) -> JoinHandle<()> {
        let paths = self.image.blobs.iter().map(|(blob, _)| format!("{}/blobs/{blob}", self.repository));
        let manifest = format!("{}/manifests/v1", self.repository);
        let urls: Vec<String> = paths.chain([manifest]).map(|path| node.url(&path)).collect();
        tokio::spawn(async move {
            // The kill ends them all in errors, which are not the point here.
            join_all(urls.iter().map(|url| ask(Method::GET, url, None))).await;
        })
    }
}

/// Lives once: starts the node, pulls, kills it at the point that was rolled.
async fn live(site: &Site, pulling: &[Pulling], until: &Until) -> Node {
    let mut node = site.spawn("node", &[], &[], &[]);
    match *until {
        // The point is the time itself here, for want of a condition: wherever the node is by then.
        Until::Since(age) => {
            let life = async {
                node.ready().await;
                pulling.last().unwrap().pull(&node).await.unwrap();
            };
            let _ = timeout(age, life).await;
            node.kill().await;
        }
        Until::Sent(bytes) => {
            node.ready().await;
            is_consistent(site, &node, pulling).await;
            let before = site.registry.bytes_sent();
            let pull = pulling.last().unwrap().pull(&node);
            node.wait_until(&format!("takes {bytes} bytes"), async || {
                site.registry.bytes_sent() - before >= bytes || pull.is_finished()
            })
            .await;
            node.kill().await;
            timeout(PATIENCE, pull).await.expect("clients of a dead node are not left waiting").unwrap();
        }
    }
    node
}

/// What the node says that it holds is on its disk, whole and in part.
async fn is_consistent(site: &Site, node: &Node, pulling: &[Pulling]) {
    let disk = Disk::of(&site.dir().join("node"));
    for blob in node.blobs().await {
        let file = disk.blob(&blob.digest.parse().unwrap());
        assert_eq!(disk::len(&file), blob.size, "{}{}", blob.digest, node.last_words());
    }
    let partial = |(content, size): &(ContentId, u64)| match disk.blob(content).exists() {
        true => 0,
        false => disk.durable_bytes(content, *size),
    };
    let partial_bytes: u64 = pulling.iter().flat_map(|pulling| &pulling.image.blobs).map(partial).sum();
    assert_eq!(node.status().await.partial_bytes, partial_bytes, "{}", node.last_words());
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_kills_lose_nothing_durable() {
    let seed = seed();
    let mut dice = Dice::new(seed);
    let site = Site::new().await;
    site.registry.set_rate(Some(RATE));
    let disk = Disk::of(&site.dir().join("node"));
    let mut pulling = vec![Pulling::put(&site, 0, seed)];
    let (mut lost, mut long_lives, mut fruitful) = (0, 0, 0);
    for kill in 0..KILLS {
        if kill > 0 && pulling.last().unwrap().is_whole(&disk) {
            pulling.push(Pulling::put(&site, pulling.len(), seed));
        }
        let current = pulling.last().unwrap();
        let before = (current.sent(&site), current.stored(&disk));
        let until = Until::roll(kill, &mut dice);
        let node = live(&site, &pulling, &until).await;

        let after = (current.sent(&site), current.stored(&disk));
        let what = format!(
            "kill {kill}, {until:?}: sent {:?} -> {:?}, stored {:?} -> {:?}{}",
            before.0,
            after.0,
            before.1,
            after.1,
            node.last_words()
        );
        for (n, (_, size)) in current.image.blobs.iter().enumerate() {
            let sent = after.0[n] - before.0[n];
            assert!(sent <= size - before.1[n], "blob {n} came again: {what}");
            assert!(after.1[n] >= before.1[n], "durable pieces of blob {n} are gone: {what}");
            let kept = after.1[n] - before.1[n];
            // More is kept than was sent where the kill before fell between a blob's row and its name, so that it
            // became whole at this start.
            lost += sent.cast_signed() - kept.cast_signed();
            if sent >= 3 * SYNC_BYTES {
                long_lives += 1;
                fruitful += u32::from(kept > 0);
            }
        }
        assert_eq!(disk.wrong_blobs(), Vec::<std::path::PathBuf>::new(), "{what}");
    }
    // A disk may be slow to make a batch durable, but hardly each time for as long as two further ones take to come.
    let summary = format!("{lost} bytes lost to {KILLS} kills, {fruitful} of {long_lives} long lives fruitful");
    eprintln!("{} images, {summary}", pulling.len());
    assert!(long_lives > 0 && fruitful * 2 >= long_lives, "{summary}");

    site.registry.set_rate(None);
    let node = site.node("node", &[]).await;
    is_consistent(&site, &node, &pulling).await;
    for pulling in &pulling {
        let before = site.registry.bytes_sent();
        let missing: u64 = pulling.image.size - pulling.stored(&disk).iter().sum::<u64>();
        let (_, bytes) = pull_image(&node, Naming::Path, &pulling.repository, "v1").await;
        assert_eq!(bytes, pulling.image.size);
        assert!(site.registry.bytes_sent() - before <= missing, "{}", node.last_words());
    }
    assert_eq!(disk.wrong_blobs(), Vec::<std::path::PathBuf>::new());
}
