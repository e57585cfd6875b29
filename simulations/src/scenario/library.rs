//! Scenarios that come with the program, each of which stands for a fleet in real life.
//!
//! Invariant: each parses, and is small enough to run in seconds. Their texts are in `simulations/scenarios/`, to be
//! copied and changed.

/// The texts of all scenarios of that name in `simulations/scenarios/`, beside their names.
macro_rules! scenarios {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../scenarios/", $name, ".toml")))),*]
    };
}

/// Names and texts, in the order of their names.
pub fn library() -> &'static [(&'static str, &'static str)] {
    scenarios![
        "busy-devices",
        "canary-then-fleet",
        "clock-years-off",
        "corrupting-peer",
        "disk-full",
        "factory-200",
        "flash-worn",
        "forging-peer",
        "idle-peers",
        "lte-modems",
        "lying-peer",
        "metered-nights",
        "mixed-architectures",
        "no-ranges",
        "one-then-many",
        "partition-and-heal",
        "patched-release",
        "power-cut",
        "registry-limits",
        "rolling-reboots",
        "ship-satellite",
        "shop-dsl",
        "throttled-connections",
        "trucks-at-night",
        "two-releases",
        "uplink-cut",
        "uplink-silent",
        "vlans-static-peers",
        "wifi-one-radio",
    ]
}

/// The text of one.
pub fn find(name: &str) -> Option<&'static str> {
    library().iter().find(|(other, _)| *other == name).map(|(_, text)| *text)
}

/// The one that somebody who wrote `name` may have meant.
pub fn nearest(name: &str) -> Option<&'static str> {
    super::keys::nearest(name, library().iter().map(|(other, _)| *other))
}
