//! Upload slots, seen from peers.

use super::*;

const LIMITS: Limits = Limits { slots: 1, waiting: 1, ..uploads::LIMITS };

/// Nobody is refused for having waited.
const PATIENT: Deadlines = Deadlines { upload_wait: Duration::from_secs(60), ..server::DEADLINES };

/// No slot is taken from anybody.
const FOR_EVER: Limits = Limits { quantum: Duration::from_secs(600), ..LIMITS };

const BUSY: SourceError = SourceError::RateLimited { retry_after: Some(Duration::from_secs(1)) };

/// Waits until so many slots are held, and so many bodies wait.
async fn until(server: &Server, count: (usize, usize)) {
    let reached = async {
        while server.uploads.count() != count {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("{:?}", server.uploads.count()));
}

#[tokio::test]
async fn two_peers_with_many_runs_get_them_all_through_one_slot() {
    let limits = Limits { waiting: 64, quantum_bytes: PIECE, ..LIMITS };
    let server = server_of(PATIENT, limits).await;
    let bytes = blob(PIECE * 32);
    let content = server.source.insert(bytes.clone());
    let clients = [client(), client()];
    let runs = (0..8).flat_map(|run| clients.iter().map(move |client| (client, run * 4..run * 4 + 4)));
    let fetched = runs.map(|(client, pieces)| server.fetch(client, content, pieces));
    let all: Vec<Vec<u8>> = futures::future::join_all(fetched).await;
    let of_first: Vec<u8> = all.iter().step_by(2).flatten().copied().collect();
    let of_second: Vec<u8> = all.iter().skip(1).step_by(2).flatten().copied().collect();
    assert!(of_first == bytes && of_second == bytes);
    until(&server, (0, 0)).await;
}

#[tokio::test]
async fn a_peer_for_whom_no_slot_comes_free_is_told_to_come_again() {
    let deadlines = Deadlines { upload_wait: SHORT, ..server::DEADLINES };
    let server = server_of(deadlines, FOR_EVER).await;
    let content = server.source.insert(blob(PIECE * 8));
    server.source.fault(content, Fault::StallAt(PIECE * 2));
    let held = server.open(&client(), content, 0..8).await.unwrap();
    let waiting = client();
    assert_eq!(server.open(&waiting, content, 0..1).await.unwrap_err(), BUSY);
    assert_eq!(waiting.pool().idle(), 1, "the connection is as good as before");
    drop(held);
    until(&server, (0, 0)).await;
}

#[tokio::test]
async fn where_enough_wait_a_peer_is_told_to_come_again_at_once() {
    let server = server_of(PATIENT, FOR_EVER).await;
    let content = server.source.insert(blob(PIECE * 8));
    server.source.fault(content, Fault::StallAt(PIECE * 2));
    let held = server.open(&client(), content, 0..8).await.unwrap();
    let mut waiting = server.connect(&ClientTls::new(&Keypair::generate_ed25519()).unwrap()).await.unwrap();
    let request = format!("GET /growing/{} HTTP/1.1\r\nHost: x\r\n\r\n", content.to_cid());
    waiting.write_all(request.as_bytes()).await.unwrap();
    until(&server, (1, 1)).await;
    assert_eq!(server.open(&client(), content, 0..1).await.unwrap_err(), BUSY);
    let head = server.ask(&format!("HEAD /blobs/{} HTTP/1.1", content.to_cid())).await;
    assert!(head.starts_with("http/1.1 200"), "a head needs no slot: {head}");
    drop(held);
    // The other one has its turn, finds nothing to send after two pieces, and gives the slot back.
    until(&server, (0, 0)).await;
    let mut answer = [0; 12];
    timeout(PATIENCE, waiting.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
}

#[tokio::test]
async fn a_peer_that_goes_away_while_it_waits_waits_no_more() {
    let server = server_of(PATIENT, FOR_EVER).await;
    let content = server.source.insert(blob(PIECE * 8));
    server.source.fault(content, Fault::StallAt(PIECE * 2));
    let held = server.open(&client(), content, 0..8).await.unwrap();
    let mut waiting = server.connect(&ClientTls::new(&Keypair::generate_ed25519()).unwrap()).await.unwrap();
    let request = format!("GET /blobs/{} HTTP/1.1\r\nHost: x\r\n\r\n", content.to_cid());
    waiting.write_all(request.as_bytes()).await.unwrap();
    until(&server, (1, 1)).await;
    drop(waiting);
    until(&server, (1, 0)).await;
    drop(held);
    until(&server, (0, 0)).await;
}

#[tokio::test]
async fn those_who_wait_for_pieces_to_land_keep_nobody_from_being_served() {
    let server = server_of(PATIENT, FOR_EVER).await;
    let (landing, held) = (server.source.insert(blob(PIECE * 8)), server.source.insert(blob(PIECE)));
    server.source.fault(landing, Fault::StallAt(PIECE * 2));
    let client = client();
    let mut bodies = Vec::new();
    for _ in 0..4 {
        let open = client.open_growing(server.peer, server.addr, landing, None, 0..u32::MAX);
        let mut body = timeout(PATIENCE, open).await.unwrap().unwrap();
        let mut read = 0;
        while read < PIECE * 2 {
            read += timeout(PATIENCE, body.stream.next()).await.unwrap().unwrap().unwrap().len() as u64;
        }
        bodies.push(body);
    }
    until(&server, (0, 0)).await;
    assert_eq!(server.fetch(&client, held, 0..1).await, blob(PIECE));
    drop(bodies);
}

#[tokio::test]
async fn a_reader_that_takes_nothing_keeps_its_slot_for_a_quantum() {
    let server = server_of(PATIENT, LIMITS).await;
    // More than the sockets' buffers hold.
    let large = server.source.insert(vec![7; 64 << 20]);
    let small = server.source.insert(blob(PIECE));
    let slow = server.open(&client(), large, 0..u32::MAX).await.unwrap();
    assert_eq!(server.fetch(&client(), small, 0..1).await, blob(PIECE));
    assert_eq!(collect(slow).await.unwrap(), vec![7; 64 << 20]);
    until(&server, (0, 0)).await;
}
