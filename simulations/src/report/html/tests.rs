//! What every page keeps to, read back from the bytes of made-up reports.

use std::collections::BTreeSet;

use crate::report::{Comparison, FaultSpan, Report, sample};

/// An element's name and attributes, or the end of one, or text.
#[derive(Debug)]
enum Part<'a> {
    Open(&'a str, Vec<(&'a str, &'a str)>, bool),
    Close(&'a str),
    Text(&'a str),
}

/// Reads a page strictly: every attribute is quoted, and no `<` or `>` is anywhere else.
fn parts(page: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = page.strip_prefix("<!DOCTYPE html>").unwrap();
    while let Some(start) = rest.find('<') {
        let (text, tag) = rest.split_at(start);
        let is_style = matches!(parts.last(), Some(Part::Open("style", ..)));
        assert!(is_style || !text.contains('>'), "{text}");
        parts.push(Part::Text(text));
        let end = tag.find('>').unwrap();
        parts.push(tag_of(&tag[1..end]));
        rest = &tag[end + 1..];
    }
    assert!(rest.trim().is_empty(), "{rest}");
    parts
}

fn tag_of(tag: &str) -> Part<'_> {
    if let Some(name) = tag.strip_prefix('/') {
        return Part::Close(name);
    }
    let ends_itself = tag.ends_with('/') || tag.starts_with("meta");
    let tag = tag.trim_end_matches('/');
    let (name, mut rest) = tag.split_once(' ').unwrap_or((tag, ""));
    let mut attributes = Vec::new();
    while !rest.is_empty() {
        let (attribute, value) = rest.split_once("=\"").unwrap();
        let (value, after) = value.split_once('"').unwrap();
        assert!(attribute.chars().all(|char| char.is_ascii_alphanumeric() || char == '-'), "{attribute}");
        attributes.push((attribute, value));
        rest = after.trim_start();
    }
    Part::Open(name, attributes, ends_itself)
}

/// What every page keeps to.
fn check(page: &str) {
    let mut open = Vec::new();
    let (mut ids, mut refers) = (BTreeSet::new(), Vec::new());
    for part in parts(page) {
        match part {
            Part::Open(name, attributes, ends_itself) => {
                assert!(!["script", "link", "img", "iframe", "object", "a", "image", "use"].contains(&name), "{name}");
                for (attribute, value) in attributes {
                    assert!(!["src", "href", "srcset", "data"].contains(&attribute), "{attribute}={value}");
                    assert!(!attribute.starts_with("on"), "{attribute}");
                    assert!(!value.contains("NaN") && !value.contains("inf"), "{name} {attribute}={value}");
                    match attribute {
                        "id" => assert!(ids.insert(value), "{value} is there twice"),
                        "width" | "height" | "x" | "y" if name == "rect" => {
                            assert!(value.parse::<f64>().unwrap() >= 0.0, "{attribute}={value}");
                        }
                        "aria-labelledby" => refers.extend(value.split(' ')),
                        _ => {}
                    }
                }
                if !ends_itself {
                    open.push(name);
                }
            }
            Part::Close(name) => assert_eq!(open.pop(), Some(name)),
            Part::Text(text) => assert!(!text.contains("NaN"), "{text}"),
        }
    }
    assert_eq!(open, Vec::<&str>::new());
    assert!(refers.iter().all(|id| ids.contains(id)), "{refers:?} of {ids:?}");
    assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("@import"));
    assert_eq!(page.matches("url(").count(), page.matches("url(#hatch)").count());
}

fn reports() -> Vec<Report> {
    let sizes = [1, 3, 24, 25, 400].map(sample::fleet);
    sizes.into_iter().chain([sample::empty(), sample::broken(), sample::hostile()]).collect()
}

#[test]
fn pages_are_balanced_and_ask_nothing_of_a_network() {
    for report in reports() {
        check(&report.to_html());
    }
    for (old, new) in reports().iter().zip(reports().iter().rev()) {
        check(&Comparison::new(old, new).to_html());
    }
}

#[test]
fn the_same_report_gives_the_same_bytes() {
    let (one, other) = (sample::fleet(60), sample::fleet(60));
    assert_eq!(one.to_html(), other.to_html());
    assert_eq!(Comparison::new(&one, &other).to_html(), Comparison::new(&other, &one).to_html());
}

#[test]
fn what_is_read_from_json_gives_the_same_page() {
    let report = sample::fleet(12).rounded();
    let read = Report::from_json(&report.to_json().unwrap()).unwrap();
    assert_eq!(read.to_html(), report.to_html());
}

#[test]
fn each_section_is_there() {
    for report in reports() {
        let page = report.to_html();
        for id in ["verdict", "figures", "completion", "uplinks", "sources", "sites", "slowest"] {
            assert!(page.contains(&format!(" id=\"{id}\"")), "{id} of {}", report.scenario);
        }
    }
    let page = sample::broken().to_html();
    for text in ["2 rules were broken", "--seed 42", "liveness", "uplink-cut: 12 sites", "reboot befell it", "depot"] {
        assert!(page.contains(text), "{text}");
    }
}

#[test]
fn many_sites_have_an_envelope_and_few_a_plot_each() {
    let panels = |page: &str| (0..100).filter(|index| page.contains(&format!(" id=\"uplink-{index}\""))).count();
    let (few, many) = (sample::fleet(24).to_html(), sample::fleet(25).to_html());
    assert_eq!((panels(&few), panels(&many)), (24, 12));
    assert!(!few.contains("uplinks-plot") && many.contains("uplinks-plot"));
}

#[test]
fn hostile_text_stays_text() {
    let page = sample::hostile().to_html();
    assert!(!page.contains("<script") && !page.contains('\u{1b}'));
    assert!(page.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;"));
}

#[test]
fn a_page_of_400_sites_is_below_a_megabyte() {
    let size = sample::fleet(400).to_html().len();
    assert!(size < 1_000_000, "{size}");
}

#[test]
fn a_page_of_very_many_sites_is_bounded_and_says_what_it_leaves_out() {
    let page = sample::fleet(3_000).to_html();
    check(&page);
    assert!(page.contains("The last 1,000 sites are left out here."));
    assert_eq!(page.matches("rx=\"3\"").count(), 2 * 2_000);
    assert!(page.len() < 1_500_000, "{}", page.len());
}

#[test]
fn a_fleet_that_got_nothing_has_a_page() {
    let mut report = sample::fleet(5);
    report.completion = vec![(0.0, 0)];
    report.fleet.done = 0;
    (report.fleet.first_s, report.fleet.median_s, report.fleet.last_s) = (None, None, None);
    for site in &mut report.sites {
        site.totals.done = 0;
        (site.totals.first_s, site.totals.median_s, site.totals.last_s) = (None, None, None);
        site.totals.one_copy_bytes = 0;
        site.uplink.clear();
        site.completion.clear();
    }
    let page = report.to_html();
    check(&page);
    assert!(page.contains("None was ever done.") && page.contains("wanted nothing"));
}

#[test]
fn faults_beyond_the_curve_are_in_the_table_only() {
    let mut report = sample::fleet(5);
    report.faults[0] = FaultSpan { what: "late crash".to_owned(), from_s: 4_000.0, to_s: None };
    report.faults[1] = FaultSpan { what: "odd crash".to_owned(), from_s: 900.0, to_s: Some(0.0) };
    let page = report.to_html();
    check(&page);
    assert_eq!(page.matches("late crash").count(), 1);
    // Title and text of its bar, and the table.
    assert_eq!(page.matches("odd crash").count(), 3);
    assert!(page.contains("slow-disk: 40 devices, 15 min 00 s to the end"));
}

#[test]
fn very_many_faults_and_rules_are_bounded() {
    let mut report = sample::broken();
    report.faults = vec![report.faults[0].clone(); 10_000];
    report.broken = vec![report.broken[0].clone(); 10_000];
    report.releases = vec![report.releases[0].clone(); 100];
    let page = report.to_html();
    check(&page);
    assert!(page.contains("9,600 more are in the JSON.") && page.contains("9,950 more are in the JSON."));
    assert!(page.len() < 300_000, "{}", page.len());
}

/// For whoever changes how pages look: writes them where `LAYERMESH_PAGES` says, to be opened in a browser.
#[test]
#[ignore = "writes files to look at"]
fn pages_to_look_at() {
    let folder = std::path::PathBuf::from(std::env::var_os("LAYERMESH_PAGES").unwrap());
    let mut slower = sample::fleet(400);
    slower.completion.iter_mut().for_each(|(at, _)| *at *= 1.15);
    slower.sites.iter_mut().step_by(9).for_each(|site| site.totals.last_s = site.totals.last_s.map(|last| last * 1.3));
    let (large, small) = (sample::fleet(400), sample::fleet(18));
    for (name, page) in [
        ("large", large.to_html()),
        ("small", small.to_html()),
        ("broken", sample::broken().to_html()),
        ("hostile", sample::hostile().to_html()),
        ("empty", sample::empty().to_html()),
        ("versus", Comparison::new(&large, &slower).to_html()),
    ] {
        std::fs::write(folder.join(format!("{name}.html")), page).unwrap();
    }
    std::fs::write(folder.join("large.txt"), large.to_text(100)).unwrap();
    std::fs::write(folder.join("broken.txt"), sample::broken().to_text(80)).unwrap();
    std::fs::write(folder.join("versus.txt"), Comparison::new(&large, &slower).to_text(100)).unwrap();
    std::fs::write(folder.join("large.json"), large.to_json().unwrap()).unwrap();
}
