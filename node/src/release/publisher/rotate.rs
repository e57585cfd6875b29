//! New keys: a new root, signed by the old keys and by the new ones.

use std::path::PathBuf;

use tough::schema::RoleType;

use super::{
    Lifetimes, Publisher, PublisherError,
    init::{RoleOptions, check_role, give_keys},
    sign::{self, expiry, sign_root},
};
use crate::release::{keys::KeyRing, verify::next_version};

/// Whose keys are to be new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotateOptions {
    /// The roles. None: the root is signed once more with the keys that it has, to be used for longer.
    pub roles: Vec<RoleType>,
    /// How many keys each gets; as many as it had if not said.
    pub keys: Option<u32>,
    /// How many of them must sign; as many as before if not said.
    pub threshold: Option<u32>,
    /// Lifetimes.
    pub lifetimes: Lifetimes,
}

/// What came of it.
#[derive(Debug)]
pub struct Rotated {
    /// The repository as it is now.
    pub publisher: Publisher,
    /// Files of the new keys.
    pub made: Vec<PathBuf>,
}

impl Publisher {
    /// Gives roles new keys. Their old ones sign nothing any more that devices believe, once these know of it.
    ///
    /// # Errors
    /// If too few of the root's old keys, or of another role's, are at hand.
    pub async fn rotate(
        self,
        options: RotateOptions,
        mut keys: KeyRing,
        now_unix_s: u64,
    ) -> Result<Rotated, PublisherError> {
        self.room_for_a_root()?;
        let before = self.root.signed.clone();
        let mut root = before.clone();
        root.version = next_version(root.version);
        root.expires = expiry(RoleType::Root, options.lifetimes, now_unix_s)?;
        // What is missing shows before keys are made: one signature by the old root's keys is tried.
        sign_root(&before, None, &keys).await?;
        let mut made = Vec::new();
        for &role in &options.roles {
            let had =
                before.roles.get(&role).map_or((1, 1), |had| (had.keyids.len() as u32, had.threshold.get() as u32));
            let wanted =
                RoleOptions { keys: options.keys.unwrap_or(had.0), threshold: options.threshold.unwrap_or(had.1) };
            check_role(role, wanted)?;
            let new = give_keys(self.files.dir(), &mut root, role, wanted)?;
            made.extend(new.iter().map(|key| key.path.clone()));
            keys.extend(new);
        }
        let used: Vec<_> = root.roles.values().flat_map(|role| role.keyids.clone()).collect();
        root.keys.retain(|id, _| used.contains(id));
        let signed_root = sign_root(&root, Some(&before), &keys).await?;
        let after = sign::After {
            root: signed_root.signed(),
            targets: self.targets.signed.version,
            snapshot: self.snapshot.signed.version,
            timestamp: self.timestamp.signed.version,
        };
        let releases = self.verified.releases.clone();
        let signed = sign::sign(after, &releases, &keys, options.lifetimes, now_unix_s).await?;
        self.files.write(&signed, Some(&signed_root))?;
        Ok(Rotated { publisher: self.reopened().await?, made })
    }
}
