mod mistakes;
mod round_trip;
mod values;

use super::*;

/// Without a mistake; the tests put one in at a time.
const GOOD: &str = r#"about = "Shops and a depot."
limit = "12h"
start = "Mon 22:00"
[bounds]
copies = 1.05
[[site]]
name = "shop"
count = 4
uplink = { rate = "2mbit", latency = "20ms", up = ["01:00-05:00"] }
lan = { rate = "1gbit", loss = 0.01 }
[[site.devices]]
name = "till"
count = 5
finds = ["till", "screen"]
[[site.devices]]
name = "screen"
platform = "linux/arm64"
clock_skew = "1h"
[[site]]
name = "depot"
uplink = "8mbit"
devices = 1
[[image]]
name = "shop:1"
layers = { base = "60MB", app-1 = "3MB" }
[[image]]
name = "shop:2"
size = "30MB"
[[release]]
image = "shop:1"
at = "1h"
sites = ["shop"]
share = 0.5
[[fault]]
kind = "crash"
at = "2h"
lasts = "10m"
sites = "shop"
devices = "till"
"#;

fn mistakes(text: &str) -> Vec<String> {
    match Scenario::parse("test", text) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.errors.iter().map(ToString::to_string).collect(),
    }
}

/// Code blocks of a language in a page.
fn blocks<'p>(page: &'p str, language: &str) -> Vec<&'p str> {
    let open = format!("```{language}\n");
    page.split(&open).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

const PAGE: &str = include_str!("../../../../docs/scenarios.md");

#[test]
fn every_scenario_of_the_library_is_valid_and_modest() {
    assert!(library::library().len() >= 16);
    for (name, text) in library::library() {
        let scenario = Scenario::parse(name, text).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(scenario.name, *name);
        assert!(scenario.about.ends_with('.') && text.starts_with("# "), "{name} says what it stands for");
        let devices: u32 = scenario.sites.iter().map(|site| site.count * site.size()).sum();
        let largest = scenario.images.iter().flat_map(|image| &image.variants);
        let largest = largest.map(|variant| variant.layers.iter().map(|layer| layer.size).sum::<u64>()).max();
        assert!(devices <= 200 && largest.unwrap() <= 100_000_000, "{name}: {devices} devices, {largest:?} bytes");
        assert_eq!(library::find(name), Some(*text));
    }
    assert!(library::library().is_sorted_by(|one, next| one.0 < next.0));
    assert_eq!(library::find("shop"), None);
    assert_eq!(library::nearest("shop-dls"), Some("shop-dsl"));
}

#[test]
fn the_library_has_every_file_of_its_directory() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");
    let files = std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut files: Vec<_> = files.filter_map(|file| file.strip_suffix(".toml").map(str::to_owned)).collect();
    files.sort();
    let names: Vec<_> = library::library().iter().map(|(name, _)| *name).collect();
    assert_eq!(files, names);
}

#[test]
fn every_fault_is_in_some_scenario_of_the_library() {
    let all: Vec<_> = library::library().iter().map(|(name, text)| Scenario::parse(name, text).unwrap()).collect();
    for (name, kind) in FaultKind::ALL {
        assert_eq!(kind.name(), name);
        let found = all.iter().flat_map(|scenario| &scenario.faults).any(|fault| fault.kind == kind);
        assert!(found, "{name}");
    }
}

#[test]
fn the_reference_page_names_every_key_fault_and_scenario() {
    for (path, keys) in keys::TABLES {
        for key in keys {
            let shown = if path.is_empty() { (*key).to_owned() } else { format!("{} {key}", keys::header(path)) };
            assert!(PAGE.contains(&format!("\n| `{shown}` |")), "{shown}");
        }
    }
    for (name, _) in FaultKind::ALL {
        assert!(PAGE.contains(&format!("\n| `{name}` |")), "{name}");
    }
    for (name, text) in library::library() {
        let about = Scenario::parse(name, text).unwrap().about;
        assert!(PAGE.contains(&format!("\n| `{name}` | {about} |\n")), "{name}: {about}");
    }
}

#[test]
fn the_examples_of_the_reference_page_are_valid() {
    let examples = blocks(PAGE, "toml");
    assert_eq!(examples.len(), 2);
    for example in &examples {
        Scenario::parse("example", example).unwrap_or_else(|errors| panic!("{errors}"));
    }
    assert!(examples[0].lines().filter(|line| !line.is_empty()).count() <= 8, "the smallest is small");
}

#[test]
fn the_reference_page_shows_errors_as_they_are() {
    let text = r#"[[site]]
name = "shop"
uplink = "2mb"
devices = 25
cuont = 40
[[image]]
name = "shop:2"
size = "300MB"
[[release]]
image = "shop:3"
share = 20
"#;
    let errors = Scenario::parse("night", text).unwrap_err().to_string();
    assert_eq!(blocks(PAGE, "text"), [format!("{errors}\n")]);
}
