//! Safety: limits and budgets that hold after every event.
//!
//! - A node has at most so many fetches of one blob, blobs under way, open wants and open questions to origins as the engine's
//!   limits say.
//! - It asks an origin for one run of a blob at a time, only what somebody at it wants, and not again and again in vain.
//! - What nobody waits for comes from origins only while the budget allows it, by the node's own wall clock.
//! - Site and node keep to the site's rate.
//!
//! The limits are those that the world was made with, whatever its engines were told.

use std::collections::BTreeSet;

use layermesh_proto::engine::{
    Config, Urgency,
    budget::{MINUTES_PER_WEEK, Verdict},
    event::{Action, Instant, Source},
};

use crate::node::{Flow, Node};

/// Most fetches of a node in a row that bring nothing, in a minute. 2,000: twenty rounds of eight fetches for each of a dozen
/// blobs; real ones wait between two rounds.
pub(crate) const FRUITLESS_MAX: u32 = 2_000;
/// In which that is looked at.
const MINUTE_NANOS: u64 = 60_000_000_000;
/// In which the site's rate is looked at: some leases of a claim, so that lost words are made up for.
const RATE_NANOS: u64 = 10_000_000_000;
/// Seconds at its rate that a site may take in that time: words on who fetches are lost, and nodes' shares are too large until
/// the next.
const RATE_SECONDS: u64 = 25;
/// What each node may take besides, in bytes: a largest piece, which was on its way when its share fell.
const RATE_BURST_BYTES: u64 = 1 << 20;

fn is_of_origin(flow: &Flow) -> bool {
    matches!(flow.source, Source::Origin(..))
}

/// Checks an action before it is performed.
pub(crate) fn action(node: &Node, action: &Action, rules: &Config) -> Result<(), String> {
    let limits = &rules.limits;
    match action {
        Action::Fetch { content, source, .. } => {
            let of_blob = node.flows.values().filter(|flow| flow.content == *content).count();
            at_most("fetches of one blob", of_blob + 1, rules.fetches_per_transfer)?;
            if of_blob == 0 {
                let blobs: BTreeSet<_> = node.flows.values().map(|flow| flow.content).collect();
                at_most("blobs under way", blobs.len() + 1, limits.transfers)?;
            }
            let open = |want: &&crate::node::Want| want.content == *content && want.ended.is_none();
            if !node.wants.values().any(|want| open(&want)) {
                return Err(format!("{content} is fetched and nobody wants it"));
            }
            let same = |flow: &&Flow| flow.content == *content && is_of_origin(flow);
            if matches!(source, Source::Origin(..)) && node.flows.values().any(|flow| same(&flow)) {
                return Err(format!("{content} is asked of an origin twice at a time"));
            }
            if node.fruitless.count >= FRUITLESS_MAX {
                return Err(format!("{FRUITLESS_MAX} fetches in a row brought nothing"));
            }
            Ok(())
        }
        Action::AskOrigin { .. } => at_most("questions to origins", node.lookups + 1, limits.lookups),
        Action::PaceUplink { bytes_per_s } if *bytes_per_s > rules.uplink.site_bytes_per_s.unwrap_or(u64::MAX) => {
            Err(format!("{bytes_per_s} bytes a second are more than the site's rate"))
        }
        _ => Ok(()),
    }
}

fn at_most(what: &str, found: usize, max: usize) -> Result<(), String> {
    if found <= max { Ok(()) } else { Err(format!("{found} {what} at a time, at most {max} are allowed")) }
}

/// Checks what a node has, all of it: now and then.
pub(crate) fn all(node: &Node, rules: &Config) -> Result<(), String> {
    let Some(engine) = &node.engine else { return Ok(()) };
    at_most("transfers", engine.transfers().count(), rules.limits.transfers)?;
    at_most("peers", engine.peers().count(), rules.limits.peers)?;
    let open = node.wants.values().filter(|want| want.ended.is_none()).count();
    at_most("wants", open, rules.limits.wants)
}

/// Checks that no origin is asked for what nobody waits for while that has to wait. `minute_of_week` is what the node's wall
/// clock shows; engines count minutes from when they were told, so the minutes beside it count too.
pub(crate) fn budget(node: &Node, rules: &Config, minute_of_week: Option<u16>) -> Result<(), String> {
    let allowed =
        |minute: Option<u16>| matches!(rules.uplink.verdict(Urgency::Background, minute, 0), Verdict::Allowed(_));
    let near = |minute: u16| {
        [MINUTES_PER_WEEK - 1, 0, 1].into_iter().any(|off| allowed(Some((minute + off) % MINUTES_PER_WEEK)))
    };
    for flow in node.flows.values().filter(|flow| is_of_origin(flow)) {
        let mut wants = node.wants.values().filter(|want| want.content == flow.content && want.ended.is_none());
        let waits = wants.any(|want| want.urgency == Urgency::Runtime);
        if !waits && !minute_of_week.map_or_else(|| allowed(None), near) {
            return Err(format!("{} is asked of an origin outside its budget", flow.content));
        }
    }
    Ok(())
}

/// Fetches that brought nothing.
#[derive(Debug, Default)]
pub(crate) struct Fruitless {
    minute: u64,
    count: u32,
}

impl Fruitless {
    /// One is begun.
    pub(crate) fn begin(&mut self, now: Instant) {
        let minute = now.as_nanos() / MINUTE_NANOS;
        if minute != self.minute {
            *self = Self { minute, count: 0 };
        }
        self.count += 1;
    }

    /// One brought something.
    pub(crate) fn reset(&mut self) {
        self.count = 0;
    }
}

/// What a site took from origins in the ten seconds that run.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    span: u64,
    bytes: u64,
}

impl Meter {
    /// Bytes came from an origin to a site of so many nodes.
    pub(crate) fn take(&mut self, bytes: u64, now: Instant, nodes: usize, rate: u64) -> Result<(), String> {
        let span = now.as_nanos() / RATE_NANOS;
        if span != self.span {
            (self.span, self.bytes) = (span, 0);
        }
        self.bytes += bytes;
        let burst = RATE_BURST_BYTES.saturating_mul(nodes as u64);
        let max = rate.saturating_mul(RATE_SECONDS).saturating_add(burst);
        if self.bytes <= max {
            return Ok(());
        }
        Err(format!(
            "{} bytes from origins within ten seconds are more than the site's rate allows ({max})",
            self.bytes
        ))
    }
}
