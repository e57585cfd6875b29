//! `layermesh tags`: what do tags stand for, as far as this site knows?

use std::time::Duration;

use layermesh_proto::NodeId;

use super::{Exit, Failure, Global, node, output};
use crate::{admin::types::Tag, config::units::show_duration};

pub(super) async fn run(global: &Global) -> Result<Exit, Failure> {
    let mut tags = node::client(global)?.tags().await?;
    if global.json {
        output::print_json_document(&tags)?;
        return Ok(Exit::Done);
    }
    // Those under which patches and signatures lie say nothing to people.
    tags.retain(|tag| !names_referrers(&tag.tag));
    if tags.is_empty() {
        output::print("no tags yet: pull an image through the mirror, or with `layermesh pull`\n")?;
    } else {
        output::print(&shown(tags))?;
    }
    Ok(Exit::Done)
}

/// Whether a tag stands for what refers to a manifest (distribution-spec, "Referrers Tag Schema").
fn names_referrers(reference: &str) -> bool {
    let tag = reference.rsplit(':').next().unwrap_or_default();
    let hex = |text: &str, len| text.len() == len && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    tag.strip_prefix("sha256-").is_some_and(|rest| hex(rest, 64))
        || tag.strip_prefix("sha512-").is_some_and(|rest| hex(rest, 128))
}

fn shown(tags: Vec<Tag>) -> String {
    let row = |tag: Tag| {
        let age = match tag.age_s {
            Some(age) => show_duration(Duration::from_secs(age)),
            None => "-".to_owned(),
        };
        let state = if tag.fresh { "fresh" } else { "to be asked for" };
        let said_by = match (&tag.release, tag.peer.as_deref().map(str::parse::<NodeId>)) {
            (Some(release), _) => format!("release {release}"),
            (None, Some(Ok(peer))) => format!("peer …{}", peer.short()),
            (None, _) => tag.said_by.clone(),
        };
        vec![tag.tag, tag.digest, age, said_by, state.to_owned()]
    };
    output::table(&["TAG", "DIGEST", "AGE", "SAID BY", "STATE"], &[2], tags.into_iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use layermesh_proto::{
        Algorithm, ContentId, Repository, TagRef,
        engine::{
            BindingView,
            event::{Basis, Provenance, Resolution},
        },
    };

    use super::*;
    use crate::admin::testing::World;

    #[test]
    fn tags_of_what_refers_to_manifests_are_known() {
        let of = |tag: &str| names_referrers(&format!("docker.io/library/debian:{tag}"));
        assert!(of(&format!("sha256-{}", "a1".repeat(32))));
        assert!(!of("12") && !of("sha256-12") && !of(&format!("sha256-{}", "xy".repeat(32))));
    }

    #[tokio::test]
    async fn a_row_a_tag() {
        let view = |tag: &str, provenance, age: Option<u64>, release: Option<&str>| BindingView {
            reference: TagRef::new(Repository::new("docker.io", "library/debian").unwrap(), tag).unwrap(),
            resolution: Resolution {
                content: ContentId::of(Algorithm::Sha256, tag.as_bytes()),
                provenance,
                basis: Basis::Away,
                age: age.map(Duration::from_secs),
            },
            release: release.map(str::to_owned),
            fresh: age == Some(12),
        };
        let peer = NodeId::from_public_key([7; 32]);
        let mut world = World::new();
        world.bindings = vec![
            view("11", Provenance::Peer { peer, observed_unix_s: 0 }, None, None),
            view("12", Provenance::Remembered { observed_unix_s: 5 }, Some(12), None),
            view("13", Provenance::Signed, None, Some("stable 1.4")),
        ];
        let tags = world.node().tags().await;
        assert_eq!(tags.iter().map(|tag| tag.observed_unix_s).collect::<Vec<_>>(), [None, Some(5), None]);
        let text = shown(tags);
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[1][0], "docker.io/library/debian:11");
        assert!(rows[1][1].starts_with("sha256:"), "{text}");
        assert_eq!(rows[1][2..4], ["-", "peer"]);
        assert_eq!(rows[2][2..], ["12.0", "s", "origin", "fresh"]);
        assert_eq!(rows[3][2..], ["-", "release", "stable", "1.4", "to", "be", "asked", "for"]);
    }
}
