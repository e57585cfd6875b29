//! Answers of a node for tests.

use serde_json::json;

use crate::admin::types::{
    NodeStatus, Severity, SiteCrossed, SiteDevice, SiteProblem, SiteStatus, SiteTransfer, SiteUplink, TransferStatus,
};

pub(super) const MIB: u64 = 1 << 20;

/// A peer id that ends in a number of six digits.
pub(super) fn peer_id(number: usize) -> String {
    format!("12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA{number:06}")
}

/// A digest that begins with a number of eight digits.
pub(super) fn digest(number: u32) -> String {
    format!("sha256:{number:08x}{}", "0".repeat(56))
}

fn node(uptime_s: f64) -> NodeStatus {
    let status = json!({
        "peer_id": peer_id(0), "version": "0.1.0", "pid": 7, "uptime_s": uptime_s, "fleet": "lab",
        "platform": "linux/amd64", "addresses": [],
        "listen": {"mirror": "127.0.0.1:1", "peers": "0.0.0.0:2", "bulk": "0.0.0.0:3", "status": "127.0.0.1:4"},
        "peers": 0, "blobs": 12, "store_bytes": 412 * MIB, "partial_bytes": 0, "bytes_from_origin": 100 * MIB,
        "bytes_from_peers": 300 * MIB, "bytes_to_peers": 200 * MIB, "bytes_to_runtimes": 0, "bytes_discarded": 0,
        "origins": [], "transfers": [],
    });
    serde_json::from_value(status).unwrap()
}

pub(super) fn device(number: usize) -> SiteDevice {
    SiteDevice {
        peer_id: peer_id(number),
        connected: true,
        address: Some(format!("10.0.{}.{}", number / 250, number % 250 + 1)),
        version: Some("0.1.0".to_owned()),
        platform: Some("linux/arm64".to_owned()),
        blobs: 10 + number,
        bytes: (400 - number as u64) * MIB,
        wants: 0,
        wanted_bytes: 0,
        had_bytes: 0,
        fetches: 0,
        penalised: false,
        received_bytes: 0,
        sent_bytes: 0,
    }
}

/// A site with so many devices beside this one, where nothing moves.
pub(super) fn idle(uptime_s: f64, devices: usize) -> SiteStatus {
    SiteStatus {
        node: node(uptime_s),
        problems: Vec::new(),
        devices: (1..=devices).map(device).collect(),
        devices_total: devices,
        under_way: Vec::new(),
        under_way_total: 0,
        images: Vec::new(),
        tags_total: 0,
        layers: Vec::new(),
        layers_total: 0,
        layers_held_once: 0,
        uplink: SiteUplink::default(),
        rollouts: Vec::new(),
    }
}

pub(super) fn transfer(number: u32, bytes: u64, sources: &[String]) -> TransferStatus {
    TransferStatus {
        digest: digest(number),
        size: Some(100 * MIB),
        bytes,
        sources: sources.to_vec(),
        quiet_s: 0,
        waits_for: None,
    }
}

/// The same blob on the site: one device holds it, two others want it.
pub(super) fn under_way(number: u32) -> SiteTransfer {
    SiteTransfer {
        digest: digest(number),
        size: Some(100 * MIB),
        image: Some("registry.example/shop/app:1.5".to_owned()),
        holders: 1,
        wanting: 2,
        had_bytes: 30 * MIB,
        fetching: Vec::new(),
        uplink_bytes: 100 * MIB,
    }
}

/// A site where this device takes two layers and waits for a third, others take a fourth, and a registry is away; `seconds`
/// after it began.
pub(super) fn busy(seconds: u64) -> SiteStatus {
    let mut site = idle(11_220.0 + seconds as f64, 4);
    let (done, peer) = (seconds * 2 * MIB, |number| format!("peer {}", peer_id(number)));
    let waits = TransferStatus { waits_for: Some("a window, in 3 h".to_owned()), ..transfer(0xcccc_cccc, 0, &[]) };
    site.node.transfers = vec![
        transfer(0xaaaa_aaaa, 40 * MIB + done, &["origin registry.example".to_owned(), peer(2)]),
        transfer(0xbbbb_bbbb, 10 * MIB + done / 2, &[peer(1), peer(2), peer(3), peer(4)]),
        waits,
    ];
    site.node.bytes_from_peers += done;
    site.under_way = [0xaaaa_aaaa, 0xbbbb_bbbb, 0xcccc_cccc, 0xdddd_dddd].map(under_way).to_vec();
    site.under_way[0] = SiteTransfer {
        holders: 0,
        fetching: vec![peer_id(0)],
        uplink_bytes: 40 * MIB + done,
        ..under_way(0xaaaa_aaaa)
    };
    site.under_way[3].had_bytes += 3 * done;
    site.under_way[3].fetching = vec![peer_id(3)];
    site.under_way_total = 4;
    let getting = |device: &mut SiteDevice, fetches| {
        device.wants = 1;
        device.fetches = fetches;
        device.wanted_bytes = 100 * MIB;
        device.had_bytes = 15 * MIB + done;
    };
    getting(&mut site.devices[2], 1);
    getting(&mut site.devices[0], 0);
    site.devices[1].received_bytes = done;
    site.devices[0].sent_bytes = done / 4;
    site.devices[3].connected = false;
    site.devices[3].address = None;
    let crossed = |number, ago_s| SiteCrossed {
        digest: digest(number),
        size: Some(100 * MIB),
        bytes: 104 * MIB,
        ago_s,
        holders: 1,
    };
    site.uplink = SiteUplink {
        bytes: 148 * MIB + done,
        surplus_bytes: 4 * MIB,
        lately: vec![crossed(0xdddd_dddd, 3), crossed(0xeeee_eeee, 3601)],
    };
    let problem = |severity, what: &str, next: &str| SiteProblem { severity, what: what.into(), next: next.into() };
    site.problems = vec![
        problem(
            Severity::Warning,
            "The registry registry.example does not answer.",
            "What the site holds is served all the same. The node asks again by itself; if the uplink is up, look at the \
             registry's address and credentials.",
        ),
        problem(Severity::Note, "One device has another version.", ""),
    ];
    site
}
