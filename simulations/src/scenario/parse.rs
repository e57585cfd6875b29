//! Scenarios out of TOML: the top of the file and the sites.
//!
//! Invariant: [`Scenario::parse`] returns a scenario or every mistake in its text. A value that is wrong is replaced by
//! one that is right, so that reading goes on without mistakes that follow from the first.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use toml::de::{DeTable, DeValue};

use super::{
    Bounds, DEVICES_MAX, Devices, LIMIT_MAX, Lan, REQUESTS_PER_MIN_MAX, SITE_DEVICES_MAX, Scenario, ScenarioErrors,
    Site, Uplink,
    errors::{Mistake, ScenarioError},
    keys, rollout,
    table::{At, Names, Reader, Section, is_platform},
    units,
};

/// Seed of scenarios that say none.
const SEED: u64 = 1;
/// Limit of scenarios that say none: a day, which has every hour of every daily time.
const LIMIT: Duration = Duration::from_secs(86_400);
/// One way to a registry: a wire in the same country.
const UPLINK_LATENCY: Duration = Duration::from_millis(20);
/// Gigabit Ethernet, in bytes a second.
const LAN_RATE: u64 = 125_000_000;
/// One way between two devices at a switch, their network stacks included.
const LAN_LATENCY: Duration = Duration::from_micros(500);
/// What schedulers and queues add to it.
const LAN_JITTER: Duration = Duration::from_micros(200);
/// As measured with real nodes: most are found within it.
const DISCOVERY: Duration = Duration::from_secs(1);
/// Platform of devices that say none.
const PLATFORM: &str = "linux/amd64";
/// Longest latency and jitter: beyond it requests time out and nothing is simulated but that.
const LATENCY_MAX: Duration = Duration::from_secs(60);

impl Scenario {
    /// Reads a scenario. `docs/scenarios.md` is the reference of what there is to write.
    ///
    /// # Errors
    /// With all mistakes in the text.
    pub fn parse(name: &str, text: &str) -> Result<Self, ScenarioErrors> {
        let mut reader = Reader::new(text);
        let (table, wrong) = DeTable::parse_recoverable(text);
        for error in wrong {
            let at = error.span().map_or(text.len(), |span| span.start);
            reader.error(at, Mistake::Syntax(in_plain_words(error.message())));
        }
        let scenario = read(&mut reader, name, table.get_ref());
        let errors = settled(reader.errors);
        if errors.is_empty() { Ok(scenario) } else { Err(ScenarioErrors { name: name.to_owned(), errors }) }
    }
}

/// What to do about the mistakes in TOML that people make most; the parser's words for the others.
fn in_plain_words(message: &str) -> String {
    let plain = [
        ("string values must be quoted", "a text such as `\"2mbit\"` needs quotes, and every key a value"),
        ("invalid basic string", "a text has no end: close it with `\"`"),
        (
            "duplicate key",
            "this key or table is there a second time: leave one out; lists have two brackets, `[[site]]`",
        ),
    ];
    let known = plain.iter().find(|(start, _)| message.starts_with(start));
    known.map_or(message, |(_, words)| words).to_owned()
}

/// Mistakes in the order of the text, without those that only follow from text that is no TOML.
fn settled(mut errors: Vec<ScenarioError>) -> Vec<ScenarioError> {
    let unread = |error: &&ScenarioError| matches!(error.mistake, Mistake::Syntax(_));
    let unread: BTreeSet<_> = errors.iter().filter(unread).map(|error| error.line).collect();
    if let Some(first) = unread.first() {
        errors.retain(|error| match error.mistake {
            Mistake::Syntax(_) => true,
            // What follows a broken header ends up in the table before it.
            Mistake::UnknownKey { .. } => error.line < *first,
            _ => !unread.contains(&error.line) && !error.mistake.may_be_of_unread(),
        });
    }
    errors.sort_by_key(|error| (error.line, error.column));
    errors.dedup();
    errors
}

fn read(reader: &mut Reader<'_>, name: &str, table: &DeTable<'_>) -> Scenario {
    let top = reader.section("", 0, table);
    let about = reader.text(&top, "about", "a sentence or two, in quotes").map(|about| about.value);
    let seed = reader.integer(&top, "seed", (0, u64::MAX)).unwrap_or(SEED);
    let limit = limit(reader, &top);
    let wants = "a time of the week such as `\"Mon 22:00\"`";
    let start_minute = reader.unit(&top, "start", wants, units::parse_start).unwrap_or(0);
    let bounds = reader.table(&top, "bounds").map_or_else(Bounds::default, |(at, table)| {
        let bounds = reader.section("bounds", at, table);
        Bounds { copies_max: reader.factor(&bounds, "copies"), last_max: reader.factor(&bounds, "last") }
    });
    let sites = sites(reader, &top);
    let images = rollout::images(reader, &top);
    let releases = rollout::releases(reader, &top, &sites, &images, limit);
    let faults = rollout::faults(reader, &top, &sites, limit);
    let (name, about) = (name.to_owned(), about.unwrap_or_default());
    Scenario { name, about, seed, limit, start_minute, bounds, sites, images, releases, faults }
}

fn limit(reader: &mut Reader<'_>, top: &Section<'_>) -> Duration {
    if top.find("limit").is_none() {
        return LIMIT;
    }
    let limit = up_to(reader, top, "limit", LIMIT_MAX, LIMIT_MAX);
    if limit.is_zero() {
        let range = format!("a duration of up to {}", units::write_duration(LIMIT_MAX));
        let mistake = Mistake::OutOfRange { key: "limit".to_owned(), range, found: "no time at all".to_owned() };
        reader.error(top.place("limit"), mistake);
        return LIMIT_MAX;
    }
    limit
}

/// A duration of at most `max`; `default` if it is not there or wrong.
fn up_to(reader: &mut Reader<'_>, of: &Section<'_>, key: &str, default: Duration, max: Duration) -> Duration {
    let duration = reader.duration(of, key, default);
    if duration <= max {
        return duration;
    }
    let range = format!("a duration of up to {}", units::write_duration(max));
    let found = units::write_duration(duration);
    reader.error(of.place(key), Mistake::OutOfRange { key: key.to_owned(), range, found });
    default
}

fn sites(reader: &mut Reader<'_>, top: &Section<'_>) -> Vec<Site> {
    let mut names = Names::new();
    let remedy = "write `[[site]]`, and under it an `uplink` and `devices`";
    let tables = reader.some_tables(top, "site", "a site", remedy);
    let sites: Vec<_> = tables.into_iter().map(|(at, table)| site(reader, at, table, &mut names)).collect();
    let devices: u64 = sites.iter().map(|site| u64::from(site.count) * u64::from(site.size())).sum();
    let max = u64::from(DEVICES_MAX);
    if devices > max {
        let remedy = "lower the `count` of sites or of devices";
        reader.error(top.place("site"), Mistake::TooMany { what: "devices", found: devices, max, remedy });
    }
    sites
}

fn site(reader: &mut Reader<'_>, at: usize, table: &DeTable<'_>, names: &mut Names) -> Site {
    let of = reader.section("site", at, table);
    let name = reader.name(&of, "site", "site", names);
    let count = reader.count(&of, "count", DEVICES_MAX);
    let uplink = uplink(reader, &of);
    let lan = lan(reader, &of);
    let devices = groups(reader, &of);
    let found: u64 = devices.iter().map(|devices| u64::from(devices.count)).sum();
    let max = u64::from(SITE_DEVICES_MAX);
    if found > max {
        let (what, remedy) = ("devices at one site", "divide them among more sites");
        reader.error(at, Mistake::TooMany { what, found, max, remedy });
    }
    Site { name, count, uplink, lan, devices }
}

/// A table at `key`, or the rate of one that has nothing else to say.
fn link<'t>(
    reader: &mut Reader<'_>,
    of: &Section<'t>,
    key: &'static str,
) -> Result<(usize, &'t DeTable<'t>), Option<u64>> {
    let Some(value) = of.find(key) else { return Err(None) };
    match value.get_ref() {
        DeValue::String(_) => Err(reader.rate(of, key)),
        DeValue::Table(table) => Ok((value.span().start, table)),
        _ => {
            let wants = format!("a rate such as `\"2mbit\"`, or a table `[site.{key}]`");
            reader.wrong_type(key, &wants, value);
            Err(None)
        }
    }
}

fn uplink(reader: &mut Reader<'_>, site: &Section<'_>) -> Uplink {
    let mut uplink = Uplink {
        bytes_per_s: LAN_RATE,
        latency: UPLINK_LATENCY,
        per_device: false,
        bytes_per_s_each: None,
        requests_per_min: None,
        ranged: true,
        up: Vec::new(),
        metered: false,
        site_bytes_per_s: None,
        windows: Vec::new(),
    };
    let remedy = "write the site's rate, such as `uplink = \"2mbit\"`, or a table `[site.uplink]` with a `rate`";
    reader.needs(site, &["uplink"], "`uplink`", remedy);
    let (at, table) = match link(reader, site, "uplink") {
        Ok(table) => table,
        Err(rate) => {
            uplink.bytes_per_s = rate.unwrap_or(uplink.bytes_per_s);
            return uplink;
        }
    };
    let of = reader.section("site.uplink", at, table);
    reader.needs(&of, &["rate"], "`rate` of an uplink", remedy);
    uplink.bytes_per_s = reader.rate(&of, "rate").unwrap_or(uplink.bytes_per_s);
    uplink.latency = up_to(reader, &of, "latency", UPLINK_LATENCY, LATENCY_MAX);
    uplink.per_device = reader.flag(&of, "per_device", false);
    uplink.bytes_per_s_each = reader.rate(&of, "connection_rate");
    uplink.requests_per_min = reader
        .integer(&of, "requests_per_minute", (1, u64::from(REQUESTS_PER_MIN_MAX)))
        .and_then(|requests| u32::try_from(requests).ok());
    uplink.ranged = reader.flag(&of, "ranges", true);
    uplink.up = reader.daily(&of, "up");
    uplink.metered = reader.flag(&of, "metered", false);
    uplink.site_bytes_per_s = reader.rate(&of, "site_rate");
    uplink.windows = reader.daily(&of, "windows");
    uplink
}

fn lan(reader: &mut Reader<'_>, site: &Section<'_>) -> Lan {
    let mut lan = Lan {
        bytes_per_s: LAN_RATE,
        latency: LAN_LATENCY,
        jitter: LAN_JITTER,
        loss: 0.0,
        shared_radio: false,
        discovery: DISCOVERY,
    };
    let (at, table) = match link(reader, site, "lan") {
        Ok(table) => table,
        Err(rate) => {
            lan.bytes_per_s = rate.unwrap_or(LAN_RATE);
            return lan;
        }
    };
    let of = reader.section("site.lan", at, table);
    lan.bytes_per_s = reader.rate(&of, "rate").unwrap_or(LAN_RATE);
    lan.latency = up_to(reader, &of, "latency", LAN_LATENCY, LATENCY_MAX);
    lan.jitter = up_to(reader, &of, "jitter", LAN_JITTER, LATENCY_MAX);
    lan.loss = reader.share(&of, "loss").unwrap_or(0.0);
    lan.shared_radio = reader.flag(&of, "shared_radio", false);
    lan.discovery = up_to(reader, &of, "discovery", DISCOVERY, LIMIT_MAX);
    lan
}

fn groups(reader: &mut Reader<'_>, site: &Section<'_>) -> Vec<Devices> {
    let plain = |count| Devices {
        name: "device".to_owned(),
        count,
        platform: PLATFORM.to_owned(),
        disk_bytes_per_s: None,
        clock_skew: Duration::ZERO,
        finds: Vec::new(),
        home: Vec::new(),
    };
    if let Some(value) = site.find("devices")
        && !matches!(value.get_ref(), DeValue::Array(_) | DeValue::Table(_))
    {
        return vec![plain(reader.count(site, "devices", SITE_DEVICES_MAX))];
    }
    let remedy = "write how many, such as `devices = 25`, or `[[site.devices]]` with a `count` for each kind of them";
    let mut names = Names::new();
    let mut all = Vec::new();
    let mut found_by = BTreeMap::new();
    for (at, table) in reader.some_tables(site, "devices", "`devices`", remedy) {
        let of = reader.section("site.devices", at, table);
        let mut devices = plain(1);
        devices.name = reader.name(&of, "group of devices", "device", &mut names);
        devices.count = reader.count(&of, "count", SITE_DEVICES_MAX);
        devices.platform = platform(reader, &of);
        devices.disk_bytes_per_s = reader.rate(&of, "disk");
        devices.clock_skew = reader.duration(&of, "clock_skew", Duration::ZERO);
        devices.home = reader.daily(&of, "home");
        found_by.insert(all.len(), reader.texts(&of, "finds", "a group such as `\"till\"`, or a list of them"));
        all.push(devices);
    }
    for (index, finds) in found_by {
        let finds = known(reader, finds, "group of devices at this site", names.keys());
        if let Some(devices) = all.get_mut(index) {
            devices.finds = finds;
        }
    }
    all
}

fn platform(reader: &mut Reader<'_>, of: &Section<'_>) -> String {
    let Some(platform) = reader.text(of, "platform", "an OCI platform such as `\"linux/arm64\"`") else {
        return PLATFORM.to_owned();
    };
    if !is_platform(&platform.value) {
        let rule = "write one such as `linux/arm64` or `linux/arm/v7`".to_owned();
        let name = platform.value.clone();
        reader.error(platform.at, Mistake::BadName { name, of: "platform", rule });
    }
    platform.value
}

/// The names; those that are not `among` what there is are mistakes.
pub(super) fn known<'n>(
    reader: &mut Reader<'_>,
    names: Vec<At<String>>,
    what: &'static str,
    among: impl Iterator<Item = &'n String> + Clone,
) -> Vec<String> {
    for name in &names {
        // Where there is nothing at all, that is the mistake, and written down already.
        if among.clone().next().is_some() && !among.clone().any(|other| *other == name.value) {
            let hint = keys::nearest_or_all(&name.value, among.clone().map(String::as_str));
            reader.error(name.at, Mistake::NoSuch { what, name: name.value.clone(), hint });
        }
    }
    names.into_iter().map(|name| name.value).collect()
}
