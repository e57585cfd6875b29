//! Where bytes came from, by kind of site: a table whose bars are its picture.
//!
//! Invariant: a bar is as long for each kind, so that kinds of any size compare; the numbers beside it say how much it was.

use super::{
    markup::{Markup, Px},
    page::{self, Cell, HATCH, Sign},
};
use crate::report::{Report, Totals, summary::kinds, units};

/// Width and height of a bar.
const BAR: (f64, f64) = (320.0, 16.0);

/// Bytes of one row.
#[derive(Clone, Copy)]
struct Sources {
    registry: u64,
    peers: u64,
    wasted: u64,
}

/// The section.
pub(crate) fn section(page: &mut Markup, report: &Report) {
    page::section(page, "sources", "Where bytes came from", |page| {
        if report.sites.is_empty() {
            page::lead(page, "There were no sites.");
            return;
        }
        page::legend(
            page,
            &[
                (Sign::Area("f-registry"), "registry, over the uplink"),
                (Sign::Area("f-peers"), "other devices of the site"),
                (Sign::Fill(HATCH), "of both, thrown away: wrong, or there already"),
            ],
        );
        page.element("div", &[("class", &"wide")], |page| {
            page.element("table", &[], |page| {
                page::head(
                    page,
                    &["kind", "share of what arrived", "#registry", "#peers", "#thrown away", "#control sent"],
                );
                page.element("tbody", &[], |page| rows(page, report));
            });
        });
    });
}

fn rows(page: &mut Markup, report: &Report) {
    let kinds = kinds(report);
    for kind in &kinds {
        let sources = Sources {
            registry: kind.sum(|totals| totals.origin_bytes),
            peers: kind.sum(|totals| totals.peer_bytes),
            wasted: kind.sum(|totals| totals.wasted_bytes),
        };
        let name = format!("{} ({})", kind.name, units::counted(kind.sites.len() as u64, "site", "sites"));
        row(page, &name, sources, kind.sum(|totals| totals.control_sent_bytes));
    }
    if kinds.len() > 1 {
        let Totals { origin_bytes, peer_bytes, wasted_bytes, control_sent_bytes, .. } = report.fleet;
        let sources = Sources { registry: origin_bytes, peers: peer_bytes, wasted: wasted_bytes };
        row(page, "all", sources, control_sent_bytes);
    }
}

fn row(page: &mut Markup, name: &str, sources: Sources, control: u64) {
    let all = sources.registry.saturating_add(sources.peers);
    page.element("tr", &[], |page| {
        Cell::Head(name.to_owned()).write(page);
        page.element("td", &[("class", &"bar")], |page| bar(page, sources, all));
        for bytes in [sources.registry, sources.peers, sources.wasted] {
            let share = units::percent(units::share(bytes, all));
            Cell::Number(format!("{} ({share})", units::bytes(bytes))).write(page);
        }
        Cell::Number(units::bytes(control)).write(page);
    });
}

/// Registry and peers from the left, and what was thrown away of both from the right. The numbers beside it say the same.
fn bar(page: &mut Markup, sources: Sources, all: u64) {
    let view = format!("0 0 {} {}", Px(BAR.0), Px(BAR.1));
    let attributes: super::markup::Attributes<'_> =
        &[("viewBox", &view), ("preserveAspectRatio", &"none"), ("aria-hidden", &"true")];
    page.element("svg", attributes, |page| {
        if all == 0 {
            return;
        }
        // What is there is seen, however little it is.
        let width = |bytes: u64| if bytes == 0 { 0.0 } else { (units::share(bytes, all) * BAR.0).clamp(1.0, BAR.0) };
        let registry = width(sources.registry);
        let wasted = width(sources.wasted);
        let mut part = |x: f64, width: f64, paint: (&'static str, &str)| {
            let (x, width) = (Px(x), Px(width));
            page.empty("rect", &[(paint.0, &paint.1), ("x", &x), ("width", &width), ("height", &Px(BAR.1))]);
        };
        part(0.0, registry, ("class", "f-registry"));
        part(registry, BAR.0 - registry, ("class", if sources.peers > 0 { "f-peers" } else { "f-registry" }));
        part(BAR.0 - wasted, wasted, ("fill", HATCH));
    });
}
