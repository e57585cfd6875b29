//! Two reports side by side: what changed, and which sites got worse.
//!
//! Invariant: reports of different scenarios compare too, and it is said; a site is compared with the one of its name. What
//! changed by less than a run's own chance ([`SLIGHT`]) is neither better nor worse.

use std::collections::BTreeMap;

use super::{
    Report, SiteReport, Totals,
    text::{Text, WIDTH_MIN},
    units,
};

/// Share by which something has to change to be better or worse. 0.5 %: less than that another seed does.
const SLIGHT: f64 = 0.005;
/// Share by which a site's last device has to be later to be worse, and copies by which its uplink has to carry more.
const SITE_SLIGHT: (f64, f64) = (0.02, 0.01);
/// Sites that are named.
pub(crate) const SITES_SHOWN: usize = 20;

/// An old report and a new one.
#[derive(Debug, Clone, Copy)]
pub struct Comparison<'a> {
    /// What it is compared with.
    pub old: &'a Report,
    /// What is compared.
    pub new: &'a Report,
}

/// What a change means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    Better,
    Worse,
    Neither,
}

/// A number in both reports.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) name: &'static str,
    pub(crate) old: String,
    pub(crate) new: String,
    pub(crate) change: String,
    pub(crate) meaning: Meaning,
}

/// A site that got worse.
#[derive(Debug)]
pub(crate) struct WorseSite<'a> {
    pub(crate) name: &'a str,
    /// In what.
    pub(crate) what: String,
    /// How much: devices that are not done any more, share by which the last is later, copies more.
    severity: (u32, f64, f64),
}

/// Sites of both reports.
#[derive(Debug)]
pub(crate) struct Sites<'a> {
    /// The worst first.
    pub(crate) worse: Vec<WorseSite<'a>>,
    pub(crate) better: usize,
    pub(crate) both: usize,
    pub(crate) only_old: usize,
    pub(crate) only_new: usize,
}

/// What one wishes of a number.
#[derive(Debug, Clone, Copy)]
enum Wish {
    Less,
    /// It is as it is.
    Nothing,
}
use Wish::{Less, Nothing};

/// A number of a report, how it is shown, and what one wishes of it.
type Measure = (&'static str, fn(&Report) -> Option<f64>, fn(f64) -> String, Wish);

const MEASURES: [Measure; 14] = [
    ("broken rules", |report| Some(report.broken.len() as f64), whole, Less),
    ("devices", |report| Some(report.fleet.devices.into()), whole, Nothing),
    ("wanting", |report| Some(report.fleet.wanting.into()), whole, Nothing),
    ("not done", |report| Some(report.fleet.undone().into()), whole, Less),
    ("copies over the uplinks", |report| report.fleet.copies_wanted(), units::ratio, Less),
    ("first done", |report| report.fleet.first_s, units::duration, Less),
    ("median done", |report| report.fleet.median_s, units::duration, Less),
    ("last done", |report| report.fleet.last_s, units::duration, Less),
    ("last by uplink alone", |report| report.fleet.last_by_uplink(), units::ratio, Less),
    ("from the registry", |report| Some(report.fleet.origin_bytes as f64), size, Nothing),
    ("from peers", |report| Some(report.fleet.peer_bytes as f64), size, Nothing),
    ("thrown away of it", |report| wasted(&report.fleet), units::percent, Less),
    ("control sent by a device", |report| control(&report.fleet), size, Less),
    ("events", |report| Some(report.events as f64), whole, Nothing),
];

/// Those of [`MEASURES`] that make a report worse than another.
const COUNTS: [&str; 5] = ["broken rules", "not done", "copies over the uplinks", "median done", "last done"];

/// What was thrown away, as a share of what arrived: fleets of any size compare.
fn wasted(totals: &Totals) -> Option<f64> {
    let arrived = totals.origin_bytes.saturating_add(totals.peer_bytes);
    (arrived > 0).then(|| units::share(totals.wasted_bytes, arrived))
}

fn control(totals: &Totals) -> Option<f64> {
    (totals.devices > 0).then(|| units::share(totals.control_sent_bytes, totals.devices.into()))
}

fn whole(value: f64) -> String {
    units::count(value.round() as u64)
}

fn size(value: f64) -> String {
    units::bytes(value.round() as u64)
}

impl<'a> Comparison<'a> {
    /// The two side by side.
    pub fn new(old: &'a Report, new: &'a Report) -> Self {
        Self { old, new }
    }

    /// Whether the new one is worse in something that counts: a rule that holds no more, devices that are not done, copies
    /// or time.
    pub fn is_worse(&self) -> bool {
        self.changes().iter().any(|change| change.meaning == Meaning::Worse && COUNTS.contains(&change.name))
    }

    /// The comparison as text, in lines of at most `width` characters.
    pub fn to_text(&self, width: u16) -> String {
        let mut text = Text { width: width.max(WIDTH_MIN), out: String::new() };
        text.paragraph(0, 2, &self.title());
        for notice in self.notices() {
            text.paragraph(2, 2, &notice);
        }
        let rows = self.changes().into_iter().map(|change| {
            let meaning = change.meaning.name().to_owned();
            vec![change.name.to_owned(), change.old, change.new, change.change, meaning]
        });
        text.table("The fleet", &["", "OLD", "NEW", "CHANGE", ""], &[1, 2, 3], rows.collect());
        let sites = self.sites();
        text.line("");
        text.paragraph(0, 2, &sites.told());
        let rows = sites.worse.iter().take(SITES_SHOWN).map(|site| vec![site.name.to_owned(), site.what.clone()]);
        text.table("Sites that got worse, the worst first", &["SITE", "WHAT"], &[], rows.collect());
        text.out
    }

    pub(crate) fn title(&self) -> String {
        if self.old.scenario == self.new.scenario {
            format!("{}: old against new", self.new.scenario)
        } else {
            format!("{} against {}", self.old.scenario, self.new.scenario)
        }
    }

    /// What to know before one reads on.
    pub(crate) fn notices(&self) -> Vec<String> {
        let (old, new) = (self.old, self.new);
        let mut notices = Vec::new();
        if old.scenario != new.scenario {
            let what = format!("These are different scenarios: old is {}, new is {}.", old.scenario, new.scenario);
            notices.push(what);
        }
        notices.push(if old.seed == new.seed {
            format!("Both ran with seed {}.", new.seed)
        } else {
            format!("Old ran with seed {}, new with seed {}: some of the change is chance.", old.seed, new.seed)
        });
        notices.push(format!("Old: {}. New: {}.", old.verdict(), new.verdict()));
        notices
    }

    /// Each number of the fleet.
    pub(crate) fn changes(&self) -> Vec<Change> {
        let change = |(name, value, show, wish): &Measure| {
            let (old, new) = (value(self.old), value(self.new));
            let shown = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), show);
            let (change, meaning) = changed(old, new, *wish);
            Change { name, old: shown(old), new: shown(new), change, meaning }
        };
        MEASURES.iter().map(change).collect()
    }

    /// The sites of both, matched by their names.
    pub(crate) fn sites(&self) -> Sites<'a> {
        let olds: BTreeMap<&str, &SiteReport> = self.old.sites.iter().map(|site| (site.name.as_str(), site)).collect();
        let pairs: Vec<(&SiteReport, &'a SiteReport)> =
            self.new.sites.iter().filter_map(|new| Some((*olds.get(new.name.as_str())?, new))).collect();
        let mut worse: Vec<WorseSite<'a>> = pairs.iter().filter_map(|(old, new)| worsened(old, new)).collect();
        let (both, only_new) = (pairs.len(), self.new.sites.len() - pairs.len());
        // One that is worse in one thing and better in another is worse.
        let better =
            pairs.iter().filter(|(old, new)| worsened(old, new).is_none() && worsened(new, old).is_some()).count();
        worse.sort_by(|one, other| {
            let (one, other) = (other.severity, one.severity);
            one.0.cmp(&other.0).then(one.1.total_cmp(&other.1)).then(one.2.total_cmp(&other.2))
        });
        Sites { worse, better, both, only_old: self.old.sites.len().saturating_sub(both), only_new }
    }
}

impl Meaning {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::Neither => "",
        }
    }
}

impl Sites<'_> {
    /// How many there are of which.
    pub(crate) fn told(&self) -> String {
        let same = self.both.saturating_sub(self.worse.len() + self.better);
        let of = units::counted(self.both as u64, "site that both have", "sites that both have");
        let mut text = format!("Of {of}, {} got worse, {} better, {same} neither.", self.worse.len(), self.better);
        for (count, which) in [(self.only_old, "old"), (self.only_new, "new")] {
            if count > 0 {
                text.push_str(&format!(" {} in the {which} report only.", units::counted(count as u64, "is", "are")));
            }
        }
        text
    }
}

/// How a number changed, and what that means.
fn changed(old: Option<f64>, new: Option<f64>, wish: Wish) -> (String, Meaning) {
    let (old, new) = match (old, new) {
        (Some(old), Some(new)) => (old, new),
        (None, None) => return (String::new(), Meaning::Neither),
        (Some(_), None) => return ("gone".to_owned(), Meaning::Neither),
        (None, Some(_)) => return ("new".to_owned(), Meaning::Neither),
    };
    let difference = new - old;
    let is_slight = difference.abs() <= old.abs() * SLIGHT;
    let meaning = match wish {
        Less if !is_slight && difference < 0.0 => Meaning::Better,
        Less if !is_slight => Meaning::Worse,
        Less | Nothing => Meaning::Neither,
    };
    (relative(old, new), meaning)
}

/// A change by the old value: `+4.2 %`, `12.0 ×`, or `same`.
fn relative(old: f64, new: f64) -> String {
    if (new - old).abs() <= old.abs() * 1e-9 {
        return "same".to_owned();
    }
    if old <= 0.0 {
        return "from none".to_owned();
    }
    let times = new / old;
    if times >= 3.0 { format!("{} ×", units::ratio(times)) } else { format!("{:+.1} %", (times - 1.0) * 100.0) }
}

/// In what a site got worse; `None` if in nothing.
fn worsened<'a>(old: &SiteReport, new: &'a SiteReport) -> Option<WorseSite<'a>> {
    let (before, after) = (&old.totals, &new.totals);
    let mut what = Vec::new();
    let undone = after.undone().saturating_sub(before.undone());
    if undone > 0 {
        let devices = units::counted(after.undone().into(), "device", "devices");
        what.push(format!("{devices} not done, before {}", before.undone()));
    }
    let later = match (before.last_s, after.last_s) {
        (Some(before), Some(after)) if before > 0.0 => after / before - 1.0,
        _ => 0.0,
    };
    if let (true, Some(before), Some(after)) = (later > SITE_SLIGHT.0, before.last_s, after.last_s) {
        let (before, after) = (units::duration(before), units::duration(after));
        what.push(format!("last after {after}, before {before} ({:+.1} %)", later * 100.0));
    }
    let more = after.copies - before.copies;
    if more > SITE_SLIGHT.1 {
        what.push(format!("{} copies, before {}", units::ratio(after.copies), units::ratio(before.copies)));
    }
    if what.is_empty() {
        return None;
    }
    Some(WorseSite { name: &new.name, what: what.join("; "), severity: (undone, later, more) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn a_report_is_no_worse_than_itself() {
        let report = sample::fleet(30);
        let comparison = Comparison::new(&report, &report);
        assert!(!comparison.is_worse());
        assert!(comparison.changes().iter().all(|change| change.change == "same"), "{:?}", comparison.changes());
        let sites = comparison.sites();
        assert_eq!((sites.worse.len(), sites.better, sites.both), (0, 0, 30));
        assert!(comparison.to_text(80).contains("0 got worse, 0 better, 30 neither"));
    }

    #[test]
    fn sites_that_got_worse_are_named_the_worst_first() {
        let old = sample::fleet(30);
        let mut new = sample::fleet(30);
        new.sites[3].totals.copies += 0.2;
        new.sites[5].totals.last_s = new.sites[5].totals.last_s.map(|last| last * 1.5);
        new.sites[8].totals.done -= 2;
        new.sites[9].totals.copies -= 0.5;
        new.fleet.copies *= 1.02;
        let comparison = Comparison::new(&old, &new);
        assert!(comparison.is_worse());
        let sites = comparison.sites();
        let names: Vec<&str> = sites.worse.iter().map(|site| site.name).collect();
        assert_eq!(names, [8, 5, 3].map(|index: usize| new.sites[index].name.as_str()));
        assert_eq!(sites.better, 1);
        let text = comparison.to_text(100);
        assert!(text.contains("2 devices not done, before 0") && text.contains("(+50.0 %)"), "{text}");
        assert!(text.contains("worse"), "{text}");
    }

    #[test]
    fn different_scenarios_and_seeds_are_said_and_work() {
        let old = sample::fleet(30);
        let mut new = sample::fleet(5);
        new.scenario = "ship".to_owned();
        new.seed = 7;
        let text = Comparison::new(&old, &new).to_text(80);
        assert!(text.starts_with("shops-on-dsl against ship"), "{text}");
        assert!(text.contains("different scenarios") && text.contains("some of the change is chance"), "{text}");
        let unwrapped = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(unwrapped.contains("25 are in the old report only"), "{text}");
    }

    #[test]
    fn nothing_compares_with_nothing_and_with_something() {
        let (nothing, something) = (sample::empty(), sample::fleet(3));
        for (old, new) in [(&nothing, &nothing), (&nothing, &something), (&something, &nothing)] {
            let comparison = Comparison::new(old, new);
            for text in [comparison.to_text(60), comparison.to_html()] {
                assert!(!text.contains("NaN") && !text.contains("inf "), "{text}");
            }
        }
    }

    #[test]
    fn lines_are_bounded() {
        let (old, new) = (sample::hostile(), sample::broken());
        for width in [0, 60, 80, 120] {
            let text = Comparison::new(&old, &new).to_text(width);
            let widest = text.lines().map(|line| line.chars().count()).max().unwrap_or(0);
            assert!(widest <= usize::from(width.max(WIDTH_MIN)), "{width}:\n{text}");
        }
    }

    #[test]
    fn changes_say_which_way() {
        assert_eq!(relative(100.0, 104.2), "+4.2 %");
        assert_eq!(relative(100.0, 90.0), "-10.0 %");
        assert_eq!(relative(1.0, 12.0), "12.0 ×");
        assert_eq!([relative(0.0, 5.0), relative(0.0, 0.0)], ["from none", "same"]);
        assert_eq!(changed(Some(0.0), Some(1.0), Less).1, Meaning::Worse);
        assert_eq!(changed(Some(1.0), Some(1.004), Less).1, Meaning::Neither);
        assert_eq!(changed(Some(1.0), Some(0.9), Less).1, Meaning::Better);
        assert_eq!(changed(Some(1.0), Some(0.9), Nothing).1, Meaning::Neither);
    }
}
