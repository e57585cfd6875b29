//! `layermesh peers`: who is there?

use super::{Exit, Failure, Global, node, output};
use crate::admin::types::Peer;

pub(super) async fn run(global: &Global) -> Result<Exit, Failure> {
    let peers = node::client(global)?.peers().await?;
    if global.json {
        output::print_json_document(&peers)?;
    } else if peers.is_empty() {
        output::print(
            "no peers: either no other node of this fleet is on the LAN, or multicast is filtered there \
             (name one with --peer)\n",
        )?;
    } else {
        output::print(&shown(peers))?;
    }
    Ok(Exit::Done)
}

fn shown(peers: Vec<Peer>) -> String {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let row = |peer: Peer| {
        let (bulk, version, platform) = (or_dash(peer.bulk), or_dash(peer.version), or_dash(peer.platform));
        vec![peer.peer_id, peer.address, bulk, version, platform, peer.blobs.to_string()]
    };
    output::table(
        &["PEER", "ADDRESS", "BULK", "VERSION", "PLATFORM", "BLOBS"],
        &[5],
        peers.into_iter().map(row).collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::testing::World;

    #[tokio::test]
    async fn a_row_a_peer() {
        let text = shown(World::new().node().peers().await);
        let rows: Vec<_> = text.lines().collect();
        assert_eq!(rows.len(), 2);
        assert!(
            rows[1].starts_with("12D3KooW") && rows[1].contains("10.0.0.2:7119") && rows[1].ends_with(" 3"),
            "{text}"
        );
    }
}
