//! Safety: what must hold after every event, whatever happens.
//!
//! - Nothing is announced, and no want ends well, unless the store holds the blob whole.
//! - No piece that is durable is asked for, and none of two sources at a time.
//! - The engine and the store agree on the state of every piece of a transfer.
//! - One event leads to a bounded number of actions.

use std::{error::Error, fmt};

use layermesh_proto::{
    ContentId, PieceLayout,
    engine::{
        PieceState,
        event::{Action, Instant, Source},
    },
    wire::{Announcement, Change, ControlResponse, Entry},
};

use crate::node::{Fault, Flow, Node};

/// Most actions that one event may lead to: every want of a full transfer ends, and some more.
pub const ACTIONS_PER_EVENT_MAX: usize = 10_000;

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
    /// The last things that happened to the node.
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
            let overlaps = |flow: &&Flow| flow.next.max(flow.first) < pieces.end && pieces.start < flow.end;
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
            Some((_, Some(_))) => Err(format!("want {want} ended twice")),
            Some((content, None)) if result.is_ok() && !node.store.whole.contains_key(content) => {
                Err(format!("want {want} ended well without {content}"))
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
            Entry::Held { .. } | Entry::Gone { .. } | Entry::Bound(_) => {}
        }
    }
    Ok(())
}

/// Checks that engine and store agree, when all actions of an event are done.
pub(crate) fn pieces(node: &Node) -> Result<(), String> {
    let Some(engine) = &node.engine else { return Ok(()) };
    for transfer in engine.transfers() {
        let Some(layout) = transfer.size.and_then(PieceLayout::for_size) else { continue };
        let content = transfer.content;
        let partial = node.store.partial.get(&content).filter(|partial| partial.size == layout.blob_size());
        for piece in 0..layout.count() {
            let stored = partial.is_some_and(|partial| partial.pieces.contains_key(&piece));
            let bringing =
                |flow: &&Flow| flow.content == content && (flow.next.max(flow.first)..flow.end).contains(&piece);
            let flow = node.flows.values().find(bringing);
            let state = engine.piece_state(&content, piece);
            let expected = match (stored, flow) {
                (true, _) => PieceState::Durable,
                (false, Some(_)) => PieceState::InFlight,
                (false, None) => PieceState::Missing,
            };
            // The end of what is asked of an origin may have been given up to another node.
            let given_up = state == Some(PieceState::Missing)
                && flow.is_some_and(|flow| matches!(flow.source, Source::Origin(..)));
            if state != Some(expected) && !given_up {
                return Err(format!("piece {piece} of {content} is {expected:?}, the engine says {state:?}"));
            }
        }
    }
    Ok(())
}
