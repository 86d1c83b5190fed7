//! The exchange in the swarm: requests and answers between libp2p and `core/exchange/`.

use fog_base::Now;
use libp2p::request_response::{Event as Exchanged, Message};

use crate::{
    behaviour::{Behaviour, node},
    core::exchange::archive::{Archive, NoArchive},
    wire::{Request, Response},
};

impl Behaviour {
    pub(crate) fn handle_exchanged(&mut self, event: Exchanged<Request, Response>, now: Now) {
        match event {
            Exchanged::Message { peer, message: Message::Request { request, channel, .. }, .. } => {
                let Some(peer) = node(&peer) else { return };
                let archive: &dyn Archive = self.council.as_ref().map_or(&NoArchive, |council| council);
                let response = self.exchange.handle_request(peer, request, &mut self.set, archive, now);
                if self.inner.send_response(channel, response).is_err() {
                    tracing::debug!(%peer, "the peer left before its answer");
                }
            }
            Exchanged::Message { peer, message: Message::Response { response, .. }, .. } => {
                let Some(peer) = node(&peer) else { return };
                self.exchange.handle_response(peer, response, &mut self.set, now);
            }
            Exchanged::OutboundFailure { peer, error, .. } => {
                tracing::debug!(%peer, %error, "no answer from the peer's directory");
                if let Some(peer) = node(&peer) {
                    self.exchange.handle_failure(peer, now);
                }
            }
            Exchanged::InboundFailure { peer, error, .. } => tracing::debug!(%peer, %error, "a request failed"),
            Exchanged::ResponseSent { .. } => {}
        }
    }
}
