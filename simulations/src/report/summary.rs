//! What follows from a report's numbers: kinds of sites, the worst of them, and curves between their points.
//!
//! Invariant: pure and total. A fleet of no devices has no kinds, no ratios and flat curves, and nothing divides by zero.

use super::{Report, SiteReport, Totals};

impl Totals {
    /// Of several sites together: what can be summed, and the longest time that an uplink alone needs. Times of devices and
    /// what follows from them are left to whoever knows the devices.
    pub(crate) fn sum<'a>(sites: impl Iterator<Item = &'a Self>) -> Self {
        let mut all = Self::default();
        for site in sites {
            all.devices += site.devices;
            all.wanting += site.wanting;
            all.done += site.done;
            all.one_copy_bytes += site.one_copy_bytes;
            all.origin_bytes += site.origin_bytes;
            all.peer_bytes += site.peer_bytes;
            all.wasted_bytes += site.wasted_bytes;
            all.control_sent_bytes += site.control_sent_bytes;
            all.control_received_bytes += site.control_received_bytes;
            all.uplink_only_s = all.uplink_only_s.max(site.uplink_only_s);
        }
        all
    }

    /// How long the last device took, by what the uplink alone needs; `None` if nobody was done or nothing had to come.
    pub fn last_by_uplink(&self) -> Option<f64> {
        self.last_s.filter(|_| self.uplink_only_s > 0.0).map(|last| last / self.uplink_only_s)
    }

    /// Devices that were told to get something and have not got it.
    pub fn undone(&self) -> u32 {
        self.wanting.saturating_sub(self.done)
    }

    /// `copies`, if anything was wanted.
    pub(crate) fn copies_wanted(&self) -> Option<f64> {
        (self.one_copy_bytes > 0).then_some(self.copies)
    }
}

/// The sites of one kind.
pub(crate) struct Kind<'a> {
    pub(crate) name: &'a str,
    /// At least one.
    pub(crate) sites: Vec<&'a SiteReport>,
}

/// A value at the sites of a kind: the larger, the worse.
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) worst: f64,
}

impl Kind<'_> {
    /// All of them together.
    pub(crate) fn sum(&self, value: impl Fn(&Totals) -> u64) -> u64 {
        self.sites.iter().map(|site| value(&site.totals)).fold(0, u64::saturating_add)
    }

    /// How a value is spread over the sites that have it.
    pub(crate) fn spread(&self, value: impl Fn(&Totals) -> Option<f64>) -> Option<Spread> {
        let mut values: Vec<f64> = self.sites.iter().filter_map(|site| value(&site.totals)).collect();
        values.sort_by(f64::total_cmp);
        let median = *values.get(values.len().saturating_sub(1) / 2)?;
        Some(Spread { median, worst: *values.last()? })
    }

    /// The site that fared worst.
    pub(crate) fn worst(&self) -> Option<&SiteReport> {
        worst_first(self.sites.iter().copied()).first().copied()
    }
}

/// The kinds of sites, in the order in which they first appear.
pub(crate) fn kinds(report: &Report) -> Vec<Kind<'_>> {
    let mut kinds: Vec<Kind<'_>> = Vec::new();
    for site in &report.sites {
        // Scenarios have a handful of kinds, whose sites follow each other: the last is most often the one.
        match kinds.iter_mut().rev().find(|kind| kind.name == site.kind) {
            Some(kind) => kind.sites.push(site),
            None => kinds.push(Kind { name: &site.kind, sites: vec![site] }),
        }
    }
    kinds
}

/// Sites, those first that did not finish, then those that took longest for what their uplink allows, then those that
/// took most copies. Those that are equal stay in their order.
pub(crate) fn worst_first<'a>(sites: impl Iterator<Item = &'a SiteReport>) -> Vec<&'a SiteReport> {
    let mut sites: Vec<_> = sites.collect();
    sites.sort_by(|one, other| {
        let last = |site: &SiteReport| site.totals.last_by_uplink().unwrap_or(0.0);
        (other.totals.undone().cmp(&one.totals.undone()))
            .then_with(|| last(other).total_cmp(&last(one)))
            .then_with(|| other.totals.copies.total_cmp(&one.totals.copies))
    });
    sites
}

/// A cumulative curve's value at a time, on the straight line between two points.
pub(crate) fn value_at(curve: &[(f64, u64)], at: f64) -> f64 {
    let after = curve.partition_point(|(time, _)| *time <= at);
    let Some((from, value)) = after.checked_sub(1).and_then(|before| curve.get(before)) else { return 0.0 };
    let value = *value as f64;
    match curve.get(after) {
        Some((to, next)) if to > from => value + (*next as f64 - value) * ((at - from) / (to - from)).clamp(0.0, 1.0),
        _ => value,
    }
}

/// A staircase's value at a time.
pub(crate) fn count_at(curve: &[(f64, u32)], at: f64) -> u32 {
    let after = curve.partition_point(|(time, _)| *time <= at);
    after.checked_sub(1).and_then(|before| curve.get(before)).map_or(0, |(_, count)| *count)
}

/// When a curve last changed.
pub(crate) fn last_change<T: PartialEq>(curve: &[(f64, T)]) -> f64 {
    let changed = curve.windows(2).rev().find(|pair| pair[0].1 != pair[1].1).map(|pair| pair[1].0);
    changed.or_else(|| curve.first().map(|(at, _)| *at)).unwrap_or(0.0)
}

/// The time that plots of a run show: until nothing changed any more, or all of it if something is missing.
pub(crate) fn shown_s(report: &Report) -> f64 {
    let end = report.ended_s;
    if report.fleet.undone() > 0 || !report.broken.is_empty() {
        return if end > 0.0 { end } else { 1.0 };
    }
    let sites = report.sites.iter().flat_map(|site| [last_change(&site.uplink), last_change(&site.completion)]);
    let releases = report.releases.iter().map(|release| release.at_s + release.spread_s);
    let last = sites.chain(releases).chain([last_change(&report.completion)]).fold(0.0, f64::max);
    // A little more, so that it is seen that it stays so.
    let shown = last * 1.04;
    let shown = if end > 0.0 { shown.min(end.max(last)) } else { shown };
    match shown {
        _ if shown > 0.0 => shown,
        _ if end > 0.0 => end,
        _ => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::report::sample;

    #[test]
    fn kinds_are_in_order_and_complete() {
        let report = sample::fleet(30);
        let kinds = kinds(&report);
        assert_eq!(kinds.iter().map(|kind| kind.sites.len()).sum::<usize>(), report.sites.len());
        assert_eq!(kinds[0].name, report.sites[0].kind);
        for kind in &kinds {
            let spread = kind.spread(Totals::copies_wanted).unwrap();
            assert!(spread.median <= spread.worst);
        }
    }

    #[test]
    fn the_worst_is_who_did_not_finish() {
        let mut report = sample::fleet(30);
        report.sites[7].totals.done = 0;
        assert_eq!(worst_first(report.sites.iter())[0].name, report.sites[7].name);
    }

    #[test]
    fn curves_have_values_between_their_points_and_beyond() {
        let curve = [(1.0, 10), (3.0, 30)];
        for (at, value) in [(0.0, 0.0), (1.0, 10.0), (2.0, 20.0), (9.0, 30.0)] {
            assert!((value_at(&curve, at) - value).abs() < 1e-9, "{at}");
        }
        assert_eq!([count_at(&[(1.0, 1), (2.0, 5)], 1.5), count_at(&[], 3.0)], [1, 0]);
        assert!((last_change(&[(0.0, 0), (1.0, 5), (9.0, 5)]) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn nothing_has_no_ratio() {
        assert_eq!(Totals::default().last_by_uplink(), None);
        assert_eq!(Totals::default().copies_wanted(), None);
        assert!(shown_s(&sample::empty()) > 0.0);
    }

    proptest! {
        #[test]
        fn a_curve_that_rises_rises_between_its_points(
            steps in prop::collection::vec((0.0..10.0_f64, 0..1000_u64), 0..20),
            one in 0.0..200.0_f64,
            other in 0.0..200.0_f64,
        ) {
            let mut point = (0.0, 0);
            let curve: Vec<(f64, u64)> = steps.into_iter().map(|(time, bytes)| {
                point = (point.0 + time, point.1 + bytes);
                point
            }).collect();
            prop_assert!(value_at(&curve, one.min(other)) <= value_at(&curve, one.max(other)) + 1e-6);
        }
    }
}
