//! How many devices were done when, over a timeline of what was rolled out and what went wrong.
//!
//! Invariant: curve and timeline have the same axis of time; of a bar whatever is beyond it is left out, and the table below
//! has all of it.

use std::fmt::Display;

use super::{
    chart::{Frame, fitting, picture},
    markup::{Markup, Px},
    page::{self, Cell, Sign},
    scale,
};
use crate::report::{
    FaultSpan, ReleaseMark, Report,
    summary::{count_at, shown_s},
    units,
};

/// Bars of the timeline. 24: with them the picture still fits a screen.
const LANES_MAX: usize = 24;
/// Faults that the table has.
const ROWS_MAX: usize = 500;
/// Columns that tell their values.
const COLUMNS: u32 = 96;
/// Size and edges of the plot, in pixels.
const WIDTH: f64 = 1000.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 984.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 304.0;
/// From the plot to the first bar of the timeline: room for the labels of the axis.
const BELOW: f64 = 56.0;
/// Height of a bar and its text.
const LANE: f64 = 30.0;

/// The section.
pub(crate) fn section(page: &mut Markup, report: &Report) {
    page::section(page, "completion", "Devices that were done, and what happened meanwhile", |page| {
        if report.fleet.wanting == 0 {
            page::lead(page, "No device was told to get anything.");
        } else {
            page::lead(page, "Shaded times are those of faults that ended. Point at the plot for its values.");
            page.element("div", &[("class", &"wide")], |page| draw(page, report));
            let done = (Sign::Line("curve s-peers"), "devices done");
            let told = (Sign::Area("f-peers"), "devices are told of a release");
            page::legend(page, &[done, told, (Sign::Area("f-fault"), "something is broken")]);
        }
        table(page, report);
    });
}

/// A bar of the timeline.
struct Lane {
    /// What it is and when it was.
    what: String,
    class: &'static str,
    from_s: f64,
    to_s: f64,
}

/// From when to when.
fn period(from_s: f64, to_s: Option<f64>) -> String {
    let to = to_s.map_or_else(|| "the end".to_owned(), units::duration);
    format!("{} to {to}", units::duration(from_s))
}

fn lanes(report: &Report) -> Vec<Lane> {
    let release = |release: &ReleaseMark| Lane {
        what: format!("release {}, {}", release.what, period(release.at_s, Some(release.at_s + release.spread_s))),
        class: "f-peers",
        from_s: release.at_s,
        to_s: release.at_s + release.spread_s,
    };
    let fault = |fault: &FaultSpan| Lane {
        what: format!("{}, {}", fault.what, period(fault.from_s, fault.to_s)),
        class: "f-fault",
        from_s: fault.from_s,
        to_s: fault.to_s.unwrap_or(report.ended_s),
    };
    let faults = report.faults.iter().map(fault);
    let shown = shown_s(report);
    report.releases.iter().map(release).chain(faults).filter(|lane| lane.from_s <= shown).take(LANES_MAX).collect()
}

fn draw(page: &mut Markup, report: &Report) {
    let lanes = lanes(report);
    let height = BOTTOM + BELOW + LANE * lanes.len() as f64;
    let (done, wanting) = (report.fleet.done, report.fleet.wanting);
    let shows = format!(
        "{} of {} devices were done at the end. {}",
        units::count(done.into()),
        units::count(wanting.into()),
        milestones(report)
    );
    let top = f64::from(wanting.max(done));
    let frame = Frame::new([LEFT, RIGHT, TOP, BOTTOM], shown_s(report), top * 1.06);
    picture(page, "completion-plot", (WIDTH, height), "Devices done against time", &shows, |page| {
        shades(page, &frame, &lanes);
        let axis = scale::numbers(top, 5, 1.0, "devices done");
        frame.axes(page, &scale::times(frame.x.max(), 10), &axis);
        marks(page, &frame, report);
        let mut points: Vec<(f64, f64)> =
            report.completion.iter().map(|(at, count)| (*at, f64::from(*count))).collect();
        points.extend(points.last().map(|(_, last)| (frame.x.max(), *last)));
        frame.stairs(page, "curve s-peers", &points);
        for (index, lane) in lanes.iter().enumerate() {
            bar(page, &frame, lane, BOTTOM + BELOW + LANE * index as f64);
        }
        frame.columns(page, COLUMNS, |at| {
            let count = count_at(&report.completion, at);
            let share = units::percent(units::share(count.into(), wanting.into()));
            let count = units::counted(count.into(), "device", "devices");
            format!("after {}: {count} done, {share}", units::duration(at))
        });
    });
}

/// When so many were done, in words.
fn milestones(report: &Report) -> String {
    let wanting = report.fleet.wanting;
    let at = |share: f64| {
        let needed = (f64::from(wanting) * share).ceil() as u32;
        report.completion.iter().find(|(_, count)| *count >= needed.max(1)).map(|(at, _)| units::duration(*at))
    };
    let said = [(0.1, "a tenth"), (0.5, "half"), (0.9, "nine tenths"), (1.0, "all")];
    let said = said.into_iter().filter_map(|(share, name)| Some(format!("{name} after {}", at(share)?)));
    let said = said.collect::<Vec<_>>().join(", ");
    if said.is_empty() { "None was ever done.".to_owned() } else { format!("Done were {said}.") }
}

/// Times in which something was broken; not what was broken all the time, which would shade everything.
fn shades(page: &mut Markup, frame: &Frame, lanes: &[Lane]) {
    for lane in lanes.iter().filter(|lane| lane.class == "f-fault" && lane.to_s < frame.x.max()) {
        let (from, to) = (frame.x.at(lane.from_s), frame.x.at(lane.to_s));
        let shape = (Px(from), Px((to - from).max(1.0)), Px(frame.top), Px(frame.bottom - frame.top));
        page.empty(
            "rect",
            &[("class", &"shade"), ("x", &shape.0), ("width", &shape.1), ("y", &shape.2), ("height", &shape.3)],
        );
    }
}

/// How many there were to be, the releases, and what the uplink alone needs.
fn marks(page: &mut Markup, frame: &Frame, report: &Report) {
    let wanting = f64::from(report.fleet.wanting);
    frame.horizontal(page, "one", wanting);
    let label = format!("all {}", units::counted(report.fleet.wanting.into(), "device", "devices"));
    let y = Px(frame.y.at(wanting) - 5.0);
    page.text_in("text", &[("class", &"end soft"), ("x", &Px(frame.right)), ("y", &y)], &label);
    for release in report.releases.iter().filter(|release| release.at_s <= frame.x.max()) {
        frame.vertical(page, "mark", release.at_s);
    }
    // With several releases there is no one time that the uplink would need.
    let [release] = report.releases.as_slice() else { return };
    let ideal = release.at_s + report.fleet.uplink_only_s;
    if report.fleet.uplink_only_s <= 0.0 || ideal > frame.x.max() {
        return;
    }
    frame.vertical(page, "one", ideal);
    let x = frame.x.at(ideal);
    // On the side where there is room.
    let (class, x) = if x > f64::midpoint(LEFT, RIGHT) { ("end soft", x - 6.0) } else { ("soft", x + 6.0) };
    let label = format!("one copy over the slowest uplink: {}", units::duration(report.fleet.uplink_only_s));
    page.text_in("text", &[("class", &class), ("x", &Px(x)), ("y", &Px(TOP - 27.0))], &label);
    let (at, from, to) = (Px(frame.x.at(ideal)), Px(TOP - 37.0), Px(TOP));
    page.empty("line", &[("class", &"one"), ("x1", &at), ("x2", &at), ("y1", &from), ("y2", &to)]);
}

/// A bar and its text above it, which begins or ends where the bar does.
fn bar(page: &mut Markup, frame: &Frame, lane: &Lane, top: f64) {
    let (from, to) = (frame.x.at(lane.from_s), frame.x.at(lane.to_s));
    let to = to.max(from + 3.0).min(frame.right);
    let (class, x, room) = if from > f64::midpoint(frame.left, frame.right) {
        ("end", to, to - frame.left)
    } else {
        ("start", from, frame.right - from)
    };
    page.element("g", &[], |page| {
        page.text_in("title", &[], &lane.what);
        let attributes: [(&'static str, &dyn Display); 3] = [("class", &class), ("x", &Px(x)), ("y", &Px(top + 10.0))];
        page.text_in("text", &attributes, &fitting(&lane.what, room));
        let shape = (Px(to - from), Px(top + 15.0));
        page.empty(
            "rect",
            &[
                ("class", &lane.class),
                ("x", &Px(from)),
                ("y", &shape.1),
                ("width", &shape.0),
                ("height", &7),
                ("rx", &2),
            ],
        );
    });
}

fn table(page: &mut Markup, report: &Report) {
    let rows = report.releases.len() + report.faults.len();
    if rows == 0 {
        page::lead(page, "Nothing went wrong.");
        return;
    }
    let row = |kind: &str, what: &str, from: f64, to: Option<f64>| {
        let to = to.map_or_else(|| "the end".to_owned(), units::duration);
        let cells = [Cell::Text(kind.to_owned()), Cell::Number(units::duration(from)), Cell::Number(to)];
        [Cell::Head(what.to_owned())].into_iter().chain(cells).collect::<Vec<_>>()
    };
    let releases = report.releases.iter().map(|it| row("release", &it.what, it.at_s, Some(it.at_s + it.spread_s)));
    let faults = report.faults.iter().map(|it| row("fault", &it.what, it.from_s, it.to_s));
    page::details(page, &format!("Releases and faults as a table ({rows})"), |page| {
        page::table(page, "", &["what", "kind", "#from", "#until"], releases.chain(faults).take(ROWS_MAX));
        if let Some(more) = rows.checked_sub(ROWS_MAX).filter(|more| *more > 0) {
            page::lead(page, &format!("{} more are in the JSON.", units::count(more as u64)));
        }
    });
}
