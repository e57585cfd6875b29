use super::*;
use crate::mirror::Passed;

fn passed(link: Option<&str>) -> Passed {
    Passed {
        body: Bytes::from_static(b"{\"from\":\"the origin\"}"),
        content_type: "application/json; charset=utf-8".to_owned(),
        link: link.map(str::to_owned),
        filters_applied: Some("artifactType".to_owned()),
    }
}

fn away() -> SourceError {
    SourceError::Unreachable("off".to_owned())
}

#[tokio::test]
async fn lists_are_passed_on() {
    let lists = FakeLists::new(Ok(passed(Some("</v2/b/tags/list?n=2&last=v2>; rel=\"next\""))), &[]);
    let rig = Rig::with(Limits::default(), lists.clone()).await;
    let response = rig.get("/v2/a.io/b/tags/list?n=2&last=v1").await;
    assert_eq!(header(&response, "content-type"), Some("application/json; charset=utf-8"));
    assert_eq!(header(&response, "link"), Some("</v2/a.io/b/tags/list?n=2&last=v2>; rel=\"next\""));
    assert_eq!(response.text().await.unwrap(), "{\"from\":\"the origin\"}");
    let response = rig.get("/v2/b/tags/list?ns=a.io%3A5").await;
    assert_eq!(header(&response, "link"), Some("</v2/b/tags/list?n=2&last=v2&ns=a.io%3A5>; rel=\"next\""));
    let content = rig.store.hold("x");
    let response = rig.get(&format!("/v2/a.io/b/referrers/{content}?artifactType=x%2Fy")).await;
    assert_eq!(header(&response, "oci-filters-applied"), Some("artifactType"));
    assert_eq!(header(&response, "link"), None);
    assert_eq!(
        *lists.asked.lock().unwrap(),
        [
            "tags a.io/b Some(2) Some(\"v1\")".to_owned(),
            "tags a.io:5/b None None".to_owned(),
            format!("referrers a.io/b {content} Some(\"x/y\")")
        ]
    );
}

#[tokio::test]
async fn with_the_origin_away_known_tags_are_listed() {
    let rig = Rig::with(Limits::default(), FakeLists::new(Err(away()), &["v3", "v1", "v2", "v1"])).await;
    for (query, expected, link) in [
        ("", json!(["v1", "v2", "v3"]), None),
        ("?n=2", json!(["v1", "v2"]), Some("</v2/a.io/b/tags/list?n=2&last=v2>; rel=\"next\"")),
        ("?n=2&last=v2", json!(["v3"]), None),
        ("?n=0", json!([]), None),
    ] {
        let response = rig.get(&format!("/v2/a.io/b/tags/list{query}")).await;
        assert_eq!(response.status(), 200);
        assert_eq!(header(&response, "layermesh-provenance"), Some("remembered"));
        assert_eq!(header(&response, "link"), link);
        let document: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
        assert_eq!(document, json!({"name": "b", "tags": expected}));
    }
}

#[tokio::test]
async fn lists_that_cannot_be_had() {
    let unavailable = (503, "UNAVAILABLE".to_owned());
    for (error, known, tags, referrers) in [
        (away(), &[][..], unavailable.clone(), unavailable.clone()),
        (SourceError::NotFound, &["v1"][..], (404, "NAME_UNKNOWN".to_owned()), (404, "NAME_UNKNOWN".to_owned())),
        (SourceError::Unauthorized("x".to_owned()), &["v1"], (404, "DENIED".to_owned()), (404, "DENIED".to_owned())),
        (SourceError::RateLimited { retry_after: None }, &[], unavailable.clone(), unavailable.clone()),
    ] {
        let rig = Rig::with(Limits::default(), FakeLists::new(Err(error), known)).await;
        let content = rig.store.hold("x");
        assert_eq!(refused(rig.get("/v2/a.io/b/tags/list").await).await, tags);
        assert_eq!(refused(rig.get(&format!("/v2/a.io/b/referrers/{content}")).await).await, referrers);
    }
}
