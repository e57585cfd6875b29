//! Any text is one repository, tag or node id or none, and what is accepted is written as it was read.

#![no_main]

use layermesh_proto::{NodeId, Repository, TagRef};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(node) = text.parse::<NodeId>() {
        assert_eq!(node.to_string(), text);
    }
    let Some((registry, rest)) = text.split_once('/') else { return };
    let (name, tag) = rest.split_once('@').unwrap_or((rest, "latest"));
    let Ok(repository) = Repository::new(registry, name) else { return };
    assert_eq!((repository.registry(), repository.name()), (registry, name));
    assert!(!name.split('/').any(|part| matches!(part, "" | "." | "..")), "{name}");
    if let Ok(reference) = TagRef::new(repository.clone(), tag) {
        assert_eq!((reference.repository(), reference.tag()), (&repository, tag));
        assert!(!tag.contains('/'), "{tag}");
    }
});
