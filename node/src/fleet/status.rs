//! How admission stands, as the admin API says it.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use serde::{Deserialize, Serialize};

use super::{Fleet, Refusal};
use crate::release::verify::show_time;

/// Who is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AdmissionMode {
    /// Everybody.
    Open,
    /// Members of a fleet.
    Fleet,
    /// Nobody: the node serves its own device only.
    Alone,
}

/// How admission stands. Fields are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdmissionStatus {
    /// Who is let in.
    pub mode: AdmissionMode,
    /// Ids of the authorities that are trusted.
    pub authorities: Vec<String>,
    /// What this node shows of itself; absent if it has nothing to show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub membership: Option<MembershipStatus>,
    /// Why others do not let this node in, and what to do; absent if nothing is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Members that showed their membership and are let in.
    pub members: usize,
    /// Revocations that are known.
    pub revocations: usize,
    /// How often peers were refused, by reason.
    pub refused: BTreeMap<String, u64>,
    /// How often peers refused this node, by the reason that they gave.
    pub refused_by_peers: BTreeMap<String, u64>,
}

/// What a node shows of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembershipStatus {
    /// The authority.
    pub authority: String,
    /// When it was signed, as RFC 3339.
    pub issued: String,
    /// Until when it holds, as RFC 3339; absent if until it is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// The enrolment key that signed it, if the authority itself did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrolled_by: Option<String>,
}

/// A revocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevocationStatus {
    /// The device, or the enrolment key.
    pub subject: String,
    /// Whose word it is.
    pub authority: String,
    /// When it was signed, as RFC 3339.
    pub when: String,
}

fn by_reason(counts: &[AtomicU64; Refusal::ALL.len()]) -> BTreeMap<String, u64> {
    let counts = Refusal::ALL.iter().zip(counts);
    counts.map(|(kind, count)| (kind.label().to_owned(), count.load(Ordering::Relaxed))).collect()
}

impl Fleet {
    /// How admission stands.
    pub fn status(&self) -> AdmissionStatus {
        let mode = match (self.is_open(), self.is_alone()) {
            (true, _) => AdmissionMode::Open,
            (_, true) => AdmissionMode::Alone,
            _ => AdmissionMode::Fleet,
        };
        let wall = self.wall();
        let state = self.state();
        let judged = state.own.as_ref().map(|(_, proved)| state.roster.judge(proved, wall));
        let problem = match (mode, judged) {
            (AdmissionMode::Open, _) => None,
            (AdmissionMode::Alone, _) => Some(
                "this node has no fleet, so it serves its own device only: name the fleet's authority in `[fleet] \
                 authorities`, or let everybody on the LAN in with `open = true`"
                    .to_owned(),
            ),
            (_, None) => Some(state.problem.clone().unwrap_or_else(|| self.not_admitted())),
            (_, Some(Err(Refusal::Expired))) => {
                Some(format!("this device's membership has expired, or its clock is wrong: {}", self.how_to_admit()))
            }
            (_, Some(Err(refusal))) => Some(format!("{refusal}: {}", self.how_to_admit())),
            (_, Some(Ok(()))) => None,
        };
        AdmissionStatus {
            mode,
            authorities: self.0.options.authorities.iter().map(ToString::to_string).collect(),
            membership: state.own.as_ref().map(|(_, proved)| MembershipStatus {
                authority: proved.authority.to_string(),
                issued: show_time(proved.issued_unix_s),
                expires: proved.expires_unix_s.map(show_time),
                enrolled_by: proved.enrolled_by.map(|key| key.to_string()),
            }),
            problem,
            members: state.roster.count_members(wall),
            revocations: state.roster.revocations().count(),
            refused: by_reason(&self.0.refused),
            refused_by_peers: by_reason(&self.0.refused_by),
        }
    }

    /// All revocations that are known.
    pub fn revocations(&self) -> Vec<RevocationStatus> {
        let state = self.state();
        let shown = state.roster.revocations().map(|(statement, _)| RevocationStatus {
            subject: statement.subject.to_string(),
            authority: statement.authority.to_string(),
            when: show_time(statement.when_unix_s),
        });
        shown.collect()
    }

    pub(super) fn not_admitted(&self) -> String {
        format!("this device has no membership, so no other lets it in: {}", self.how_to_admit())
    }

    pub(super) fn how_to_admit(&self) -> String {
        format!(
            "where the authority is, run `layermesh fleet admit {} --out FILE`, and here `layermesh fleet join FILE`",
            self.0.node
        )
    }
}
