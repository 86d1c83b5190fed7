//! What the node asks of the mixnet: each call is a request to the engine.

use std::sync::Arc;

use fog_base::{MessageId, relay::PathSelector};

use super::Behaviour;
use crate::{
    core::endpoint::{Ping, ReplyBlock, Send},
    runtime::engine::Request,
};

impl Behaviour {
    /// Starts to send a message; [`crate::Event::Sent`] and [`crate::Event::SendRefused`] tell of it.
    pub fn send(&mut self, send: Send) {
        self.request(Request::Send(send));
    }

    /// Answers by a reply block that came with a message of [`Kind::Asking`](crate::core::endpoint::Kind), once.
    pub fn answer(&mut self, block: Box<ReplyBlock>, data: Vec<u8>) {
        self.request(Request::Answer(block, data));
    }

    /// Starts a ping; [`crate::Event::Pong`] or [`crate::Event::PingRefused`] ends it.
    pub fn ping(&mut self, ping: Ping) {
        self.request(Request::Ping(ping));
    }

    /// A delivered message is stored, or could not be.
    pub fn accepted(&mut self, message: MessageId, stored: bool) {
        self.request(Request::Accepted(message, stored));
    }

    /// What [`crate::Event::Persist`] asked for is written, or could not be.
    pub fn persisted(&mut self, token: u64, ok: bool) {
        self.request(Request::Persisted(token, ok));
    }

    /// Paths are drawn from `paths` from now on.
    pub fn set_paths(&mut self, paths: Arc<dyn PathSelector + std::marker::Send + Sync>) {
        self.relays.paths = Arc::clone(&paths);
        self.request(Request::SetPaths(paths));
    }

    /// From now on so many loops a second, through the relays that the fewest have gone through in the epoch: what a seat owes the
    /// others ([`crate::core::loops::measuring_rate`]). `None` for the loops that the configuration says.
    pub fn set_loops(&mut self, per_second: Option<f64>) {
        self.request(Request::SetLoops(per_second));
    }
}
