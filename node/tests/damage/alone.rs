//! Damage that nobody can put right, which takes longest to find out.

use std::time::Duration;

use futures::future::join_all;
use reqwest::StatusCode;

use crate::{
    PIECE,
    common::{
        Site,
        client::ask,
        disk::{self, Disk},
        liar::{Liar, Lie},
    },
    peers::{MIDDLE, blob, victim},
    stored::pulled,
};

/// How long a want whose blob was partly there may go on when no source is left, and a little more.
const GIVE_UP: Duration = Duration::from_secs(75);

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_blob_that_nobody_else_has_is_not_served() {
    let site = Site::new().await;
    let node = site.node("node", &[]).await;
    let blobs = pulled(&site, &node, &["lost at once", "lost on the way"]).await;
    let disk = Disk::of(&node.data_dir);
    let good = [0, 10 * PIECE];
    for ((blob, _), good) in blobs.iter().zip(good) {
        disk::flip_bit(&disk.blob(blob), good + 9);
    }
    site.registry.set_online(false).await.unwrap();
    let urls: Vec<_> = blobs.iter().map(|(blob, _)| node.url(&format!("app/blobs/{blob}"))).collect();
    let reads = urls.iter().map(|url| ask(reqwest::Method::GET, url, None));
    let answers = node.within(GIVE_UP, "two reads in vain", join_all(reads)).await;
    for ((answer, (_, bytes)), good) in answers.into_iter().zip(&blobs).zip(good) {
        let answer = answer.unwrap();
        assert!(answer.is_clear_failure(), "{}{}", answer.shown(), node.last_words());
        if good == 0 {
            assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "nothing had gone out yet");
        } else {
            assert_eq!(answer.body, bytes[..good as usize], "what came before the damage is right");
        }
    }
    site.registry.set_online(true).await.unwrap();
    for (blob, _) in &blobs {
        node.pull_blob("app", blob).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lie_that_nobody_can_put_right_is_not_served() {
    let site = Site::new().await;
    let (blob, bytes) = blob(&site, "alone with a liar");
    site.registry.set_online(false).await.unwrap();
    let liar = Liar::start(site.fleet(), vec![Lie::consistent(blob, &bytes, MIDDLE as usize)]).await;
    let node = victim(&site, &liar, 1).await;
    for _ in 0..2 {
        let answer = node.get(&format!("app/blobs/{blob}")).await;
        assert!(answer.is_clear_failure(), "{}{}", answer.shown(), node.last_words());
    }
    assert!(node.blobs().await.is_empty());
}
