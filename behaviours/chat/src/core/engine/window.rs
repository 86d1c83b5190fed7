//! Frames that wait for a device's window, and go together if it does not answer: Olm allows 32 under way, and so they bring hundreds of messages
//! to its mailboxes.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use fog_base::{MessageId as FrameId, Now, UnixMillis};
use zeroize::Zeroizing;

use super::{
    Chat, Event, Timer,
    direct::{FRAME_MESSAGE, Flight, LIFETIME},
    pack::direct_id,
    talk::Delivery,
};
use crate::core::{
    delivery::{Reason, Transport, Via},
    id::{ConversationId, DeviceId, MessageId},
    reject::Reject,
    secrets::{Kind, MAX_PENDING, Reject as SecretReject, frame::MAX_BODY},
};

/// Frames to one device that wait for its window.
pub(super) const MAX_WAITING: usize = 1_024;
/// The first byte of the body of a data frame that carries several: each its kind (1), length (2), body.
const FRAME_PARCEL: u8 = 6;
const PART: usize = 3;
/// With fewer frames under way the next one leaves at once: to a device that is not connected, and to one that is, whose acknowledgements come soon.
const AT_ONCE: usize = 8;
const AT_ONCE_CONNECTED: usize = 16;
/// The core behind has too much to write at the moment.
pub(super) const FULL: Duration = Duration::from_secs(1);
/// So long the rest of the window lasts for somebody who writes all the time to a device that does not answer.
const LASTS: Duration = Duration::from_secs(86_400);
/// How long a frame waits for others to go with it: the first time, and the longest.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3_600));

/// What a frame brings that is gathered anew after a restart: it may wait in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cargo {
    /// A direct message.
    Message(MessageId),
    /// One that the other side lacks, and whose state is what it was.
    Again(MessageId),
    /// An own message of a group, by number.
    OfGroup(ConversationId, u32),
}

/// A frame that waits for the window.
#[derive(Debug)]
pub(super) struct Frame {
    id: FrameId,
    kind: Kind,
    body: Zeroizing<Vec<u8>>,
    cargo: Vec<Cargo>,
    /// Whether it is more than a parcel of what has cargo.
    is_urgent: bool,
    /// When the time of what has a short life is over: it waits apart (`short.rs`), and goes into no parcel.
    pub(super) ends: Option<Instant>,
    via: Via,
    pub(super) expires: UnixMillis,
    since: Instant,
}

impl Frame {
    fn is_parcel(&self) -> bool {
        self.kind == Kind::Data && self.body.first() == Some(&FRAME_PARCEL)
    }

    pub(super) fn brings_again(&self, message: &MessageId) -> bool {
        self.cargo.contains(&Cargo::Again(*message))
    }

    fn messages(&self) -> Vec<MessageId> {
        let message = |cargo: &Cargo| if let Cargo::Message(id) = cargo { Some(*id) } else { None };
        self.cargo.iter().filter_map(message).collect()
    }
}

/// How long the next frame waits for more, while so many are under way, the first of which is so much older: half as long again with each. Many that
/// were soon full leave it no such wait: it is enough if the rest of the window, each frame after a wait in proportion to the time gone by, lasts for
/// another day.
fn patience(under_way: usize, at_once: usize, age: Duration) -> Duration {
    let Some(more) = under_way.checked_sub(at_once) else { return Duration::ZERO };
    let by_count = (0..more).fold(PATIENCE.0, |wait, _| (wait * 3 / 2).min(PATIENCE.1));
    let (age, rest) = (age.max(PATIENCE.0), MAX_PENDING.saturating_sub(under_way).max(1));
    let proportion = (age + LASTS).div_duration_f64(age).powf(1.0 / rest as f64) - 1.0;
    by_count.min(age.mul_f64(proportion).max(PATIENCE.0))
}

/// How many of the first frames go together, and whether no more can.
fn portion(queue: &VecDeque<Frame>) -> (usize, bool) {
    let mut bytes = 1;
    for (count, frame) in queue.iter().enumerate() {
        bytes += PART + frame.body.len();
        let is_other = queue.front().is_some_and(|first| first.via != frame.via || first.is_parcel());
        if bytes > MAX_BODY || is_other || frame.is_parcel() && count > 0 {
            return (count.max(1), true);
        }
    }
    (queue.len(), false)
}

/// What bodies so many frames hold, one after the other, as [`portion`] puts them together.
pub(super) struct Hold {
    frames: usize,
    bytes: usize,
}

impl Hold {
    pub(super) fn new(frames: usize) -> Self {
        Self { frames, bytes: MAX_BODY }
    }

    /// Puts in a body of so many bytes, if there is room.
    pub(super) fn takes(&mut self, body: usize) -> bool {
        if self.bytes + PART + body > MAX_BODY {
            let Some(frames) = self.frames.checked_sub(1) else { return false };
            (self.frames, self.bytes) = (frames, 1);
        }
        self.bytes += PART + body;
        true
    }
}

/// Several frames as one, under a new id; one stays what it is. It lives as long as the last of them.
fn join(mut frames: Vec<Frame>, id: FrameId) -> Option<Frame> {
    if frames.len() < 2 {
        return frames.pop();
    }
    // With room for it all: a vector that grows leaves copies behind.
    let mut body = Zeroizing::new(Vec::with_capacity(MAX_BODY));
    body.push(FRAME_PARCEL);
    for frame in &frames {
        body.push(frame.kind as u8);
        body.extend_from_slice(&(frame.body.len() as u16).to_be_bytes());
        body.extend_from_slice(&frame.body);
    }
    let expires = frames.iter().map(|frame| frame.expires).max()?;
    let is_urgent = frames.iter().any(|frame| frame.is_urgent);
    let (via, since) = frames.first().map(|first| (first.via, first.since))?;
    let cargo = frames.iter().flat_map(|frame| &frame.cargo).copied().collect();
    Some(Frame { id, kind: Kind::Data, body, cargo, is_urgent, ends: None, via, expires, since })
}

/// What a frame carries: itself, or the parts of a parcel, of which none is a parcel.
pub(super) fn parts(kind: Kind, body: &[u8]) -> Result<Vec<(Kind, &[u8])>, Reject> {
    let Some((&FRAME_PARCEL, mut rest)) = body.split_first().filter(|_| kind == Kind::Data) else {
        return Ok(vec![(kind, body)]);
    };
    let mut parts = Vec::new();
    while let Some((kind, tail)) = rest.split_first() {
        let kind = [Kind::Data, Kind::GroupKey].into_iter().find(|known| *known as u8 == *kind);
        let (length, tail) = tail.split_first_chunk().ok_or(Reject::Malformed)?;
        let (part, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or(Reject::Malformed)?;
        if part.first() == Some(&FRAME_PARCEL) && kind == Some(Kind::Data) {
            return Err(Reject::Malformed);
        }
        parts.push((kind.ok_or(Reject::Malformed)?, part));
        rest = tail;
    }
    Ok(parts)
}

/// The id of the frame that carries a message alone.
fn frame_id(id: &MessageId) -> FrameId {
    FrameId(id.0.first_chunk().copied().unwrap_or_default())
}

impl Chat {
    /// Has an own message brought to its peer.
    pub(super) fn queue_message(&mut self, to: DeviceId, id: MessageId, delivery: &Delivery, now: Now) {
        if let Some(frame) = self.message_frame(to, id, delivery, now) {
            self.queue(to, vec![frame], now);
        }
    }

    /// Has own messages brought to their peer that had waited for it when the process ended: together.
    pub(super) fn queue_again(&mut self, to: DeviceId, messages: &[(MessageId, Delivery)], now: Now) {
        let frame = |(id, delivery): &(MessageId, Delivery)| self.message_frame(to, *id, delivery, now);
        let frames = messages.iter().filter_map(frame).collect();
        self.queue(to, frames, now);
    }

    fn message_frame(&mut self, to: DeviceId, id: MessageId, delivery: &Delivery, now: Now) -> Option<Frame> {
        let conversation = direct_id(&self.config.network, self.device, to);
        let stored = self.load(self.talks.get(&conversation)?, &id)?;
        let body = [&[FRAME_MESSAGE], &stored.message.trusted().encode()[..]].concat();
        // It has waited since it was written, also if that was before a restart.
        let frame = self.frame(&body, Cargo::Message(id), delivery.asked(), delivery.expires, delivery.since(now));
        let ends = delivery.is_short().then(|| now.mono + delivery.expires.since(now.unix));
        Some(Frame { id: frame_id(&id), ends, ..frame })
    }

    /// Has anything else brought to a device; its id.
    pub(super) fn queue_frame(
        &mut self,
        to: DeviceId,
        kind: Kind,
        body: &[u8],
        via: Via,
        expires: UnixMillis,
        now: Now,
    ) -> FrameId {
        let (id, body, since) = (FrameId(self.random()), Zeroizing::new(body.to_vec()), now.mono);
        let frame = Frame { id, kind, body, cargo: Vec::new(), is_urgent: true, ends: None, via, expires, since };
        self.queue(to, vec![frame], now);
        id
    }

    /// Has messages brought to a device together: those that a member of a group may lack, or that the other side asked for.
    pub(super) fn queue_cargo(&mut self, to: DeviceId, messages: Vec<(Vec<u8>, Cargo, Via)>, now: Now) {
        for (body, cargo, via) in messages {
            let frame = self.frame(&body, cargo, via, now.unix.plus(LIFETIME), now.mono);
            let queue = self.waiting.entry(to).or_default();
            if queue.len() < MAX_WAITING {
                queue.push_back(frame);
            }
        }
        self.fill_window(to, now);
    }

    fn frame(&mut self, body: &[u8], cargo: Cargo, via: Via, expires: UnixMillis, since: Instant) -> Frame {
        let (id, body) = (FrameId(self.random()), Zeroizing::new(body.to_vec()));
        let (cargo, is_urgent, ends) = (vec![cargo], false, None);
        Frame { id, kind: Kind::Data, body, cargo, is_urgent, ends, via, expires, since }
    }

    fn queue(&mut self, to: DeviceId, frames: Vec<Frame>, now: Now) {
        if !self.secrets.knows(&to) {
            self.tell(Event::NeedsInvite(to));
            return;
        }
        let (mut queued, mut short) = (Vec::new(), Vec::new());
        for frame in frames {
            let (queues, queued) =
                if frame.ends.is_some() { (&mut self.short, &mut short) } else { (&mut self.waiting, &mut queued) };
            let (queue, messages) = (queues.entry(to).or_default(), frame.messages());
            if queue.len() >= MAX_WAITING {
                self.fail_all(to, &messages, Reason::QueueFull);
            } else {
                queue.push_back(frame);
                queued.push(messages);
            }
        }
        self.fill_window(to, now);
        // The window takes each kind in order: what is left are the last ones.
        let left = [&self.waiting, &self.short].map(|queues| queues.get(&to).map_or(0, VecDeque::len));
        for (queued, left) in [queued, short].iter().zip(left) {
            for messages in queued.iter().rev().take(left) {
                self.wait_for(to, messages, Reason::Window);
            }
        }
    }

    /// Whether a frame to this device would not wait for others.
    pub(super) fn leaves_at_once(&self, to: DeviceId) -> bool {
        self.waiting.get(&to).is_none_or(VecDeque::is_empty) && self.secrets.pending(&to).len() < AT_ONCE
    }

    /// Seals as many waiting frames as may be under way at once, in order.
    pub(super) fn fill_window(&mut self, to: DeviceId, now: Now) {
        self.fill_short(to, now);
        while let Some(queue) = self.waiting.get_mut(&to).filter(|queue| !queue.is_empty()) {
            if let Some(frame) = queue.pop_front_if(|frame| frame.expires <= now.unix) {
                self.drop_frame(to, &frame, Reason::Expired);
                continue;
            }
            let (count, is_full) = portion(queue);
            let is_urgent = queue.iter().take(count).any(|frame| frame.is_urgent);
            let Some((via, since)) = queue.front().map(|frame| (frame.via, frame.since)) else { return };
            if !is_full && !is_urgent {
                let leaves = since + self.patience_for(to, via, since);
                if leaves > now.mono {
                    self.at(leaves, Timer::Window(to));
                    return;
                }
            }
            if !self.secrets.has_window(&to) {
                return;
            }
            let id = FrameId(self.random());
            let frames = self.waiting.get_mut(&to).map(|queue| queue.drain(..count).collect()).unwrap_or_default();
            let Some(frame) = join(frames, id) else { return };
            if !self.seal_frame(to, frame, now) {
                return;
            }
        }
        self.waiting.remove(&to);
    }

    /// How long a frame waits for company, by how many are under way that may take the same ways.
    fn patience_for(&self, to: DeviceId, via: Via, since: Instant) -> Duration {
        let first = self.plan_for(to, via).first().map(|(transport, _)| *transport);
        let is_connected = matches!(first, Some(Transport::Lan | Transport::Direct));
        let of = (to, FrameId([0; 16]))..=(to, FrameId([0xff; 16]));
        let (mut under_way, mut oldest) = (0, since);
        for (_, flight) in self.flights.range(of).filter(|(_, flight)| flight.via == via) {
            under_way += 1;
            oldest = oldest.min(flight.since);
        }
        patience(under_way, if is_connected { AT_ONCE_CONNECTED } else { AT_ONCE }, since - oldest)
    }

    /// Seals a frame; false if there is no room at the moment: it stays the first.
    pub(super) fn seal_frame(&mut self, to: DeviceId, frame: Frame, now: Now) -> bool {
        let messages = frame.messages();
        match self.secrets.handle_send(to, frame.id, frame.kind, &frame.body) {
            Ok(()) | Err(SecretReject::Duplicate) => {
                self.mark_sealed(to, &frame);
                let Frame { id, via, expires, cargo, since, ends, .. } = frame;
                let begin = || Flight::new(messages, via, expires, since, now);
                let flight = self.flights.entry((to, id)).or_insert_with(begin);
                (flight.cargo, flight.is_short) = (cargo, ends.is_some());
            }
            Err(SecretReject::Full) => {
                let queues = if frame.ends.is_some() { &mut self.short } else { &mut self.waiting };
                queues.entry(to).or_default().push_front(frame);
                self.at(now.mono + FULL, Timer::Window(to));
                return false;
            }
            Err(reject) => {
                self.count(reject.into());
                self.note_not_brought(to, &frame.cargo);
                self.fail_all(to, &messages, Reason::Unsealable);
            }
        }
        true
    }

    /// In one batch with the sealed frame: after a crash Olm is asked whether it was acknowledged.
    fn mark_sealed(&mut self, to: DeviceId, frame: &Frame) {
        let conversation = self.conversation_with(to);
        let mut groups = BTreeMap::new();
        for cargo in &frame.cargo {
            let (message, is_again) = match *cargo {
                Cargo::Message(message) => (message, false),
                Cargo::Again(message) => (message, true),
                Cargo::OfGroup(group, seq) => {
                    groups.entry(group).and_modify(|last: &mut u32| *last = seq.max(*last)).or_insert(seq);
                    continue;
                }
            };
            let talk = self.talks.get_mut(&conversation);
            let Some(delivery) = talk.and_then(|talk| talk.deliveries.get_mut(&message)) else { continue };
            let place = if is_again { &mut delivery.again } else { &mut delivery.frame };
            *place = Some(frame.id);
            self.save_delivery(conversation, &message, true);
        }
        for (group, seq) in groups {
            self.note_brought(group, to, seq);
        }
    }

    pub(super) fn wait_for(&mut self, to: DeviceId, messages: &[MessageId], reason: Reason) {
        let conversation = self.conversation_with(to);
        for message in messages {
            let talk = self.talks.get_mut(&conversation);
            let delivery = talk.and_then(|talk| talk.deliveries.get_mut(message));
            if delivery.is_some_and(|delivery| delivery.wait_for(reason)) {
                self.tell(Event::State(*message));
            }
        }
    }

    pub(super) fn fail_all(&mut self, to: DeviceId, messages: &[MessageId], reason: Reason) {
        for message in messages {
            self.fail(to, *message, reason);
        }
    }

    /// What waits for a device is given up.
    pub(super) fn give_up_waiting(&mut self, to: DeviceId, reason: Reason) {
        let frames = [self.waiting.remove(&to), self.short.remove(&to)];
        for frame in frames.into_iter().flatten().flatten() {
            self.drop_frame(to, &frame, reason);
        }
    }

    pub(super) fn drop_frame(&mut self, to: DeviceId, frame: &Frame, reason: Reason) {
        self.note_not_brought(to, &frame.cargo);
        self.fail_all(to, &frame.messages(), reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(n: usize, length: usize, via: Via, since: Instant) -> Frame {
        let (id, body) = (FrameId([n as u8; 16]), Zeroizing::new(vec![0; length]));
        let (cargo, expires) = (vec![Cargo::Message(MessageId([n as u8; 32]))], UnixMillis(n as u64));
        Frame { id, kind: Kind::Data, body, cargo, is_urgent: false, ends: None, via, expires, since }
    }

    #[test]
    fn parcels_hold_what_was_put_in_and_no_more_than_a_frame_takes() {
        let since = Instant::now();
        let length = 1_000;
        let mut queue: VecDeque<_> = (0..40).map(|n| frame(n, length, Via::Auto, since)).collect();
        let (count, is_full) = portion(&queue);
        let bytes_of = |count: usize| 1 + count * (PART + length);
        assert!(is_full && bytes_of(count) <= MAX_BODY && bytes_of(count + 1) > MAX_BODY);
        let parcel = join(queue.drain(..count).collect(), FrameId([9; 16])).unwrap();
        assert_eq!((parcel.messages().len(), parcel.expires.0, parcel.id.0[0]), (count, count as u64 - 1, 9));
        let parts = parts(parcel.kind, &parcel.body).unwrap();
        assert_eq!(parts, vec![(Kind::Data, [0; 1_000].as_slice()); count]);
        for cut in 1..parcel.body.len() {
            let whole = (cut - 1) % (PART + length) == 0;
            assert_eq!(super::parts(Kind::Data, &parcel.body[..cut]).is_ok(), whole, "{cut}");
        }
    }

    #[test]
    fn a_hold_is_full_when_its_parcels_are() {
        let since = Instant::now();
        let lengths = [9, 7_000, 8_000, 8_000, MAX_BODY, 30, 14_000, 200, 1];
        let mut queue: VecDeque<_> = lengths.iter().map(|length| frame(0, *length, Via::Auto, since)).collect();
        let mut needs = 0;
        while !queue.is_empty() {
            let (count, _) = portion(&queue);
            queue.drain(..count);
            needs += 1;
        }
        let fits = |frames: usize| {
            let mut hold = Hold::new(frames);
            lengths.iter().all(|length| hold.takes(*length))
        };
        assert!(fits(needs) && !fits(needs - 1), "{needs}");
        assert!(!Hold::new(0).takes(0));
    }

    #[test]
    fn parcels_are_of_one_way_and_never_in_each_other() {
        let since = Instant::now();
        let mut queue: VecDeque<_> = (0..3).map(|n| frame(n, 9, Via::Auto, since)).collect();
        assert_eq!(portion(&queue), (3, false));
        queue.push_back(frame(3, 9, Via::Mix, since));
        assert_eq!(portion(&queue), (3, true));
        queue.push_front(frame(4, MAX_BODY, Via::Auto, since));
        assert_eq!(portion(&queue), (1, true), "what fills a frame goes as it is");
        let alone = join(queue.drain(..1).collect(), FrameId([9; 16])).unwrap();
        assert_eq!((alone.id.0[0], alone.body.len()), (4, MAX_BODY));
        let parcel = join((0..2).map(|n| frame(n, 9, Via::Auto, since)).collect(), FrameId([9; 16])).unwrap();
        queue.push_front(parcel);
        assert_eq!(portion(&queue), (1, true), "a parcel that found no room goes as it is");
        queue.rotate_left(1);
        assert_eq!(portion(&queue), (3, true), "and is put into no other one");
        let nested = [FRAME_PARCEL, 0, 0, 1, FRAME_PARCEL];
        assert_eq!(super::parts(Kind::Data, &nested), Err(Reject::Malformed));
        assert_eq!(super::parts(Kind::Data, &[FRAME_PARCEL, 1, 0, 0]), Err(Reject::Malformed), "an acknowledgement");
        assert_eq!(super::parts(Kind::GroupKey, &nested), Ok(vec![(Kind::GroupKey, nested.as_slice())]));
    }

    #[test]
    fn the_fuller_the_window_the_longer_a_frame_waits_for_company() {
        for age in [LASTS / 2, LASTS, 6 * LASTS] {
            let waits = |n: usize| patience(n, AT_ONCE, age);
            assert_eq!(waits(AT_ONCE - 1), Duration::ZERO);
            assert_eq!(waits(AT_ONCE), PATIENCE.0);
            assert!((AT_ONCE..31).all(|n| waits(n) <= waits(n + 1)));
            assert_eq!(waits(31), PATIENCE.1);
            let all: Duration = (AT_ONCE..MAX_PENDING).map(waits).sum();
            assert!(all > Duration::from_secs(5 * 3_600), "{age:?}: {all:?}");
        }
    }

    #[test]
    fn the_end_of_a_burst_waits_for_seconds_and_talk_goes_on_for_hours() {
        // Much at once filled two thirds of the window.
        let (mut age, mut last) = (Duration::from_secs(30), Duration::ZERO);
        for n in 22..MAX_PENDING {
            let wait = patience(n, AT_ONCE, age);
            assert!(wait >= last, "{wait:?}, {last:?}");
            (age, last) = (age + wait, wait);
        }
        assert!(patience(22, AT_ONCE, Duration::from_secs(30)) < Duration::from_secs(40));
        assert!(age > Duration::from_secs(3 * 3_600), "{age:?}");
    }
}
