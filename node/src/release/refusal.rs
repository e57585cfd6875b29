//! Why metadata was not believed, in words and in one word for metrics.

use std::error::Error as _;

use thiserror::Error;
use tough::{
    TransportError,
    error::Error as Tough,
    schema::{Error as Schema, RoleType},
};

/// Kinds of reasons; each is a label of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RefusalKind {
    /// Older than what was believed before.
    Rollback,
    /// Not signed by enough of the keys that the root names.
    Signatures,
    /// A file is not the one that the signed files name.
    Tampered,
    /// It was to be used up to a time that is over.
    Expired,
    /// Larger, or more of something, than anything that is right.
    TooLarge,
    /// Not metadata of releases.
    Malformed,
    /// Of another repository than the one that is followed.
    OtherRepository,
}

impl RefusalKind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Rollback,
        Self::Signatures,
        Self::Tampered,
        Self::Expired,
        Self::TooLarge,
        Self::Malformed,
        Self::OtherRepository,
    ];

    /// As a label of a metric, and in JSON.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Rollback => "rollback",
            Self::Signatures => "signatures",
            Self::Tampered => "tampered",
            Self::Expired => "expired",
            Self::TooLarge => "too_large",
            Self::Malformed => "malformed",
            Self::OtherRepository => "other_repository",
        }
    }
}

/// Metadata was not believed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct Refusal {
    /// What kind of reason.
    pub kind: RefusalKind,
    /// The reason, for people.
    pub message: String,
}

impl Refusal {
    pub(super) fn new(kind: RefusalKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// In this project's words, as far as they have one; the library's otherwise.
    pub(super) fn of(error: &Tough) -> Self {
        let said = |kind, message: String| Self::new(kind, message);
        match error {
            Tough::OlderMetadata { role, current_version, new_version, .. } => said(
                RefusalKind::Rollback,
                format!("rollback: {role} version {new_version} is older than {current_version}, which is trusted"),
            ),
            Tough::OlderSnapshotInTimestamp { .. }
            | Tough::SnapshotRoleMissing { .. }
            | Tough::SnapshotRoleRollback { .. } => said(RefusalKind::Rollback, format!("rollback: {error}")),
            Tough::VerifyMetadata { role, source, .. } => unsigned(*role, source),
            Tough::VerifyTrustedMetadata { source, .. } => unsigned(RoleType::Root, source),
            Tough::Transport { source, .. } => transport(source),
            Tough::VersionMismatch { role, fetched, expected, .. } => said(
                RefusalKind::Tampered,
                format!("tampered: {role} has version {fetched}, and what is signed names {expected}"),
            ),
            Tough::MaxUpdatesExceeded { .. } => said(RefusalKind::TooLarge, error.to_string()),
            other => said(RefusalKind::Malformed, format!("not metadata of releases: {other}")),
        }
    }
}

fn unsigned(role: RoleType, error: &Schema) -> Refusal {
    let message = match error {
        Schema::SignatureThreshold { threshold, valid, .. } => {
            format!("wrong keys: {role} is signed by {valid} of the {threshold} keys that the trusted root asks for")
        }
        other => format!("wrong keys: {role} cannot be checked: {other}"),
    };
    Refusal::new(RefusalKind::Signatures, message)
}

fn transport(error: &TransportError) -> Refusal {
    let file = error.url().rsplit('/').next().unwrap_or_default().to_owned();
    match error.source().and_then(|source| source.downcast_ref::<Tough>()) {
        Some(Tough::HashMismatch { .. }) => {
            Refusal::new(RefusalKind::Tampered, format!("tampered: {file} is not the file that was signed"))
        }
        Some(Tough::MaxSizeExceeded { .. }) => {
            Refusal::new(RefusalKind::Tampered, format!("tampered: {file} is longer than the file that was signed"))
        }
        _ => Refusal::new(RefusalKind::Malformed, format!("incomplete: {file} is missing")),
    }
}
