//! Two reports on one page: their curves laid over each other, and what changed.
//!
//! Invariant: old and new have the same axes, in shares of what each of them wanted, so that fleets of any size compare.
//! Old is dashed and new is not: colours are not needed to tell them apart.

use super::{
    chart::{Frame, picture},
    markup::Markup,
    page::{self, Cell, Sign},
    scale::{self, Axis},
};
use crate::report::{
    Report,
    compare::{Comparison, Meaning, SITES_SHOWN},
    summary::{count_at, shown_s, value_at},
    units,
};

/// Points of a curve of a whole fleet.
const POINTS: u32 = 120;
/// Columns that tell their values.
const COLUMNS: u32 = 80;

impl Comparison<'_> {
    /// The comparison as one HTML file.
    pub fn to_html(&self) -> String {
        page::whole(&format!("{} - Layermesh simulation", self.title()), |page| {
            page.text_in("h1", &[], &self.title());
            for notice in self.notices() {
                page::lead(page, &notice);
            }
            curves(page, self);
            changes(page, self);
            sites(page, self);
        })
    }
}

/// A curve of each report.
struct Pair<'a> {
    id: &'a str,
    title: &'a str,
    axis: Axis,
    top: f64,
    stairs: bool,
    old: Vec<(f64, f64)>,
    new: Vec<(f64, f64)>,
}

fn curves(page: &mut Markup, comparison: &Comparison<'_>) {
    let (old, new) = (comparison.old, comparison.new);
    let shown = shown_s(old).max(shown_s(new));
    let done = Pair {
        id: "completion-plot",
        title: "Devices done",
        axis: scale::numbers(100.0, 5, 1.0, "% of the devices that wanted something"),
        top: 106.0,
        stairs: true,
        old: percents(old, shown),
        new: percents(new, shown),
    };
    page::section(page, "completion", "Devices that were done", |page| {
        draw(
            page,
            &done,
            shown,
            |report, at| {
                let share = units::share(count_at(&report.completion, at).into(), report.fleet.wanting.into());
                format!("{} done", units::percent(share))
            },
            comparison,
        );
    });
    let (old_copies, new_copies) = (copies(old, shown), copies(new, shown));
    let most = old_copies.iter().chain(&new_copies).map(|(_, value)| *value).fold(1.0, f64::max) * 1.1;
    let bytes = Pair {
        id: "uplinks-plot",
        title: "Bytes over the uplinks",
        axis: scale::numbers(most, 5, 0.0, "copies over all uplinks together"),
        top: most,
        stairs: false,
        old: old_copies,
        new: new_copies,
    };
    page::section(page, "uplinks", "Bytes over the uplinks", |page| {
        draw(page, &bytes, shown, |report, at| format!("{} copies", units::ratio(copies_at(report, at))), comparison);
    });
}

/// The staircase of a report in percent, up to the end of the plot.
fn percents(report: &Report, shown_s: f64) -> Vec<(f64, f64)> {
    let percent = |count: u32| units::share(count.into(), report.fleet.wanting.into()) * 100.0;
    let mut points: Vec<(f64, f64)> = report.completion.iter().map(|(at, count)| (*at, percent(*count))).collect();
    points.extend(points.last().map(|(_, last)| (shown_s, *last)));
    points
}

fn copies(report: &Report, shown_s: f64) -> Vec<(f64, f64)> {
    let times = (0..=POINTS).map(|point| shown_s * f64::from(point) / f64::from(POINTS));
    times.map(|at| (at, copies_at(report, at))).collect()
}

fn copies_at(report: &Report, at: f64) -> f64 {
    if report.fleet.one_copy_bytes == 0 {
        return 0.0;
    }
    let bytes: f64 = report.sites.iter().map(|site| value_at(&site.uplink, at)).sum();
    bytes / report.fleet.one_copy_bytes as f64
}

fn draw(
    page: &mut Markup,
    pair: &Pair<'_>,
    shown_s: f64,
    say: impl Fn(&Report, f64) -> String,
    comparison: &Comparison<'_>,
) {
    let at_end = |report: &Report| say(report, shown_s);
    let shows = format!("At the end old had {}, new {}.", at_end(comparison.old), at_end(comparison.new));
    page::legend(page, &[(Sign::Line("curve s-old"), "old"), (Sign::Line("curve s-peers"), "new")]);
    page.element("div", &[("class", &"wide")], |page| {
        picture(page, pair.id, (1000.0, 320.0), pair.title, &shows, |page| {
            let frame = Frame::new([64.0, 984.0, 30.0, 270.0], shown_s, pair.top);
            frame.axes(page, &scale::times(shown_s, 10), &pair.axis);
            if !pair.stairs {
                frame.horizontal(page, "one", 1.0);
            }
            for (class, points) in [("curve s-peers", &pair.new), ("curve s-old", &pair.old)] {
                if pair.stairs { frame.stairs(page, class, points) } else { frame.line(page, class, points) }
            }
            frame.columns(page, COLUMNS, |at| {
                let (old, new) = (say(comparison.old, at), say(comparison.new, at));
                format!("after {}: old {old}, new {new}", units::duration(at))
            });
        });
    });
}

fn changes(page: &mut Markup, comparison: &Comparison<'_>) {
    page::section(page, "fleet", "The fleet", |page| {
        let rows = comparison.changes().into_iter().map(|change| {
            let meaning = change.meaning.name();
            let class = if change.meaning == Meaning::Neither { "" } else { meaning };
            vec![
                Cell::Head(change.name.to_owned()),
                Cell::Number(change.old),
                Cell::Number(change.new),
                Cell::Number(change.change),
                Cell::Marked(class, meaning.to_owned()),
            ]
        });
        page::table(page, "", &["of all sites together", "#old", "#new", "#change", "meaning"], rows);
    });
}

fn sites(page: &mut Markup, comparison: &Comparison<'_>) {
    let sites = comparison.sites();
    page::section(page, "sites", "Sites that got worse", |page| {
        page::lead(page, &sites.told());
        if sites.worse.is_empty() {
            return;
        }
        let more = sites.worse.len().saturating_sub(SITES_SHOWN);
        let caption = if more > 0 { format!("The worst {SITES_SHOWN}") } else { "The worst first".to_owned() };
        let rows = sites.worse.iter().take(SITES_SHOWN);
        let rows = rows.map(|site| vec![Cell::Head(site.name.to_owned()), Cell::Text(site.what.clone())]);
        page::table(page, &caption, &["site", "what"], rows);
    });
}
