//! `layermesh status`: is it working?

use std::{fmt::Write as _, time::Duration};

use super::{Exit, Failure, Global, fleet, node, output};
use crate::{
    admin::types::NodeStatus,
    config::units::{show_bytes, show_duration},
};

pub(super) async fn run(global: &Global) -> Result<Exit, Failure> {
    let status = node::client(global)?.status().await?;
    if global.json {
        output::print_json_document(&status)?;
    } else {
        output::print(&shown(&status))?;
    }
    Ok(Exit::Done)
}

/// The first line answers the question; the rest is for whoever wants to know more.
fn shown(status: &NodeStatus) -> String {
    let mut text = format!(
        "layermesh is running: {}, {} ({}), {}\n\n",
        output::counted(status.peers as u64, "peer", "peers"),
        output::counted(status.blobs, "blob", "blobs"),
        show_bytes(status.store_bytes),
        origins(status),
    );
    let uptime = Duration::try_from_secs_f64(status.uptime_s).unwrap_or_default();
    let rows = [
        ("peer id", status.peer_id.clone()),
        ("version", format!("{}, process {}, up {}", status.version, status.pid, show_duration(uptime))),
        ("fleet", format!("{}, platform {}", status.fleet, status.platform)),
        ("admission", status.admission.as_ref().map_or_else(|| "open".to_owned(), fleet::in_a_line)),
        ("mirror", format!("http://{}", status.listen.mirror)),
        ("page", format!("http://{}, metrics at /metrics", status.listen.status)),
        (
            "store",
            format!(
                "{} of {} ({} pinned), {} on their way, {} in attached stores",
                show_bytes(status.store_bytes),
                show_bytes(status.quota),
                show_bytes(status.pinned_bytes),
                show_bytes(status.partial_bytes),
                show_bytes(status.attached_bytes)
            ),
        ),
        ("addresses", status.addresses.join("\n             ")),
        (
            "received",
            format!(
                "{} from origins, {} from peers",
                show_bytes(status.bytes_from_origin),
                show_bytes(status.bytes_from_peers)
            ),
        ),
        (
            "sent",
            format!(
                "{} to peers, {} to runtimes",
                show_bytes(status.bytes_to_peers),
                show_bytes(status.bytes_to_runtimes)
            ),
        ),
    ];
    for (name, value) in rows {
        let _ = writeln!(text, "  {name:<11}{value}");
    }
    for transfer in &status.transfers {
        let of = transfer.size.map_or_else(|| "?".to_owned(), show_bytes);
        let doing = match (transfer.sources.as_slice(), &transfer.waits_for) {
            ([], Some(what)) => format!("waits for {what}"),
            ([], None) => "from nobody yet".to_owned(),
            (sources, _) => format!("from {}", sources.join(", ")),
        };
        let _ =
            writeln!(text, "  {:<11}{} {} of {of} {doing}", "transfer", transfer.digest, show_bytes(transfer.bytes));
    }
    text
}

fn origins(status: &NodeStatus) -> String {
    if status.origins.is_empty() {
        return "no origin asked yet".to_owned();
    }
    let word = |reachable| if reachable { "reachable" } else { "NOT reachable" };
    let each = status.origins.iter().map(|origin| format!("origin {} {}", origin.registry, word(origin.reachable)));
    each.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::{testing::World, types::TransferStatus};

    #[tokio::test]
    async fn the_first_line_answers_the_question() {
        let view = World::new().node();
        view.store.put(vec![0; 2048]);
        let text = shown(&view.status().await);
        let first = "layermesh is running: 1 peer, 1 blob (2.00 KiB), origin docker.io reachable, \
                     origin gone.test NOT reachable";
        assert_eq!(text.lines().next(), Some(first));
        assert!(text.contains("  mirror     http://127.0.0.1:1\n"), "{text}");
        assert!(text.contains("  page       http://127.0.0.1:4, metrics at /metrics\n"), "{text}");
    }

    #[tokio::test]
    async fn a_transfer_says_where_from_or_what_it_waits_for() {
        let mut status = World::new().node().status().await;
        let transfer = |source: Option<&str>, waits_for: Option<&str>| TransferStatus {
            digest: "sha256:aa".to_owned(),
            size: Some(2048),
            bytes: 1024,
            sources: source.map(str::to_owned).into_iter().collect(),
            quiet_s: 0,
            waits_for: waits_for.map(str::to_owned),
        };
        status.transfers =
            vec![transfer(Some("origin a"), None), transfer(None, Some("a window")), transfer(None, None)];
        let text = shown(&status);
        for doing in ["from origin a", "waits for a window", "from nobody yet"] {
            assert!(text.contains(&format!("  transfer   sha256:aa 1.00 KiB of 2.00 KiB {doing}\n")), "{text}");
        }
    }
}
