//! Pins: what is kept however little it is used.
//!
//! A pin is (owner, blob), and a blob is pinned while any owner pins it, held or not: what comes later is pinned when
//! it comes. Invariants: on disk and in memory an owner's pins change together, in one transaction, and the disk first;
//! an owner without a blob does not exist.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
    sync::Arc,
};

use layermesh_proto::ContentId;
use redb::{ReadableTable as _, TableDefinition};
use thiserror::Error;

use super::{
    Store,
    error::{MetaError, PinError},
    lock,
    meta::Meta,
};

/// Pins in all, of all owners: a hundred images of a hundred blobs each. Some 150 bytes each, in memory and on disk.
pub const PINS_MAX: usize = 16_384;
/// Longest owner in bytes: the longest name of an image, and a word before it.
pub const OWNER_LEN_MAX: usize = 512;

/// (owner, binary CID).
pub(super) const PINS: TableDefinition<'_, (&str, &[u8]), ()> = TableDefinition::new("pins");

/// Who pins: words divided by `/`, such as `user/docker.io/library/debian:12`, `seed` or `release/stable/1.2.0`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PinOwner(Arc<str>);

/// Text that names no owner.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "`{0}` cannot own a pin: an owner has words of letters, digits and `._:@+-`, divided by `/`, in at most \
     {OWNER_LEN_MAX} bytes"
)]
pub struct OwnerError(String);

impl PinOwner {
    /// The owner as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PinOwner {
    type Err = OwnerError;

    fn from_str(text: &str) -> Result<Self, OwnerError> {
        let word = |word: &str| {
            !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:@+-[]".contains(&byte))
        };
        if text.len() <= OWNER_LEN_MAX && text.split('/').all(word) {
            Ok(Self(text.into()))
        } else {
            Err(OwnerError(text.chars().take(OWNER_LEN_MAX).collect()))
        }
    }
}

impl fmt::Display for PinOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// All pins, as they are on disk.
#[derive(Debug, Default)]
pub(super) struct Pins {
    owners: BTreeMap<PinOwner, BTreeSet<ContentId>>,
    /// How many owners each blob has.
    counts: BTreeMap<ContentId, usize>,
}

impl Pins {
    pub(super) fn contains(&self, content: &ContentId) -> bool {
        self.counts.contains_key(content)
    }

    fn of(&self, owner: &PinOwner) -> BTreeSet<ContentId> {
        self.owners.get(owner).cloned().unwrap_or_default()
    }

    fn len(&self) -> usize {
        self.counts.values().sum()
    }

    fn set(&mut self, owner: &PinOwner, contents: BTreeSet<ContentId>) {
        for content in self.owners.remove(owner).unwrap_or_default() {
            if let Some(count) = self.counts.get_mut(&content) {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(&content);
                }
            }
        }
        if contents.is_empty() {
            return;
        }
        for &content in &contents {
            *self.counts.entry(content).or_default() += 1;
        }
        self.owners.insert(owner.clone(), contents);
    }
}

impl Store {
    /// Pins blobs for an owner besides those that it has pinned already: durable on return, all or none.
    ///
    /// # Errors
    /// If there would be too many pins, or they cannot be recorded.
    pub async fn pin(&self, owner: PinOwner, contents: Vec<ContentId>) -> Result<(), PinError> {
        self.change_pins(owner, move |before| before.iter().copied().chain(contents).collect()).await.map(drop)
    }

    /// Pins exactly these blobs for an owner, instead of those that it had pinned: durable on return, all or none.
    ///
    /// # Errors
    /// If there would be too many pins, or they cannot be recorded.
    pub async fn replace_pins(&self, owner: PinOwner, contents: Vec<ContentId>) -> Result<(), PinError> {
        self.change_pins(owner, move |_| contents.into_iter().collect()).await.map(drop)
    }

    /// Takes away all pins of an owner, durably. Returns how many it had.
    ///
    /// # Errors
    /// If it cannot be recorded.
    pub async fn unpin(&self, owner: PinOwner) -> Result<usize, PinError> {
        self.change_pins(owner, |_| BTreeSet::new()).await
    }

    /// All owners and what each has pinned, held or not.
    pub fn pins(&self) -> Vec<(PinOwner, Vec<ContentId>)> {
        let pins = lock(&self.0.pins);
        pins.owners.iter().map(|(owner, contents)| (owner.clone(), contents.iter().copied().collect())).collect()
    }

    /// Whether any owner pins a blob.
    pub fn is_pinned(&self, content: &ContentId) -> bool {
        lock(&self.0.pins).contains(content)
    }

    /// Sets an owner's pins to what `change` makes of them. Returns how many there were.
    async fn change_pins(
        &self,
        owner: PinOwner,
        change: impl FnOnce(&BTreeSet<ContentId>) -> BTreeSet<ContentId> + Send + 'static,
    ) -> Result<usize, PinError> {
        // Whoever chooses what to evict has this turn, too, so a pin that was promised is seen by it.
        let turn = Arc::clone(&self.0.structure).lock_owned().await;
        self.job(move |inner| {
            let _turn = turn;
            let (before, total) = {
                let pins = lock(&inner.pins);
                (pins.of(&owner), pins.len())
            };
            let after = change(&before);
            let total = total - before.len() + after.len();
            if after.len() > before.len() && total > PINS_MAX {
                return Err(PinError::TooMany(total));
            }
            inner.can_record()?;
            inner.meta.set_pins(&owner, &before, &after)?;
            lock(&inner.pins).set(&owner, after);
            Ok(before.len())
        })
        .await?
    }
}

impl Meta {
    /// All pins.
    pub(super) fn pins(&self) -> Result<Pins, MetaError> {
        let owners = self.db.read(|read| {
            let table = read.open_table(PINS)?;
            let mut owners: BTreeMap<PinOwner, BTreeSet<ContentId>> = BTreeMap::new();
            for row in table.iter()? {
                let (key, _) = row?;
                let (owner, cid) = key.value();
                if let (Ok(owner), Ok(content)) = (owner.parse(), ContentId::from_bytes(cid)) {
                    owners.entry(owner).or_default().insert(content);
                }
            }
            Ok(owners)
        })?;
        let mut pins = Pins::default();
        for (owner, contents) in owners {
            pins.set(&owner, contents);
        }
        Ok(pins)
    }

    fn set_pins(
        &self,
        owner: &PinOwner,
        before: &BTreeSet<ContentId>,
        after: &BTreeSet<ContentId>,
    ) -> Result<(), MetaError> {
        if before == after {
            return Ok(());
        }
        self.db.write(|write| {
            let mut table = write.open_table(PINS)?;
            for content in before.difference(after) {
                table.remove((owner.as_str(), content.to_bytes().as_slice()))?;
            }
            for content in after.difference(before) {
                table.insert((owner.as_str(), content.to_bytes().as_slice()), ())?;
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use layermesh_proto::Algorithm;

    use super::*;

    fn content(n: u8) -> ContentId {
        ContentId::of(Algorithm::Sha256, &[n])
    }

    #[test]
    fn owners_are_words() {
        for text in ["user", "seed", "release/stable/1.2.0", "user/localhost:5000/a_b@sha256:00", "user/[::1]:5000/a"] {
            assert_eq!(text.parse::<PinOwner>().unwrap().as_str(), text);
        }
        for text in ["", "/", "a/", "/a", "a//b", "a b", "a\n", "ä", &"a".repeat(OWNER_LEN_MAX + 1)] {
            assert!(text.parse::<PinOwner>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_blob_is_pinned_while_any_owner_pins_it() {
        let (a, b): (PinOwner, PinOwner) = ("a".parse().unwrap(), "b".parse().unwrap());
        let mut pins = Pins::default();
        pins.set(&a, [content(1), content(2)].into());
        pins.set(&b, [content(2)].into());
        assert_eq!(pins.len(), 3);
        pins.set(&a, [content(3)].into());
        assert_eq!((1..=3).map(|n| pins.contains(&content(n))).collect::<Vec<_>>(), [false, true, true]);
        pins.set(&b, BTreeSet::new());
        assert!(!pins.contains(&content(2)) && !pins.owners.contains_key(&b));
        assert_eq!(pins.len(), 1);
    }
}
