//! `layermesh fleet show`.

use std::fmt::Write as _;

use super::{Exit, Failure, Global, node, output};
use crate::fleet::{AdmissionMode, AdmissionStatus, routes::FleetStatus};

pub(super) async fn run(global: &Global) -> Result<Exit, Failure> {
    let status = node::client(global)?.fleet().await?;
    if global.json {
        output::print_json_document(&status)?;
    } else {
        output::print(&shown(&status))?;
    }
    Ok(Exit::Done)
}

/// How admission stands, in a line.
pub(in crate::cli) fn in_a_line(admission: &AdmissionStatus) -> String {
    let members = output::counted(admission.members as u64, "member", "members");
    match (admission.mode, &admission.problem) {
        (AdmissionMode::Open, _) => "open: everybody on the LAN is let in".to_owned(),
        (AdmissionMode::Alone, _) => {
            "NO FLEET: this node serves its own device only; `layermesh fleet show` says more".to_owned()
        }
        (AdmissionMode::Fleet, Some(_)) => {
            format!("NOT ADMITTED: others refuse this node; `layermesh fleet show` says why. {members} let in")
        }
        (AdmissionMode::Fleet, None) => format!("a member of the fleet; {members} let in"),
    }
}

fn shown(status: &FleetStatus) -> String {
    let admission = &status.admission;
    let mut text = format!("{}\n", in_a_line(admission));
    if let Some(problem) = &admission.problem {
        let _ = writeln!(text, "{problem}");
    }
    text.push('\n');
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(text, "  {name:<12}{value}");
    };
    row("peer id", &status.peer_id);
    for authority in &admission.authorities {
        row("authority", authority);
    }
    if let Some(membership) = &admission.membership {
        let until = membership.expires.as_ref().map_or_else(|| "until revoked".to_owned(), |at| format!("until {at}"));
        row("membership", &format!("of {}, signed {}, {until}", membership.authority, membership.issued));
        if let Some(key) = &membership.enrolled_by {
            row("enrolled by", key);
        }
    }
    for (name, counts) in [("refused", &admission.refused), ("refused by", &admission.refused_by_peers)] {
        let counts = counts.iter().filter(|(_, count)| **count > 0);
        let shown = counts.map(|(reason, count)| format!("{reason} {count}")).collect::<Vec<_>>().join(", ");
        row(name, if shown.is_empty() { "nobody yet" } else { &shown });
    }
    if !status.revoked.is_empty() {
        let rows = status.revoked.iter().map(|one| vec![one.subject.clone(), one.when.clone(), one.authority.clone()]);
        text.push('\n');
        text.push_str(&output::table(&["REVOKED", "WHEN", "BY"], &[], rows.collect()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{MembershipStatus, RevocationStatus};

    #[test]
    fn it_says_first_what_matters_most() {
        let mut status = FleetStatus {
            peer_id: "12D3me".to_owned(),
            admission: AdmissionStatus {
                mode: AdmissionMode::Fleet,
                authorities: vec!["12D3a".to_owned()],
                membership: None,
                problem: Some("do this".to_owned()),
                members: 1,
                revocations: 1,
                refused: [("expired".to_owned(), 3), ("forged".to_owned(), 0)].into(),
                refused_by_peers: [("revoked".to_owned(), 2)].into(),
            },
            revoked: vec![RevocationStatus {
                subject: "12D3gone".to_owned(),
                authority: "12D3a".to_owned(),
                when: "2026-11-29T00:00:00Z".to_owned(),
            }],
        };
        let text = shown(&status);
        assert!(text.starts_with("NOT ADMITTED: ") && text.contains("\ndo this\n"), "{text}");
        assert!(
            text.contains("refused     expired 3\n")
                && text.contains("refused by  revoked 2\n")
                && text.contains("12D3gone"),
            "{text}"
        );
        status.admission.problem = None;
        status.admission.membership = Some(MembershipStatus {
            authority: "12D3a".to_owned(),
            issued: "2026-11-01T00:00:00Z".to_owned(),
            expires: None,
            enrolled_by: Some("12D3k".to_owned()),
        });
        let text = shown(&status);
        assert!(text.starts_with("a member of the fleet; 1 member let in\n"), "{text}");
        assert!(text.contains("until revoked") && text.contains("enrolled by 12D3k"), "{text}");
    }
}
