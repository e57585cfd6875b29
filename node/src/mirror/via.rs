//! Loop guard: a node's mirror never answers a node's origin client.
//!
//! A misconfiguration can make a node its own origin, or several nodes each other's; a want would then wait for
//! itself. Every request that a node sends to an origin names it in [`LAYERMESH_VIA`], so a mirror that finds the
//! header knows that it is taken for a registry, and refuses. Nothing is lost by that: nodes give each other what
//! they hold as peers.

use axum::http::HeaderMap;
use layermesh_proto::NodeId;

use crate::origin::LAYERMESH_VIA;

/// Longest part of the header that is shown to people, in characters: a peer id has 52.
const SHOWN_LEN_MAX: usize = 64;

/// Why a request is refused that a node's origin client sent; `None` if a runtime sent it.
pub(super) fn forwarded(headers: &HeaderMap, node: NodeId) -> Option<String> {
    let sender: String = headers.get(LAYERMESH_VIA)?.to_str().unwrap_or("?").chars().take(SHOWN_LEN_MAX).collect();
    let whose = if sender == node.to_string() { "this node itself" } else { "another node" };
    Some(format!(
        "{whose} ({sender}) takes this mirror for a registry: give the registry's own address in its `[[origin]]`; \
         nodes reach each other as peers"
    ))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn whatever_a_node_sent_is_refused_and_the_text_says_whose_it_is() {
        let node = NodeId::from_public_key([7; 32]);
        let refused = |line: &str| {
            let headers =
                HeaderMap::from_iter([(LAYERMESH_VIA.parse().unwrap(), HeaderValue::from_str(line).unwrap())]);
            forwarded(&headers, node)
        };
        assert_eq!(forwarded(&HeaderMap::new(), node), None);
        assert!(refused(&node.to_string()).unwrap().starts_with("this node itself"));
        assert!(refused("12D3KooWother").unwrap().starts_with("another node (12D3KooWother)"));
        assert!(refused(&"x".repeat(9000)).unwrap().len() < 300);
    }
}
