use std::time::Duration;

use layermesh_proto::piece::BLOB_SIZE_MAX;

use super::*;
use crate::scenario::units::*;

#[test]
fn the_smallest_scenario_has_the_documented_defaults() {
    let text = blocks(PAGE, "toml")[0];
    let scenario = Scenario::parse("small", text).unwrap();
    assert_eq!((scenario.name.as_str(), scenario.about.as_str(), scenario.seed), ("small", "", 1));
    assert_eq!((scenario.limit, scenario.start_minute), (Duration::from_secs(86_400), 0));
    assert_eq!((scenario.bounds, scenario.faults.len()), (Bounds::default(), 0));
    let [site] = scenario.sites.as_slice() else { panic!("{:?}", scenario.sites) };
    assert_eq!((site.name.as_str(), site.count, site.size()), ("site", 1, 25));
    let uplink = Uplink {
        bytes_per_s: 250_000,
        latency: Duration::from_millis(20),
        per_device: false,
        bytes_per_s_each: None,
        requests_per_min: None,
        ranged: true,
        up: Vec::new(),
        metered: false,
        site_bytes_per_s: None,
        windows: Vec::new(),
    };
    assert_eq!(site.uplink, uplink);
    let lan = Lan {
        bytes_per_s: 125_000_000,
        latency: Duration::from_micros(500),
        jitter: Duration::from_micros(200),
        loss: 0.0,
        shared_radio: false,
        discovery: Duration::from_secs(1),
    };
    assert_eq!(site.lan, lan);
    let devices = Devices {
        name: "device".to_owned(),
        count: 25,
        platform: "linux/amd64".to_owned(),
        disk_bytes_per_s: None,
        clock_skew: Duration::ZERO,
        finds: Vec::new(),
        home: Vec::new(),
    };
    assert_eq!(site.devices, [devices]);
    let [release] = scenario.releases.as_slice() else { panic!("{:?}", scenario.releases) };
    let (at, spread, scope) = (Duration::ZERO, Duration::ZERO, Scope::default());
    assert_eq!(*release, Release { image: "shop:2".to_owned(), at, spread, scope, background: false, prior: None });
}

#[test]
fn every_value_is_read() {
    let scenario = Scenario::parse("good", GOOD).unwrap();
    assert_eq!((scenario.limit, scenario.start_minute), (Duration::from_secs(43_200), 1320));
    assert_eq!(scenario.bounds, Bounds { copies_max: Some(1.05), last_max: None });
    let [shop, depot] = scenario.sites.as_slice() else { panic!("{:?}", scenario.sites) };
    assert_eq!((shop.count, shop.size(), depot.size()), (4, 6, 1));
    assert_eq!((shop.uplink.bytes_per_s, depot.uplink.bytes_per_s), (250_000, 1_000_000));
    assert_eq!(shop.uplink.up, [Daily { from: 60, to: 300 }]);
    assert_eq!(shop.devices[0].finds, ["till", "screen"]);
    assert_eq!(shop.devices[1].clock_skew, Duration::from_secs(3600));
    let fault = &scenario.faults[0];
    assert_eq!(
        (fault.kind, fault.at, fault.lasts.unwrap().as_secs()),
        (FaultKind::Crash, Duration::from_secs(7200), 600)
    );
    assert!(fault.scope.has_site(shop) && !fault.scope.has_site(depot));
    assert!(fault.scope.has_group(&shop.devices[0]) && !fault.scope.has_group(&shop.devices[1]));
    let tables = GOOD.replace(
        "uplink = \"8mbit\"",
        "uplink = { rate = \"8mbit\", connection_rate = \"1MB/s\", requests_per_minute = 60 }",
    );
    let uplink = &Scenario::parse("good", &tables).unwrap().sites[1].uplink;
    assert_eq!(
        (uplink.bytes_per_s, uplink.bytes_per_s_each, uplink.requests_per_min),
        (1_000_000, Some(1_000_000), Some(60))
    );
}

#[test]
fn a_size_alone_is_divided_and_layers_keep_their_order() {
    let scenario = Scenario::parse("good", GOOD).unwrap();
    let layers = |image: usize| {
        let layers = &scenario.images[image].variants[0].layers;
        layers.iter().map(|layer| (layer.name.as_str(), layer.size)).collect::<Vec<_>>()
    };
    // The order of the text, not of the names.
    assert_eq!(layers(0), [("base", 60_000_000), ("app-1", 3_000_000)]);
    let parts = [("#1", 18), ("#2", 6_600), ("#3", 3_600), ("#4", 1_500), ("#5", 300)];
    assert_eq!(layers(1).len(), parts.len());
    assert_eq!(layers(1)[0], ("shop:2#1", 18_000_000));
    for ((name, size), (suffix, thousands)) in layers(1).into_iter().zip(parts).skip(1) {
        assert_eq!((name, size), (format!("shop:2{suffix}").as_str(), thousands * 1_000));
    }
    // What does not divide goes to the first, and no layer is empty.
    let tiny = Scenario::parse("good", &GOOD.replace("\"30MB\"", "\"7B\"")).unwrap();
    let sizes: Vec<_> = tiny.images[1].variants[0].layers.iter().map(|layer| layer.size).collect();
    assert_eq!(sizes, [6, 1]);
}

#[test]
fn units_are_read_as_people_write_them() {
    for (text, bytes_per_s) in [
        ("2mbit", 250_000),
        ("1gbit", 125_000_000),
        ("512kbit", 64_000),
        ("1.5 Mbit/s", 187_500),
        ("10MB/s", 10_000_000),
        ("1 MiB/s", 1 << 20),
        ("7B/s", 7),
    ] {
        assert_eq!(parse_rate(text), Ok(bytes_per_s), "{text}");
    }
    for text in ["", "mbit", "2", "2mb", "2MB", "2mbps", "-2mbit", "1.2.3mbit", "1.mbit", ".5mbit", "2mbit 3"] {
        assert_eq!(parse_rate(text), Err(UnitError::Rate(text.to_owned())));
    }
    assert_eq!(parse_rate("0.001kbit"), Err(UnitError::Zero("0.001kbit".to_owned())));
    assert!(matches!(parse_rate("9999999999999999999gbit"), Err(UnitError::TooLarge { .. })));
    for (text, bytes) in [("300MB", 300_000_000), ("4 GiB", 4 << 30), ("0.3gb", 300_000_000), ("1.5kib", 1536)] {
        assert_eq!(parse_size(text, BLOB_SIZE_MAX), Ok(bytes), "{text}");
    }
    for (text, millis) in [
        ("90s", 90_000),
        ("10m", 600_000),
        ("1h30m", 5_400_000),
        ("1h 30m", 5_400_000),
        ("1.5h", 5_400_000),
        ("1d", 86_400_000),
        ("3y", 3 * 365 * 86_400_000),
        ("1m0.5s", 60_500),
        ("600000us", 600),
        ("600000µs", 600),
    ] {
        assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
    }
    for text in ["", "90", "s", "1m1h", "1s1s", "1us1µs", "90 sec", "-1s", "1h30", "1H"] {
        assert_eq!(parse_duration(text), Err(UnitError::Duration(text.to_owned())));
    }
    assert!(matches!(parse_duration("99999999999999999999999y"), Err(UnitError::Duration(_))));
    assert!(matches!(parse_duration("9999999999999999999y"), Err(UnitError::TooLarge { .. })));
}

#[test]
fn times_and_shares_are_read_as_people_write_them() {
    for (text, from, to) in [("01:00-05:00", 60, 300), ("22:00-6:00", 1320, 360), (" 20:00 - 24:00", 1200, 0)] {
        assert_eq!(parse_daily(text), Ok(Daily { from, to }), "{text}");
    }
    for text in ["", "1-5", "24:00-05:00", "01:00", "01:60-02:00", "25:00-26:00", "+1:00-02:00", "001:00-02:00"] {
        assert_eq!(parse_daily(text), Err(UnitError::Daily(text.to_owned())));
    }
    assert!(matches!(parse_daily("00:00-24:00"), Err(UnitError::DailyWhole(_))));
    for (text, minute) in [("Mon 00:00", 0), ("mon 22:00", 1320), ("Sun 23:59", 10_079)] {
        assert_eq!(parse_start(text), Ok(minute), "{text}");
    }
    for text in ["", "Mon", "22:00", "Foo 22:00", "Mon 24:00", "Mon 9"] {
        assert_eq!(parse_start(text), Err(UnitError::Start(text.to_owned())));
    }
    for (text, share) in [("0", 0.0), ("1", 1.0), ("0.1", 0.1), ("10%", 0.1), ("12.5 %", 0.125), ("100%", 1.0)] {
        assert_eq!(parse_share(text), Ok(share), "{text}");
    }
    for text in ["", "%", "1.1", "-0.1", "101%", "nan", "inf", "half"] {
        assert_eq!(parse_share(text), Err(UnitError::Share(text.to_owned())));
    }
}
