//! The fetching of a state by its hash, part by part, from one peer after the other.

use fog_base::DropReason;

use super::Step;
use crate::{
    core::certificate::state,
    wire::{Request, Response},
};

/// The longest state.
pub const MAX_STATE: u32 = state::MAX_LEN as u32;
const LABEL: &str = "fog snapshot state v1";

/// The bytes that came from the peer that is asked.
#[derive(Debug)]
pub(super) struct StateJob {
    pub(super) hash: [u8; 32],
    total: Option<u32>,
    bytes: Vec<u8>,
}

impl StateJob {
    pub(super) fn new(hash: [u8; 32]) -> Self {
        Self { hash, total: None, bytes: Vec::new() }
    }

    /// The first request to a peer. No part of the last one's is kept: any part may have been false.
    pub(super) fn start(&mut self) -> Step<Vec<u8>> {
        *self = Self::new(self.hash);
        self.ask()
    }

    pub(super) fn handle_response(&mut self, response: Response) -> Step<Vec<u8>> {
        let (total, bytes) = match response {
            Response::State { total, bytes } => (total, bytes),
            Response::Busy | Response::Unknown => return Step::Ended(None),
            _ => return Step::Lied(DropReason::Malformed),
        };
        let length = self.bytes.len() + bytes.len();
        let is_ill = total > MAX_STATE || self.total.is_some_and(|before| before != total) || length > total as usize;
        if is_ill || (bytes.is_empty() && total > 0) {
            return Step::Lied(DropReason::Malformed);
        }
        self.total = Some(total);
        self.bytes.extend(bytes);
        if length < total as usize {
            return self.ask();
        }
        if blake3::derive_key(LABEL, &self.bytes) != self.hash {
            return Step::Lied(DropReason::BadPayload);
        }
        Step::Done(std::mem::take(&mut self.bytes))
    }

    fn ask(&self) -> Step<Vec<u8>> {
        // At most `MAX_STATE`, which fits.
        let offset = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        Step::Ask(Request::State { hash: self.hash, offset })
    }
}
