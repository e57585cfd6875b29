//! Who is let in, on real connections.

use futures::{AsyncRead, AsyncWrite};
use layermesh_proto::wire::fleet::{Credential, Membership};
use libp2p::{
    SwarmBuilder,
    core::{
        UpgradeInfo,
        upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade},
    },
    identify, noise, tcp, yamux,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::*;
use crate::fleet::{
    Refusal, record,
    testing::{Authority, NOW, TestClock, member},
};

/// What a stranger of any kind may get of a node before it is refused: the negotiation of the handshake.
const NEGOTIATION_BYTES_MAX: usize = 64;
/// Within this a revocation has taken effect on all nodes of a site.
const REVOKED_WITHIN: Duration = Duration::from_secs(5);

fn id_of(keypair: &Keypair) -> NodeId {
    record::public(keypair).unwrap()
}

/// A node with this membership.
async fn start(keypair: Keypair, fleet: &Fleet, port: u16, peers: &[&Multiaddr]) -> Node {
    Node::start_in(keypair, ("f", fleet.clone()), port, peers, &[]).await
}

/// A node that one authority has admitted.
async fn member_of(authority: &Authority, peers: &[&Multiaddr]) -> (Node, Fleet) {
    let keypair = Keypair::generate_ed25519();
    let fleet = member(&keypair, &[authority], Some(authority.admit(id_of(&keypair), None)), &TestClock::at(NOW));
    (start(keypair, &fleet, 0, peers).await, fleet)
}

fn refused(fleet: &Fleet, why: Refusal) -> u64 {
    fleet.status().refused[why.label()]
}

#[tokio::test]
async fn members_connect_whether_admitted_enrolled_or_of_the_next_authority() {
    let (old, new) = (Authority::new(), Authority::new());
    let clock = TestClock::at(NOW);
    let (of_old, enrolled, of_new, key) = (
        Keypair::generate_ed25519(),
        Keypair::generate_ed25519(),
        Keypair::generate_ed25519(),
        Keypair::generate_ed25519(),
    );
    let both = [&old, &new];
    // While keys are changed, each trusts both and shows what it has.
    let fleet = member(&of_old, &both, Some(old.admit(id_of(&of_old), None)), &clock);
    let mut a = start(of_old, &fleet, 0, &[]).await;
    let shown = record::enrol(&key, &old.enrolment(id_of(&key), NOW + 100), id_of(&enrolled), 0).unwrap();
    let fleet = member(&enrolled, &both, Some(shown), &clock);
    let mut b = start(enrolled, &fleet, 0, &[&a.address]).await;
    a.connected_to(b.id).await;
    b.connected_to(a.id).await;
    let fleet = member(&of_new, &both, Some(new.admit(id_of(&of_new), None)), &clock);
    let mut c = start(of_new, &fleet, 0, &[&a.address]).await;
    a.connected_to(c.id).await;
    c.connected_to(a.id).await;
    announce_until_heard(&c.handle, &mut a).await;

    // Once the old authority is not trusted any more, its members are strangers.
    let late = Keypair::generate_ed25519();
    let fleet = member(&late, &[&new], Some(new.admit(id_of(&late), None)), &clock);
    let mut d = start(late, &fleet, 0, &[&a.address, &c.address]).await;
    d.connected_to(c.id).await;
    patiently("a refusal", async {
        while refused(&fleet, Refusal::AnotherFleet) == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// Everybody who must not get in, each with what it shows and why it is refused.
fn strangers(authority: &Authority, keypair: &Keypair) -> Vec<(Option<Credential>, Refusal)> {
    let (own, other) = (id_of(keypair), NodeId::from_public_key([1; 32]));
    let forged = Membership { authority: authority.id(), peer: own, issued_unix_s: NOW, expires_unix_s: None };
    let by_itself = Credential { membership: record::sign(keypair, &forged).unwrap(), enrolment: None };
    vec![
        (None, Refusal::NoMembership),
        (Some(Authority::new().admit(own, None)), Refusal::AnotherFleet),
        (Some(authority.admit(own, Some(NOW - 1))), Refusal::Expired),
        (Some(by_itself), Refusal::Forged),
        (Some(authority.admit(other, None)), Refusal::AnotherPeer),
        (Some(Credential { membership: b"junk".to_vec(), enrolment: None }), Refusal::Malformed),
    ]
}

/// Lets a swarm that would do anything run until its only connection attempt is over; panics if it gets anywhere.
async fn gets_nowhere(rogue: &mut Swarm<Behaviour>) {
    patiently("being refused", async {
        loop {
            match rogue.select_next_some().await {
                Libp2pEvent::OutgoingConnectionError { .. } | Libp2pEvent::IncomingConnectionError { .. } => return,
                Libp2pEvent::ConnectionEstablished { .. } => panic!("a stranger has a connection"),
                Libp2pEvent::Behaviour(event) => panic!("a stranger hears {event:?}"),
                _ => {}
            }
        }
    })
    .await;
}

/// A swarm whose own fleet lets everybody in, and that shows this.
fn rogue(keypair: &Keypair, shown: Option<Credential>) -> Swarm<Behaviour> {
    let fleet = Fleet::showing(shown);
    behaviour::swarm(keypair, &Names::new("f").unwrap(), Multicast::Off, &fleet, behaviour::STREAMS).unwrap()
}

#[tokio::test]
async fn strangers_that_dial_get_nothing_and_are_counted() {
    let authority = Authority::new();
    let (mut a, fleet) = member_of(&authority, &[]).await;
    let (mut b, _) = member_of(&authority, &[&a.address]).await;
    a.connected_to(b.id).await;
    b.connected_to(a.id).await;
    let revoked = Keypair::generate_ed25519();
    fleet.revoke(&authority.revoke(id_of(&revoked)), None).unwrap();
    let keypair = Keypair::generate_ed25519();
    let mut cases: Vec<_> =
        strangers(&authority, &keypair).into_iter().map(|(shown, why)| (keypair.clone(), shown, why)).collect();
    cases.push((revoked.clone(), Some(authority.admit(id_of(&revoked), None)), Refusal::Revoked));
    for (keypair, shown, why) in cases {
        let before = refused(&fleet, why);
        let mut rogue = rogue(&keypair, shown);
        rogue.dial(DialOpts::unknown_peer_id().address(a.address.clone()).build()).unwrap();
        // The fleet is busy talking meanwhile.
        a.handle.announce(Announcement::Summary(summary(1)));
        gets_nowhere(&mut rogue).await;
        assert_eq!(refused(&fleet, why), before + 1, "{why}");
    }
    let total: u64 = fleet.status().refused.values().sum();
    assert_eq!(total, 7, "each is counted once");
    while let Ok(event) = a.events.try_recv() {
        assert!(!matches!(event, SwarmEvent::PeerConnected { .. }), "{event:?}");
    }
}

#[tokio::test]
async fn strangers_that_are_dialled_get_nothing_and_are_counted() {
    let authority = Authority::new();
    let keypair = Keypair::generate_ed25519();
    for (shown, why) in strangers(&authority, &keypair) {
        let mut rogue = rogue(&keypair, shown);
        rogue.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
        let address = patiently("an address", async {
            loop {
                if let Libp2pEvent::NewListenAddr { address, .. } = rogue.select_next_some().await {
                    return address;
                }
            }
        })
        .await;
        let (mut a, fleet) = member_of(&authority, &[&address]).await;
        gets_nowhere(&mut rogue).await;
        patiently("being counted", async {
            while refused(&fleet, why) == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        while let Ok(event) = a.events.try_recv() {
            assert!(!matches!(event, SwarmEvent::PeerConnected { .. }), "{event:?}");
        }
    }
}

/// Noise under the name of the handshake, and then nothing of what must follow.
#[derive(Clone)]
struct Silent(noise::Config);

impl UpgradeInfo for Silent {
    type Info = &'static str;
    type InfoIter = std::iter::Once<Self::Info>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once(super::super::admission::PROTOCOL)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> InboundConnectionUpgrade<T> for Silent {
    type Output = (PeerId, noise::Output<T>);
    type Error = noise::Error;
    type Future = <noise::Config as InboundConnectionUpgrade<T>>::Future;

    fn upgrade_inbound(self, socket: T, info: Self::Info) -> Self::Future {
        self.0.upgrade_inbound(socket, info)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> OutboundConnectionUpgrade<T> for Silent {
    type Output = (PeerId, noise::Output<T>);
    type Error = noise::Error;
    type Future = <noise::Config as OutboundConnectionUpgrade<T>>::Future;

    fn upgrade_outbound(self, socket: T, info: Self::Info) -> Self::Future {
        self.0.upgrade_outbound(socket, info)
    }
}

#[tokio::test]
async fn whoever_goes_on_without_showing_anything_is_refused() {
    let authority = Authority::new();
    let (mut a, fleet) = member_of(&authority, &[]).await;
    let mut rogue = SwarmBuilder::with_existing_identity(Keypair::generate_ed25519())
        .with_tokio()
        .with_tcp(
            tcp::Config::default(),
            |keypair: &Keypair| noise::Config::new(keypair).map(Silent),
            yamux::Config::default,
        )
        .unwrap()
        .with_behaviour(|key| identify::Behaviour::new(identify::Config::new("x".to_owned(), key.public())))
        .unwrap()
        .build();
    rogue.dial(DialOpts::unknown_peer_id().address(a.address.clone()).build()).unwrap();
    patiently("a refusal", async {
        // What it sends for the muxer is no frame.
        while fleet.status().refused.values().sum::<u64>() == 0 {
            tokio::select! {
                event = rogue.select_next_some() => {
                    assert!(!matches!(event, Libp2pEvent::Behaviour(identify::Event::Received { .. })), "{event:?}");
                }
                () = tokio::time::sleep(Duration::from_millis(10)) => {}
            }
        }
    })
    .await;
    assert_eq!(refused(&fleet, Refusal::Broken), 1);
    while let Ok(event) = a.events.try_recv() {
        assert!(!matches!(event, SwarmEvent::PeerConnected { .. }), "{event:?}");
    }

    // The slower of two ends decides: one that says nothing at all is dropped by the clock.
    let mut stream = TcpStream::connect(("127.0.0.1", a.port())).await.unwrap();
    let mut got = Vec::new();
    let _ = patiently("the end", stream.read_to_end(&mut got)).await;
    assert!(got.len() <= NEGOTIATION_BYTES_MAX, "{got:?}");
}

#[tokio::test]
async fn other_software_gets_no_further_than_the_name_of_the_handshake() {
    let authority = Authority::new();
    let (a, fleet) = member_of(&authority, &[]).await;
    let counted = async |count: u64| {
        patiently("being counted", async {
            while refused(&fleet, Refusal::Broken) < count {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    };

    // A libp2p node that knows nothing of admission.
    let mut raw = SwarmBuilder::with_existing_identity(Keypair::generate_ed25519())
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|key| identify::Behaviour::new(identify::Config::new("x".to_owned(), key.public())))
        .unwrap()
        .build();
    raw.dial(DialOpts::unknown_peer_id().address(a.address.clone()).build()).unwrap();
    patiently("a refusal", async {
        loop {
            match raw.select_next_some().await {
                Libp2pEvent::OutgoingConnectionError { .. } => return,
                Libp2pEvent::NewExternalAddrOfPeer { .. } | Libp2pEvent::Dialing { .. } => {}
                event => panic!("{event:?}"),
            }
        }
    })
    .await;
    counted(1).await;

    // curl.
    let mut stream = TcpStream::connect(("127.0.0.1", a.port())).await.unwrap();
    stream.write_all(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut got = Vec::new();
    // A reset is as good as an end.
    let _ = patiently("the end", stream.read_to_end(&mut got)).await;
    assert!(got.len() <= NEGOTIATION_BYTES_MAX, "{}", String::from_utf8_lossy(&got));
    counted(2).await;
    assert_eq!(fleet.status().refused.values().sum::<u64>(), 2);
}

/// Connections that are made one after the other in a measurement, of each kind.
const MEASURED: usize = 100;

/// Median time of a new connection between two swarms in milliseconds, until the dialling side has it.
async fn median_ms<B: libp2p::swarm::NetworkBehaviour>(mut make: impl FnMut() -> (Swarm<B>, Swarm<B>)) -> f64 {
    let mut took = Vec::new();
    for _ in 0..MEASURED {
        let (mut listening, mut dialling) = make();
        listening.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
        let address = loop {
            if let Libp2pEvent::NewListenAddr { address, .. } = listening.select_next_some().await {
                break address;
            }
        };
        let begun = tokio::time::Instant::now();
        dialling.dial(DialOpts::unknown_peer_id().address(address).build()).unwrap();
        loop {
            tokio::select! {
                _ = listening.select_next_some() => {}
                event = dialling.select_next_some() => {
                    if matches!(event, Libp2pEvent::ConnectionEstablished { .. }) {
                        break;
                    }
                }
            }
        }
        took.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    took.sort_by(f64::total_cmp);
    took[took.len() / 2]
}

/// `cargo test --release -p layermesh --lib what_a_first_connection_costs -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn what_a_first_connection_costs() {
    let plain = median_ms(|| {
        let swarm = || {
            SwarmBuilder::with_existing_identity(Keypair::generate_ed25519())
                .with_tokio()
                .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
                .unwrap()
                .with_behaviour(|_| libp2p::swarm::dummy::Behaviour)
                .unwrap()
                .build()
        };
        (swarm(), swarm())
    })
    .await;
    let names = Names::new("f").unwrap();
    let of = |keypair: &Keypair, fleet: &Fleet| {
        behaviour::swarm(keypair, &names, Multicast::Off, fleet, behaviour::STREAMS).unwrap()
    };
    let open = median_ms(|| {
        let swarm = || of(&Keypair::generate_ed25519(), &Fleet::open());
        (swarm(), swarm())
    })
    .await;
    let (authority, key) = (Authority::new(), Keypair::generate_ed25519());
    let enrolment = authority.enrolment(id_of(&key), NOW + 100);
    let members = median_ms(|| {
        let swarm = || {
            let keypair = Keypair::generate_ed25519();
            let shown = record::enrol(&key, &enrolment, id_of(&keypair), NOW).unwrap();
            of(&keypair, &member(&keypair, &[&authority], Some(shown), &TestClock::at(NOW)))
        };
        (swarm(), swarm())
    })
    .await;
    eprintln!("first connection, ms | without admission {plain:.2} | open {open:.2} | members {members:.2}");
}

#[tokio::test]
async fn a_revocation_takes_effect_on_a_site_of_ten_within_seconds() {
    let authority = Authority::new();
    let mut site: Vec<(Node, Fleet)> = Vec::new();
    for _ in 0..10 {
        let known: Vec<Multiaddr> = site.iter().map(|(node, _)| node.address.clone()).collect();
        let started = member_of(&authority, &known.iter().collect::<Vec<_>>()).await;
        site.push(started);
    }
    let (mut revoked, _) = site.pop().unwrap();
    for _ in 0..site.len() {
        revoked.wait("a connection", |event| matches!(event, SwarmEvent::PeerConnected { .. }).then_some(())).await;
    }
    for (node, _) in &mut site {
        node.connected_to(revoked.id).await;
    }
    site[3].1.revoke(&authority.revoke(revoked.id), None).unwrap();
    timeout(REVOKED_WITHIN, async {
        for (node, _) in &mut site {
            node.disconnected_from(revoked.id).await;
        }
    })
    .await
    .unwrap();
    for (_, fleet) in &site {
        assert_eq!(fleet.admits(&revoked.id), Err(Refusal::Revoked));
    }
    // It comes back, and is refused by whomever it dials.
    patiently("a refusal", async {
        while site.iter().all(|(_, fleet)| refused(fleet, Refusal::Revoked) == 0) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn revocations_reach_nodes_far_away_and_those_that_were_away() {
    let authority = Authority::new();
    let revoked = NodeId::from_public_key([5; 32]);
    // More than a page, so that the one who was away has to ask twice.
    let first: Vec<NodeId> = (100..=220).map(|seed| NodeId::from_public_key([seed; 32])).collect();
    let (mut a, fleet_a) = member_of(&authority, &[]).await;
    for subject in &first {
        fleet_a.revoke(&authority.revoke(*subject), None).unwrap();
    }
    let (mut b, fleet_b) = member_of(&authority, &[&a.address]).await;
    let (mut c, fleet_c) = member_of(&authority, &[&b.address]).await;
    a.connected_to(b.id).await;
    b.connected_to(c.id).await;
    c.connected_to(b.id).await;
    let all_know = async |fleet: &Fleet, subjects: &[NodeId]| {
        patiently("knowing it", async {
            while !subjects.iter().all(|subject| fleet.is_revoked(subject)) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    };
    all_know(&fleet_b, &first).await;
    all_know(&fleet_c, &first).await;

    // Three in a row: A tells B, B tells C.
    fleet_a.revoke(&authority.revoke(revoked), None).unwrap();
    all_know(&fleet_c, &[revoked]).await;
    assert_eq!(fleet_c.digest(), fleet_a.digest());

    // A has never heard of D, and D was away all the time.
    let (mut d, fleet_d) = member_of(&authority, &[&c.address]).await;
    d.connected_to(c.id).await;
    all_know(&fleet_d, &first).await;
    all_know(&fleet_d, &[revoked]).await;
}

#[tokio::test]
async fn whoever_expires_is_disconnected_and_comes_back_when_renewed() {
    let (authority, clock) = (Authority::new(), TestClock::at(NOW));
    let (of_a, of_b) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let fleet_a = member(&of_a, &[&authority], Some(authority.admit(id_of(&of_a), None)), &clock);
    let expiring = authority.admit(id_of(&of_b), Some(NOW + 100));
    let fleet_b = member(&of_b, &[&authority], Some(expiring), &clock);
    let mut a = start(of_a, &fleet_a, 0, &[]).await;
    let mut b = start(of_b.clone(), &fleet_b, 0, &[&a.address]).await;
    a.connected_to(b.id).await;
    b.connected_to(a.id).await;
    tokio::spawn(fleet_a.clone().run(CancellationToken::new()));
    clock.set(NOW + 100);
    timeout(REVOKED_WITHIN, a.disconnected_from(b.id)).await.unwrap();
    let id = b.id;
    b.stop().await;
    let renewed = member(&of_b, &[&authority], Some(authority.admit(id, Some(NOW + 200))), &clock);
    let mut b = start(of_b, &renewed, 0, &[&a.address]).await;
    b.connected_to(a.id).await;
    a.connected_to(b.id).await;
}

#[tokio::test]
async fn words_of_the_revoked_are_not_taken_from_those_who_have_not_heard() {
    let (authority, clock) = (Authority::new(), TestClock::at(NOW));
    let (of_relay, of_a) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    // It lets everybody in and never takes a revocation.
    let relaying = Fleet::showing(Some(authority.admit(id_of(&of_relay), None)));
    let mut relay = start(of_relay, &relaying, 0, &[]).await;
    let fleet = member(&of_a, &[&authority], Some(authority.admit(id_of(&of_a), None)), &clock);
    let mut a = start(of_a, &fleet, 0, &[&relay.address]).await;
    a.connected_to(relay.id).await;
    let mut author = Rogue::dialling("f", &relay.address);
    let author_id = node_id(&author.id()).unwrap();
    let word = |seq| neighbourhood::encode(Neighbourhood::default(), &Announcement::Summary(summary(seq))).unwrap();
    let says = async |author: &mut Rogue, seq: u64, hearer: &mut Node| {
        patiently("a word", async {
            let mut tick = tokio::time::interval(Duration::from_millis(100));
            loop {
                tokio::select! {
                    _ = author.swarm.select_next_some() => {}
                    _ = tick.tick() => drop(author.publish(word(seq))),
                    (from, said) = next_announced(hearer) => {
                        if (from, said) == (author_id, Announcement::Summary(summary(seq))) {
                            return;
                        }
                    }
                }
            }
        })
        .await;
    };
    says(&mut author, 3, &mut a).await;
    fleet.revoke(&authority.revoke(author_id), None).unwrap();
    says(&mut author, 5, &mut relay).await;
    // What the relay says itself comes after what it has passed on.
    relay.handle.announce(Announcement::Summary(summary(9)));
    loop {
        let (from, said) = next_announced(&mut a).await;
        if from == relay.id {
            break;
        }
        assert_ne!(said, Announcement::Summary(summary(5)), "{from}");
    }
}
