//! Peers that lie, stall or leave.

use bytes::Bytes;
use layermesh_proto::ContentId;

use crate::{
    PIECE, SIZE,
    common::{
        Node, Site,
        client::Answer,
        content,
        liar::{Liar, Lie},
    },
};

/// Times that a client asks for a blob before it takes it that it will not get it.
const TRIES: usize = 3;
/// An offset in the middle of a piece in the middle of the blob.
pub(crate) const MIDDLE: u64 = 11 * PIECE + 1000;

pub(crate) fn blob(site: &Site, seed: &str) -> (ContentId, Bytes) {
    let bytes = content::bytes(seed, SIZE);
    (site.registry.put_blob(bytes.clone()), bytes)
}

pub(crate) async fn victim(site: &Site, liar: &Liar, blobs: usize) -> Node {
    let node = site.node("victim", &[&liar.address]).await;
    node.has_heard(&liar.peer, blobs).await;
    node
}

/// Asks for a blob until it comes, as a client does that was told that it did not get it.
async fn pull_with_retries(node: &Node, blob: &ContentId) -> Vec<Answer> {
    let mut answers = Vec::new();
    for _ in 0..TRIES {
        let answer = node.get(&format!("app/blobs/{blob}")).await;
        let right = answer.is(blob);
        assert!(right || answer.is_clear_failure(), "wrong bytes as if they were right{}", node.last_words());
        answers.push(answer);
        if right {
            node.has_stored([blob]).await;
            return answers;
        }
    }
    panic!("{TRIES} tries in vain, the last: {}{}", answers[TRIES - 1].shown(), node.last_words());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_whose_lies_agree_is_found_out_by_the_digest() {
    let site = Site::new().await;
    let (first, second) = (blob(&site, "first"), blob(&site, "second"));
    let lie = |(blob, bytes): &(ContentId, Bytes), at| Lie::consistent(*blob, bytes, at);
    let liar = Liar::start(site.fleet(), vec![lie(&first, MIDDLE as usize), lie(&second, 5)]).await;
    let node = victim(&site, &liar, 2).await;
    pull_with_retries(&node, &first.0).await;
    assert!(liar.served() >= SIZE as u64, "the peer was asked first");
    // Once bitten, it is not asked for the other blob, which therefore comes right at once.
    let served = liar.served();
    assert_eq!(pull_with_retries(&node, &second.0).await.len(), 1);
    assert_eq!(liar.served(), served, "{}", node.last_words());
    assert!(node.log().contains("vouched for wrong bytes"), "{}", node.last_words());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_peer_puts_a_lie_right() {
    let site = Site::new().await;
    let (blob, bytes) = blob(&site, "two peers");
    let honest = site.node("honest", &[]).await;
    honest.pull_blob("app", &blob).await;
    site.registry.set_online(false).await.unwrap();
    let liar = Liar::start(site.fleet(), vec![Lie::consistent(blob, &bytes, MIDDLE as usize)]).await;
    let node = site.node("victim", &[&liar.address, honest.address()]).await;
    node.has_heard(&liar.peer, 1).await;
    node.has_heard(&honest.run().peer_id, 1).await;
    pull_with_retries(&node, &blob).await;
    assert_eq!(node.blobs().await.len(), 1);
}

/// Whoever lied in a mix of pieces cannot be told, and the honest must not be taken for liars with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_liar_that_leaves_half_way_does_not_discredit_the_origin() {
    let site = Site::new().await;
    let (blob, bytes) = blob(&site, "half a lie");
    let lie = Lie { cut_at: Some(MIDDLE), ..Lie::consistent(blob, &bytes, 2000) };
    let liar = Liar::start(site.fleet(), vec![lie]).await;
    let node = victim(&site, &liar, 1).await;
    pull_with_retries(&node, &blob).await;
    assert!(liar.served() > PIECE, "the peer was asked first");
}

#[tokio::test(flavor = "multi_thread")]
async fn pieces_that_are_not_what_was_vouched_for_are_not_taken() {
    let site = Site::new().await;
    let (blob, bytes) = blob(&site, "clumsy");
    let liar = Liar::start(site.fleet(), vec![Lie::clumsy(blob, bytes, MIDDLE as usize)]).await;
    let node = victim(&site, &liar, 1).await;
    // Nothing wrong was stored, so the client notices nothing and the registry sends only what was not good.
    assert_eq!(pull_with_retries(&node, &blob).await.len(), 1);
    assert_eq!(site.registry.bytes_sent(), SIZE as u64 - MIDDLE / PIECE * PIECE);
    assert!(node.log().contains("vouched for wrong bytes"), "{}", node.last_words());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_stalls_or_leaves_within_a_piece_is_replaced() {
    let site = Site::new().await;
    let (stalled, cut) = (blob(&site, "stalled"), blob(&site, "cut off"));
    let truth = |(blob, bytes): &(ContentId, Bytes)| Lie::truth(*blob, bytes.clone());
    let lies = vec![Lie { stall_at: Some(MIDDLE), ..truth(&stalled) }, Lie { cut_at: Some(MIDDLE), ..truth(&cut) }];
    let liar = Liar::start(site.fleet(), lies).await;
    let node = victim(&site, &liar, 2).await;
    // The one stall costs the deadline for a peer (10 s), and the client sees only that.
    let (one, other) = tokio::join!(pull_with_retries(&node, &stalled.0), pull_with_retries(&node, &cut.0));
    assert_eq!((one.len(), other.len()), (1, 1), "{}", node.last_words());
    // The peer's own server gives up a little later; the node must not depend on that.
    assert!(node.log().contains("no progress; trying another source"), "{}", node.last_words());
    let good = MIDDLE / PIECE * PIECE;
    let sent = |blob: &ContentId| site.registry.bytes_sent_under(&format!("/v2/app/blobs/{blob}"));
    assert_eq!(sent(&stalled.0), SIZE as u64 - good, "only what the peer did not give came from the registry");
    // What a node has not read when its peer breaks off is lost.
    assert!((SIZE as u64 - good..SIZE as u64).contains(&sent(&cut.0)), "{}", sent(&cut.0));
}
