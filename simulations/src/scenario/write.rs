//! Scenarios as TOML.
//!
//! Invariant: what is written is read back as an equal scenario. Every value is written, also those that are defaults,
//! so that a scenario that was kept because it failed stays the same when a default changes.

use std::fmt::Write as _;

use super::{Daily, Devices, Image, Layer, Scenario, Scope, Site, units};

impl Scenario {
    /// Its text, without its name: that is the file's.
    pub fn to_toml(&self) -> String {
        let mut out = Writer(String::new());
        out.entry("about", quoted(&self.about));
        out.entry("seed", self.seed);
        out.entry("limit", quoted(&units::write_duration(self.limit)));
        out.entry("start", quoted(&units::write_start(self.start_minute)));
        out.header("[bounds]");
        out.optional("copies", self.bounds.copies_max);
        out.optional("last", self.bounds.last_max);
        for site in &self.sites {
            out.site(site);
        }
        for image in &self.images {
            out.image(image);
        }
        for release in &self.releases {
            out.header("[[release]]");
            out.entry("image", quoted(&release.image));
            out.entry("at", quoted(&units::write_duration(release.at)));
            out.entry("spread", quoted(&units::write_duration(release.spread)));
            out.scope(&release.scope);
            out.entry("background", release.background);
            if let Some(prior) = &release.prior {
                out.entry("from", quoted(&prior.image));
                out.entry("from_share", prior.share);
                out.optional("patch", prior.patch.map(|size| quoted(&units::write_size(size))));
            }
        }
        for fault in &self.faults {
            out.header("[[fault]]");
            out.entry("kind", quoted(fault.kind.name()));
            out.entry("at", quoted(&units::write_duration(fault.at)));
            out.entry("spread", quoted(&units::write_duration(fault.spread)));
            out.optional("lasts", fault.lasts.map(|lasts| quoted(&units::write_duration(lasts))));
            out.scope(&fault.scope);
        }
        out.0
    }
}

struct Writer(String);

impl Writer {
    fn header(&mut self, header: &str) {
        let _ = write!(self.0, "\n{header}\n");
    }

    fn entry(&mut self, key: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{key} = {value}");
    }

    fn optional(&mut self, key: &str, value: Option<impl std::fmt::Display>) {
        if let Some(value) = value {
            self.entry(key, value);
        }
    }

    fn names(&mut self, key: &str, names: &[String]) {
        if !names.is_empty() {
            self.entry(key, list(names.iter().map(|name| quoted(name))));
        }
    }

    fn daily(&mut self, key: &str, times: &[Daily]) {
        if !times.is_empty() {
            self.entry(key, list(times.iter().map(|daily| quoted(&units::write_daily(*daily)))));
        }
    }

    fn site(&mut self, site: &Site) {
        self.header("[[site]]");
        self.entry("name", quoted(&site.name));
        self.entry("count", site.count);
        self.header("[site.uplink]");
        let uplink = &site.uplink;
        self.entry("rate", quoted(&units::write_rate(uplink.bytes_per_s)));
        self.entry("latency", quoted(&units::write_duration(uplink.latency)));
        self.entry("per_device", uplink.per_device);
        self.optional("connection_rate", uplink.bytes_per_s_each.map(|rate| quoted(&units::write_rate(rate))));
        self.optional("requests_per_minute", uplink.requests_per_min);
        self.entry("ranges", uplink.ranged);
        self.daily("up", &uplink.up);
        self.entry("metered", uplink.metered);
        self.optional("site_rate", uplink.site_bytes_per_s.map(|rate| quoted(&units::write_rate(rate))));
        self.daily("windows", &uplink.windows);
        self.header("[site.lan]");
        self.entry("rate", quoted(&units::write_rate(site.lan.bytes_per_s)));
        self.entry("latency", quoted(&units::write_duration(site.lan.latency)));
        self.entry("jitter", quoted(&units::write_duration(site.lan.jitter)));
        self.entry("loss", site.lan.loss);
        self.entry("shared_radio", site.lan.shared_radio);
        self.entry("discovery", quoted(&units::write_duration(site.lan.discovery)));
        for devices in &site.devices {
            self.devices(devices);
        }
    }

    fn devices(&mut self, devices: &Devices) {
        self.header("[[site.devices]]");
        self.entry("name", quoted(&devices.name));
        self.entry("count", devices.count);
        self.entry("platform", quoted(&devices.platform));
        self.optional("disk", devices.disk_bytes_per_s.map(|rate| quoted(&units::write_rate(rate))));
        self.entry("clock_skew", quoted(&units::write_duration(devices.clock_skew)));
        self.names("finds", &devices.finds);
        self.daily("home", &devices.home);
    }

    fn image(&mut self, image: &Image) {
        self.header("[[image]]");
        self.entry("name", quoted(&image.name));
        for variant in &image.variants {
            if !variant.platform.is_empty() {
                self.header(&format!("[image.platform.{}]", quoted(&variant.platform)));
            }
            self.entry("layers", layers(&variant.layers));
        }
    }

    fn scope(&mut self, scope: &Scope) {
        self.names("sites", &scope.sites);
        self.names("devices", &scope.devices);
        self.entry("site_share", scope.site_share);
        self.entry("share", scope.share);
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

fn layers(layers: &[Layer]) -> String {
    let entry = |layer: &Layer| format!("{} = {}", quoted(&layer.name), quoted(&units::write_size(layer.size)));
    format!("{{ {} }}", layers.iter().map(entry).collect::<Vec<_>>().join(", "))
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
