//! Bytes over each uplink against time, and against the line of one copy.
//!
//! Invariant: all plots have the same axes, in copies of what the site wanted, so that sites of any size compare; a page has
//! at most [`PANELS_MAX`] of them, the worst if there are more sites, and those then have an envelope of all.

use super::{
    chart::{Frame, fitting, picture},
    markup::{Markup, Px},
    page::{self, Sign},
    scale,
};
use crate::report::{
    Report, SiteReport,
    summary::{shown_s, value_at, worst_first},
    units,
};

/// Sites that all have a plot of their own.
const PANELS_MAX: usize = 24;
/// Sites that have one if there are more: the worst.
const PANELS_OF_MANY: usize = 12;
/// Points of the envelope.
const POINTS: u32 = 120;
/// Columns of the envelope that tell their values.
const COLUMNS: u32 = 60;

/// The section.
pub(crate) fn section(page: &mut Markup, report: &Report) {
    page::section(page, "uplinks", "Bytes over each uplink", |page| {
        let sites: Vec<&SiteReport> = report.sites.iter().filter(|site| site.totals.one_copy_bytes > 0).collect();
        if sites.is_empty() {
            page::lead(page, "No site had anything to get.");
            return;
        }
        let axes = Axes::new(report, &sites);
        page::lead(
            page,
            "In copies of what the site's devices wanted: a site that asks for no byte twice ends on the line of one copy.",
        );
        if sites.len() <= PANELS_MAX {
            panels(page, &axes, &sites);
            return;
        }
        page.element("div", &[("class", &"wide")], |page| envelope(page, &axes, &sites));
        page::legend(
            page,
            &[
                (Sign::Line("curve s-registry"), "median of the sites"),
                (Sign::Area("f-band"), "from the least to the most"),
                (Sign::Line("one"), "one copy"),
            ],
        );
        page.text_in("h3", &[], &format!("The {PANELS_OF_MANY} that fared worst"));
        let mut worst = worst_first(sites.iter().copied());
        worst.truncate(PANELS_OF_MANY);
        panels(page, &axes, &worst);
    });
}

/// What all plots of the section share.
struct Axes {
    shown_s: f64,
    copies: f64,
}

impl Axes {
    fn new(report: &Report, sites: &[&SiteReport]) -> Self {
        let most = sites.iter().flat_map(|site| copies(site).last().map(|(_, copies)| *copies));
        Self { shown_s: shown_s(report), copies: most.fold(1.0, f64::max) * 1.15 }
    }
}

/// A site's curve, in copies.
fn copies(site: &SiteReport) -> Vec<(f64, f64)> {
    let one = site.totals.one_copy_bytes.max(1) as f64;
    site.uplink.iter().map(|(at, bytes)| (*at, *bytes as f64 / one)).collect()
}

fn panels(page: &mut Markup, axes: &Axes, sites: &[&SiteReport]) {
    page.element("div", &[("class", &"panels")], |page| {
        for (index, site) in sites.iter().enumerate() {
            panel(page, axes, site, &format!("uplink-{index}"));
        }
    });
}

/// One site.
fn panel(page: &mut Markup, axes: &Axes, site: &SiteReport, id: &str) {
    let totals = &site.totals;
    let last = totals.last_s.map_or_else(String::new, |last| format!(", last device after {}", units::duration(last)));
    let shows = format!(
        "{} over the uplink, {} copies of {}{last}",
        units::bytes(totals.origin_bytes),
        units::ratio(totals.copies),
        units::bytes(totals.one_copy_bytes)
    );
    picture(page, id, (240.0, 168.0), &format!("{}: {shows}", site.name), &shows, |page| {
        page.text_in("text", &[("class", &"strong"), ("x", &0), ("y", &12)], &fitting(&site.name, 220.0));
        let size = units::bytes(totals.one_copy_bytes);
        let below = if totals.undone() > 0 {
            format!("{} of {} devices not done", totals.undone(), totals.wanting)
        } else {
            format!("{} copies of {size}", units::ratio(totals.copies))
        };
        page.text_in("text", &[("class", &"soft"), ("x", &0), ("y", &28)], &below);
        let frame = Frame::new([30.0, 236.0, 38.0, 132.0], axes.shown_s, axes.copies);
        frame.axes(page, &scale::times(axes.shown_s, 4), &scale::numbers(axes.copies, 3, 0.0, ""));
        frame.horizontal(page, "one", 1.0);
        let mut points = copies(site);
        points.extend(points.last().map(|(_, last)| (axes.shown_s, *last)));
        frame.line(page, "curve thin s-registry", &points);
    });
}

/// Least, median and most of all sites.
fn envelope(page: &mut Markup, axes: &Axes, sites: &[&SiteReport]) {
    let times = (0..=POINTS).map(|point| axes.shown_s * f64::from(point) / f64::from(POINTS));
    let spread: Vec<(f64, [f64; 3])> = times.map(|at| (at, spread_at(sites, at))).collect();
    let curve = |which: usize| spread.iter().map(|(at, values)| (*at, values[which])).collect::<Vec<_>>();
    let title =
        format!("Copies over the uplinks of {}, against time", units::counted(sites.len() as u64, "site", "sites"));
    let last = spread.last().map_or([0.0; 3], |(_, values)| *values).map(units::ratio);
    let shows =
        format!("At the end the median site had {} copies, the least {} and the most {}.", last[1], last[0], last[2]);
    picture(page, "uplinks-plot", (1000.0, 300.0), &title, &shows, |page| {
        let frame = Frame::new([64.0, 984.0, 30.0, 250.0], axes.shown_s, axes.copies);
        frame.band(page, "f-band", &curve(0), &curve(2));
        frame.axes(
            page,
            &scale::times(axes.shown_s, 10),
            &scale::numbers(axes.copies, 5, 0.0, "copies over the uplink"),
        );
        frame.horizontal(page, "one", 1.0);
        let (x, y) = (Px(frame.left + 6.0), Px(frame.y.at(1.0) - 6.0));
        page.text_in("text", &[("class", &"soft"), ("x", &x), ("y", &y)], "one copy");
        frame.line(page, "curve s-registry", &curve(1));
        frame.columns(page, COLUMNS, |at| {
            let [least, median, most] = spread_at(sites, at).map(units::ratio);
            format!("after {}: median {median} copies, least {least}, most {most}", units::duration(at))
        });
    });
}

fn spread_at(sites: &[&SiteReport], at: f64) -> [f64; 3] {
    let copies = |site: &&SiteReport| value_at(&site.uplink, at) / site.totals.one_copy_bytes.max(1) as f64;
    let mut values: Vec<f64> = sites.iter().map(copies).collect();
    values.sort_by(f64::total_cmp);
    let median = values.get(values.len().saturating_sub(1) / 2);
    [values.first(), median, values.last()].map(|value| value.copied().unwrap_or(0.0))
}
