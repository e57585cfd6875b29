//! Whether origins answer.
//!
//! Invariants: an origin that did not say what a tag stands for counts as away until it answers something; meanwhile it is
//! probed with the tag that was last asked for, more and more seldom, and as long as somebody asks. One whose bytes did not come
//! counts as down for a limited time only, since nothing probes for bytes, and gets little time for its first byte for a
//! while. An origin that answers that it does not have something, or that access is denied, is reachable.

use std::{collections::BTreeMap, time::Duration};

use super::event::Instant;
use crate::TagRef;

/// An origin that did not say what a tag stands for.
#[derive(Debug)]
struct Away {
    /// What to probe it with.
    reference: TagRef,
    /// When; `None` while a probe is under way.
    probe_at: Option<Instant>,
    /// Before the next probe, should this one fail, too.
    wait: Duration,
    /// When somebody last asked for a tag.
    asked: Instant,
}

#[derive(Debug)]
struct Origin {
    reachable: bool,
    /// It is not asked first until then.
    avoid_until: Instant,
    /// Its bytes are not waited for for long until then.
    silent_until: Instant,
    away: Option<Away>,
    touched: Instant,
}

/// When to probe.
#[derive(Debug, Clone, Copy)]
pub(super) struct Probing {
    /// After an origin went away.
    pub(super) first: Duration,
    /// At the most, between two probes.
    pub(super) max: Duration,
    /// Since somebody last asked for a tag.
    pub(super) idle_max: Duration,
}

/// Registries that were asked.
#[derive(Debug, Default)]
pub(super) struct Origins {
    known: BTreeMap<String, Origin>,
}

impl Origins {
    fn entry(&mut self, registry: &str, now: Instant, origins_max: usize) -> &mut Origin {
        let new = !self.known.contains_key(registry);
        if new
            && self.known.len() >= origins_max
            && let Some(oldest) =
                self.known.iter().min_by_key(|(_, origin)| origin.touched).map(|(name, _)| name.clone())
        {
            self.known.remove(&oldest);
        }
        let fresh = Origin { reachable: true, avoid_until: now, silent_until: now, away: None, touched: now };
        let origin = self.known.entry(registry.to_owned()).or_insert(fresh);
        origin.touched = now;
        origin
    }

    /// An origin answered. Returns whether that is news: it did not before.
    pub(super) fn answered(&mut self, registry: &str, now: Instant, origins_max: usize) -> bool {
        let origin = self.entry(registry, now, origins_max);
        (origin.avoid_until, origin.silent_until, origin.away) = (now, now, None);
        !std::mem::replace(&mut origin.reachable, true)
    }

    /// An origin did not give bytes. Returns whether that is news: it did before, or was never asked.
    pub(super) fn unreachable(&mut self, registry: &str, now: Instant, down_for: Duration, origins_max: usize) -> bool {
        let origin = self.entry(registry, now, origins_max);
        origin.avoid_until = now + down_for;
        std::mem::replace(&mut origin.reachable, false)
    }

    /// An origin did not say what a tag stands for. Returns whether that is news.
    pub(super) fn away(&mut self, reference: &TagRef, now: Instant, probing: Probing, origins_max: usize) -> bool {
        let origin = self.entry(reference.repository().registry(), now, origins_max);
        match &mut origin.away {
            // Somebody else's question failed beside the probe.
            Some(Away { probe_at: Some(_), .. }) => {}
            Some(away) => {
                away.probe_at = Some(now + away.wait);
                away.wait = away.wait.saturating_mul(2).min(probing.max);
            }
            none => {
                let wait = probing.first.saturating_mul(2).min(probing.max);
                let probe_at = Some(now + probing.first);
                *none = Some(Away { reference: reference.clone(), probe_at, wait, asked: now });
            }
        }
        std::mem::replace(&mut origin.reachable, false)
    }

    /// Somebody asked for a tag of an origin that is away.
    pub(super) fn missed(&mut self, reference: &TagRef, now: Instant) {
        let origin = self.known.get_mut(reference.repository().registry());
        if let Some(away) = origin.and_then(|origin| origin.away.as_mut()) {
            away.asked = now;
            away.reference = reference.clone();
        }
    }

    /// The tags to probe with now; the probes then count as under way. Origins that nobody asks for any more are forgotten.
    pub(super) fn take_probes(&mut self, now: Instant, probing: Probing) -> Vec<TagRef> {
        self.known.retain(|_, origin| origin.away.as_ref().is_none_or(|away| now.since(away.asked) < probing.idle_max));
        let away = self.known.values_mut().filter_map(|origin| origin.away.as_mut());
        let due = away.filter(|away| away.probe_at.is_some_and(|at| at <= now));
        due.map(|away| {
            away.probe_at = None;
            away.reference.clone()
        })
        .collect()
    }

    /// When the next probe is due.
    pub(super) fn next_probe(&self) -> Option<Instant> {
        self.known.values().filter_map(|origin| origin.away.as_ref()?.probe_at).min()
    }

    /// An origin let a fetch wait for its first byte for too long: the next ones wait less for a while.
    pub(super) fn silent(&mut self, registry: &str, now: Instant, silent_for: Duration, origins_max: usize) {
        let origin = self.entry(registry, now, origins_max);
        if origin.silent_until <= now {
            origin.silent_until = now + silent_for;
        }
    }

    /// Whether an origin's first byte is not to be waited for for long.
    pub(super) fn is_silent(&self, registry: &str, now: Instant) -> bool {
        self.known.get(registry).is_some_and(|origin| origin.silent_until > now || origin.away.is_some())
    }

    /// An origin asked to be left alone.
    pub(super) fn busy(&mut self, registry: &str, now: Instant, wait: Duration, origins_max: usize) {
        let origin = self.entry(registry, now, origins_max);
        origin.avoid_until = origin.avoid_until.max(now + wait);
    }

    /// Whether an origin is better not asked while others can answer.
    pub(super) fn is_down(&self, registry: &str, now: Instant) -> bool {
        self.known.get(registry).is_some_and(|origin| origin.avoid_until > now || origin.away.is_some())
    }

    /// Whether any origin answered last time; `None` if none was asked.
    pub(super) fn any_reachable(&self) -> Option<bool> {
        (!self.known.is_empty()).then(|| self.known.values().any(|origin| origin.reachable))
    }

    /// Every registry asked, and whether it answered last time.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, bool)> {
        self.known.iter().map(|(registry, origin)| (registry.as_str(), origin.reachable))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Repository;

    const PROBING: Probing =
        Probing { first: Duration::from_secs(1), max: Duration::from_secs(3), idle_max: Duration::from_secs(100) };

    fn at(seconds: u64) -> Instant {
        Instant::default() + Duration::from_secs(seconds)
    }

    fn tag(registry: &str, tag: &str) -> TagRef {
        TagRef::new(Repository::new(registry, "app").unwrap(), tag).unwrap()
    }

    #[test]
    fn an_origin_without_bytes_is_down_for_a_while_only_and_news_is_told_once() {
        let down = Duration::from_secs(10);
        let mut origins = Origins::default();
        assert!(!origins.answered("a", at(0), 2), "an origin that answers at first is no news");
        assert!(origins.unreachable("a", at(0), down, 2));
        assert!(!origins.unreachable("a", at(0), down, 2));
        assert!(origins.is_down("a", at(5)) && !origins.is_down("a", at(10)));
        assert!(origins.answered("a", at(5), 2));
        assert!(!origins.is_down("a", at(5)));
    }

    #[test]
    fn an_origin_that_is_away_is_probed_ever_more_seldom_until_it_answers() {
        let mut origins = Origins::default();
        assert!(origins.away(&tag("a", "v1"), at(0), PROBING, 2));
        let mut probes = Vec::new();
        for second in 0..20 {
            for reference in origins.take_probes(at(second), PROBING) {
                probes.push(second);
                assert!(!origins.away(&reference, at(second), PROBING, 2));
            }
        }
        assert_eq!(probes, [1, 3, 6, 9, 12, 15, 18]);
        assert!(origins.is_down("a", at(50)));
        origins.missed(&tag("a", "v2"), at(20));
        assert_eq!(origins.take_probes(at(21), PROBING), [tag("a", "v2")], "what was asked for last");
        assert_eq!((origins.next_probe(), origins.take_probes(at(90), PROBING).len()), (None, 0), "one at a time");
        assert!(origins.answered("a", at(22), 2));
        assert!(!origins.is_down("a", at(22)));
    }

    #[test]
    fn an_origin_that_nobody_asks_for_is_forgotten_and_so_is_the_least_used_one() {
        let mut origins = Origins::default();
        origins.away(&tag("a", "v1"), at(0), PROBING, 2);
        assert!(origins.take_probes(at(100), PROBING).is_empty());
        assert!(!origins.is_down("a", at(100)));
        origins.answered("a", at(101), 2);
        origins.answered("b", at(102), 2);
        origins.answered("c", at(103), 2);
        assert_eq!(origins.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["b", "c"]);
    }

    #[test]
    fn a_silent_origin_is_given_all_its_time_again_after_a_while() {
        let mut origins = Origins::default();
        let minute = Duration::from_secs(60);
        origins.unreachable("a", at(0), minute, 2);
        origins.silent("a", at(0), minute, 2);
        origins.silent("a", at(50), minute, 2);
        assert!(origins.is_silent("a", at(59)) && !origins.is_silent("a", at(60)));
        origins.silent("a", at(70), minute, 2);
        origins.answered("a", at(71), 2);
        assert!(!origins.is_silent("a", at(71)));
    }
}
