//! What each part of a new tar is made of.

use layermesh_proto::patch::{Op, Sizes};

use super::{
    align::{Stretch, align},
    entries::{Entry, entries, partners},
    fill::Filler,
    index::common,
    window::Window,
};

/// Stretches that are shorter, or of which less is right, are not worth the way there.
const STRETCH_MIN: usize = 8;

/// The ops that make `new` from `old`. `progress` is told how many bytes of `new` are planned.
pub(super) fn plan(old: &[u8], new: &[u8], sizes: Sizes, mut progress: impl FnMut(u64)) -> Vec<Op> {
    let (olds, news) = (entries(old), entries(new));
    let partners = partners(old, &olds, new, &news);
    let backbone = backbone(&olds, &news, &partners);
    let (window_log, history_log) = (sizes.window_log.into(), sizes.history_log.into());
    let mut planner = Planner {
        new,
        window: Window::new(old, window_log),
        filler: Filler::new(window_log, history_log),
        ops: Vec::new(),
    };
    for (at, entry) in news.iter().enumerate() {
        planner.window.keep(backbone[at]);
        match partners[at].map(|partner| &olds[partner]) {
            Some(partner) => planner.entry(entry, partner),
            None => planner.fill(entry.at.start, entry.at.end),
        }
        progress(entry.at.end as u64);
    }
    merged(planner.ops)
}

/// For each new entry the old place that the entries after it need first. They are those that are in the same order in
/// both tars, the most bytes of them that can be.
fn backbone(olds: &[Entry], news: &[Entry], partners: &[Option<usize>]) -> Vec<usize> {
    // The heaviest increasing sequence: for each old entry the best weight of a sequence that ends there or before.
    let mut best = Fenwick::new(olds.len());
    let mut chosen: Vec<Option<(u64, usize)>> = Vec::with_capacity(news.len());
    let mut from = vec![None; news.len()];
    for (at, partner) in partners.iter().enumerate() {
        chosen.push(partner.map(|partner| {
            let (weight, before) = best.most(partner + 1);
            from[at] = before;
            let weight = weight + news[at].at.len() as u64;
            best.raise(partner, weight, at);
            (weight, partner)
        }));
    }
    let mut next = best.most(olds.len()).1;
    let mut kept = vec![false; news.len()];
    while let Some(at) = next {
        kept[at] = true;
        next = from[at];
    }
    let mut needed = vec![usize::MAX >> 1; news.len()];
    let mut first = usize::MAX >> 1;
    for at in (0..news.len()).rev() {
        needed[at] = first;
        if let (true, Some((_, partner))) = (kept[at], chosen[at]) {
            first = olds[partner].at.start;
        }
    }
    needed
}

/// The greatest weight up to a place, and whose it is.
struct Fenwick(Vec<(u64, Option<usize>)>);

impl Fenwick {
    fn new(len: usize) -> Self {
        Self(vec![(0, None); len + 1])
    }

    fn raise(&mut self, at: usize, weight: u64, by: usize) {
        let mut at = at + 1;
        while at < self.0.len() {
            if weight > self.0[at].0 {
                self.0[at] = (weight, Some(by));
            }
            at += at & at.wrapping_neg();
        }
    }

    fn most(&self, mut count: usize) -> (u64, Option<usize>) {
        let mut most = (0, None);
        while count > 0 {
            if self.0[count].0 > most.0 {
                most = self.0[count];
            }
            count &= count - 1;
        }
        most
    }
}

struct Planner<'a> {
    new: &'a [u8],
    window: Window<'a>,
    filler: Filler,
    ops: Vec<Op>,
}

impl Planner<'_> {
    fn entry(&mut self, entry: &Entry, partner: &Entry) {
        let (old, new) = (self.window.old, self.new);
        let head = 512.min(entry.at.len()).min(partner.at.len());
        let content = (&old[partner.at.start + head..partner.at.end], &new[entry.at.start + head..entry.at.end]);
        let reachable = self.window.allows(partner.at.start, partner.at.len().min(self.window.back()));
        if !reachable {
            return self.fill(entry.at.start, entry.at.end);
        }
        let stretches = if content.0.len() == content.1.len() && common(content.0, content.1) == content.0.len() {
            vec![Stretch { new_at: entry.at.start, old_at: partner.at.start, len: entry.at.len() }]
        } else {
            align(old, partner.at.clone(), new, entry.at.clone(), self.window.back())
        };
        let mut at = entry.at.start;
        for stretch in stretches {
            if stretch.len < STRETCH_MIN || !self.window.holds(stretch.old_at) {
                continue;
            }
            self.fill(at, stretch.new_at);
            self.ops.push(Op::Aligned { old_at: stretch.old_at as u64, len: stretch.len as u64 });
            self.window.used(stretch.old_at, stretch.len);
            at = stretch.new_at + stretch.len;
        }
        self.fill(at, entry.at.end);
    }

    fn fill(&mut self, from: usize, to: usize) {
        if from < to {
            self.filler.fill(&mut self.window, self.new, from..to, &mut self.ops);
        }
    }
}

/// Ops that go on where the last one ended, as one.
fn merged(ops: Vec<Op>) -> Vec<Op> {
    let mut out: Vec<Op> = Vec::with_capacity(ops.len());
    for op in ops {
        match (out.last_mut(), op) {
            (Some(Op::Aligned { old_at, len }), Op::Aligned { old_at: next, len: more }) if *old_at + *len == next => {
                *len += more;
            }
            (Some(Op::Literal { len }), Op::Literal { len: more }) => *len += more,
            _ => out.push(op),
        }
    }
    out
}
