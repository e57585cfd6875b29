//! `index.json`: the tagged manifests of the layout, for OCI tools (image-spec 1.1, image-layout.md).
//!
//! An entry is ours if its name (`org.opencontainers.image.ref.name`) is that of a binding. Invariant: ours are there
//! exactly for those bindings whose manifest is held; entries that other tools wrote are kept as they are, byte for
//! byte in meaning. The file is replaced as a whole, and only if it would change.

use std::{collections::HashSet, fs, io};

use layermesh_proto::{ContentId, Repository, TagRef, wire::Binding};
use serde_json::{Map, Value, json};

use super::{Inner, Place, disk, error::MetaError, lock, media_type::media_type_of, meta::BINDINGS_MAX};

/// Name of the file.
pub(super) const INDEX_FILE: &str = "index.json";
/// Largest blob that may be a manifest, in bytes; containerd refuses larger ones too.
pub(super) const MANIFEST_BYTES_MAX: u64 = 4 << 20;
/// Largest index that is read, in bytes: some 600 bytes for each binding, and as much again for others.
const INDEX_BYTES_MAX: u64 = 2 * 600 * BINDINGS_MAX as u64;

const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// An entry that the index should have.
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) content: ContentId,
    pub(super) size: u64,
    pub(super) media_type: String,
}

/// The index with exactly `ours` for the names in `ours_names`, and all else as it was. Without an index, or with one
/// that is none, a new one.
pub(super) fn merge(index: Option<Value>, names: &HashSet<String>, ours: &[Entry]) -> Value {
    let mut index = match index {
        Some(Value::Object(index)) => index,
        _ => Map::new(),
    };
    index.entry("schemaVersion").or_insert(json!(2));
    let mut manifests = match index.remove("manifests") {
        Some(Value::Array(manifests)) => manifests,
        _ => Vec::new(),
    };
    let mut ours: Vec<_> = ours.iter().map(entry_json).collect();
    // One that is as it should be stays where it is, so that the order of others is no reason to write the file.
    manifests.retain(|entry| match ours.iter().position(|own| own == entry) {
        Some(at) => {
            ours.swap_remove(at);
            true
        }
        None => name_of(entry).is_none_or(|name| !names.contains(name)),
    });
    manifests.extend(ours);
    index.insert("manifests".to_owned(), Value::Array(manifests));
    Value::Object(index)
}

fn entry_json(entry: &Entry) -> Value {
    json!({
        "mediaType": entry.media_type,
        "digest": entry.content.to_string(),
        "size": entry.size,
        "annotations": { REF_NAME: entry.name },
    })
}

fn name_of(entry: &Value) -> Option<&str> {
    entry.get("annotations")?.get(REF_NAME)?.as_str()
}

/// What the index says of tags, for when the metadata are lost. When it was observed is not known: long ago.
pub(super) fn bindings_of(index: &Value) -> Vec<Binding> {
    let manifests = index.get("manifests").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let of = |entry: &Value| {
        let content = entry.get("digest")?.as_str()?.parse().ok()?;
        let (rest, tag) = name_of(entry)?.rsplit_once(':')?;
        let (registry, name) = rest.split_once('/')?;
        let reference = TagRef::new(Repository::new(registry, name).ok()?, tag).ok()?;
        Some(Binding { reference, content, observed_unix_s: 0, age_ms: None, by: None })
    };
    manifests.iter().filter_map(of).take(BINDINGS_MAX).collect()
}

impl Inner {
    /// The index on disk; `None` if there is none or it is none (a write by another tool was cut off).
    pub(super) fn read_index(&self) -> io::Result<Option<Value>> {
        let path = self.paths.file(INDEX_FILE);
        match fs::metadata(&path) {
            Ok(metadata) if metadata.len() <= INDEX_BYTES_MAX => Ok(serde_json::from_slice(&fs::read(path)?).ok()),
            Ok(_) => Err(io::Error::other(format!("{INDEX_FILE} is larger than {INDEX_BYTES_MAX} bytes"))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Brings the index up to date with the bindings and what is held.
    pub(super) fn refresh_index(&self) -> io::Result<()> {
        let bindings = self.meta.bindings().map_err(io_error)?;
        let names = bindings.iter().map(|binding| binding.reference.to_string()).collect();
        let ours: Vec<_> = bindings.iter().filter_map(|binding| self.entry_of(binding)).collect();
        let before = self.read_index()?;
        let after = merge(before.clone(), &names, &ours);
        if before.as_ref() == Some(&after) {
            return Ok(());
        }
        disk::replace(&*self.ops, &self.paths.file(INDEX_FILE), after.to_string().as_bytes())
    }

    /// The same, if `content` (of `size` bytes) can be and is what a tag stands for.
    pub(super) fn index_if_bound(&self, content: &ContentId, size: u64) -> io::Result<()> {
        if size > MANIFEST_BYTES_MAX {
            return Ok(());
        }
        let bindings = self.meta.bindings().map_err(io_error)?;
        if bindings.iter().any(|binding| binding.content == *content) { self.refresh_index() } else { Ok(()) }
    }

    fn entry_of(&self, binding: &Binding) -> Option<Entry> {
        let content = binding.content;
        // What an attached store has is not in this layout.
        let size = lock(&self.held).get(&content).filter(|entry| entry.place == Place::Own)?.size;
        if size > MANIFEST_BYTES_MAX {
            return None;
        }
        let manifest = self.read_all(&content, size).ok()??;
        let media_type = media_type_of(&manifest)?.to_owned();
        Some(Entry { name: binding.reference.to_string(), content, size, media_type })
    }
}

fn io_error(error: MetaError) -> io::Error {
    io::Error::other(error)
}

#[cfg(test)]
mod tests {
    use layermesh_proto::Algorithm;

    use super::*;

    fn entry(name: &str, bytes: &[u8]) -> Entry {
        Entry {
            name: name.to_owned(),
            content: ContentId::of(Algorithm::Sha256, bytes),
            size: bytes.len() as u64,
            media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
        }
    }

    fn names(names: &[&str]) -> HashSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn what_others_wrote_stays() {
        let foreign = json!({"schemaVersion": 2, "annotations": {"a": "b"}, "manifests": [
            {"mediaType": "x", "digest": "sha256:00", "size": 1, "platform": {"os": "linux"}},
            {"mediaType": "x", "digest": "sha256:00", "size": 1, "annotations": {REF_NAME: "mine"}},
        ]});
        let ours = names(&["docker.io/library/debian:12"]);
        let merged = merge(Some(foreign.clone()), &ours, &[entry("docker.io/library/debian:12", b"1")]);
        assert_eq!(merged["annotations"], foreign["annotations"]);
        assert_eq!(merged["manifests"].as_array().unwrap()[..2], foreign["manifests"].as_array().unwrap()[..]);
        assert_eq!(merge(Some(merged), &ours, &[]), foreign);
    }

    #[test]
    fn a_tag_that_moved_has_one_entry() {
        let name = "docker.io/library/debian:12";
        let first = merge(None, &names(&[name]), &[entry(name, b"1")]);
        let second = merge(Some(first), &names(&[name]), &[entry(name, b"2")]);
        let manifests = second["manifests"].as_array().unwrap();
        assert_eq!(manifests.len(), 1);
        assert_eq!(manifests[0]["digest"], ContentId::of(Algorithm::Sha256, b"2").to_string());
    }

    #[test]
    fn what_is_right_stays_in_its_place() {
        let name = "docker.io/library/debian:12";
        let mut index = merge(None, &names(&[name]), &[entry(name, b"1")]);
        let foreign = json!({"mediaType": "x", "digest": "sha256:00", "size": 1});
        index["manifests"].as_array_mut().unwrap().push(foreign);
        assert_eq!(merge(Some(index.clone()), &names(&[name]), &[entry(name, b"1")]), index);
    }

    #[test]
    fn bindings_come_back_from_the_index() {
        let name = "localhost:5000/team/app:v1";
        let index = merge(None, &names(&[name]), &[entry(name, b"1"), entry("no reference", b"2")]);
        let bindings = bindings_of(&index);
        assert_eq!(bindings.len(), 1);
        assert_eq!(bindings[0].reference.to_string(), name);
        assert_eq!(bindings[0].content, ContentId::of(Algorithm::Sha256, b"1"));
        assert!(bindings_of(&json!([1, 2])).is_empty());
    }
}
