//! A map of the sites: a cell for each, which stands out the more the worse it fared.
//!
//! Invariant: classes are the same for every report, so that two reports compare; a cell's place is the site's in the
//! scenario, kinds in blocks of their own. What the colours say is also in each cell's title and in the table.

use super::{
    chart::{LETTER, fitting, picture},
    markup::{Markup, Px},
    page::{self, Cell, Sign},
};
use crate::report::{
    Report, SiteReport, Totals,
    summary::{Kind, kinds, worst_first},
    units,
};

/// Cells of a map. 2,000: they are still seen one by one.
const CELLS_MAX: usize = 2_000;
/// Sites that the table has: the worst.
const ROWS_MAX: usize = 500;
/// Upper bounds of the classes of copies; what is beyond is the last class.
const COPIES: [f64; 5] = [1.01, 1.05, 1.25, 2.0, 5.0];
/// Of the last finish by what the uplink alone needs.
const LAST: [f64; 5] = [1.05, 1.2, 1.5, 2.0, 5.0];
/// Colours of the classes.
const CLASSES: [&str; 6] = ["q0", "q1", "q2", "q3", "q4", "q5"];
/// Width of a map, and from one cell to the next.
const WIDTH: f64 = 1000.0;
const CELL: f64 = 22.0;
/// Where cells begin: right of the kinds' names.
const LEFT: f64 = 110.0;
/// Between two kinds.
const GAP: f64 = 8.0;

/// What a map shows.
struct Measure {
    id: &'static str,
    title: &'static str,
    bounds: [f64; 5],
    of: fn(&Totals) -> Option<f64>,
}

/// The section.
pub(crate) fn section(page: &mut Markup, report: &Report) {
    page::section(page, "sites", "Sites", |page| {
        if report.sites.is_empty() {
            page::lead(page, "There were no sites.");
            return;
        }
        page::lead(
            page,
            "One cell for each site: the more it stands out, the worse the site fared. Point at a cell for its name and numbers.",
        );
        let left_out = report.sites.len().saturating_sub(CELLS_MAX);
        if left_out > 0 {
            page::lead(
                page,
                &format!("The last {} are left out here.", units::counted(left_out as u64, "site", "sites")),
            );
        }
        let copies =
            Measure { id: "heat-copies", title: "Copies over the uplink", bounds: COPIES, of: Totals::copies_wanted };
        let last = Measure {
            id: "heat-last",
            title: "Last device, by what the uplink alone needs for one copy",
            bounds: LAST,
            of: Totals::last_by_uplink,
        };
        for measure in [copies, last] {
            map(page, report, &measure);
        }
        let rows = report.sites.len().min(ROWS_MAX);
        let which = if report.sites.len() > ROWS_MAX { format!("the worst {rows}") } else { format!("{rows}") };
        page::details(page, &format!("Sites as a table ({which}, the worst first)"), |page| table(page, report));
    });
}

fn map(page: &mut Markup, report: &Report, measure: &Measure) {
    page.text_in("h3", &[], measure.title);
    legend(page, measure);
    let kinds = kinds(report);
    let blocks = blocks(&kinds);
    let height = |cells: usize| cells.div_ceil(per_row()) as f64 * CELL + GAP;
    let shows = kinds.iter().filter_map(|kind| {
        let spread = kind.spread(measure.of)?;
        Some(format!("{}: median {}, worst {}.", kind.name, units::ratio(spread.median), units::ratio(spread.worst)))
    });
    let shows = shows.take(12).collect::<Vec<_>>().join(" ");
    page.element("div", &[("class", &"wide")], |page| {
        let size = (WIDTH, blocks.iter().map(|(_, cells)| height(*cells)).sum());
        picture(page, measure.id, size, measure.title, &shows, |page| {
            let mut top = 1.0;
            for (kind, cells) in &blocks {
                block(page, kind, measure, top, *cells);
                top += height(*cells);
            }
        });
    });
}

/// The kinds that have cells, and how many: [`CELLS_MAX`] together.
fn blocks<'a>(kinds: &'a [Kind<'a>]) -> Vec<(&'a Kind<'a>, usize)> {
    let mut room = CELLS_MAX;
    let cells = kinds.iter().map(|kind| {
        let cells = kind.sites.len().min(room);
        room -= cells;
        (kind, cells)
    });
    cells.filter(|(_, cells)| *cells > 0).collect()
}

fn per_row() -> usize {
    ((WIDTH - LEFT) / CELL).floor() as usize
}

/// The first sites of one kind.
fn block(page: &mut Markup, kind: &Kind<'_>, measure: &Measure, top: f64, cells: usize) {
    page.element("g", &[("class", &"cells")], |page| {
        let name = fitting(kind.name, LEFT - LETTER - 4.0);
        page.text_in("text", &[("class", &"end"), ("x", &Px(LEFT - 8.0)), ("y", &Px(top + 14.0))], &name);
        for (index, site) in kind.sites.iter().take(cells).enumerate() {
            let (column, row) = (index % per_row(), index / per_row());
            let (x, y) = (Px(LEFT + column as f64 * CELL), Px(top + row as f64 * CELL));
            let size = Px(CELL - 3.0);
            let class = class(&site.totals, measure);
            let cell: super::markup::Attributes<'_> =
                &[("class", &class), ("x", &x), ("y", &y), ("width", &size), ("height", &size), ("rx", &3)];
            page.element("rect", cell, |page| page.text_in("title", &[], &told(site)));
        }
    });
}

fn class(totals: &Totals, measure: &Measure) -> String {
    let value = (measure.of)(totals);
    let class = value.map_or("none", |value| {
        let class = measure.bounds.iter().position(|bound| value <= *bound).unwrap_or(measure.bounds.len());
        CLASSES[class.min(CLASSES.len() - 1)]
    });
    if totals.undone() > 0 { format!("{class} undone") } else { class.to_owned() }
}

/// What a cell says when it is pointed at.
fn told(site: &SiteReport) -> String {
    let totals = &site.totals;
    let Some(copies) = totals.copies_wanted() else { return format!("{}: wanted nothing", site.name) };
    let by =
        totals.last_by_uplink().map_or_else(String::new, |by| format!(" ({} × the uplink alone)", units::ratio(by)));
    let last = totals.last_s.map_or_else(String::new, |last| format!(", last after {}{by}", units::duration(last)));
    format!("{}: {} copies, {} of {} done{last}", site.name, units::ratio(copies), totals.done, totals.wanting)
}

fn legend(page: &mut Markup, measure: &Measure) {
    let mut names = vec![format!("up to {}", measure.bounds[0])];
    names.extend(measure.bounds.windows(2).map(|pair| format!("to {}", pair[1])));
    names.push(format!("more than {}", measure.bounds[measure.bounds.len() - 1]));
    let mut entries: Vec<(Sign<'_>, &str)> =
        CLASSES.iter().zip(&names).map(|(class, name)| (Sign::Area(class), name.as_str())).collect();
    entries.push((Sign::Area("none"), "no such number"));
    entries.push((Sign::Area("none undone"), "outlined: not all devices done"));
    page::legend(page, &entries);
}

fn table(page: &mut Markup, report: &Report) {
    let rows = worst_first(report.sites.iter()).into_iter().take(ROWS_MAX).map(|site| {
        let totals = &site.totals;
        let number = |text: String| Cell::Number(text);
        vec![
            Cell::Head(site.name.clone()),
            number(format!("{} of {}", units::count(totals.done.into()), units::count(totals.wanting.into()))),
            number(units::ratio_or_none(totals.copies_wanted())),
            number(units::ratio_or_none(totals.last_by_uplink())),
            number(totals.median_s.map_or_else(|| "-".to_owned(), units::duration)),
            number(totals.last_s.map_or_else(|| "-".to_owned(), units::duration)),
            number(units::bytes(totals.origin_bytes)),
            number(units::bytes(totals.peer_bytes)),
            number(units::bytes(totals.wasted_bytes)),
        ]
    });
    let columns = ["site", "#done", "#copies", "#× uplink", "#median", "#last", "#registry", "#peers", "#thrown away"];
    page::table(page, "", &columns, rows);
}
