use layermesh_proto::{Algorithm, ObjectKind, engine::event::WantError};

use super::*;
use crate::mirror::fake::ROOM;

const WIDE_ACCEPT: &str = "application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, */*";

#[tokio::test]
async fn the_ping_is_a_registry_without_a_challenge() {
    let rig = Rig::new().await;
    for (method, body) in [(Method::GET, "{}"), (Method::HEAD, "")] {
        for path in ["/v2/", "/v2", "/v2/?ns=127.0.0.1%3A5000"] {
            let response = rig.request(method.clone(), path).send().await.unwrap();
            assert_eq!(response.status(), 200);
            assert_eq!(header(&response, "docker-distribution-api-version"), Some("registry/2.0"));
            assert_eq!(header(&response, "content-length"), Some("2"));
            assert_eq!(header(&response, "www-authenticate"), None);
            assert_eq!(response.text().await.unwrap(), body);
        }
    }
}

#[tokio::test]
async fn a_manifest_whose_content_has_no_room_is_refused_with_the_reason() {
    let rig = Rig::new().await;
    let layer = rig.store.hold("layer");
    let blob = |size: u64| json!({"mediaType": "x/y", "digest": layer.to_string(), "size": size});
    for (size, status) in [(ROOM - 1, 200), (ROOM + 1, 503)] {
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": blob(size), "layers": []});
        let manifest = rig.store.hold(manifest.to_string());
        let response = rig.get(&format!("/v2/app/manifests/{manifest}?ns=a.io")).await;
        assert_eq!(response.status(), status);
        if status == 503 {
            assert!(response.text().await.unwrap().contains("no room for the image: no room for"));
        }
    }
}

#[tokio::test]
async fn a_pull_as_containerd_does_it() {
    let rig = Rig::new().await;
    let image = rig.image();
    let reference = tag_of("127.0.0.1:5000", "team/app", "v1");
    rig.tag(&reference, image.index, Provenance::Origin);
    let request = |method: Method, path: String| {
        rig.request(method, &format!("/v2/team/app/{path}?ns=127.0.0.1%3A5000"))
            .header("accept", WIDE_ACCEPT)
            .header("accept-encoding", "zstd;q=1.0, gzip;q=0.8, deflate;q=0.5")
    };
    let head = request(Method::HEAD, "manifests/v1".to_owned()).send().await.unwrap();
    assert_eq!(head.status(), 200);
    assert_eq!(header(&head, "docker-content-digest"), Some(image.index.to_string().as_str()));
    assert_eq!(header(&head, "content-type"), Some(INDEX));
    let size = header(&head, "content-length").unwrap().parse::<usize>().unwrap();
    for (content, media_type) in [(image.index, INDEX), (image.manifest, MANIFEST)] {
        let response = request(Method::GET, format!("manifests/{content}")).send().await.unwrap();
        assert_eq!(header(&response, "content-type"), Some(media_type));
        assert_eq!(header(&response, "content-encoding"), None);
        let bytes = response.bytes().await.unwrap();
        assert_eq!(ContentId::of(Algorithm::Sha256, &bytes), content);
        assert!(content != image.index || bytes.len() == size);
    }
    let blobs = [image.config, image.layers[0], image.layers[1]];
    let pulls = blobs.map(|content| {
        let request = request(Method::GET, format!("blobs/{content}"));
        async move { (content, request.send().await.unwrap().bytes().await.unwrap()) }
    });
    for (content, bytes) in futures::future::join_all(pulls).await {
        assert_eq!(ContentId::of(Algorithm::Sha256, &bytes), content);
    }
    rig.driver.script(|script| {
        assert_eq!(script.resolved, [reference]);
        assert!(script.promised.iter().all(|(_, repository)| repository.registry() == "127.0.0.1:5000"));
    });
}

#[tokio::test]
async fn a_pull_as_docker_does_it() {
    let rig = Rig::new().await;
    let image = rig.image();
    rig.tag(&tag_of("docker.io", "library/debian", "latest"), image.manifest, Provenance::Origin);
    let request = |method: Method, path: &str| {
        WIDE_ACCEPT.split(", ").fold(rig.request(method, path).header("connection", "close"), |request, line| {
            request.header("accept", line)
        })
    };
    assert_eq!(request(Method::GET, "/v2/").send().await.unwrap().status(), 200);
    let head = request(Method::HEAD, "/v2/library/debian/manifests/latest").send().await.unwrap();
    assert_eq!((head.status().as_u16(), header(&head, "connection")), (200, Some("close")));
    let path = format!("/v2/library/debian/manifests/{}", image.manifest);
    let bytes = request(Method::GET, &path).send().await.unwrap().bytes().await.unwrap();
    assert_eq!(ContentId::of(Algorithm::Sha256, &bytes), image.manifest);
    let blob = rig.get(&format!("/v2/library/debian/blobs/{}", image.layers[0])).await;
    assert_eq!(header(&blob, "docker-content-digest"), Some(image.layers[0].to_string().as_str()));
    assert_eq!(blob.bytes().await.unwrap(), vec![1; 300_000]);
}

#[tokio::test]
async fn a_pull_as_podman_does_it() {
    let rig = Rig::new().await;
    let image = rig.image();
    rig.tag(&tag_of("quay.io", "org/app", "v1"), image.index, Provenance::Origin);
    assert_eq!(rig.get("/v2/").await.status(), 200);
    let index = rig.get("/v2/quay.io/org/app/manifests/v1").await;
    assert_eq!(header(&index, "docker-content-digest"), Some(image.index.to_string().as_str()));
    let response = rig.get(&format!("/v2/quay.io/org/app/manifests/{}", image.manifest)).await;
    assert_eq!(header(&response, "content-type"), Some(MANIFEST));
    for content in [image.config, image.layers[0], image.layers[1]] {
        let bytes = rig.get(&format!("/v2/quay.io/org/app/blobs/{content}")).await.bytes().await.unwrap();
        assert_eq!(ContentId::of(Algorithm::Sha256, &bytes), content);
    }
    let sent = rig.counters.to_runtimes.get();
    assert!(sent > 1_000_000, "{sent} bytes were counted");
}

#[tokio::test]
async fn any_accept_or_none_is_taken() {
    let rig = Rig::new().await;
    let image = rig.image();
    let path = format!("/v2/a.io/b/manifests/{}", image.manifest);
    for accept in [None, Some("*/*"), Some("application/*"), Some("text/plain")] {
        let request = rig.request(Method::GET, &path);
        let request = accept.iter().fold(request, |request, accept| request.header("accept", *accept));
        let response = request.send().await.unwrap();
        assert_eq!((response.status().as_u16(), header(&response, "content-type")), (200, Some(MANIFEST)));
    }
}

#[tokio::test]
async fn a_manifest_whose_content_cannot_be_had_is_refused() {
    let rig = Rig::new().await;
    let image = rig.image();
    let manifest = format!("/v2/a.io/b/manifests/{}", image.manifest);
    rig.driver.script(|script| script.missing.insert(image.layers[1]));
    assert_eq!(refused(rig.get(&manifest).await).await, (503, "UNAVAILABLE".to_owned()));
    assert_eq!(rig.head(&manifest).await.status(), 503);
    rig.driver.script(|script| {
        let mut owed = vec![image.config, image.layers[0], image.layers[1]];
        owed.sort();
        assert_eq!(script.promised[0].0, owed);
        script.missing.clear();
    });
    assert_eq!(rig.get(&manifest).await.status(), 200);
}

#[tokio::test]
async fn an_index_is_answered_while_one_of_its_manifests_can_be_had() {
    let rig = Rig::new().await;
    let children = [rig.store.hold("a"), rig.store.hold("b")];
    let descriptors = children.map(|child| json!({"digest": child.to_string()}));
    let index = rig.store.hold(json!({"schemaVersion": 2, "manifests": descriptors}).to_string());
    let path = format!("/v2/a.io/b/manifests/{index}");
    rig.driver.script(|script| script.missing.insert(children[0]));
    assert_eq!(header(&rig.get(&path).await, "content-type"), Some(INDEX));
    rig.driver.script(|script| script.missing.insert(children[1]));
    assert_eq!(refused(rig.get(&path).await).await, (503, "UNAVAILABLE".to_owned()));
}

#[tokio::test]
async fn a_manifest_that_is_not_held_is_had_first() {
    let rig = Rig::new().await;
    let bytes = json!({"schemaVersion": 2, "manifests": []}).to_string();
    let content = ContentId::of(Algorithm::Sha256, bytes.as_bytes());
    rig.tag(&tag_of("a.io", "b", "v1"), content, Provenance::Origin);
    let answer = tokio::spawn(rig.request(Method::GET, "/v2/a.io/b/manifests/v1").send());
    rig.driver.until(|script| !script.wanted.is_empty()).await;
    rig.store.begin(content, bytes.clone());
    rig.store.grow(content, 0..bytes.len() as u64);
    assert!(!answer.is_finished(), "bytes that are not verified as a whole were answered");
    rig.store.complete(content);
    rig.driver.end(content, Ok(())).await;
    assert_eq!(answer.await.unwrap().unwrap().text().await.unwrap(), bytes);
    rig.driver.script(|script| {
        let repository = Repository::new("a.io", "b").unwrap();
        assert_eq!(script.wanted, [(content, ObjectKind::Manifest, Some(repository))]);
    });
}

#[tokio::test]
async fn a_damaged_manifest_is_had_again() {
    let rig = Rig::new().await;
    let image = rig.image();
    rig.store.damage(image.manifest, 0, 1);
    let path = format!("/v2/a.io/b/manifests/{}", image.manifest);
    let answer = tokio::spawn(rig.request(Method::GET, &path).send());
    rig.driver.until(|script| !script.wanted.is_empty()).await;
    rig.store.complete(image.manifest);
    rig.driver.end(image.manifest, Ok(())).await;
    let bytes = answer.await.unwrap().unwrap().bytes().await.unwrap();
    assert_eq!(ContentId::of(Algorithm::Sha256, &bytes), image.manifest);
}

#[tokio::test]
async fn what_is_no_manifest_is_unknown() {
    let rig = Rig::new().await;
    let unknown = (404, "MANIFEST_UNKNOWN".to_owned());
    let image = rig.image();
    let large = rig.store.hold(vec![b' '; (4 << 20) + 1]);
    for content in [image.config, image.layers[0], large] {
        assert_eq!(refused(rig.get(&format!("/v2/a.io/b/manifests/{content}")).await).await, unknown);
    }
    // A layer that is not held: its size is enough to let go of it.
    let layer = noise((4 << 20) + 1);
    let content = ContentId::of(Algorithm::Sha256, &layer);
    rig.store.begin(content, layer);
    assert_eq!(refused(rig.get(&format!("/v2/a.io/b/manifests/{content}")).await).await, unknown);
    rig.driver.until(|script| script.dropped == 1).await;
    // A tag that nobody knows.
    assert_eq!(refused(rig.get("/v2/a.io/b/manifests/v9").await).await, unknown);
}

#[tokio::test]
async fn a_tag_that_the_origin_did_not_answer_says_who_did() {
    let rig = Rig::new().await;
    let image = rig.image();
    let reference = tag_of("a.io", "b", "v1");
    let peer = NodeId::from_public_key([9; 32]);
    let aged = Some(Duration::from_millis(90_500));
    for (provenance, basis, age, expected) in [
        (Provenance::Origin, Basis::Asked, Some(Duration::ZERO), None),
        (
            Provenance::Remembered { observed_unix_s: 5 },
            Basis::Away,
            aged,
            Some("remembered; because=origin-away; age=90; observed=5".to_owned()),
        ),
        (
            Provenance::Remembered { observed_unix_s: 0 },
            Basis::Fresh,
            None,
            Some("remembered; because=fresh".to_owned()),
        ),
        (Provenance::Signed, Basis::Policy, None, Some("signed; because=policy".to_owned())),
        (
            Provenance::Peer { peer, observed_unix_s: 6 },
            Basis::Away,
            None,
            Some(format!("peer; because=origin-away; observed=6; peer={peer}")),
        ),
    ] {
        let resolution = Resolution { content: image.index, provenance, basis, age };
        rig.driver.script(|script| script.tags.insert(reference.clone(), Ok(resolution)));
        let response = rig.head("/v2/a.io/b/manifests/v1").await;
        assert_eq!(header(&response, "layermesh-provenance"), expected.as_deref());
    }
}

#[tokio::test]
async fn failures_to_have_a_manifest_send_the_client_upstream() {
    let rig = Rig::with(short(Duration::from_millis(100)), FakeLists::new(Err(SourceError::NotFound), &[])).await;
    for (error, expected) in [
        (WantError::NotFound, (404, "MANIFEST_UNKNOWN")),
        (WantError::Unauthorized("x".to_owned()), (404, "DENIED")),
        (WantError::Unavailable("x".to_owned()), (503, "UNAVAILABLE")),
        (WantError::Store("x".to_owned()), (503, "UNAVAILABLE")),
        (WantError::Busy, (503, "UNAVAILABLE")),
    ] {
        let content = ContentId::of(Algorithm::Sha256, error.to_string().as_bytes());
        rig.driver.script(|script| {
            script.outcomes.insert(content, Err(error.clone()));
            script.tags.insert(tag_of("a.io", "b", "v1"), Err(error));
        });
        let expected = (expected.0, expected.1.to_owned());
        assert_eq!(refused(rig.get(&format!("/v2/a.io/b/manifests/{content}")).await).await, expected);
        assert_eq!(refused(rig.get("/v2/a.io/b/manifests/v1").await).await, expected);
    }
    // And one that never ends.
    let content = ContentId::of(Algorithm::Sha256, b"never");
    let never = refused(rig.get(&format!("/v2/a.io/b/manifests/{content}")).await).await;
    assert_eq!(never, (503, "UNAVAILABLE".to_owned()));
    rig.driver.until(|script| script.dropped > 0).await;
}

#[tokio::test]
async fn a_client_that_has_the_manifest_is_told_so() {
    let rig = Rig::new().await;
    let image = rig.image();
    let path = format!("/v2/a.io/b/manifests/{}", image.manifest);
    let etag = header(&rig.head(&path).await, "etag").unwrap().to_owned();
    assert_eq!(etag, format!("\"{}\"", image.manifest));
    let response = rig.request(Method::GET, &path).header("if-none-match", etag).send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.bytes().await.unwrap().len()), (304, 0));
}
