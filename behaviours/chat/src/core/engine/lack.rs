//! What a direct conversation lacks of the other side: messages that were given up there, or rows that were lost here. Olm brings nothing of it any
//! more; so the other device is asked, and sends again what it has not given up, and of the others the places alone, for the order of what follows.

use std::time::{Duration, Instant};

use fog_base::Now;

use super::{
    Chat, ConversationId, Reject,
    direct::{FRAME_LACK, FRAME_MESSAGE, LIFETIME},
    talk::Delivery,
};
use crate::core::{
    delivery::{State, Via},
    id::DeviceId,
    secrets::Kind,
};

/// What is under way comes in any order: a gap may close by itself for so long. The other side answers no more often.
const SOON: Duration = Duration::from_secs(30);
/// Between two questions about one gap.
const AGAIN: Duration = Duration::from_secs(60);
/// Messages that one question brings.
const MAX_ANSWER: usize = 512;

/// When a gap is asked about, and when the other side may ask again.
#[derive(Debug, Default)]
pub(super) struct Gap {
    ask_at: Option<Instant>,
    answer_at: Option<Instant>,
}

impl Chat {
    /// Asks the other device of a direct conversation for what is missing before what it sent, if that stays away.
    pub(super) fn ask_other(&mut self, id: ConversationId, now: Now) {
        let Some(talk) = self.talks.get_mut(&id) else { return };
        let Some(peer) = talk.record.peer else { return };
        if now.mono < *talk.gap.ask_at.get_or_insert(now.mono + SOON) {
            return;
        }
        let first = talk.dag.latest_seq(&peer).saturating_add(1);
        let Some(next) = talk.dag.first_waiting(&peer).filter(|next| *next > first) else { return };
        talk.gap.ask_at = Some(now.mono + AGAIN);
        let body = [&[FRAME_LACK], &first.to_be_bytes()[..], &(next - 1).to_be_bytes()].concat();
        self.queue_frame(peer, Kind::Data, &body, Via::Auto, now.unix.plus(LIFETIME), now);
    }

    /// A message of a direct conversation was taken: the next gap is another one if nothing waits.
    pub(super) fn end_gap(&mut self, id: ConversationId) {
        if let Some(talk) = self.talks.get_mut(&id).filter(|talk| talk.dag.len().1 == 0) {
            talk.gap.ask_at = None;
        }
    }

    /// The other device lacks own messages: `first (4) ‖ last (4)`, their numbers.
    pub(super) fn take_lack(&mut self, from: DeviceId, range: &[u8], now: Now) -> Result<(), Reject> {
        let range: [u8; 8] = range.try_into().map_err(|_| Reject::Malformed)?;
        let range = u64::from_be_bytes(range);
        let (first, last) = ((range >> 32) as u32, range as u32);
        let id = self.conversation_with(from);
        let talk = self.talks.get_mut(&id).ok_or(Reject::Unknown)?;
        if talk.gap.answer_at.is_some_and(|at| now.mono < at) {
            return Err(Reject::RateLimited);
        }
        talk.gap.answer_at = Some(now.mono + SOON);
        let messages = (first..=last).take(MAX_ANSWER).map_while(|seq| talk.dag.at(&self.device, seq));
        for message in messages.collect::<Vec<_>>() {
            let Some(talk) = self.talks.get(&id) else { break };
            let delivery = talk.deliveries.get(&message).copied();
            let state = delivery.map_or(State::Delivered, |delivery| delivery.state());
            let Some(stored) = self.load(talk, &message).filter(|_| state >= State::Failed) else { continue };
            let stored = stored.message.trusted();
            let bytes =
                if state == State::Failed { stored.signed_header().as_bytes().to_vec() } else { stored.encode() };
            let via = delivery.as_ref().map_or(Via::Auto, Delivery::asked);
            let body = [&[FRAME_MESSAGE], &bytes[..]].concat();
            self.queue_frame(from, Kind::Data, &body, via, now.unix.plus(LIFETIME), now);
        }
        Ok(())
    }
}
