//! Links and how flows share them: max-min fair, without looking at all flows.
//!
//! Each link says what share it has for one more flow: what those leave that are held back elsewhere, divided among the
//! others. A piece sets out with the least share of the links that it crosses and keeps it until it has arrived; so
//! shares follow one piece later when flows come and go, and a flow that only waits takes none (asynchronous water
//! filling, as switches tell rates to senders). What a link passed beyond its capacity in the meantime is owed: pieces
//! that set out later take so much longer.
//!
//! Invariants: over time no link passes more than its capacity; with flows that stay the shares converge to the max-min
//! ones; a piece costs as much as its flow has links.

use std::time::Duration;

use layermesh_proto::engine::event::Instant;

/// Links that a flow crosses at most: the sender's and the receiver's.
const CROSSINGS_MAX: usize = 2;
const NANOS_PER_S: f64 = 1e9;

/// A link of the world.
pub(crate) type LinkId = usize;

/// What a way does, beside its rate, to a message or a frame that takes it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way {
    /// How long it takes at least.
    pub(crate) latency: Duration,
    /// Up to so much more, at random.
    pub(crate) jitter: Duration,
    /// Of 1000, those that are lost.
    pub(crate) loss_per_mille: u32,
}

impl Way {
    /// How long one takes for which `drawn` was drawn.
    pub(crate) fn takes(&self, drawn: u32) -> Duration {
        self.latency + self.jitter * (drawn >> 16) / (1 << 16)
    }

    /// Whether one is lost. Nothing is drawn where nothing is ever lost.
    pub(crate) fn loses(&self, draw: &mut impl FnMut() -> u32) -> bool {
        self.loss_per_mille > 0 && draw() % 1000 < self.loss_per_mille
    }
}

/// The way of a flow: each link, and how often it is crossed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route([Option<(LinkId, u64)>; CROSSINGS_MAX]);

impl Route {
    /// Over two links.
    pub(crate) fn over(first: LinkId, second: LinkId) -> Self {
        Self([Some((first, 1)), Some((second, 1))])
    }

    /// Over one link, twice.
    pub(crate) fn twice(link: LinkId) -> Self {
        Self([Some((link, 2)), None])
    }

    fn crossings(self) -> impl Iterator<Item = (LinkId, u64)> {
        self.0.into_iter().flatten()
    }
}

/// A piece on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Passage {
    route: Route,
    /// Its share, in bytes a second.
    rate: u64,
    /// What it really takes, which is less while the link owes, in bytes a second.
    taken: u64,
    /// The link that its share is the least of; none if something else holds it back.
    limit: Option<LinkId>,
}

impl Passage {
    /// Bytes of it that have come after a while.
    pub(crate) fn passed(&self, since: Duration) -> u64 {
        (self.taken as f64 * since.as_secs_f64()) as u64
    }
}

#[derive(Debug, Clone, Copy)]
struct Link {
    /// In bytes a second.
    capacity: u64,
    /// Pieces on their way, by how often they cross it.
    crossing: u64,
    /// Those whose share is this link's.
    held_here: u64,
    /// Bytes a second of the others.
    elsewhere: u64,
    /// Bytes a second that all take.
    taken: u64,
    /// Bytes that were passed beyond the capacity.
    owed: f64,
    /// Until when that was reckoned.
    reckoned: Instant,
}

impl Link {
    fn reckon(&mut self, now: Instant) {
        let passed = now.since(self.reckoned).as_nanos() as f64 / NANOS_PER_S;
        self.owed = (self.owed + (self.taken as f64 - self.capacity as f64) * passed).max(0.0);
        self.reckoned = now;
    }

    /// The share of one more flow that crosses it so often.
    fn share(&self, units: u64) -> u64 {
        let left = self.capacity.saturating_sub(self.elsewhere) / (self.held_here + units);
        // Shares given out long ago may be too large by now.
        left.max(self.capacity / (self.crossing + units)).max(1)
    }
}

/// All links.
#[derive(Debug, Default)]
pub(crate) struct Links(Vec<Link>);

impl Links {
    /// A new link.
    pub(crate) fn add(&mut self, capacity: u64) -> LinkId {
        let nothing = Instant::default();
        let capacity = capacity.max(1);
        self.0.push(Link { capacity, crossing: 0, held_here: 0, elsewhere: 0, taken: 0, owed: 0.0, reckoned: nothing });
        self.0.len() - 1
    }

    /// From now on a link has another capacity; pieces on their way keep their rate.
    pub(crate) fn set_capacity(&mut self, link: LinkId, capacity: u64, now: Instant) {
        if let Some(link) = self.0.get_mut(link) {
            link.reckon(now);
            link.capacity = capacity.max(1);
        }
    }

    /// A piece sets out, at `rate_max` at most. Returns how long it takes.
    pub(crate) fn set_out(&mut self, route: Route, bytes: u64, rate_max: u64, now: Instant) -> (Duration, Passage) {
        let (mut rate, mut limit, mut owed) = (rate_max.max(1), None, 0.0_f64);
        for (id, units) in route.crossings() {
            let link = &mut self.0[id];
            link.reckon(now);
            let share = link.share(units);
            if share < rate {
                (rate, limit) = (share, Some(id));
            }
            owed = owed.max(link.owed / link.capacity as f64);
        }
        let seconds = bytes as f64 / rate as f64 + owed;
        let taken = (bytes as f64 / seconds.max(1.0 / NANOS_PER_S)) as u64;
        let passage = Passage { route, rate, taken: taken.min(rate), limit };
        for (id, units) in route.crossings() {
            let link = &mut self.0[id];
            link.crossing += units;
            link.taken += passage.taken * units;
            if limit == Some(id) {
                link.held_here += units;
            } else {
                link.elsewhere += rate * units;
            }
        }
        (Duration::from_nanos((seconds * NANOS_PER_S) as u64), passage)
    }

    /// A piece has arrived, or its flow is gone.
    pub(crate) fn arrive(&mut self, passage: Passage, now: Instant) {
        for (id, units) in passage.route.crossings() {
            let link = &mut self.0[id];
            link.reckon(now);
            link.crossing -= units;
            link.taken -= passage.taken * units;
            if passage.limit == Some(id) {
                link.held_here -= units;
            } else {
                link.elsewhere -= passage.rate * units;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cmp::Reverse, collections::BinaryHeap};

    use super::*;

    const PIECE: u64 = 256 << 10;

    /// The max-min fair rates by filling all flows alike until a link is full, again and again.
    fn filled(capacities: &[u64], routes: &[Route]) -> Vec<f64> {
        let mut rates = vec![None; routes.len()];
        while rates.contains(&None) {
            let level = |link: usize| {
                let of = |flow: usize| routes[flow].crossings().find(|(id, _)| *id == link).map(|(_, units)| units);
                let (mut left, mut open) = (capacities[link] as f64, 0.0);
                for (flow, rate) in rates.iter().enumerate() {
                    match (of(flow), rate) {
                        (Some(units), Some(rate)) => left -= rate * units as f64,
                        (Some(units), None) => open += units as f64,
                        (None, _) => {}
                    }
                }
                (open > 0.0).then(|| (left / open, link))
            };
            let (rate, link) = (0..capacities.len()).filter_map(level).min_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
            for (flow, route) in routes.iter().enumerate() {
                if rates[flow].is_none() && route.crossings().any(|(id, _)| id == link) {
                    rates[flow] = Some(rate);
                }
            }
        }
        rates.into_iter().flatten().collect()
    }

    /// What each flow of endless pieces got in the second half of a time.
    fn simulated(capacities: &[u64], routes: &[Route], seconds: u64) -> Vec<f64> {
        let mut links = Links::default();
        capacities.iter().for_each(|capacity| {
            links.add(*capacity);
        });
        let (half, end) = (seconds * 500_000_000, seconds * 1_000_000_000);
        let mut due = BinaryHeap::new();
        let mut got = vec![0_u64; routes.len()];
        let mut on_way = Vec::new();
        for (flow, route) in routes.iter().enumerate() {
            let (after, passage) = links.set_out(*route, PIECE, u64::MAX, Instant::default());
            due.push(Reverse((after.as_nanos() as u64, flow)));
            on_way.push(passage);
        }
        while let Some(Reverse((at, flow))) = due.pop().filter(|Reverse((at, _))| *at < end) {
            let now = Instant::from_nanos(at);
            links.arrive(on_way[flow], now);
            got[flow] += if at > half { PIECE } else { 0 };
            let (after, passage) = links.set_out(routes[flow], PIECE, u64::MAX, now);
            on_way[flow] = passage;
            due.push(Reverse((at + after.as_nanos() as u64, flow)));
        }
        got.into_iter().map(|bytes| bytes as f64 * 2.0 / seconds as f64).collect()
    }

    fn converges(capacities: &[u64], routes: &[Route]) {
        let (fair, got) = (filled(capacities, routes), simulated(capacities, routes, 400));
        for (flow, (fair, got)) in fair.iter().zip(&got).enumerate() {
            let off = (got - fair).abs() / fair;
            assert!(off < 0.05, "flow {flow} of {routes:?} over {capacities:?}: {got:.0} where {fair:.0} is fair");
        }
    }

    #[test]
    fn flows_that_stay_get_their_max_min_shares() {
        let mb = 1_000_000;
        // Three over one link, of which one is held back by another link.
        converges(&[10 * mb, mb, 100 * mb], &[Route::over(0, 1), Route::over(0, 2), Route::over(0, 2)]);
        // A chain of bottlenecks.
        let chain = [Route::over(0, 1), Route::over(0, 3), Route::over(1, 2), Route::over(1, 3), Route::over(2, 3)];
        converges(&[3 * mb, 8 * mb, 2 * mb, 90 * mb], &chain);
        // A radio that some cross twice.
        converges(&[6 * mb, mb, mb], &[Route::twice(0), Route::over(0, 1), Route::over(0, 2), Route::twice(0)]);
        // Many senders to few receivers.
        let many: Vec<_> = (0..24).map(|flow| Route::over(flow % 7, 7 + flow % 3)).collect();
        let capacities = [4, 9, 2, 7, 5, 30, 3, 11, 6, 8].map(|rate| rate * mb);
        converges(&capacities, &many);
    }

    #[test]
    fn no_link_passes_more_than_it_can_while_flows_come_and_go() {
        let mut links = Links::default();
        let (uplink, port) = (links.add(250_000), links.add(125_000_000));
        let (mut now, mut passed, mut on_way) = (0_u64, 0, Vec::new());
        for round in 0..2000_u64 {
            // A flow of one piece comes every 1.3 s on average, in bursts, and takes about one.
            if round % 4 < 3 {
                let (after, passage) =
                    links.set_out(Route::over(uplink, port), PIECE, u64::MAX, Instant::from_nanos(now));
                on_way.push((now + after.as_nanos() as u64, passage));
            }
            on_way.sort_by_key(|(at, _)| *at);
            while on_way.first().is_some_and(|(at, _)| *at <= now) {
                let (at, passage) = on_way.remove(0);
                links.arrive(passage, Instant::from_nanos(at));
                passed += PIECE;
            }
            now += 1_000_000_000;
        }
        let seconds = now as f64 / NANOS_PER_S;
        assert!((passed as f64) < 250_000.0 * 1.02 * seconds, "{passed} bytes in {seconds} s");
    }

    #[test]
    fn a_flow_that_something_else_holds_back_leaves_the_rest_to_others() {
        let mut links = Links::default();
        let (uplink, one, two) = (links.add(1000), links.add(9000), links.add(9000));
        let (_, slow) = links.set_out(Route::over(uplink, one), 100, 10, Instant::default());
        let (time, _) = links.set_out(Route::over(uplink, two), 990, u64::MAX, Instant::default());
        assert_eq!(time, Duration::from_secs(1));
        links.arrive(slow, Instant::default());
        assert_eq!(links.0[uplink].elsewhere, 0);
    }
}
