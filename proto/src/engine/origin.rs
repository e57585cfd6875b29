//! Whether origins answer.
//!
//! Invariant: an origin counts as down only for a limited time after it did not answer, so one that is back is
//! always found by asking it. An origin that answers with an error is reachable.

use std::{collections::BTreeMap, time::Duration};

use super::event::Instant;

#[derive(Debug)]
struct Origin {
    reachable: bool,
    /// It is not asked first until then.
    avoid_until: Instant,
    /// When it was last asked in the background.
    probed: Option<Instant>,
    touched: Instant,
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
        let fresh = Origin { reachable: true, avoid_until: now, probed: None, touched: now };
        let origin = self.known.entry(registry.to_owned()).or_insert(fresh);
        origin.touched = now;
        origin
    }

    /// An origin answered. Returns whether that is news: it did not before.
    pub(super) fn answered(&mut self, registry: &str, now: Instant, origins_max: usize) -> bool {
        let origin = self.entry(registry, now, origins_max);
        origin.avoid_until = now;
        !std::mem::replace(&mut origin.reachable, true)
    }

    /// An origin did not answer. Returns whether that is news: it did before, or was never asked.
    pub(super) fn unreachable(&mut self, registry: &str, now: Instant, down_for: Duration, origins_max: usize) -> bool {
        let origin = self.entry(registry, now, origins_max);
        origin.avoid_until = now + down_for;
        std::mem::replace(&mut origin.reachable, false)
    }

    /// An origin asked to be left alone.
    pub(super) fn busy(&mut self, registry: &str, now: Instant, wait: Duration, origins_max: usize) {
        let origin = self.entry(registry, now, origins_max);
        origin.avoid_until = origin.avoid_until.max(now + wait);
    }

    /// Whether an origin is better not asked while others can answer.
    pub(super) fn is_down(&self, registry: &str, now: Instant) -> bool {
        self.known.get(registry).is_some_and(|origin| origin.avoid_until > now)
    }

    /// Whether a background question to an origin that is down is due; it then counts as asked.
    pub(super) fn take_probe(&mut self, registry: &str, now: Instant, interval: Duration) -> bool {
        let Some(origin) = self.known.get_mut(registry) else { return false };
        let due = origin.probed.is_none_or(|probed| now.since(probed) >= interval);
        if due {
            origin.probed = Some(now);
        }
        due
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

    #[test]
    fn an_origin_is_down_for_a_while_only_and_news_is_told_once() {
        let (now, down) = (Instant::default(), Duration::from_secs(10));
        let mut origins = Origins::default();
        assert!(!origins.answered("a", now, 2), "an origin that answers at first is no news");
        assert!(origins.unreachable("a", now, down, 2));
        assert!(!origins.unreachable("a", now, down, 2));
        assert!(origins.is_down("a", now + down / 2));
        assert!(!origins.is_down("a", now + down));
        assert!(origins.answered("a", now + down / 2, 2));
        assert!(!origins.is_down("a", now + down / 2));
    }

    #[test]
    fn probes_are_rare_and_the_least_used_origin_is_forgotten() {
        let (now, down) = (Instant::default(), Duration::from_secs(10));
        let mut origins = Origins::default();
        origins.unreachable("a", now, down, 2);
        assert!(origins.take_probe("a", now, down));
        assert!(!origins.take_probe("a", now + down / 2, down));
        assert!(origins.take_probe("a", now + down, down));
        origins.answered("b", now + down, 2);
        origins.answered("c", now + down * 2, 2);
        assert_eq!(origins.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["b", "c"]);
    }
}
