//! A new repository.

use std::{collections::HashMap, num::NonZeroU64, path::Path};

use serde_json::Value;
use tough::schema::{RoleKeys, RoleType, Root};

use super::{
    Lifetimes, Publisher, PublisherError, ROLES, check,
    files::Files,
    one,
    sign::{self, SPEC_VERSION, expiry, key_id, sign_root},
};
use crate::release::{
    RepositoryId,
    keys::{KeyRing, SigningKey},
    verify::REPOSITORY_FIELD,
};

/// Keys of one role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoleOptions {
    /// How many.
    pub keys: u32,
    /// How many of them must sign.
    pub threshold: u32,
}

/// What a new repository is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitOptions {
    /// Keys of the root. Three, of which two sign: one can be lost, and one stolen.
    pub root: RoleOptions,
    /// Keys of the targets.
    pub targets: RoleOptions,
    /// Lifetimes.
    pub lifetimes: Lifetimes,
}

impl Default for InitOptions {
    fn default() -> Self {
        Self {
            root: RoleOptions { keys: 3, threshold: 2 },
            targets: RoleOptions { keys: 1, threshold: 1 },
            lifetimes: Lifetimes::default(),
        }
    }
}

/// Most keys of a role.
pub(super) const ROLE_KEYS_MAX: u32 = 32;

impl Publisher {
    /// Makes a repository with keys of its own, below `DIR/keys`.
    ///
    /// # Errors
    /// If there is one already, or it cannot be written.
    pub async fn init(dir: &Path, options: InitOptions, now_unix_s: u64) -> Result<Self, PublisherError> {
        let single = RoleOptions { keys: 1, threshold: 1 };
        let wanted = |role| match role {
            RoleType::Root => options.root,
            RoleType::Targets => options.targets,
            _ => single,
        };
        // What is wrong shows before anything is written.
        for role in ROLES {
            check_role(role, wanted(role))?;
            expiry(role, options.lifetimes, now_unix_s)?;
        }
        let files = Files::create(dir)?;
        let mut root = Root {
            spec_version: SPEC_VERSION.to_owned(),
            consistent_snapshot: true,
            version: one(),
            expires: expiry(RoleType::Root, options.lifetimes, now_unix_s)?,
            keys: HashMap::new(),
            roles: HashMap::new(),
            _extra: HashMap::new(),
        };
        let id = RepositoryId::new(rand::random());
        root._extra.insert(REPOSITORY_FIELD.to_owned(), Value::from(id.as_str()));
        let mut keys = KeyRing::default();
        for role in ROLES {
            keys.extend(give_keys(dir, &mut root, role, wanted(role))?);
        }
        let signed_root = sign_root(&root, None, &keys).await?;
        let before = NonZeroU64::MIN;
        let first = sign::After { root: signed_root.signed(), targets: before, snapshot: before, timestamp: before };
        let signed = sign::sign(first, &[], &keys, options.lifetimes, now_unix_s).await?;
        files.write(&signed, Some(&signed_root))?;
        let set = files.read()?;
        let verified = check(&set).await.map_err(|refusal| PublisherError::Damaged { dir: dir.to_owned(), refusal })?;
        Self::new(files, set, verified)
    }
}

pub(super) fn check_role(role: RoleType, options: RoleOptions) -> Result<(), PublisherError> {
    let RoleOptions { keys, threshold } = options;
    if threshold == 0 || threshold > keys || keys > ROLE_KEYS_MAX {
        return Err(PublisherError::Threshold { role, keys, threshold });
    }
    Ok(())
}

/// Makes new keys for a role and writes them into the root instead of those that it had.
pub(super) fn give_keys(
    dir: &Path,
    root: &mut Root,
    role: RoleType,
    options: RoleOptions,
) -> Result<Vec<SigningKey>, PublisherError> {
    let mut made = Vec::new();
    let mut keyids = Vec::new();
    for _ in 0..options.keys {
        let key = SigningKey::create(&dir.join("keys").join(role.to_string()), &format!("{role}-{}", root.version))?;
        let id = key_id(key.public())?;
        root.keys.insert(id.clone(), key.public().clone());
        keyids.push(id);
        made.push(key);
    }
    let threshold = NonZeroU64::new(u64::from(options.threshold)).unwrap_or(NonZeroU64::MIN);
    root.roles.insert(role, RoleKeys { keyids, threshold, _extra: HashMap::new() });
    Ok(made)
}
