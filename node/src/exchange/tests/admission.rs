//! Who is answered.

use rustls::{ClientConfig, RootCertStore};

use super::*;
use crate::fleet::{
    Refusal, record,
    testing::{Authority, NOW, TestClock, member},
};

struct Members {
    authority: Authority,
    server: Server,
    /// The server's, and the client's.
    fleets: (Fleet, Fleet),
    client: BulkClient,
    client_id: NodeId,
}

/// A server and a client that have seen each other's memberships, as they do on a connection of the control plane.
async fn members() -> Members {
    let authority = Authority::new();
    let (of_server, of_client) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let fleet = |keypair: &Keypair| {
        member(keypair, &[&authority], Some(authority.admit(node_of(keypair), None)), &TestClock::at(NOW))
    };
    let fleets = (fleet(&of_server), fleet(&of_client));
    let server = server_in(of_server.clone(), &fleets.0, server::DEADLINES, uploads::LIMITS).await;
    let client = BulkClient::new(&of_client, &fleets.1).unwrap();
    fleets.0.admit(node_of(&of_client), &fleets.1.credential()).unwrap();
    fleets.1.admit(node_of(&of_server), &fleets.0.credential()).unwrap();
    Members { authority, server, fleets, client, client_id: node_of(&of_client) }
}

fn refused(fleet: &Fleet, why: Refusal) -> u64 {
    fleet.status().refused[why.label()]
}

#[tokio::test]
async fn members_are_answered_and_strangers_are_refused_in_the_handshake() {
    let members = members().await;
    let bytes = blob(PIECE * 2);
    let content = members.server.source.insert(bytes.clone());
    assert_eq!(members.server.fetch(&members.client, content, 0..9).await, bytes);
    let sent = members.server.counters.to_peers.get();

    // A node with a good certificate that has shown no membership.
    let error = members.server.open(&client(), content, 0..1).await.unwrap_err();
    assert!(matches!(error, SourceError::Unreachable(_)), "{error:?}");
    assert_eq!(refused(&members.fleets.0, Refusal::NoMembership), 1);
    // One that has asked before it came to know: nothing but the handshake's refusal is read.
    let tls = ClientTls::new(&Keypair::generate_ed25519()).unwrap();
    let mut stream = members.server.connect(&tls).await.unwrap();
    let _ = stream.write_all(b"GET /blobs/x HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut got = Vec::new();
    let ended = timeout(PATIENCE, stream.read_to_end(&mut got)).await.unwrap();
    assert!(ended.is_err() && got.is_empty(), "{got:?}");
    assert_eq!(refused(&members.fleets.0, Refusal::NoMembership), 2);
    // A membership of somebody else does not help.
    let (other, stranger) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let credential = members.authority.admit(node_of(&other), None);
    let shown = members.fleets.0.admit(node_of(&stranger), &record::to_bytes(&credential).unwrap());
    assert_eq!(shown, Err(Refusal::AnotherPeer));
    let stranger = BulkClient::new(&stranger, &Fleet::open()).unwrap();
    assert!(members.server.open(&stranger, content, 0..1).await.is_err());
    assert_eq!(members.server.counters.to_peers.get(), sent);
}

#[tokio::test]
async fn whoever_does_not_say_who_it_is_gets_nothing() {
    let members = members().await;
    // curl, plain.
    let mut stream = TcpStream::connect(members.server.addr).await.unwrap();
    stream.write_all(b"GET /blobs/x HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut got = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut got)).await.unwrap();
    assert!(!String::from_utf8_lossy(&got).contains("HTTP"), "{got:?}");
    // curl --insecure, without a certificate of its own.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    config.dangerous().set_certificate_verifier(tls::any_node());
    config.alpn_protocols = vec![tls::ALPN.to_vec()];
    let stream = TcpStream::connect(members.server.addr).await.unwrap();
    let connected = TlsConnector::from(Arc::new(config)).connect(members.server.addr.ip().into(), stream).await;
    let mut got = Vec::new();
    if let Ok(mut stream) = connected {
        let _ = stream.write_all(b"GET /blobs/x HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let _ = timeout(PATIENCE, stream.read_to_end(&mut got)).await.unwrap();
    }
    assert!(got.is_empty(), "{got:?}");
    assert_eq!(refused(&members.fleets.0, Refusal::Broken), 2);
}

#[tokio::test]
async fn transfers_end_when_either_end_hears_that_the_other_was_revoked() {
    for at_server in [true, false] {
        let members = members().await;
        let content = members.server.source.insert(blob(PIECE * 4));
        members.server.source.fault(content, Fault::StallAt(PIECE * 2));
        let mut body = members.server.open(&members.client, content, 0..4).await.unwrap();
        timeout(PATIENCE, body.stream.next()).await.unwrap().unwrap().unwrap();
        let (fleet, subject) =
            if at_server { (&members.fleets.0, members.client_id) } else { (&members.fleets.1, members.server.peer) };
        fleet.revoke(&members.authority.revoke(subject), None).unwrap();
        let broken = timeout(PATIENCE, async {
            loop {
                if let Err(error) = body.stream.next().await.expect("the body never ends by itself") {
                    return error;
                }
            }
        });
        assert!(matches!(broken.await.unwrap(), SourceError::Unreachable(_)));
        // And no connection comes about again; the client does not even try.
        assert!(matches!(members.server.open(&members.client, content, 0..1).await, Err(SourceError::Unreachable(_))));
        if at_server {
            assert_eq!(refused(&members.fleets.0, Refusal::Revoked), 2);
        } else {
            assert_eq!(members.server.counters.to_peers.get(), PIECE * 2);
        }
    }
}
