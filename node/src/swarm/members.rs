//! The task's part in the fleet: who is out is disconnected, and revocations are passed on.

use layermesh_proto::wire::fleet::{FleetRequest, FleetResponse};
use libp2p::{PeerId, request_response};
use tokio::time::Instant;
use tracing::debug;

use super::{node_id, task::Task};
use crate::fleet::Refusal;

impl Task {
    /// Who is out is disconnected, and what was revoked is passed on.
    pub(super) fn on_fleet_changed(&mut self) {
        let mut members = Vec::new();
        let all: Vec<_> = self.peers.all().collect();
        for (peer, node) in all {
            match self.fleet.admits(&node) {
                Ok(()) => members.push((peer, node)),
                Err(Refusal::Revoked) => self.turn_away(peer, "it was revoked"),
                Err(_) => {
                    // It may come back: a clock is set, a membership renewed. An error says that it is gone already.
                    let _ = self.swarm.disconnect_peer_id(peer);
                }
            }
        }
        for (request, from) in self.telling.news() {
            for (peer, _) in members.iter().filter(|(_, node)| Some(*node) != from) {
                self.ask_of_fleet(peer, request.clone());
            }
        }
        let shown = self.fleet.credential();
        if shown != self.shown {
            self.shown = shown;
            self.dialer.begin_anew(Instant::now());
        }
    }

    pub(super) fn ask_of_fleet(&mut self, peer: &PeerId, request: FleetRequest) {
        // An unconnected peer would be dialled, past the dialer.
        if self.swarm.is_connected(peer) {
            self.swarm.behaviour_mut().telling.send_request(peer, request);
        }
    }

    pub(super) fn on_telling(&mut self, event: request_response::Event<FleetRequest, FleetResponse>) {
        match event {
            request_response::Event::Message { peer, message, .. } => {
                let Some(from) = node_id(&peer) else { return };
                match message {
                    request_response::Message::Request { request, channel, .. } => {
                        let response = self.telling.answer(from, request);
                        // An error says that the peer is gone.
                        let _ = self.swarm.behaviour_mut().telling.send_response(channel, response);
                    }
                    request_response::Message::Response { response, .. } => {
                        if let Some(request) = self.telling.answered(peer, from, &response) {
                            self.ask_of_fleet(&peer, request);
                        }
                    }
                }
            }
            request_response::Event::OutboundFailure { peer, error, .. } => {
                debug!(%peer, %error, "a request about revocations failed");
                self.telling.failed(&peer, Instant::now());
            }
            request_response::Event::InboundFailure { .. } | request_response::Event::ResponseSent { .. } => {}
        }
    }
}
