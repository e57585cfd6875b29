//! What fuzz targets feed: for every kind of bytes that reach a node from outside, a function with what must hold of it.
//!
//! Invariant: each has seeds in `fuzz/seeds`, and holds for them also where nothing is instrumented.

use crate::{archive, delta, exchange, fleet, image, mirror, origin, release, remembered, store};

/// Holds for any bytes, or panics.
pub type Target = fn(&[u8]);

/// All of them by name.
pub const TARGETS: [(&str, Target); 14] = [
    ("archive", archive::fuzzing::images),
    ("fleet_file", fleet::fuzzing::file),
    ("fleet_record", fleet::fuzzing::record),
    ("image_name", image_name),
    ("layer_recipe", layer_recipe),
    ("manifest", manifest),
    ("mirror_headers", mirror::fuzzing::headers),
    ("mirror_target", mirror::fuzzing::target),
    ("origin_answer", origin::fuzzing::answer),
    ("partial_state", store::fuzzing::partial_state),
    ("peer_request", exchange::fuzzing::request),
    ("release_set", release::fuzzing::set),
    ("remembered", remembered::fuzz),
    ("store_rows", store::fuzzing::rows),
];

/// The target of this name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, target)| *target)
}

/// Any text is an image's name or none; a name is read as it was written.
fn image_name(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(reference) = text.parse::<image::ImageReference>() {
        assert_eq!(reference.to_string().parse(), Ok(reference));
    }
    let _ = text.parse::<image::ImageSource>();
    if let Ok(channel) = text.parse::<release::Channel>() {
        assert_eq!(channel.to_string(), text);
    }
    if let Ok(version) = text.parse::<release::ReleaseVersion>() {
        assert_eq!(version.to_string(), text);
    }
    if let Ok(owner) = text.parse::<store::pins::PinOwner>() {
        assert_eq!(owner.as_str(), text);
    }
    if let Ok(platform) = text.parse::<crate::contents::Platform>() {
        assert_eq!(platform.to_string(), text);
    }
}

/// Any bytes are a manifest, an index or neither.
fn manifest(bytes: &[u8]) {
    use crate::contents::{Document, PlatformChoice};
    store::fuzzing::media_type(bytes);
    if let Ok(Document::Index(entries)) = Document::parse(bytes) {
        let (chosen, lacking) = PlatformChoice::default().choose(&entries);
        assert!(chosen.len() + lacking.len() <= entries.len() + 1);
    }
}

/// Any bytes have a recipe that makes them again, or none.
fn layer_recipe(bytes: &[u8]) {
    let Ok(found) = delta::recipe::identify(bytes, |_| ()) else { return };
    let mut plain = Vec::new();
    let mut inflated = flate2::read::GzDecoder::new(bytes);
    if std::io::Read::read_to_end(&mut inflated, &mut plain).is_err() {
        panic!("a layer with a recipe does not inflate");
    }
    let (mut encoder, mut again) = (found.recipe.encoder(), Vec::new());
    encoder.write(&plain, &mut again);
    encoder.finish(&mut again);
    assert!(again == bytes, "the recipe makes another layer");
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn every_target_holds_for_its_seeds() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
        for (name, target) in TARGETS {
            let mut files = fs::read_dir(seeds.join(name)).unwrap_or_else(|_| panic!("{name} has no seeds")).peekable();
            assert!(files.peek().is_some(), "{name} has no seeds");
            files.for_each(|file| target(&fs::read(file.unwrap().path()).unwrap()));
            target(b"");
            target(&[0xff; 300]);
        }
        for dir in fs::read_dir(seeds).unwrap() {
            let name = dir.unwrap().file_name().into_string().unwrap();
            assert!(target(&name).is_some(), "{name} has seeds and is no target");
        }
    }
}
