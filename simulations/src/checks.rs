//! Safety: what must hold after every event, whatever happens.
//!
//! - Nothing is served as whole that is not.
//! - Nothing is announced, and no want ends well, unless the store holds the blob whole.
//! - What the store takes for whole has all its pieces, and they are the blob's.
//! - No piece that is durable is asked for, and none of two sources at a time.
//! - The engine and the store agree on the state of every piece of a transfer.
//! - One event leads to a bounded number of actions, and what they say can be said on the wire.
//!
//! Limits and budgets are in `limits.rs`.
//!
//! After an event those pieces are looked at that it or what came of it concerned, and all of a node's now and then
//! ([`CHECK_ALL_EVERY`]): so a check costs about as much as the event.

use std::{error::Error, fmt, ops::Range};

use layermesh_proto::{
    ContentId, PieceIndex, PieceLayout,
    engine::{
        Engine, PieceState,
        event::{Action, Instant, Source},
    },
    wire::{Announcement, Change, ControlResponse, EncodeError, Entry},
};

use crate::{
    node::{Fault, Flow, Node},
    store::Partial,
};

/// Most actions that one event may lead to: every want of a full transfer ends, and some more.
pub const ACTIONS_PER_EVENT_MAX: usize = 10_000;
/// Events of a node after which all its pieces are checked; as many as it has pieces, if they are more.
pub const CHECK_ALL_EVERY: u32 = 256;

/// A safety rule was broken.
#[derive(Clone, PartialEq, Eq)]
pub struct Violation {
    /// Seed of the run.
    pub seed: u64,
    /// When.
    pub at: Instant,
    /// At which node.
    pub node: usize,
    /// What.
    pub what: String,
    /// The last things that happened to the node, if the world explains itself.
    pub recent: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.at.as_nanos() / 1_000_000;
        writeln!(f, "seed {}, at {ms} ms, node {}: {}", self.seed, self.node, self.what)?;
        self.recent.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

/// As it displays: tests unwrap it, and people read it.
impl fmt::Debug for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for Violation {}

/// Checks an action before it is performed.
pub(crate) fn action(node: &Node, action: &Action) -> Result<(), String> {
    match action {
        Action::Announce(Announcement::Changed { changes, .. }) => announced(node, changes),
        Action::Respond { response: ControlResponse::Inventory(page), .. } => announced(node, &page.changes),
        Action::Fetch { fetch, content, pieces, .. } => {
            let same = |flow: &&Flow| flow.content == *content;
            let overlaps = |flow: &&Flow| awaited(flow).start < pieces.end && pieces.start < flow.end;
            // Only what its owner gave up may still be on its way.
            let given_up = |flow: &&Flow| !matches!(flow.source, Source::Origin(..));
            if let Some(flow) = node.flows.values().filter(same).filter(overlaps).find(given_up) {
                return Err(format!("fetch {fetch} of {content} {pieces:?} while {flow:?} runs"));
            }
            let durable = node.store.partial.get(content).map(|partial| partial.pieces.range(pieces.clone()).next());
            match durable.flatten() {
                Some((piece, _)) => Err(format!("fetch {fetch} of {content} asks for piece {piece}, which is durable")),
                None => Ok(()),
            }
        }
        Action::WantEnded { want, result } => match node.wants.get(want) {
            None => Err(format!("want {want} ended, but nobody has it")),
            Some(known) if known.ended.is_some() => Err(format!("want {want} ended twice")),
            Some(known) if result.is_ok() && !node.store.whole.contains_key(&known.content) => {
                Err(format!("want {want} ended well without {}", known.content))
            }
            Some(_) => Ok(()),
        },
        _ => Ok(()),
    }
}

fn announced(node: &Node, changes: &[Change]) -> Result<(), String> {
    let lie = |content: &ContentId, size: u64| node.store.whole.get(content) != Some(&size);
    for change in changes {
        match &change.entry {
            Entry::Held { content, size } if lie(content, *size) && node.fault != Some(Fault::HasNothing) => {
                return Err(format!("{content} is announced and not held"));
            }
            Entry::Held { .. } | Entry::Gone { .. } | Entry::Bound(_) | Entry::Following(_) => {}
        }
    }
    Ok(())
}

/// The bytes that a message takes; a message that has no encoding breaks a rule.
pub(crate) fn encoded(message: Result<Vec<u8>, EncodeError>) -> Result<u64, String> {
    message.map(|bytes| bytes.len() as u64).map_err(|error| format!("says what cannot be said: {error}"))
}

/// Checks what a store took for whole.
pub(crate) fn whole(content: &ContentId, taken: &Partial) -> Result<(), String> {
    if taken.is_whole(content) { Ok(()) } else { Err(format!("{content} is taken for whole and is not")) }
}

/// Checks what a node sends to a fetch that takes it for the whole blob.
pub(crate) fn served(sender: &Node, flow: &Flow) -> Result<(), String> {
    if flow.growing || sender.fault.is_some() || sender.store.whole.contains_key(&flow.content) {
        return Ok(());
    }
    Err(format!("{} is served as whole and is not", flow.content))
}

/// The pieces that a flow is still to bring.
fn awaited(flow: &Flow) -> Range<PieceIndex> {
    flow.landed.max(flow.first)..flow.end
}

/// Checks that engine and store agree on all pieces of all transfers, and says how many those are.
pub(crate) fn pieces(node: &Node) -> Result<u32, String> {
    let Some(engine) = &node.engine else { return Ok(0) };
    let mut checked = 0_u32;
    for transfer in engine.transfers() {
        run(node, engine, &transfer.content, (transfer.size, 0..PieceIndex::MAX))?;
        let count = transfer.size.and_then(PieceLayout::for_size).map_or(0, |layout| layout.count());
        checked = checked.saturating_add(count);
    }
    Ok(checked)
}

/// The same for those that something concerned.
pub(crate) fn touched(node: &Node, runs: &[(ContentId, Range<PieceIndex>)]) -> Result<(), String> {
    let Some(engine) = &node.engine else { return Ok(()) };
    for (at, (content, pieces)) in runs.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|before| runs.get(before));
        if before != Some(&(*content, pieces.clone())) {
            run(node, engine, content, (engine.size_of(content), pieces.clone()))?;
        }
    }
    Ok(())
}

fn run(
    node: &Node,
    engine: &Engine,
    content: &ContentId,
    (size, pieces): (Option<u64>, Range<PieceIndex>),
) -> Result<(), String> {
    let Some(layout) = size.and_then(PieceLayout::for_size) else { return Ok(()) };
    let partial = node.store.partial.get(content).filter(|partial| partial.size == layout.blob_size());
    let flows: Vec<_> = node.flows.values().filter(|flow| flow.content == *content).collect();
    let states = engine.piece_states(content);
    let pieces = pieces.start..pieces.end.min(layout.count());
    let stored = partial.filter(|_| !pieces.is_empty()).map(|partial| partial.pieces.range(pieces.clone()));
    let mut stored = stored.into_iter().flatten().map(|(piece, _)| *piece).peekable();
    for piece in pieces {
        let stored = stored.next_if_eq(&piece).is_some();
        let flow = flows.iter().find(|flow| awaited(flow).contains(&piece));
        let state = states.as_ref().map(|state| state(piece));
        let expected = match (stored, flow) {
            (true, _) => PieceState::Durable,
            (false, Some(_)) => PieceState::InFlight,
            (false, None) => PieceState::Missing,
        };
        // The end of what is asked of an origin may have been given up to another node.
        let given_up =
            state == Some(PieceState::Missing) && flow.is_some_and(|flow| matches!(flow.source, Source::Origin(..)));
        if state != Some(expected) && !given_up {
            return Err(format!("piece {piece} of {content} is {expected:?}, the engine says {state:?}"));
        }
    }
    Ok(())
}
