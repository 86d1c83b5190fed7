//! Answers to messages whose sender nobody names: the message carries reply blocks, and whoever has it answers by them.

use fog_base::{DropReason, Now};
use fog_sphinx::{SURB_LEN, Surb};

use super::{Endpoint, Send, SendError};
use crate::wire::{Envelope, MAX_ANSWER, MAX_MESSAGE};

impl Endpoint {
    /// The envelope of a message that carries `blocks` reply blocks, whose answers are told by `tag`.
    pub(super) fn envelope_with_blocks(
        &mut self,
        send: &Send,
        hops: usize,
        (blocks, tag): (u8, u64),
        now: Now,
    ) -> Result<Vec<u8>, SendError> {
        let length = send.body.len() + usize::from(blocks) * SURB_LEN + 2;
        if length > MAX_MESSAGE {
            return Err(SendError::TooLarge(length));
        }
        let way = self.way_to(&send.to, hops, None, now)?;
        let blocks = self.give_blocks(&way, (hops, blocks), tag, now).ok_or(SendError::NoReturn)?;
        Ok(Envelope::Tasks { blocks: &blocks, body: &send.body }.to_bytes())
    }

    /// Answers by a reply block that a message brought; each block is used once. Whether it arrives nobody tells.
    pub fn answer(&mut self, block: &[u8; SURB_LEN], data: Vec<u8>, now: Now) {
        match Surb::parse(block.as_slice()) {
            Ok(_) if data.len() > MAX_ANSWER => self.drops.count(DropReason::Malformed),
            Ok(_) if !self.used_surbs.take(block) => self.drops.count(DropReason::Replayed),
            Ok(surb) => {
                if self.answers.push((surb, data)).is_err() {
                    self.drops.count(DropReason::QueueFull);
                }
            }
            Err(_) => self.drops.count(DropReason::Malformed),
        }
        self.run_clock(now);
    }
}
