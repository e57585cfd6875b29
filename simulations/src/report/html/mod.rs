//! A report as a page: one file that needs nothing else.
//!
//! Invariant: the same report gives the same bytes; see [`page`] for what every page keeps to. A page of 400 sites stays
//! below a megabyte.

mod chart;
mod completion;
mod heat;
mod markup;
mod page;
mod scale;
mod sources;
mod uplinks;
mod versus;

#[cfg(test)]
mod tests;

use markup::Markup;
use page::Cell;

use super::{Broken, Report, summary::kinds, units};

/// Broken rules that a page has.
const BROKEN_MAX: usize = 50;

impl Report {
    /// The report as one HTML file.
    pub fn to_html(&self) -> String {
        page::whole(&format!("{} - Layermesh simulation", self.scenario), |page| {
            heading(page, self);
            verdict(page, self);
            tiles(page, self);
            completion::section(page, self);
            uplinks::section(page, self);
            sources::section(page, self);
            heat::section(page, self);
            slowest(page, self);
            footer(page, self);
        })
    }
}

fn heading(page: &mut Markup, report: &Report) {
    page.text_in("h1", &[], &report.scenario);
    if !report.about.is_empty() {
        page.text_in("p", &[], &report.about);
    }
    let fleet = &report.fleet;
    let run = format!(
        "{}, {}, seed {}, {} of virtual time, {}",
        units::counted(report.sites.len() as u64, "site", "sites"),
        units::counted(fleet.devices.into(), "device", "devices"),
        report.seed,
        units::duration(report.ended_s),
        units::counted(report.events, "event", "events")
    );
    page::lead(page, &run);
}

fn verdict(page: &mut Markup, report: &Report) {
    let class = if report.broken.is_empty() { "verdict" } else { "verdict bad" };
    page.element("section", &[("class", &class), ("id", &"verdict")], |page| {
        let verdict = report.verdict();
        let mut letters = verdict.chars();
        let first: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
        page.text_in("div", &[], &format!("{first}{}.", letters.as_str()));
        for broken in report.broken.iter().take(BROKEN_MAX) {
            rule(page, broken);
        }
        if let Some(more) = report.broken.len().checked_sub(BROKEN_MAX).filter(|more| *more > 0) {
            page.text_in("p", &[], &format!("{} more are in the JSON.", units::count(more as u64)));
        }
        if !report.broken.is_empty() {
            page.text_in("p", &[], &report.replay());
        }
    });
}

fn rule(page: &mut Markup, broken: &Broken) {
    page.element("p", &[], |page| {
        page.text_in("span", &[("class", &"rule")], &broken.rule);
        let at = if broken.site.is_empty() { String::new() } else { format!(" at {}", broken.site) };
        page.text(&format!("{at}: {}", broken.what));
    });
    if !broken.recent.is_empty() {
        page::details(page, "What happened there last", |page| page.text_in("pre", &[], &broken.recent.join("\n")));
    }
}

/// The numbers that answer most questions.
fn tiles(page: &mut Markup, report: &Report) {
    let fleet = &report.fleet;
    let done = units::percent(units::share(fleet.done.into(), fleet.wanting.into()));
    let (count, wanting) = (units::count(fleet.done.into()), units::count(fleet.wanting.into()));
    let last = fleet.last_s.map_or_else(|| "-".to_owned(), units::duration);
    // A number and its unit stay on one line.
    let whole = |text: String| text.replace(' ', "\u{a0}");
    let median = fleet.median_s.map(|at| whole(units::duration(at)));
    let median = median.map_or_else(|| "no device was done".to_owned(), |at| format!("last device; median {at}"));
    let alone = whole(units::duration(fleet.uplink_only_s));
    let arrived = fleet.origin_bytes.saturating_add(fleet.peer_bytes);
    let wasted = whole(units::percent(units::share(fleet.wasted_bytes, arrived)));
    let tiles = [
        (done, format!("done: {count} of {wanting} devices")),
        (last, median),
        (
            fleet.last_by_uplink().map_or_else(|| "-".to_owned(), |by| format!("{} ×", units::ratio(by))),
            format!("last device, by what the slowest uplink alone needs ({alone})"),
        ),
        (units::ratio_or_none(fleet.copies_wanted()), "copies over the uplinks".to_owned()),
        (
            units::bytes(fleet.origin_bytes),
            format!("from the registry; one copy is {}", whole(units::bytes(fleet.one_copy_bytes))),
        ),
        (units::bytes(fleet.peer_bytes), format!("from other devices; {wasted} of all thrown away")),
    ];
    page.element("div", &[("class", &"tiles"), ("id", &"figures")], |page| {
        for (number, meaning) in &tiles {
            page.element("div", &[("class", &"tile")], |page| {
                page.text_in("b", &[], number);
                page.text_in("span", &[], meaning);
            });
        }
    });
}

fn slowest(page: &mut Markup, report: &Report) {
    page::section(page, "slowest", "Slowest devices, and why", |page| {
        if report.slowest.is_empty() {
            page::lead(page, "No device was told to get anything.");
            return;
        }
        let median = report.fleet.median_s;
        let rows = report.slowest.iter().map(|device| {
            let times = device.took_s.zip(median).filter(|(_, median)| *median > 0.0);
            let why = if device.why.is_empty() { "nothing is known" } else { &device.why };
            vec![
                Cell::Head(device.name.clone()),
                Cell::Number(units::duration_or_never(device.took_s)),
                Cell::Number(units::ratio_or_none(times.map(|(took, median)| took / median))),
                Cell::Number(units::bytes(device.origin_bytes)),
                Cell::Number(units::bytes(device.peer_bytes)),
                Cell::Text(why.to_owned()),
            ]
        });
        page::table(page, "", &["device", "#took", "#× median", "#registry", "#peers", "why"], rows);
    });
}

fn footer(page: &mut Markup, report: &Report) {
    page.element("footer", &[], |page| {
        let kinds = units::counted(kinds(report).len() as u64, "kind of site", "kinds of sites");
        let text = format!(
            "A simulation by layermesh-sim: real engines, virtual time, {kinds}. Times count from the start of the scenario, \
             those of a device from its release. The same scenario and seed ({}) give the same page.",
            report.seed
        );
        page.text_in("p", &[], &text);
    });
}
