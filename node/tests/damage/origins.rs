//! Registries that answer everything but what they should.

use std::time::Duration;

use futures::future::join_all;
use layermesh::embedded::{Fault, FaultRule};
use layermesh_proto::ContentId;
use reqwest::Method;

use crate::common::{
    Node, Site,
    client::{Answer, ask},
    content::{self, RawImage},
};

/// The longest of the deadlines that end a case: 30 s without a byte from an origin, a few more to give up.
const CASE_TIME_MAX: Duration = Duration::from_secs(75);
/// Two pieces of a blob and some of the third.
const WITHIN: u64 = 300_000;
const BLOB: usize = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// The first answer is right.
    Right,
    /// The first answer is an error or breaks off, the second is right.
    RightAtTheSecondTry,
    /// With this status.
    Refused(u16),
    /// With an error or by breaking off.
    InFailure,
}

struct Case {
    name: &'static str,
    faults: Vec<(Fault, Option<u32>)>,
    size: usize,
    ends: Ends,
}

fn case<const N: usize>(name: &'static str, ends: Ends, faults: [(Fault, Option<u32>); N]) -> Case {
    Case { name, faults: faults.into(), size: BLOB, ends }
}

fn status(code: u16) -> Fault {
    Fault::Status { code, retry_after: None }
}

fn busy(retry_after: &str) -> Fault {
    Fault::Status { code: 429, retry_after: Some(retry_after.to_owned()) }
}

fn without_length() -> Fault {
    Fault::Header { name: "content-length", value: None }
}

fn blob_cases() -> Vec<Case> {
    use Ends::{InFailure, Refused, Right, RightAtTheSecondTry};
    let (once, always) = (Some(1), None);
    vec![
        case("401", Refused(404), [(status(401), always)]),
        case("403", Refused(404), [(status(403), always)]),
        case("404", Refused(404), [(status(404), always)]),
        case("429 for a moment", Right, [(busy("1"), Some(2))]),
        case("429 for long", Refused(503), [(busy("600"), always)]),
        case("500 once", Right, [(status(500), once)]),
        case("500", Refused(503), [(status(500), always)]),
        case("cut once", Right, [(Fault::Cut { after: WITHIN }, once)]),
        case("cut after every piece or two", Right, [(Fault::Cut { after: WITHIN }, always)]),
        case("cut within every piece", InFailure, [(Fault::Cut { after: 1000 }, always)]),
        case("a wrong byte once", RightAtTheSecondTry, [(Fault::Flip { offset: WITHIN }, once)]),
        case("a wrong byte", InFailure, [(Fault::Flip { offset: WITHIN }, always)]),
        case("no length", Right, [(without_length(), always)]),
        case("no length and more bytes", Right, [(without_length(), always), (Fault::Longer { by: 9 }, always)]),
        case("no length, no ranges", Right, [(without_length(), always), (Fault::IgnoreRange, always)]),
        case(
            "no length, no ranges, and more bytes",
            InFailure,
            [(without_length(), always), (Fault::IgnoreRange, always), (Fault::Longer { by: 9 }, always)],
        ),
        Case {
            size: 6 << 20,
            ..case(
                "no length, no ranges, too much to hold",
                Refused(503),
                [(without_length(), always), (Fault::IgnoreRange, always)],
            )
        },
        case("no ranges", Right, [(Fault::IgnoreRange, always), (Fault::Cut { after: WITHIN }, once)]),
        case("a stall within the body", Right, [(Fault::Stall { after: WITHIN }, once)]),
        case("no answer", Refused(503), [(Fault::Blackhole, always)]),
    ]
}

impl Case {
    fn inject(&self, site: &Site, path_prefix: &str) {
        for (fault, times) in &self.faults {
            let rule = FaultRule { path_prefix: path_prefix.to_owned(), fault: fault.clone(), times: *times };
            site.registry.inject(rule);
        }
    }

    /// Asks twice if the first answer is no success; says what is wrong with how it ended.
    async fn run(&self, node: &Node, path: &str, content: &ContentId) -> Result<(), String> {
        let url = node.url(path);
        let get = async || {
            let asked = node.within(CASE_TIME_MAX, self.name, ask(Method::GET, &url, None)).await;
            asked.unwrap_or_else(|error| panic!("{}: {error:?}{}", self.name, node.last_words()))
        };
        let first = get().await;
        let wrong = |answer: &Answer| Err(format!("{}, not {:?}: {}", self.name, self.ends, answer.shown()));
        if !first.is(content) && !first.is_clear_failure() {
            return Err(format!("{}: wrong bytes as if they were right: {}", self.name, first.shown()));
        }
        let as_expected = match self.ends {
            Ends::Right => first.is(content),
            Ends::Refused(code) => first.status.as_u16() == code,
            Ends::InFailure | Ends::RightAtTheSecondTry => !first.is(content),
        };
        if !as_expected {
            return wrong(&first);
        }
        if self.ends == Ends::RightAtTheSecondTry {
            let second = get().await;
            if !second.is(content) {
                return wrong(&second);
            }
        }
        Ok(())
    }
}

fn judge(results: Vec<Result<(), String>>, log: &str) {
    let wrong: Vec<String> = results.into_iter().filter_map(Result::err).collect();
    assert!(wrong.is_empty(), "{}{log}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_from_an_ill_registry_is_right_or_refused() {
    let site = Site::new().await;
    let node = site.node("node", &[]).await;
    let cases = blob_cases();
    let runs = cases.iter().enumerate().map(|(n, case)| {
        let blob = site.registry.put_blob(content::bytes(case.name, case.size));
        case.inject(&site, &format!("/v2/case-{n}/blobs/"));
        let node = &node;
        async move { case.run(node, &format!("case-{n}/blobs/{blob}"), &blob).await }
    });
    judge(join_all(runs).await, &node.last_words());
    // The node is none the worse for it.
    let blob = site.registry.put_blob(content::bytes("afterwards", 1000));
    node.pull_blob("app", &blob).await;
}

fn manifest_cases() -> Vec<Case> {
    use Ends::{InFailure, Refused, Right, RightAtTheSecondTry};
    let (once, always) = (Some(1), None);
    vec![
        case("401", Refused(404), [(status(401), always)]),
        case("404", Refused(404), [(status(404), always)]),
        case("429", Refused(503), [(busy("2"), always)]),
        case("500", Refused(503), [(status(500), always)]),
        case("500 once", RightAtTheSecondTry, [(status(500), once)]),
        case("cut once", Right, [(Fault::Cut { after: 100 }, once)]),
        case("a wrong byte", InFailure, [(Fault::Flip { offset: 100 }, always)]),
        case("no length", Right, [(without_length(), always)]),
        case("no answer", Refused(503), [(Fault::Blackhole, always)]),
    ]
}

/// Each with a node of its own, since a registry that does not answer for one tag counts as away for the next.
#[tokio::test(flavor = "multi_thread")]
async fn a_tag_at_an_ill_registry_is_right_or_refused() {
    let site = Site::new().await;
    let cases = manifest_cases();
    let runs = cases.iter().enumerate().map(|(n, case)| {
        let site = &site;
        async move {
            let repository = format!("case-{n}");
            let image = RawImage::put(&site.registry, &repository, "v1", case.name, &[1000]);
            case.inject(site, &format!("/v2/{repository}/manifests/"));
            let node = site.node(&repository, &[]).await;
            let result = case.run(&node, &format!("{repository}/manifests/v1"), &image.manifest).await;
            result.map_err(|error| error + &node.last_words())
        }
    });
    judge(join_all(runs).await, "");
}
