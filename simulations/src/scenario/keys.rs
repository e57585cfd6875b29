//! The tables of a scenario and their keys.
//!
//! Invariant: what is read, what is written and what `docs/scenarios.md` explains are these keys.

/// Each table by its path, and its keys. Tables in tables are keys too.
pub(super) const TABLES: [(&str, &[&str]); 10] = [
    ("", &["about", "seed", "limit", "start", "bounds", "site", "image", "release", "fault"]),
    ("bounds", &["copies", "last"]),
    ("site", &["name", "count", "uplink", "lan", "devices"]),
    (
        "site.uplink",
        &[
            "rate",
            "latency",
            "per_device",
            "connection_rate",
            "requests_per_minute",
            "ranges",
            "up",
            "metered",
            "site_rate",
            "windows",
        ],
    ),
    ("site.lan", &["rate", "latency", "jitter", "loss", "shared_radio", "discovery"]),
    ("site.devices", &["name", "count", "platform", "disk", "clock_skew", "finds", "home"]),
    ("image", &["name", "size", "layers", "platform"]),
    ("image.platform", &["size", "layers"]),
    (
        "release",
        &[
            "image",
            "at",
            "spread",
            "sites",
            "devices",
            "site_share",
            "share",
            "background",
            "from",
            "from_share",
            "patch",
        ],
    ),
    ("fault", &["kind", "at", "spread", "lasts", "sites", "devices", "site_share", "share"]),
];

/// Tables of which there may be several, written with two brackets.
const LISTS: [&str; 5] = ["site", "site.devices", "image", "release", "fault"];

/// The keys of a table.
pub(super) fn of(path: &str) -> &'static [&'static str] {
    TABLES.iter().find(|(name, _)| *name == path).map_or(&[], |(_, keys)| keys)
}

/// A table's header as it is written.
pub(super) fn header(path: &str) -> String {
    if LISTS.contains(&path) { format!("[[{path}]]") } else { format!("[{path}]") }
}

/// What somebody who wrote `key` in the table at `path` may have meant, and what there is if that is unknown.
pub(super) fn hint(path: &str, key: &str) -> String {
    if let Some(meant) = nearest(key, of(path).iter().copied()) {
        return format!("did you mean `{meant}`?");
    }
    let has = TABLES.iter().filter(|(_, keys)| keys.contains(&key)).map(|(path, _)| *path);
    let places = has.map(|path| match path {
        "" => "above the first table".to_owned(),
        path => format!("under `{}`", header(path)),
    });
    match places.collect::<Vec<_>>().as_slice() {
        [] => format!("there are {}", of(path).join(", ")),
        places => format!("`{key}` belongs {}", places.join(" or ")),
    }
}

/// The key of the table at `path` that `key` is or was probably meant to be.
pub(super) fn meant(path: &str, key: &str) -> Option<&'static str> {
    let keys = of(path).iter().copied();
    keys.clone().find(|known| *known == key).or_else(|| nearest(key, keys))
}

/// The candidate that was probably meant, if any is near enough or begins so.
pub(super) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    // A third of the letters wrong is a typo; more is another word.
    let far = word.len().div_ceil(3).min(3);
    let by_distance = |candidate| (strsim::damerau_levenshtein(word, candidate), candidate);
    let near = candidates.clone().map(by_distance).filter(|(distance, _)| *distance <= far);
    let near = near.min_by_key(|(distance, _)| *distance).map(|(_, candidate)| candidate);
    near.or_else(|| candidates.clone().find(|candidate| word.len() > 2 && candidate.starts_with(word)))
}

/// The nearest of what there is, or all of it.
pub(super) fn nearest_or_all<'a>(word: &str, candidates: impl Iterator<Item = &'a str> + Clone) -> String {
    match nearest(word, candidates.clone()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => {
            let all: Vec<_> = candidates.map(|name| format!("`{name}`")).collect();
            format!("there are {}", all.join(", "))
        }
    }
}
