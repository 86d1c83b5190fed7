//! One message on its way: which fragments are sent, stored, acknowledged, and when to send one again.
//!
//! Selective repeat with a window (as SCTP's and QUIC's, RFC 9002 for the vocabulary): an acknowledgement says which fragments
//! the recipient has, a fragment whose time runs out is sent again over another path. The recipient's node answers `accepted` when
//! the whole message is stored; only that ends a message well.

use std::time::{Duration, Instant};

use fog_base::{MessageId, NodeId};

use crate::wire::{Bitmap, Form, fragment_count, fragment_range};

/// Fragments of one message that may be unacknowledged at one time.
const WINDOW: usize = 128;
/// When everything is stored or acknowledged and acceptance is missing, one fragment leaves again after this, doubling: it brings the
/// recipient a fresh reply block, and its answer tells what is missing.
const PROBE: Duration = Duration::from_secs(4);
/// What a recipient that answers still has not got after this many probes is sent again: its mailbox has lost it.
const PATIENT_PROBES: u32 = 2;
/// A loss means a dead relay more often than a full one: each wait is at most 2³ times the first.
const MAX_DOUBLINGS: u32 = 3;
/// The longest pause between two transmissions of a fragment.
const MAX_RETRY: Duration = Duration::from_secs(600);

/// To whom a message goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The recipient.
    pub node: NodeId,
    /// Its long-term key for sealed messages.
    pub seal_key: [u8; 32],
    /// Relays that keep packets for it, with its slot there; empty for a relay.
    pub mailboxes: Vec<(NodeId, [u8; 32])>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Unsent,
    InFlight { due: Instant, relays: Vec<NodeId>, lost: bool },
    Stored,
    Acknowledged,
}

#[derive(Debug, Clone)]
struct Fragment {
    state: State,
    attempts: u32,
}

/// How a message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Neither of the others yet.
    Underway,
    /// A mailbox has each fragment that the recipient has not acknowledged.
    Stored,
    /// The recipient's node accepted it.
    Delivered,
}

/// A message on its way.
#[derive(Debug)]
pub struct Outgoing {
    /// The message.
    pub id: MessageId,
    /// To whom.
    pub to: Address,
    /// Relays on each path.
    pub hops: usize,
    /// Which kind of body its packets have.
    pub form: Form,
    /// When it was made, Unix seconds.
    pub created: u64,
    /// When it is given up.
    pub deadline: Instant,
    bytes: Vec<u8>,
    fragments: Vec<Fragment>,
    in_flight: usize,
    acknowledged: usize,
    retransmissions: u64,
    incarnation: Option<[u8; 8]>,
    probes: u32,
    probe_at: Option<Instant>,
    delivered: bool,
}

impl Outgoing {
    /// A message of `bytes`, envelope included, none of it sent.
    pub fn new(
        id: MessageId,
        to: Address,
        form: Form,
        hops: usize,
        created: u64,
        deadline: Instant,
        bytes: Vec<u8>,
    ) -> Self {
        let count = fragment_count(bytes.len(), form);
        let fragments = vec![Fragment { state: State::Unsent, attempts: 0 }; usize::from(count)];
        Self {
            id,
            to,
            hops,
            form,
            created,
            deadline,
            bytes,
            fragments,
            in_flight: 0,
            acknowledged: 0,
            retransmissions: 0,
            incarnation: None,
            probes: 0,
            probe_at: None,
            delivered: false,
        }
    }

    /// How many fragments it has.
    pub fn count(&self) -> u16 {
        fragment_count(self.bytes.len(), self.form)
    }

    /// Its length with the envelope.
    pub fn length(&self) -> u32 {
        // At most MAX_ENVELOPE.
        u32::try_from(self.bytes.len()).unwrap_or(u32::MAX)
    }

    /// The bytes of fragment `index`.
    pub fn data(&self, index: u16) -> &[u8] {
        fragment_range(self.bytes.len(), index, self.count(), self.form)
            .and_then(|range| self.bytes.get(range))
            .unwrap_or_default()
    }

    /// How many fragments the recipient has.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged as u64
    }

    /// How many packets were sent again.
    pub fn retransmissions(&self) -> u64 {
        self.retransmissions
    }

    /// How often fragment `index` was sent.
    pub fn attempts(&self, index: u16) -> u32 {
        self.fragments.get(usize::from(index)).map_or(0, |f| f.attempts)
    }

    /// The fragment to send at `now`: one whose time ran out, or the next one within the window.
    pub fn next(&self, now: Instant) -> Option<u16> {
        let probe = || self.probe_at.filter(|at| *at <= now).and_then(|_| self.probe());
        self.sendable(now).next().or_else(probe).and_then(|i| u16::try_from(i).ok())
    }

    /// The fragments that [`next`](Self::next) will name, one after the other, as far as is known at `now`; at most `max`.
    pub fn upcoming(&self, now: Instant, max: usize) -> Vec<u16> {
        self.sendable(now).take(max).filter_map(|i| u16::try_from(i).ok()).collect()
    }

    fn sendable(&self, now: Instant) -> impl Iterator<Item = usize> {
        let due = move |f: &Fragment| matches!(&f.state, State::InFlight { due, .. } if *due <= now);
        let unsent = |f: &Fragment| f.state == State::Unsent;
        let room = WINDOW.saturating_sub(self.in_flight);
        let numbered = || self.fragments.iter().enumerate();
        let due = numbered().filter(move |(_, f)| due(f));
        due.chain(numbered().filter(move |(_, f)| unsent(f)).take(room)).map(|(i, _)| i)
    }

    /// The fragment to ask with once nothing is on its way: one that the recipient may lack, or any.
    fn probe(&self) -> Option<usize> {
        let at_rest = |f: &Fragment| matches!(f.state, State::Stored | State::Acknowledged);
        if !self.fragments.iter().all(at_rest) {
            return None;
        }
        self.fragments.iter().rposition(|f| f.state == State::Stored).or_else(|| self.fragments.len().checked_sub(1))
    }

    fn probe_later(&mut self, now: Instant) {
        self.probe_at = Some(now + (PROBE * 2u32.saturating_pow(self.probes.min(10))).min(MAX_RETRY));
    }

    /// When there will be something to send, if nothing else happens: `now` if there already is.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        if self.in_flight < WINDOW && self.fragments.iter().any(|f| f.state == State::Unsent) {
            return Some(now);
        }
        let due = |f: &Fragment| match &f.state {
            State::InFlight { due, .. } => Some(*due),
            State::Unsent | State::Stored | State::Acknowledged => None,
        };
        let probe = self.probe().and(self.probe_at);
        self.fragments.iter().filter_map(due).chain(probe).min()
    }

    /// The relays of the path that fragment `index` is on, if it is in flight.
    pub fn path(&self, index: u16) -> &[NodeId] {
        match self.fragments.get(usize::from(index)).map(|f| &f.state) {
            Some(State::InFlight { relays, .. }) => relays,
            _ => &[],
        }
    }

    /// The fragment is to leave again: the relays of the path that it was lost on. Told once for each time that it was sent.
    pub fn lose(&mut self, index: u16) -> Vec<NodeId> {
        match self.fragments.get_mut(usize::from(index)).map(|f| &mut f.state) {
            Some(State::InFlight { relays, lost: lost @ false, .. }) => {
                *lost = true;
                relays.clone()
            }
            _ => Vec::new(),
        }
    }

    /// Fragment `index` has left over `relays`; without an answer within `wait` (which grows with each attempt) it leaves again.
    pub fn sent(&mut self, index: u16, relays: Vec<NodeId>, now: Instant, wait: Duration) {
        let Some(fragment) = self.fragments.get_mut(usize::from(index)) else { return };
        if matches!(fragment.state, State::Stored | State::Acknowledged) {
            self.probes += 1;
            self.probe_at = None;
        }
        if !matches!(fragment.state, State::InFlight { .. }) {
            self.in_flight += 1;
        }
        if fragment.attempts > 0 {
            self.retransmissions += 1;
        }
        let backoff = 1u32.checked_shl(fragment.attempts.min(MAX_DOUBLINGS)).unwrap_or(u32::MAX);
        fragment.attempts += 1;
        fragment.state = State::InFlight { due: now + (wait * backoff).min(MAX_RETRY), relays, lost: false };
    }

    /// The path's first hop cannot be reached: what was sent to it leaves again at once.
    pub fn unreachable(&mut self, first: &NodeId, now: Instant) {
        for fragment in &mut self.fragments {
            if let State::InFlight { due, relays, .. } = &mut fragment.state
                && relays.first() == Some(first)
            {
                *due = now;
            }
        }
    }

    /// A mailbox has fragment `index`.
    pub fn stored(&mut self, index: u16, now: Instant) {
        let Some(fragment) = self.fragments.get_mut(usize::from(index)) else { return };
        if matches!(fragment.state, State::InFlight { .. }) {
            self.in_flight = self.in_flight.saturating_sub(1);
            fragment.state = State::Stored;
            self.probe_later(now);
        }
    }

    /// The recipient says what it has. A recipient that restarted has forgotten the fragments of an unfinished message: then what
    /// it acknowledged before is sent again.
    pub fn acknowledged_by(&mut self, incarnation: [u8; 8], accepted: bool, fragments: &Bitmap, now: Instant) {
        if accepted {
            self.delivered = true;
            self.acknowledged = self.fragments.len();
            return;
        }
        let restarted = self.incarnation.replace(incarnation).is_some_and(|before| before != incarnation);
        for (i, fragment) in self.fragments.iter_mut().enumerate() {
            let has = u16::try_from(i).is_ok_and(|i| fragments.has(i));
            if has && fragment.state != State::Acknowledged {
                fragment.state = State::Acknowledged;
            } else if !has
                && (restarted && fragment.state == State::Acknowledged
                    || self.probes >= PATIENT_PROBES && fragment.state == State::Stored)
            {
                fragment.state = State::Unsent;
            }
        }
        self.in_flight = self.fragments.iter().filter(|f| matches!(f.state, State::InFlight { .. })).count();
        self.acknowledged = self.fragments.iter().filter(|f| f.state == State::Acknowledged).count();
        self.probe_later(now);
    }

    /// How it stands.
    pub fn standing(&self) -> Standing {
        let safe = |f: &Fragment| matches!(f.state, State::Stored | State::Acknowledged);
        if self.delivered {
            Standing::Delivered
        } else if self.form == Form::Slot && self.fragments.iter().all(safe) {
            Standing::Stored
        } else {
            Standing::Underway
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_secs(1);

    fn message(len: usize, form: Form, now: Instant) -> Outgoing {
        let to = Address { node: NodeId([1; 32]), seal_key: [0; 32], mailboxes: Vec::new() };
        Outgoing::new(MessageId([1; 16]), to, form, 4, 0, now + WAIT * 100, vec![7; len])
    }

    fn relays(first: u8) -> Vec<NodeId> {
        vec![NodeId([first; 32]), NodeId([99; 32])]
    }

    fn send_all(m: &mut Outgoing, now: Instant) -> usize {
        let mut sent = 0;
        while let Some(index) = m.next(now) {
            m.sent(index, relays(index as u8), now, WAIT);
            sent += 1;
        }
        sent
    }

    #[test]
    fn a_window_of_fragments_leaves_and_acknowledgements_open_it() {
        let now = Instant::now();
        let mut m = message(Form::Deliver.fragment_len() * 300, Form::Deliver, now);
        assert_eq!(send_all(&mut m, now), WINDOW);
        let mut bitmap = Bitmap::none(300);
        (0..10).for_each(|i| bitmap.set(i));
        m.acknowledged_by([1; 8], false, &bitmap, now);
        assert_eq!((send_all(&mut m, now), m.acknowledged()), (10, 10));
        assert_eq!(m.standing(), Standing::Underway);
    }

    #[test]
    fn a_lost_fragment_leaves_again_later_each_time() {
        let now = Instant::now();
        let mut m = message(10, Form::Deliver, now);
        assert_eq!(send_all(&mut m, now), 1);
        assert_eq!(m.poll_timeout(now), Some(now + WAIT));
        assert_eq!(m.next(now + WAIT / 2), None);
        assert_eq!((m.lose(0), m.lose(0), m.path(0)), (relays(0), Vec::new(), &relays(0)[..]));
        assert_eq!(send_all(&mut m, now + WAIT), 1);
        assert_eq!((m.poll_timeout(now), m.retransmissions()), (Some(now + WAIT * 3), 1));
    }

    #[test]
    fn what_went_to_an_unreachable_hop_leaves_again_at_once() {
        let now = Instant::now();
        let mut m = message(Form::Deliver.fragment_len() * 3, Form::Deliver, now);
        send_all(&mut m, now);
        m.unreachable(&NodeId([1; 32]), now);
        assert_eq!(m.next(now), Some(1));
    }

    #[test]
    fn all_fragments_in_mailboxes_is_stored_and_acceptance_is_delivered() {
        let now = Instant::now();
        let mut m = message(Form::Slot.fragment_len() * 2, Form::Slot, now);
        send_all(&mut m, now);
        m.stored(0, now);
        assert_eq!(m.standing(), Standing::Underway);
        m.stored(1, now);
        assert_eq!((m.standing(), m.next(now + PROBE / 2)), (Standing::Stored, None));
        assert_eq!(
            m.next(now + PROBE),
            Some(1),
            "one fragment, with a fresh reply block for a recipient that was away"
        );
        m.sent(1, relays(1), now + PROBE, WAIT);
        m.stored(1, now + PROBE);
        assert_eq!((m.next(now + PROBE * 2), m.next(now + PROBE * 3)), (None, Some(1)), "later each time");
        m.acknowledged_by([1; 8], true, &Bitmap::all(2), now);
        assert_eq!(m.standing(), Standing::Delivered);
    }

    #[test]
    fn a_recipient_that_restarted_gets_everything_again() {
        let now = Instant::now();
        let mut m = message(Form::Deliver.fragment_len() * 3, Form::Deliver, now);
        send_all(&mut m, now);
        let mut bitmap = Bitmap::none(3);
        bitmap.set(0);
        bitmap.set(1);
        m.acknowledged_by([1; 8], false, &bitmap, now);
        let mut after = Bitmap::none(3);
        after.set(2);
        m.acknowledged_by([2; 8], false, &after, now);
        assert_eq!((m.acknowledged(), send_all(&mut m, now)), (1, 2));
    }

    #[test]
    fn an_old_acknowledgement_takes_nothing_back() {
        let now = Instant::now();
        let mut m = message(Form::Deliver.fragment_len() * 3, Form::Deliver, now);
        send_all(&mut m, now);
        let mut newer = Bitmap::none(3);
        newer.set(0);
        newer.set(1);
        m.acknowledged_by([1; 8], false, &newer, now);
        m.acknowledged_by([1; 8], false, &Bitmap::none(3), now);
        assert_eq!(m.acknowledged(), 2);
    }

    #[test]
    fn complete_but_not_accepted_is_asked_about() {
        let now = Instant::now();
        let mut m = message(10, Form::Deliver, now);
        send_all(&mut m, now);
        m.acknowledged_by([1; 8], false, &Bitmap::all(1), now);
        assert_eq!((m.standing(), m.next(now), m.next(now + PROBE)), (Standing::Underway, None, Some(0)));
    }
}
