//! Scenarios out of TOML: images, releases and faults.
//!
//! Invariant: they refer to sites, groups and images that there are, happen before the limit, and an image has
//! something for each device that is to get it.

use std::{collections::BTreeMap, time::Duration};

use layermesh_proto::{NameError, Repository, TagRef, piece::BLOB_SIZE_MAX};
use toml::de::{DeTable, DeValue};

use super::{
    BLOBS_MAX, Fault, FaultKind, Image, Layer, Prior, Release, Scope, Site, Variant,
    errors::Mistake,
    keys, parse, sense,
    table::{At, Names, Reader, Section, is_platform},
    units,
};

/// What an image is split into that gives only its size, in hundredths: a base, what is installed, an application, and
/// two small layers of configuration, as images in common use have them.
const MIXTURE: [u64; 5] = [60, 22, 12, 5, 1];
const CONTENTS: &str = "write `size = \"300MB\"`, or `layers = { base = \"60MB\", app = \"3MB\" }`";

/// Layers by name: their size, and where it was given.
type Blobs = BTreeMap<String, (u64, usize)>;

/// The images.
pub(super) fn images(reader: &mut Reader<'_>, top: &Section<'_>) -> Vec<Image> {
    let mut names = Names::new();
    let mut blobs = Blobs::new();
    let remedy = "write `[[image]]` with a `name` such as \"shop:1\" and a `size` such as \"300MB\"";
    let mut images = Vec::new();
    for (at, table) in reader.some_tables(top, "image", "an image", remedy) {
        let of = reader.section("image", at, table);
        let name = image_name(reader, &of, &mut names);
        let variants = variants(reader, &of, &name, &mut blobs);
        images.push(Image { name, variants });
    }
    if blobs.len() > BLOBS_MAX {
        let (found, max) = (blobs.len() as u64, BLOBS_MAX as u64);
        let mistake = Mistake::TooMany { what: "layers", found, max, remedy: "simulate fewer images at a time" };
        reader.error(top.place("image"), mistake);
    }
    images
}

fn image_name(reader: &mut Reader<'_>, of: &Section<'_>, names: &mut Names) -> String {
    reader.needs(of, &["name"], "`name` of an image", "write one with a tag, such as `name = \"shop:1\"`");
    let Some(name) = reader.text(of, "name", "a name and a tag such as `\"shop:1\"`") else {
        return String::new();
    };
    let rule = match name.value.rsplit_once(':') {
        None => Some("it has no tag: write one such as `shop:1`".to_owned()),
        Some((repository, tag)) => check_reference(repository, tag).err().map(|error| error.to_string()),
    };
    if let Some(rule) = rule {
        reader.error(name.at, Mistake::BadName { name: name.value.clone(), of: "image", rule });
    }
    reader.unique("image", &name, names);
    name.value
}

/// The registry is the world's, so its name does not matter here.
fn check_reference(repository: &str, tag: &str) -> Result<(), NameError> {
    TagRef::new(Repository::new("registry.example", repository)?, tag).map(|_| ())
}

fn variants(reader: &mut Reader<'_>, image: &Section<'_>, name: &str, blobs: &mut Blobs) -> Vec<Variant> {
    let own = ["size", "layers"].into_iter().find(|key| image.find(key).is_some());
    let Some(of_platforms) = image.find("platform") else {
        let layers = contents(reader, image, name, blobs);
        return vec![Variant { platform: String::new(), layers }];
    };
    if let Some(one) = own {
        let remedy = "an image is the same for all platforms, or each has an entry of its own";
        reader.error(image.place(one), Mistake::Both { one, other: "platform", remedy });
    }
    let wants = "tables by platform: write `[image.platform.\"linux/arm64\"]`";
    let DeValue::Table(platforms) = of_platforms.get_ref() else {
        reader.wrong_type("platform", wants, of_platforms);
        return Vec::new();
    };
    let mut variants = Vec::new();
    for (key, value) in in_order(platforms) {
        if !is_platform(key.value) {
            let rule = "write one such as `linux/arm64` or `linux/arm/v7`, in quotes".to_owned();
            reader.error(key.at, Mistake::BadName { name: key.value.to_owned(), of: "platform", rule });
        }
        let DeValue::Table(table) = value.get_ref() else {
            reader.wrong_type(key.value, wants, value);
            continue;
        };
        let of = reader.section("image.platform", value.span().start, table);
        let layers = contents(reader, &of, &format!("{name}#{}", key.value), blobs);
        variants.push(Variant { platform: key.value.to_owned(), layers });
    }
    variants
}

type Entry<'t> = (At<&'t str>, &'t toml::Spanned<DeValue<'t>>);

/// Entries as they are written: the parser sorts them by name, and the order of layers is theirs to say.
fn in_order<'t>(table: &'t DeTable<'t>) -> Vec<Entry<'t>> {
    let mut entries: Vec<Entry<'t>> =
        table.iter().map(|(key, value)| (At { at: key.span().start, value: &**key.get_ref() }, value)).collect();
    entries.sort_by_key(|(key, _)| key.at);
    entries
}

/// The layers of an image, or of its variant. `owner` names those that have no name of their own.
fn contents(reader: &mut Reader<'_>, of: &Section<'_>, owner: &str, blobs: &mut Blobs) -> Vec<Layer> {
    let wants = "a size such as `\"300MB\"`";
    let size = reader.unit(of, "size", wants, |text| units::parse_size(text, BLOB_SIZE_MAX));
    match (of.find("size"), of.find("layers")) {
        (Some(_), Some(_)) => {
            let remedy = "`layers` say their sizes themselves";
            reader.error(of.place("size"), Mistake::Both { one: "size", other: "layers", remedy });
            Vec::new()
        }
        (Some(_), None) => {
            let layers = mixture(owner, size.unwrap_or(1));
            for layer in &layers {
                blob(reader, of.place("size"), layer, blobs);
            }
            layers
        }
        (None, Some(_)) => layers(reader, of, blobs),
        (None, None) => {
            reader.needs(of, &["size", "layers", "platform"], "what the image consists of", CONTENTS);
            Vec::new()
        }
    }
}

/// Layers of an image of which only the size is known. They are this image's alone.
fn mixture(owner: &str, size: u64) -> Vec<Layer> {
    // Of `BLOB_SIZE_MAX` at most, so a hundred times that is no overflow.
    let mut sizes = MIXTURE.map(|share| size * share / 100);
    let rest = size - sizes.iter().sum::<u64>();
    if let Some(first) = sizes.first_mut() {
        *first += rest;
    }
    let named = sizes.into_iter().zip(1..).filter(|(size, _)| *size > 0);
    named.map(|(size, number)| Layer { name: format!("{owner}#{number}"), size }).collect()
}

fn layers(reader: &mut Reader<'_>, of: &Section<'_>, blobs: &mut Blobs) -> Vec<Layer> {
    let Some((at, table)) = reader.table(of, "layers") else { return Vec::new() };
    let mut layers = Vec::new();
    for (key, value) in in_order(table) {
        let DeValue::String(text) = value.get_ref() else {
            reader.wrong_type(key.value, "the size of a layer such as `\"60MB\"`", value);
            continue;
        };
        if key.value.is_empty() || key.value.chars().any(|c| c.is_whitespace() || c.is_control()) {
            let rule = "write a word such as `base`".to_owned();
            reader.error(key.at, Mistake::BadName { name: key.value.to_owned(), of: "layer", rule });
        }
        match units::parse_size(text, BLOB_SIZE_MAX) {
            Ok(size) => {
                let layer = Layer { name: key.value.to_owned(), size };
                blob(reader, key.at, &layer, blobs);
                layers.push(layer);
            }
            Err(error) => {
                reader.error(value.span().start, Mistake::WrongUnit { key: key.value.to_owned(), error });
            }
        }
    }
    if table.is_empty() {
        reader.error(at, Mistake::Missing { what: "a layer".to_owned(), remedy: CONTENTS });
    }
    layers
}

/// Notes a layer; its name may stand for one size only.
fn blob(reader: &mut Reader<'_>, at: usize, layer: &Layer, blobs: &mut Blobs) {
    let &mut (other, first) = blobs.entry(layer.name.clone()).or_insert((layer.size, at));
    if other != layer.size {
        let (size, other, line) = (units::write_size(layer.size), units::write_size(other), reader.line(first));
        reader.error(at, Mistake::LayerSizes { name: layer.name.clone(), size, other, line });
    }
}

/// The releases.
pub(super) fn releases(
    reader: &mut Reader<'_>,
    top: &Section<'_>,
    sites: &[Site],
    images: &[Image],
    limit: Duration,
) -> Vec<Release> {
    let remedy = "write `[[release]]` with the `image` that devices are to get";
    let mut releases = Vec::new();
    for (at, table) in reader.some_tables(top, "release", "a release", remedy) {
        let of = reader.section("release", at, table);
        let image = named_image(reader, &of, images);
        let (at, spread) = times(reader, &of, limit);
        let scope = scope(reader, &of, sites);
        if let Some(image) = images.iter().find(|other| other.name == image) {
            has_variants(reader, &of, image, &scope, sites);
        }
        let prior = prior(reader, &of, images);
        let background = reader.flag(&of, "background", false);
        releases.push(Release { image, at, spread, scope, background, prior });
    }
    releases
}

fn named_image(reader: &mut Reader<'_>, of: &Section<'_>, images: &[Image]) -> String {
    reader.needs(of, &["image"], "`image` of a release", "name the image that devices are to get");
    image_at(reader, of, "image", images).unwrap_or_default()
}

fn image_at(reader: &mut Reader<'_>, of: &Section<'_>, key: &'static str, images: &[Image]) -> Option<String> {
    let image = reader.text(of, key, "the name of an image such as `\"shop:1\"`");
    let names = images.iter().map(|image| &image.name);
    parse::known(reader, image.into_iter().collect(), "image", names).pop()
}

/// What the devices hold before.
fn prior(reader: &mut Reader<'_>, of: &Section<'_>, images: &[Image]) -> Option<Prior> {
    let image = image_at(reader, of, "from", images);
    let share = part(reader, of, "from_share");
    let patch = reader.unit(of, "patch", "a size such as `\"3MB\"`", |text| units::parse_size(text, BLOB_SIZE_MAX));
    if of.find("from").is_none() {
        for key in ["from_share", "patch"].into_iter().filter(|key| of.find(key).is_some()) {
            let why = "it needs `from`: name the image that the devices hold before".to_owned();
            reader.error(of.place(key), Mistake::Senseless { what: format!("`{key}` of this release"), why });
        }
    }
    Some(Prior { image: image?, share, patch })
}

fn has_variants(reader: &mut Reader<'_>, of: &Section<'_>, image: &Image, scope: &Scope, sites: &[Site]) {
    let has = |platform: &str| {
        image.variants.iter().any(|variant| variant.platform.is_empty() || variant.platform == platform)
    };
    let groups = sites.iter().filter(|site| scope.has_site(site)).flat_map(|site| {
        site.devices.iter().filter(move |group| scope.has_group(group)).map(move |group| (site, group))
    });
    for (site, group) in groups {
        // An image without any variant is a mistake of its own.
        if !image.variants.is_empty() && !has(&group.platform) {
            let (image, platform) = (image.name.clone(), group.platform.clone());
            let (devices, site) = (group.name.clone(), site.name.clone());
            reader.error(of.place("image"), Mistake::NoVariant { image, platform, devices, site });
        }
    }
}

/// When something begins, and within which time, both before the limit.
fn times(reader: &mut Reader<'_>, of: &Section<'_>, limit: Duration) -> (Duration, Duration) {
    let at = reader.duration(of, "at", Duration::ZERO);
    let spread = reader.duration(of, "spread", Duration::ZERO);
    if at >= limit {
        after_limit(reader, of, ("at", "this begins"), at, limit);
    } else if at.saturating_add(spread) > limit {
        after_limit(reader, of, ("spread", "the last of it begins up to"), at.saturating_add(spread), limit);
    }
    (at, spread)
}

fn after_limit(
    reader: &mut Reader<'_>,
    of: &Section<'_>,
    (key, what): (&'static str, &'static str),
    time: Duration,
    limit: Duration,
) {
    let remedy = match key {
        "at" => "lower `at` or raise `limit`",
        "spread" => "lower `at` or `spread`, or raise `limit`",
        _ => "leave out `lasts` for what stays to the end, or raise `limit`",
    };
    let (time, limit) = (units::write_duration(time), units::write_duration(limit));
    reader.error(of.place(key), Mistake::AfterLimit { what, time, limit, remedy });
}

/// Where and whom something befalls: somebody at least.
fn scope(reader: &mut Reader<'_>, of: &Section<'_>, sites: &[Site]) -> Scope {
    let named = reader.texts(of, "sites", "a kind of sites such as `\"shop\"`, or a list of them");
    let named = parse::known(reader, named, "site", sites.iter().map(|site| &site.name));
    let groups = reader.texts(of, "devices", "a group of devices such as `\"till\"`, or a list of them");
    let all = sites.iter().flat_map(|site| &site.devices).map(|group| &group.name);
    let before = reader.errors.len();
    let groups = parse::known(reader, groups, "group of devices", all);
    let known = reader.errors.len() == before;
    let site_share = part(reader, of, "site_share");
    let share = part(reader, of, "share");
    let scope = Scope { sites: named, devices: groups, site_share, share };
    let befalls = |site: &Site| scope.has_site(site) && site.devices.iter().any(|group| scope.has_group(group));
    let at_known_sites = sites.iter().any(|site| scope.has_site(site));
    if known && at_known_sites && !sites.iter().any(befalls) {
        let why = format!(
            "none of its sites has devices {}: name other `sites`, or leave `sites` out",
            scope.devices.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or ")
        );
        reader.error(of.place("devices"), Mistake::Senseless { what: format!("this {}", of.path), why });
    }
    scope
}

/// A share of some, never of none.
fn part(reader: &mut Reader<'_>, of: &Section<'_>, key: &str) -> f64 {
    match reader.share(of, key) {
        Some(share) if share > 0.0 => share,
        Some(_) => {
            let range = "a share above 0 and up to 1".to_owned();
            reader.error(of.place(key), Mistake::OutOfRange { key: key.to_owned(), range, found: "0".to_owned() });
            1.0
        }
        None => 1.0,
    }
}

/// The faults.
pub(super) fn faults(reader: &mut Reader<'_>, top: &Section<'_>, sites: &[Site], limit: Duration) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (at, table) in reader.tables(top, "fault") {
        let of = reader.section("fault", at, table);
        let kind = kind(reader, &of);
        let (at, spread) = times(reader, &of, limit);
        let lasts = of.find("lasts").is_some().then(|| reader.duration(&of, "lasts", Duration::from_secs(1)));
        let end = at.saturating_add(spread).saturating_add(lasts.unwrap_or_default());
        if at < limit && at.saturating_add(spread) <= limit && end > limit {
            after_limit(reader, &of, ("lasts", "this ends up to"), end, limit);
        }
        let scope = scope(reader, &of, sites);
        let Some(kind) = kind else { continue };
        let fault = Fault { kind, at, spread, lasts, scope };
        if let Some((key, why)) = sense::against(&fault, sites) {
            let what = format!("fault `{}`", kind.name());
            reader.error(of.place(key), Mistake::Senseless { what, why });
        }
        faults.push(fault);
    }
    faults
}

fn kind(reader: &mut Reader<'_>, of: &Section<'_>) -> Option<FaultKind> {
    reader.needs(of, &["kind"], "`kind` of a fault", "say what goes wrong, such as `kind = \"crash\"`");
    let kind = reader.text(of, "kind", "what goes wrong, such as `\"uplink-cut\"`")?;
    let found = FaultKind::ALL.iter().find(|(name, _)| *name == kind.value).map(|(_, kind)| *kind);
    if found.is_none() {
        let hint = keys::nearest_or_all(&kind.value, FaultKind::ALL.iter().map(|(name, _)| *name));
        reader.error(kind.at, Mistake::NoSuch { what: "fault", name: kind.value, hint });
    }
    found
}
