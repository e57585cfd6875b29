//! Who may ask, and over what: a mirror with TLS and a password.

use layermesh_proto::{Algorithm, engine::event::WantError};

use super::{blobs::take_until_cut, *};
use crate::config::{Credentials, MirrorAccessConfig};

const PASSWORD: (&str, &str) = ("device", "s3cret");

/// A mirror that demands TLS and a password, and a client that trusts its certificate.
async fn demanding() -> Rig {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: String| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let tls = (file("certificate", made.cert.pem()), file("key", made.key_pair.serialize_pem()));
    let credentials = Credentials { username: PASSWORD.0.to_owned(), password: PASSWORD.1.to_owned() };
    let access = Access::new(&MirrorAccessConfig { tls: Some(tls), credentials: Some(credentials) }).unwrap();
    let mut rig =
        Rig::demanding(access, Limits::default(), FakeLists::new(Err(SourceError::Unreachable("off".to_owned())), &[]))
            .await;
    let certificate = reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap();
    rig.client = reqwest::Client::builder().no_proxy().tls_certs_only([certificate]).build().unwrap();
    rig
}

fn request(rig: &Rig, path: &str) -> RequestBuilder {
    rig.client.get(format!("https://{}{path}", rig.address)).timeout(2 * PATIENCE)
}

#[tokio::test]
async fn nothing_is_answered_without_the_password_and_all_with_it() {
    let rig = demanding().await;
    let content = rig.store.hold("private");
    let blob = format!("/v2/a.io/b/blobs/{content}");
    for path in ["/v2/", &blob, "/v2/a.io/b/manifests/1", "/", "/nonsense"] {
        for wrong in [None, Some(("device", "s3cre")), Some(("other", "s3cret"))] {
            let mut asking = request(&rig, path);
            if let Some((name, password)) = wrong {
                asking = asking.basic_auth(name, Some(password));
            }
            let response = asking.send().await.unwrap();
            assert_eq!(response.status(), 401, "{path} {wrong:?}");
            assert!(header(&response, "www-authenticate").unwrap().starts_with("Basic realm="));
            let document: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
            assert_eq!(document["errors"][0]["code"], "UNAUTHORIZED");
        }
    }
    let (name, password) = PASSWORD;
    let response = request(&rig, &blob).basic_auth(name, Some(password)).send().await.unwrap();
    assert_eq!((response.status().as_u16(), &response.bytes().await.unwrap()[..]), (200, &b"private"[..]));
}

#[tokio::test]
async fn without_tls_nothing_is_answered_at_all() {
    let rig = demanding().await;
    let (name, password) = PASSWORD;
    let result = rig.request(Method::GET, "/v2/").basic_auth(name, Some(password)).send().await;
    assert!(result.unwrap_err().is_request());
}

#[tokio::test]
async fn a_blob_that_turns_out_wrong_does_not_end_cleanly_over_tls_either() {
    let rig = demanding().await;
    let content = ContentId::of(Algorithm::Sha256, b"something else");
    rig.store.begin(content, noise(900_000));
    rig.store.grow(content, 0..900_000);
    let (name, password) = PASSWORD;
    let path = format!("/v2/a.io/b/blobs/{content}");
    let response = request(&rig, &path).basic_auth(name, Some(password)).send().await.unwrap();
    rig.driver.end(content, Err(WantError::Unavailable("wrong bytes".to_owned()))).await;
    let (taken, _) = take_until_cut(response).await;
    assert!(taken < 900_000);
}
