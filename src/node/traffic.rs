//! Messages and pings that a user waits for: who asked, and what to tell them.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use fog_base::MessageId;
use fog_mix::core::{
    endpoint::{Kind, Ping, Send, SendError, SentNews, SentState},
    outgoing::Address,
};
use tokio::sync::mpsc;

use super::{
    command::{Failure, MixPing, MixSend, MixSendEvent},
    report::{PingReply, SendProgress, Sent},
};
use crate::invite::Invite;

/// Pings of one command.
const MAX_PINGS: u32 = 1000;
/// Relays on a path if nobody says otherwise: three mixes and the last hop.
pub(super) const DEFAULT_HOPS: usize = 4;

type SendEvents = mpsc::Sender<Result<MixSendEvent, Failure>>;
type PingEvents = mpsc::Sender<Result<PingReply, Failure>>;

#[derive(Debug)]
struct Sending {
    events: SendEvents,
    started: Instant,
    hops: usize,
    wait: bool,
    stored: bool,
    /// Whether the recipient was named by an invite.
    by_invite: bool,
}

#[derive(Debug)]
struct Pinging {
    events: PingEvents,
    seq: u32,
    hops: usize,
    by_invite: bool,
}

/// All that somebody waits for.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    sends: BTreeMap<MessageId, Sending>,
    pings: BTreeMap<u64, Pinging>,
    next_ping: u64,
}

impl Traffic {
    /// The message `id`, a random number, is about to be sent.
    pub(super) fn send(&mut self, id: MessageId, to: Address, send: MixSend, events: SendEvents, now: Instant) -> Send {
        let hops = send.hops.unwrap_or(DEFAULT_HOPS);
        let by_invite = Invite::is_invite(&send.to);
        self.sends.insert(id, Sending { events, started: now, hops, wait: send.wait, stored: false, by_invite });
        let kind = if send.anonymous { Kind::Anonymous } else { Kind::Signed };
        Send { id, to, body: send.body, hops: send.hops, kind, timeout: send.timeout }
    }

    /// Pings are about to be sent; they leave on the send clock, `per_second` of them.
    pub(super) fn ping(
        &mut self,
        to: &Address,
        ping: &MixPing,
        events: &PingEvents,
        per_second: f64,
    ) -> Result<Vec<Ping>, Failure> {
        if ping.count == 0 || ping.count > MAX_PINGS {
            return Err(Failure::usage(
                format!("from 1 to {MAX_PINGS} pings can be sent"),
                "use `-c` with such a number",
            ));
        }
        let by_invite = Invite::is_invite(&ping.to);
        let leaves = |seq: u32| Duration::from_secs_f64(f64::from(seq) / per_second.max(0.01));
        Ok((1..=ping.count)
            .map(|seq| {
                let id = self.next_ping;
                self.next_ping += 1;
                let hops = ping.hops.unwrap_or(DEFAULT_HOPS);
                self.pings.insert(id, Pinging { events: events.clone(), seq, hops, by_invite });
                Ping { id, to: to.clone(), hops: ping.hops, timeout: ping.timeout + leaves(seq) }
            })
            .collect())
    }

    /// News of a message.
    pub(super) fn handle_sent(&mut self, news: SentNews, now: Instant) {
        let Some(sending) = self.sends.get_mut(&news.message) else { return };
        let state = match news.state {
            SentState::Progress => None,
            SentState::Stored => {
                sending.stored = true;
                (!sending.wait).then_some("stored")
            }
            SentState::Delivered => Some("delivered"),
            // With `--wait`: the mailbox has it, and its recipient did not come in time.
            SentState::Failed if sending.stored => Some("stored"),
            SentState::Failed => Some("failed"),
        };
        let Some(state) = state else {
            let progress = SendProgress { acknowledged: news.acknowledged, packets: news.packets };
            let _slow_reader = sending.events.try_send(Ok(MixSendEvent::Progress(progress)));
            return;
        };
        let Some(sending) = self.sends.remove(&news.message) else { return };
        let elapsed = now.saturating_duration_since(sending.started);
        let timed_out = news.state == SentState::Failed;
        let sent = Sent {
            id: news.message.to_string(),
            state: state.to_owned(),
            acked: news.state == SentState::Delivered,
            reason: timed_out.then(|| format!("timed out after {} s without an acknowledgement", elapsed.as_secs())),
            latency_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            packets: news.packets,
            retransmissions: news.retransmissions,
            hops: sending.hops,
        };
        finish(sending.events, Ok(MixSendEvent::Done(sent)));
    }

    /// A message cannot be sent.
    pub(super) fn handle_send_refused(&mut self, message: &MessageId, why: &SendError) {
        if let Some(sending) = self.sends.remove(message) {
            finish(sending.events, Err(failure(why, sending.by_invite)));
        }
    }

    /// A ping has ended.
    pub(super) fn handle_pong(&mut self, ping: u64, rtt: Option<Duration>) {
        if let Some(Pinging { events, seq, hops, .. }) = self.pings.remove(&ping) {
            let rtt_ms = rtt.map(|rtt| rtt.as_secs_f64() * 1000.0);
            finish(events, Ok(PingReply { seq, rtt_ms, hops }));
        }
    }

    /// A ping cannot be sent.
    pub(super) fn handle_ping_refused(&mut self, ping: u64, why: &SendError) {
        if let Some(pinging) = self.pings.remove(&ping) {
            finish(pinging.events, Err(failure(why, pinging.by_invite)));
        }
    }
}

/// The end of something is never left out, however slow its reader: it waits on a task of its own.
fn finish<T: std::marker::Send + 'static>(events: mpsc::Sender<T>, event: T) {
    if let Err(mpsc::error::TrySendError::Full(event)) = events.try_send(event) {
        tokio::spawn(async move {
            let _gone = events.send(event).await;
        });
    }
}

/// What the user can do about it.
fn failure(why: &SendError, by_invite: bool) -> Failure {
    use fog_base::relay::NoPath;
    let hint = match why {
        SendError::NoPath(NoPath::TooFewRelays { .. }) => {
            "wait until more relays have a seat (`fog relays`), or ask for fewer hops with `--hops`, which hides less"
        }
        SendError::NoPath(NoPath::UnknownRelay(_)) if by_invite => {
            "nothing that the invite names is a relay of this epoch: ask for a new one, from `fog id` while its node runs and \
             `fog status` there shows that the mixnet is ready"
        }
        SendError::NoPath(NoPath::UnknownRelay(_)) => {
            "the recipient is no relay of this epoch: use its invite, which names its mailboxes, or wait until it is back"
        }
        SendError::NoPath(NoPath::UnknownVersion(..)) => "update this node, or ask the recipient to update theirs",
        SendError::NoReturn => "wait a few seconds until a mailbox is found (`fog status`)",
        SendError::TooLarge(_) => "send a smaller message, or several",
        SendError::Hops(_) => return Failure::usage(why.to_string(), "use `--hops` with a number from 1 to 5"),
        SendError::Busy => "messages that arrive or fail make room",
        SendError::BadKey => "ask the recipient for a new invite",
    };
    Failure::failed(why.to_string(), hint)
}

#[cfg(test)]
mod tests {
    use fog_base::NodeId;

    use super::{super::clock, *};

    fn address() -> Address {
        Address { node: NodeId([1; 32]), seal_key: [2; 32], mailboxes: Vec::new() }
    }

    fn news(message: MessageId, state: SentState) -> SentNews {
        SentNews { message, state, acknowledged: 1, packets: 2, retransmissions: 3 }
    }

    fn started(wait: bool) -> (Traffic, MessageId, mpsc::Receiver<Result<MixSendEvent, Failure>>) {
        let (events, receiver) = mpsc::channel(8);
        let mut traffic = Traffic::default();
        let send = MixSend {
            to: String::new(),
            body: Vec::new(),
            hops: None,
            anonymous: false,
            wait,
            timeout: Duration::from_secs(1),
        };
        let id = traffic.send(MessageId([7; 16]), address(), send, events, clock::now().mono).id;
        (traffic, id, receiver)
    }

    fn state(receiver: &mut mpsc::Receiver<Result<MixSendEvent, Failure>>) -> Option<String> {
        match receiver.try_recv().ok()?.unwrap() {
            MixSendEvent::Progress(_) => Some("progress".into()),
            MixSendEvent::Done(sent) => Some(sent.state),
        }
    }

    #[test]
    fn stored_ends_a_send_unless_it_waits_for_delivery() {
        let (mut traffic, id, mut receiver) = started(false);
        traffic.handle_sent(news(id, SentState::Progress), clock::now().mono);
        traffic.handle_sent(news(id, SentState::Stored), clock::now().mono);
        traffic.handle_sent(news(id, SentState::Delivered), clock::now().mono);
        assert_eq!([(); 3].map(|()| state(&mut receiver)), [Some("progress".into()), Some("stored".into()), None]);

        let (mut traffic, id, mut receiver) = started(true);
        traffic.handle_sent(news(id, SentState::Stored), clock::now().mono);
        traffic.handle_sent(news(id, SentState::Delivered), clock::now().mono);
        let states: Vec<_> = std::iter::from_fn(|| state(&mut receiver)).collect();
        assert_eq!(states.last().map(String::as_str), Some("delivered"));
    }

    #[test]
    fn a_refusal_reaches_whoever_asked_with_a_hint() {
        let (mut traffic, id, mut receiver) = started(false);
        traffic.handle_send_refused(&id, &SendError::NoReturn);
        let failure = receiver.try_recv().unwrap().unwrap_err();
        assert!(failure.message.contains("mailbox") && !failure.hint.is_empty());
    }

    #[test]
    fn whoever_gave_an_invite_is_not_told_to_use_one() {
        use fog_base::relay::NoPath;
        let why = SendError::NoPath(NoPath::UnknownRelay(NodeId([1; 32])));
        assert!(failure(&why, false).hint.contains("use its invite"));
        let hint = failure(&why, true).hint;
        assert!(hint.contains("ask for a new one") && !hint.contains("use its invite"), "{hint}");
    }

    #[test]
    fn pings_are_numbered_from_one_and_bounded() {
        let (events, mut receiver) = mpsc::channel(8);
        let mut traffic = Traffic::default();
        let order = |count| MixPing { to: String::new(), count, hops: None, timeout: Duration::from_secs(1) };
        let pings = traffic.ping(&address(), &order(2), &events, 50.0).unwrap();
        traffic.handle_pong(pings[1].id, Some(Duration::from_millis(3)));
        traffic.handle_pong(pings[0].id, None);
        let replies: Vec<_> = (0..2).map(|_| receiver.try_recv().unwrap().unwrap()).collect();
        assert_eq!((replies[0].seq, replies[0].rtt_ms, replies[1].seq, replies[1].rtt_ms), (2, Some(3.0), 1, None));
        assert!(traffic.ping(&address(), &order(0), &events, 50.0).is_err());
        assert!(traffic.ping(&address(), &order(1001), &events, 50.0).is_err());
    }
}
