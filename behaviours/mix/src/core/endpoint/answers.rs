//! Messages that ask for answers: what stands around a message, the reply blocks that it brings, and the answers by the blocks of others.

use fog_base::{DropReason, Now};
use fog_sphinx::{SURB_LEN, Surb};

use super::{Endpoint, Kind, ReplyBlock, Send, SendError, signed_bytes};
use crate::{
    core::surbs::Purpose,
    wire::{ANSWER_LEN, Application, Envelope, MAX_BLOCKS, MAX_MESSAGE},
};

/// An answer that waits for a tick.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) surb: Surb,
    pub(super) data: Vec<u8>,
}

impl Endpoint {
    /// The message with what stands before it.
    pub(super) fn envelope(&mut self, send: &Send, hops: usize, now: Now) -> Result<Vec<u8>, SendError> {
        let body = send.body.as_slice();
        let signature;
        let envelope = match send.kind {
            Kind::Anonymous => Envelope::Anonymous { body },
            Kind::Chat => Envelope::Chat { body },
            Kind::Asking(application, count) => {
                let blocks = self.blocks(send, (application, count), hops, now)?;
                Envelope::Asking { application, blocks, body }
            }
            Kind::Signed => {
                let (created, network) = (now.unix.as_secs(), &self.config.network);
                let signed = signed_bytes(network, &send.id, &send.to.seal_key, created, body);
                signature = ed25519_dalek::Signer::sign(&self.secrets.identity, &signed).to_bytes();
                Envelope::Signed { sender: self.config.me, signature: &signature, body }
            }
        };
        Ok(envelope.to_bytes())
    }

    /// Blocks by which the recipient can answer, from now until their epoch ends. None of their ways has the relay at its end that reads
    /// the message, which else could tell by what comes for whom who it is from.
    fn blocks(
        &mut self,
        send: &Send,
        (application, count): (Application, usize),
        hops: usize,
        now: Now,
    ) -> Result<Vec<ReplyBlock>, SendError> {
        let length = send.body.len() + count * SURB_LEN;
        if count > MAX_BLOCKS || length > MAX_MESSAGE {
            return Err(SendError::TooLarge(length));
        }
        let way = self.way_to(&send.to, hops, None, now)?;
        let reader = way.relays.last().map(|relay| relay.id);
        let ways: Option<Vec<_>> =
            (0..count).map(|_| self.back_way(&way, hops, now).filter(|back| back.end() != reader)).collect();
        let made = self.reply_blocks(&ways.ok_or(SendError::NoReturn)?);
        if made.len() != count {
            return Err(SendError::NoReturn);
        }
        let expires = self.deadline_of(way.epoch, now);
        let given = made.into_iter().map(|block| {
            let times = (block.predicted, expires);
            self.surbs.insert(block.id, block.keys, Purpose::Answer(application, send.id), now.mono, times);
            block.surb
        });
        Ok(given.collect())
    }

    /// Answers by a block of somebody else's, at a tick of the clock. At most [`ANSWER_LEN`] bytes. A block works once.
    pub fn answer(&mut self, block: &ReplyBlock, mut data: Vec<u8>, now: Now) {
        if data.len() > ANSWER_LEN {
            return self.drops.count(DropReason::Malformed);
        }
        let Ok(surb) = Surb::parse(block.as_slice()) else { return self.drops.count(DropReason::Malformed) };
        if !self.used_surbs.take(block) {
            return self.drops.count(DropReason::Replayed);
        }
        data.resize(ANSWER_LEN, 0);
        if self.answers.push(Answer { surb, data }).is_err() {
            self.drops.count(DropReason::QueueFull);
        }
        self.run_clock(now);
    }
}
