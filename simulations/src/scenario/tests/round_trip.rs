use std::time::Duration;

use layermesh_proto::piece::BLOB_SIZE_MAX;
use proptest::{prelude::*, sample::subsequence};

use super::*;
use crate::scenario::units::{DURATION_MAX, RATE_MAX};

const PLATFORMS: [&str; 3] = ["linux/amd64", "linux/arm64", "linux/arm/v7"];

fn duration(max: Duration) -> impl Strategy<Value = Duration> {
    let max = u64::try_from(max.as_nanos()).unwrap();
    // Round ones as people write them, and any.
    prop_oneof![
        (0..=max).prop_map(Duration::from_nanos),
        (0..=max / 1_000_000_000).prop_map(Duration::from_secs),
        (0..=(max / 1_000_000_000 / 3600)).prop_map(|hours| Duration::from_secs(hours * 3600)),
    ]
}

fn rate() -> impl Strategy<Value = u64> {
    prop_oneof![1..=RATE_MAX, (1_u64..=1000).prop_map(|mbit| mbit * 125_000)]
}

fn daily() -> impl Strategy<Value = Vec<Daily>> {
    let one = (0_u16..1440, 1_u16..1440).prop_map(|(from, length)| Daily { from, to: (from + length) % 1440 });
    prop::collection::vec(one, 0..3)
}

fn some_share() -> impl Strategy<Value = f64> {
    prop_oneof![Just(1.0), (1_u32..=1000).prop_map(|mille| f64::from(mille) / 1000.0), 1e-9..=1.0]
}

fn uplink() -> impl Strategy<Value = Uplink> {
    let flags = any::<(bool, bool, bool)>();
    let requests = prop::option::of(1..=REQUESTS_PER_MIN_MAX);
    let each = (prop::option::of(rate()), requests, prop::option::of(rate()));
    (rate(), duration(Duration::from_secs(60)), each, daily(), daily(), flags).prop_map(
        |(
            bytes_per_s,
            latency,
            (bytes_per_s_each, requests_per_min, site_bytes_per_s),
            up,
            windows,
            (per_device, ranged, metered),
        )| {
            Uplink {
                bytes_per_s,
                latency,
                per_device,
                bytes_per_s_each,
                requests_per_min,
                site_bytes_per_s,
                ranged,
                up,
                metered,
                windows,
            }
        },
    )
}

fn lan() -> impl Strategy<Value = Lan> {
    let minute = || duration(Duration::from_secs(60));
    (rate(), minute(), minute(), 0.0..=1.0, any::<bool>(), duration(LIMIT_MAX)).prop_map(
        |(bytes_per_s, latency, jitter, loss, shared_radio, discovery)| Lan {
            bytes_per_s,
            latency,
            jitter,
            loss,
            shared_radio,
            discovery,
        },
    )
}

fn groups() -> impl Strategy<Value = Vec<Devices>> {
    let names = subsequence(vec!["till", "screen", "scale.2", "_x-Y"], 1..=4).prop_shuffle();
    names.prop_flat_map(|names| {
        let group = |name: &'static str| {
            let finds = subsequence(names.clone(), 0..=names.len());
            let platform = proptest::sample::select(PLATFORMS.to_vec());
            let disk = prop::option::of(rate());
            (1_u32..=5, platform, disk, duration(DURATION_MAX), finds, daily()).prop_map(
                move |(count, platform, disk_bytes_per_s, clock_skew, finds, home)| Devices {
                    name: name.to_owned(),
                    count,
                    platform: platform.to_owned(),
                    disk_bytes_per_s,
                    clock_skew,
                    finds: finds.into_iter().map(str::to_owned).collect(),
                    home,
                },
            )
        };
        names.iter().map(|name| group(name)).collect::<Vec<_>>()
    })
}

fn sites() -> impl Strategy<Value = Vec<Site>> {
    let site = (1_u32..=50, uplink(), lan(), groups());
    prop::collection::vec(site, 1..=3).prop_map(|sites| {
        let named = sites.into_iter().enumerate();
        let site = |(index, (count, uplink, lan, devices))| {
            let name = format!("kind-{index}");
            Site { name, count, uplink, lan, devices }
        };
        named.map(site).collect()
    })
}

fn images() -> impl Strategy<Value = Vec<Image>> {
    let names = ["base", "app-1", "a.b", "shop:2#linux/arm64#1", "\"quoted\"", "über\\"];
    let size = prop_oneof![1..=BLOB_SIZE_MAX, (1_u64..=1000).prop_map(|mb| mb * 1_000_000)];
    prop::collection::vec(size, names.len()).prop_flat_map(move |sizes| {
        let pool = names.iter().zip(sizes).map(|(name, size)| Layer { name: (*name).to_owned(), size });
        let layers = subsequence(pool.collect::<Vec<_>>(), 1..=names.len()).prop_shuffle();
        let variants = prop::collection::vec(layers, PLATFORMS.len());
        let image = (variants, any::<bool>()).prop_map(|(layers, for_all)| {
            let of = |(layers, platform): (_, &str)| Variant { platform: platform.to_owned(), layers };
            let platforms = if for_all { vec![""] } else { PLATFORMS.to_vec() };
            layers.into_iter().zip(platforms).map(of).collect::<Vec<_>>()
        });
        prop::collection::vec(image, 1..=3).prop_map(|images| {
            let image = |(index, variants)| Image { name: format!("shop/till:{index}"), variants };
            images.into_iter().enumerate().map(image).collect()
        })
    })
}

/// When and where something is, before it is known what there is: one bit for each kind of sites and each group.
type Place = (u8, u8, f64, f64, u64, u64, u64);

fn place() -> impl Strategy<Value = Place> {
    (any::<u8>(), any::<u8>(), some_share(), some_share(), any::<u64>(), any::<u64>(), any::<u64>())
}

fn picked<'n>(mask: u8, names: impl Iterator<Item = &'n String>) -> Vec<String> {
    names.zip(0..8).filter(|(_, bit)| mask & (1 << bit) != 0).map(|(name, _)| name.clone()).collect()
}

fn scope(place: &Place, sites: &[Site]) -> Scope {
    let named = picked(place.0, sites.iter().map(|site| &site.name));
    let mut scope = Scope { sites: named, devices: Vec::new(), site_share: place.2, share: place.3 };
    let there = sites.iter().find(|site| scope.has_site(site)).unwrap();
    scope.devices = picked(place.1, there.devices.iter().map(|group| &group.name));
    scope
}

/// When it begins, within which time, and how long it lasts at most.
fn times(place: &Place, limit: Duration) -> (Duration, Duration, Duration) {
    let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap();
    let at = Duration::from_nanos(place.4 % nanos(limit));
    let spread = Duration::from_nanos(place.5 % (nanos(limit - at) + 1));
    (at, spread, Duration::from_nanos(place.6 % (nanos(limit - at - spread) + 1)))
}

fn release(
    index: usize,
    background: bool,
    place: &Place,
    limit: Duration,
    sites: &[Site],
    images: &[Image],
) -> Release {
    let (at, spread, _) = times(place, limit);
    let image = images[index % images.len()].name.clone();
    let prior = Prior {
        image: images[(index + 1) % images.len()].name.clone(),
        share: if place.4.is_multiple_of(2) { 1.0 } else { 0.25 },
        patch: (!place.5.is_multiple_of(3)).then_some(1 + place.5 % 1_000_000),
    };
    let prior = place.6.is_multiple_of(2).then_some(prior);
    Release { image, at, spread, scope: scope(place, sites), background, prior }
}

fn fault(kind: FaultKind, place: &Place, limit: Duration, sites: &[Site]) -> Option<Fault> {
    let (at, spread, lasts) = times(place, limit);
    let lasts = (!place.6.is_multiple_of(3)).then_some(lasts);
    let mut scope = scope(place, sites);
    if kind.of_site() {
        (scope.devices, scope.share) = (Vec::new(), 1.0);
    }
    let fault = Fault { kind, at, spread, lasts, scope };
    sense::against(&fault, sites).is_none().then_some(fault)
}

fn scenarios() -> impl Strategy<Value = Scenario> {
    let limit = duration(LIMIT_MAX).prop_map(|limit| limit.max(Duration::from_nanos(1)));
    let bound = || prop::option::of(1.0..1e6);
    let kind = proptest::sample::select(FaultKind::ALL.map(|(_, kind)| kind).to_vec());
    let releases = prop::collection::vec((any::<usize>(), any::<bool>(), place()), 1..4);
    let faults = prop::collection::vec((kind, place()), 0..4);
    let top = (any::<String>(), any::<u64>(), limit, 0_u16..10_080, bound(), bound());
    (top, sites(), images(), releases, faults).prop_map(|(top, sites, images, releases, faults)| {
        let (about, seed, limit, start_minute, copies_max, last_max) = top;
        let releases = releases
            .iter()
            .map(|(index, background, place)| release(*index, *background, place, limit, &sites, &images))
            .collect();
        let faults = faults.iter().filter_map(|(kind, place)| fault(*kind, place, limit, &sites)).collect();
        let (name, bounds) = ("kept".to_owned(), Bounds { copies_max, last_max });
        Scenario { name, about, seed, limit, start_minute, bounds, sites, images, releases, faults }
    })
}

proptest! {
    #[test]
    fn a_scenario_is_read_back_as_it_was_written(scenario in scenarios()) {
        let text = scenario.to_toml();
        match Scenario::parse("kept", &text) {
            Ok(read) => prop_assert_eq!(read, scenario),
            Err(errors) => prop_assert!(false, "{}\n{}", errors, text),
        }
    }

    #[test]
    fn any_text_is_read_without_panic(text in any::<String>(), at in 0..GOOD.len(), gone in 0_usize..20) {
        let _ = Scenario::parse("any", &text);
        // The good one with some characters replaced.
        let end = (at + gone).min(GOOD.len());
        let _ = Scenario::parse("any", &format!("{}{}{}", &GOOD[..at], text, &GOOD[end..]));
    }
}

#[test]
fn the_library_is_read_back_as_it_was_written() {
    for (name, text) in library::library() {
        let scenario = Scenario::parse(name, text).unwrap();
        assert_eq!(Scenario::parse(name, &scenario.to_toml()), Ok(scenario));
    }
}
