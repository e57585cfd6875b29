use futures::StreamExt as _;
use layermesh_proto::{Algorithm, ObjectKind, engine::event::WantError};

use super::*;

fn path(content: ContentId) -> String {
    format!("/v2/a.io/b/blobs/{content}")
}

/// Takes bytes until there are at least `count`; panics if they do not come.
async fn take(response: &mut Response, count: usize) -> Vec<u8> {
    let mut taken = Vec::new();
    while taken.len() < count {
        taken.extend_from_slice(&within(response.chunk()).await.unwrap().expect("ended early"));
    }
    taken
}

/// Takes all bytes up to the error that must come.
pub(super) async fn take_until_cut(mut response: Response) -> (usize, reqwest::Error) {
    let mut taken = 0;
    loop {
        match within(response.chunk()).await {
            Ok(Some(bytes)) => taken += bytes.len(),
            Ok(None) => panic!("ended cleanly after {taken} bytes"),
            Err(error) => return (taken, error),
        }
    }
}

#[tokio::test]
async fn a_held_blob_whole_and_in_part() {
    let rig = Rig::new().await;
    let bytes = noise(1_000_003);
    let content = rig.store.hold(bytes.clone());
    let head = rig.head(&path(content)).await;
    assert_eq!(head.status(), 200);
    for (name, value) in [
        ("content-length", "1000003"),
        ("content-type", "application/octet-stream"),
        ("accept-ranges", "bytes"),
        ("docker-content-digest", &content.to_string()),
        ("etag", &format!("\"{content}\"")),
    ] {
        assert_eq!(header(&head, name), Some(value));
    }
    assert_eq!(rig.get(&path(content)).await.bytes().await.unwrap(), bytes);
    assert_eq!(rig.counters.to_runtimes.get(), 1_000_003);
    for (range, start, end) in [
        ("bytes=0-", 0, 1_000_003),
        ("bytes=500000-", 500_000, 1_000_003),
        ("bytes=1000002-", 1_000_002, 1_000_003),
        ("bytes=10-19", 10, 20),
        ("bytes=-3", 1_000_000, 1_000_003),
        ("bytes=999999-9999999", 999_999, 1_000_003),
    ] {
        let response = rig.request(Method::GET, &path(content)).header("range", range).send().await.unwrap();
        assert_eq!(response.status(), 206, "{range}");
        let expected = format!("bytes {start}-{}/1000003", end - 1);
        assert_eq!(header(&response, "content-range"), Some(expected.as_str()));
        assert_eq!(header(&response, "content-length"), Some((end - start).to_string().as_str()));
        assert_eq!(response.bytes().await.unwrap(), bytes.slice(start..end), "{range}");
    }
    for range in ["bytes=5-2", "bytes=1-2,5-6", "pieces=1-", "junk"] {
        let response = rig.request(Method::GET, &path(content)).header("range", range).send().await.unwrap();
        assert_eq!((response.status().as_u16(), header(&response, "content-range")), (200, None), "{range}");
        assert_eq!(response.bytes().await.unwrap(), bytes);
    }
    let outside = rig.request(Method::GET, &path(content)).header("range", "bytes=1000003-").send().await.unwrap();
    assert_eq!(header(&outside, "content-range"), Some("bytes */1000003"));
    assert_eq!(refused(outside).await, (416, "SIZE_INVALID".to_owned()));
    rig.driver.script(|script| assert!(script.wanted.is_empty(), "a held blob was asked of the mesh"));
}

#[tokio::test]
async fn conditions() {
    let rig = Rig::new().await;
    let content = rig.store.hold(noise(1000));
    let etag = format!("\"{content}\"");
    for (name, value, range, expected) in [
        ("if-none-match", etag.as_str(), "bytes=1-", 304),
        ("if-none-match", "\"other\"", "bytes=1-", 206),
        ("if-range", etag.as_str(), "bytes=1-", 206),
        ("if-range", "\"other\"", "bytes=1-", 200),
    ] {
        let request = rig.request(Method::GET, &path(content)).header(name, value).header("range", range);
        assert_eq!(request.send().await.unwrap().status(), expected, "{name}: {value}");
    }
    let head = rig.request(Method::HEAD, &path(content)).header("range", "bytes=1-").send().await.unwrap();
    assert_eq!((head.status().as_u16(), header(&head, "content-length")), (200, Some("1000")));
}

#[tokio::test]
async fn a_growing_blob_is_streamed_and_its_last_byte_waits_for_the_verdict() {
    let rig = Rig::new().await;
    let bytes = noise(3_000_000);
    let content = ContentId::of(Algorithm::Sha256, &bytes);
    let answer = tokio::spawn(rig.request(Method::GET, &path(content)).send());
    rig.driver.until(|script| !script.wanted.is_empty()).await;
    rig.store.begin(content, bytes.clone());
    rig.store.grow(content, 0..1_000_000);
    let mut response = within(answer).await.unwrap().unwrap();
    assert_eq!(header(&response, "content-length"), Some("3000000"));
    let mut taken = take(&mut response, 1_000_000).await;
    assert_eq!(taken.len(), 1_000_000);
    rig.store.grow(content, 1_000_000..3_000_000);
    taken.extend(take(&mut response, 1_999_999).await);
    assert_eq!(taken.len(), 2_999_999, "the last byte came before the want had ended");
    rig.store.complete(content);
    rig.driver.end(content, Ok(())).await;
    taken.extend(take(&mut response, 1).await);
    assert_eq!(within(response.chunk()).await.unwrap(), None);
    assert_eq!(taken, bytes);
    rig.driver.until(|script| script.dropped == 1).await;
    rig.driver.script(|script| {
        assert_eq!(script.wanted, [(content, ObjectKind::Blob, Some(Repository::new("a.io", "b").unwrap()))]);
        assert_eq!(script.positions.len(), 3, "once a MiB: {:?}", script.positions);
        assert_eq!(script.positions[0], 0);
    });
}

#[tokio::test]
async fn a_blob_that_turns_out_wrong_ends_in_a_reset() {
    let rig = Rig::new().await;
    let content = ContentId::of(Algorithm::Sha256, b"something else");
    let bytes = noise(900_000);
    rig.store.begin(content, bytes);
    rig.store.grow(content, 0..900_000);
    let response = rig.get(&path(content)).await;
    rig.driver.end(content, Err(WantError::Unavailable("wrong bytes".to_owned()))).await;
    let (taken, error) = take_until_cut(response).await;
    assert!(taken < 900_000);
    assert!(is_reset(&error), "{error:?}");
}

#[tokio::test]
async fn a_blob_that_is_right_at_the_second_attempt_does_not_end_what_began_with_the_first() {
    for (second, held) in [(noise(900_000), true), (noise(900_000), false), (noise(1000), true)] {
        let rig = Rig::new().await;
        let content = ContentId::of(Algorithm::Sha256, &second);
        rig.store.begin(content, vec![7; 900_000]);
        rig.store.grow(content, 0..900_000);
        let mut response = rig.get(&path(content)).await;
        take(&mut response, 899_999).await;
        let len = second.len() as u64;
        rig.store.begin_again(content, second);
        rig.store.grow(content, 0..len);
        if held {
            rig.store.complete(content);
        }
        rig.driver.end(content, Ok(())).await;
        let (_, error) = take_until_cut(response).await;
        assert!(is_reset(&error), "{error:?}");
    }
}

#[tokio::test]
async fn a_size_that_turns_out_wrong_ends_in_a_reset() {
    let rig = Rig::new().await;
    let bytes = noise(2000);
    let content = ContentId::of(Algorithm::Sha256, &bytes);
    rig.store.begin(content, vec![7; 1000]);
    let answer = tokio::spawn(rig.request(Method::GET, &path(content)).send());
    // Once it is reported where the reader stands, the size is taken.
    rig.driver.until(|script| script.positions == [0]).await;
    rig.store.begin_again(content, bytes);
    rig.store.grow(content, 0..2000);
    let mut response = within(answer).await.unwrap().unwrap();
    assert_eq!(header(&response, "content-length"), Some("1000"));
    take(&mut response, 999).await;
    rig.store.complete(content);
    rig.driver.end(content, Ok(())).await;
    assert!(is_reset(&take_until_cut(response).await.1));
}

#[tokio::test]
async fn an_empty_blob_waits_for_the_verdict_too() {
    let rig = Rig::new().await;
    for (content, outcome, status) in [
        (ContentId::of(Algorithm::Sha256, b""), Ok(()), 200),
        (ContentId::of(Algorithm::Sha256, b"not empty"), Err(WantError::Unavailable("wrong".to_owned())), 503),
    ] {
        rig.store.begin(content, "");
        let answer = tokio::spawn(rig.request(Method::GET, &path(content)).send());
        rig.driver.end(content, outcome).await;
        let response = within(answer).await.unwrap().unwrap();
        assert_eq!(response.status(), status);
    }
}

#[tokio::test]
async fn many_ranges_at_once_on_a_growing_blob() {
    const PART: u64 = 500_000;
    let rig = Rig::new().await;
    let bytes = noise(4_000_000);
    let content = ContentId::of(Algorithm::Sha256, &bytes);
    rig.store.begin(content, bytes.clone());
    // As containerd does it: open-ended, and abandoned after the part.
    let parts = (0..8).map(|part| {
        let start = part * PART;
        let request = rig.request(Method::GET, &path(content)).header("range", format!("bytes={start}-"));
        tokio::spawn(async move {
            let mut response = request.send().await.unwrap();
            assert_eq!(response.status(), 206);
            let mut taken = Vec::new();
            while taken.len() < PART as usize {
                match response.chunk().await.unwrap() {
                    Some(bytes) => taken.extend_from_slice(&bytes),
                    None => break,
                }
            }
            taken.truncate(PART as usize);
            taken
        })
    });
    let mut parts: Vec<_> = parts.collect();
    rig.driver.until(|script| script.wanted.len() == 8).await;
    for part in [5, 1, 7, 0, 3, 6, 2, 4] {
        rig.store.grow(content, part * PART..(part + 1) * PART);
    }
    // Only the part with the last byte waits for the verdict.
    let last = parts.pop().unwrap();
    let mut taken = within(futures::future::try_join_all(parts)).await.unwrap();
    assert!(!last.is_finished());
    rig.store.complete(content);
    rig.driver.end(content, Ok(())).await;
    taken.push(within(last).await.unwrap());
    assert!(taken.concat() == bytes, "the parts are not the whole");
}

#[tokio::test]
async fn a_part_before_the_last_byte_needs_no_verdict() {
    let rig = Rig::new().await;
    let bytes = noise(10_000);
    let content = ContentId::of(Algorithm::Sha256, &bytes);
    rig.store.begin(content, bytes.clone());
    rig.store.grow(content, 0..10_000);
    let response = rig.request(Method::GET, &path(content)).header("range", "bytes=100-9998").send().await.unwrap();
    assert_eq!(within(response.bytes()).await.unwrap(), bytes.slice(100..9999));
}

#[tokio::test]
async fn failures_before_the_first_byte_send_the_client_upstream() {
    let rig = Rig::new().await;
    for (error, expected) in [
        (WantError::NotFound, (404, "BLOB_UNKNOWN")),
        (WantError::Unauthorized("x".to_owned()), (404, "DENIED")),
        (WantError::Unavailable("x".to_owned()), (503, "UNAVAILABLE")),
        (WantError::Store("x".to_owned()), (503, "UNAVAILABLE")),
        (WantError::Busy, (503, "UNAVAILABLE")),
    ] {
        let bytes = error.to_string();
        let expected = (expected.0, expected.1.to_owned());
        let content = ContentId::of(Algorithm::Sha256, bytes.as_bytes());
        rig.driver.script(|script| script.outcomes.insert(content, Err(error)));
        assert_eq!(refused(rig.get(&path(content)).await).await, expected);
        let head = rig.head(&path(content)).await;
        assert_eq!((head.status().as_u16(), head.bytes().await.unwrap().len()), (expected.0, 0));
        // The same when the size was known already.
        rig.store.begin(content, bytes);
        assert_eq!(refused(rig.get(&path(content)).await).await, expected);
    }
}

#[tokio::test]
async fn the_size_of_a_blob_that_is_not_held() {
    let rig = Rig::new().await;
    let bytes = noise(5000);
    let content = ContentId::of(Algorithm::Sha256, &bytes);
    let answer = tokio::spawn(rig.request(Method::HEAD, &path(content)).send());
    rig.driver.until(|script| !script.wanted.is_empty()).await;
    rig.store.begin(content, bytes);
    let head = within(answer).await.unwrap().unwrap();
    assert_eq!((head.status().as_u16(), header(&head, "content-length")), (200, Some("5000")));
    rig.driver.until(|script| script.dropped == 1).await;
}

#[tokio::test]
async fn a_stall_is_a_refusal_before_the_first_byte_and_a_cut_after_it() {
    let rig = Rig::with(short(Duration::from_millis(200)), FakeLists::new(Err(SourceError::NotFound), &[])).await;
    let bytes = noise(10_000);
    let content = ContentId::of(Algorithm::Sha256, &bytes);
    assert_eq!(refused(rig.get(&path(content)).await).await, (503, "UNAVAILABLE".to_owned()));
    assert_eq!(rig.head(&path(content)).await.status(), 503);
    rig.store.begin(content, bytes);
    assert_eq!(refused(rig.get(&path(content)).await).await, (503, "UNAVAILABLE".to_owned()));
    rig.store.grow(content, 0..4000);
    let (taken, error) = take_until_cut(rig.get(&path(content)).await).await;
    assert!(is_reset(&error) && taken <= 4000, "{taken}: {error:?}");
    rig.driver.until(|script| script.dropped == 4).await;
}

#[tokio::test]
async fn a_client_that_hangs_up_wants_nothing_any_more() {
    let rig = Rig::new().await;
    let bytes = noise(10_000);
    let content = ContentId::of(Algorithm::Sha256, &bytes);
    // Before the head, between two bytes, and with all bytes given but the last.
    for (round, readable) in [0, 4000, 10_000].into_iter().enumerate() {
        rig.store.begin(content, bytes.clone());
        rig.store.grow(content, 0..readable);
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer = tokio::spawn(client.get(format!("http://{}{}", rig.address, path(content))).send());
        rig.driver.until(|script| script.wanted.len() == round + 1).await;
        if readable > 0 {
            let mut response = within(answer).await.unwrap().unwrap();
            take(&mut response, 4000).await;
        } else {
            answer.abort();
        }
        drop(client);
        rig.driver.until(|script| script.dropped == round + 1).await;
    }
}

#[tokio::test]
async fn damage_is_had_again_and_reading_goes_on_where_it_was() {
    let rig = Rig::new().await;
    let bytes = noise(2_000_000);
    let content = rig.store.hold(bytes.clone());
    rig.store.damage(content, 1_200_000, 1);
    let mut response = rig.get(&path(content)).await;
    let mut taken = take(&mut response, 1_200_000).await;
    rig.driver.until(|script| script.wanted.len() == 1).await;
    rig.driver.until(|script| script.positions == [1_200_000]).await;
    rig.store.grow(content, 1_200_000..2_000_000);
    taken.extend(take(&mut response, 799_999).await);
    rig.store.complete(content);
    rig.driver.end(content, Ok(())).await;
    taken.extend(take(&mut response, 1).await);
    assert!(taken == bytes);
}

#[tokio::test]
async fn a_disk_that_damages_again_and_again_is_given_up_on() {
    let rig = Rig::new().await;
    let content = rig.store.hold(noise(1000));
    rig.driver.script(|script| script.outcomes.insert(content, Ok(())));
    rig.store.damage(content, 0, 4);
    assert_eq!(refused(rig.get(&path(content)).await).await, (503, "UNAVAILABLE".to_owned()));
    rig.driver.script(|script| assert_eq!(script.wanted.len(), 3));
}

#[tokio::test]
async fn nothing_is_read_ahead_of_a_client_that_does_not_read() {
    let limits = Limits { write: Duration::from_millis(300), ..Limits::default() };
    let rig = Rig::with(limits, FakeLists::new(Err(SourceError::NotFound), &[])).await;
    let bytes = vec![0; 64 << 20];
    let content = ContentId::of(Algorithm::Sha256, &bytes);
    rig.store.begin(content, bytes);
    rig.store.grow(content, 0..64 << 20);
    let response = rig.get(&path(content)).await;
    // The connection is given up on, which drops the want.
    rig.driver.until(|script| script.dropped == 1).await;
    let read = rig.store.read_of(content);
    assert!(read < 32 << 20, "{read} bytes were read for a client that took none");
    drop(response);
}

#[tokio::test]
async fn bytes_stream_lets_a_client_stop_anywhere() {
    let rig = Rig::new().await;
    let bytes = noise(8 << 20);
    let content = rig.store.hold(bytes.clone());
    let mut stream = rig.get(&path(content)).await.bytes_stream();
    let first = within(stream.next()).await.unwrap().unwrap();
    assert_eq!(first, bytes.slice(..first.len()));
    drop(stream);
    assert_eq!(rig.get(&path(content)).await.bytes().await.unwrap(), bytes);
}
