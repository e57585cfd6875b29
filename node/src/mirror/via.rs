//! Loop guard: a request that one node's origin client made must not be answered by asking an origin again in a ring.
//!
//! A site's misconfiguration can make a node its own origin, or two nodes each other's. Every request that a node
//! sends to an origin names it in [`LAYERMESH_VIA`]; a mirror refuses what it has sent itself, and what came through
//! more nodes than any sane setup has.

use axum::http::HeaderMap;
use layermesh_proto::NodeId;

/// Header with the peer ids of the nodes that a request came through, the first first, separated by commas.
pub const LAYERMESH_VIA: &str = "layermesh-via";
/// Most nodes that a request may have come through. A node as the origin of a site's nodes is one hop, and a second
/// tier of such nodes two; more is a loop in the making.
const HOPS_MAX: usize = 4;

/// The ring that a request runs in, for people; `None` if it runs in none.
pub(super) fn ring(headers: &HeaderMap, node: NodeId) -> Option<String> {
    let node = node.to_string();
    let hops: Vec<&str> = headers
        .get_all(LAYERMESH_VIA)
        .iter()
        .flat_map(|line| line.to_str().unwrap_or("?").split(','))
        .map(str::trim)
        .filter(|hop| !hop.is_empty())
        .collect();
    let ring = hops.contains(&node.as_str()) || hops.len() > HOPS_MAX;
    ring.then(|| {
        let shown: Vec<&str> = hops.iter().take(HOPS_MAX + 1).copied().collect();
        format!("{} -> {node}", shown.join(" -> "))
    })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_request_that_came_from_here_or_from_too_far_is_refused() {
        let node = NodeId::from_public_key([7; 32]);
        let me = node.to_string();
        let refused = |lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(LAYERMESH_VIA, HeaderValue::from_str(line).unwrap());
            }
            ring(&headers, node)
        };
        assert_eq!(refused(&[]), None);
        assert_eq!(refused(&["a, b", &format!("{me}x")]), None);
        assert_eq!(refused(&["a,b,c,d"]), None);
        assert_eq!(refused(&[&format!("a, {me}")]), Some(format!("a -> {me} -> {me}")));
        assert!(refused(&["a", &me]).is_some());
        assert!(refused(&["a,b,c", "d,e"]).is_some());
    }
}
