use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::core::{
    dag::Dag,
    envelope::LIFETIME,
    id::EnvelopeId,
    tag::TagKey,
    testing::{ROOM, RoomSeal, dag, device, now, write},
};

const ALL: [Transport; 4] = [Transport::Lan, Transport::Direct, Transport::Mix, Transport::Mailbox];

fn terms(now: Now) -> Terms {
    Terms {
        priority: Priority::Message,
        policy: Policy::Auto,
        via: Via::Auto,
        expires: now.unix.plus(LIFETIME),
        is_blocked: false,
    }
}

fn to(n: u16) -> Recipient {
    Recipient::Device(device(n))
}

fn pack(message: &Verified, seal: &mut RoomSeal, now: Now) -> Packed {
    Envelope::pack(&message.encode(), seal, &TagKey([4; 32]), Priority::Message, LIFETIME, now.unix).unwrap()
}

fn drain(outbox: &mut Outbox) -> Vec<Output> {
    std::iter::from_fn(|| outbox.poll_output()).collect()
}

fn batches(outputs: &[Output]) -> Vec<Batch> {
    outputs
        .iter()
        .filter_map(|output| if let Output::Persist(batch) = output { Some(batch.clone()) } else { None })
        .collect()
}

fn sends(outputs: &[Output]) -> Vec<Transport> {
    let send = |output: &Output| if let Output::Send { transport, .. } = output { Some(*transport) } else { None };
    outputs.iter().filter_map(send).collect()
}

/// An outbox whose entry for device 2 is stored and ready.
fn ready(reach: &[Transport]) -> (Outbox, Key, Now) {
    let (mut outbox, at) = (Outbox::new([1; 32]), now());
    let message = write(&mut dag(), 1, "hello");
    let key = (message.id(), to(2));
    outbox.handle_reachable(to(2), Reach::of(reach), at);
    outbox.handle_submit(&message, to(2), terms(at), at).unwrap();
    outbox.handle_packed(key, pack(&message, &mut RoomSeal(0), at));
    let batch = batches(&drain(&mut outbox)).remove(0);
    outbox.handle_persisted(batch.number, at);
    (outbox, key, at)
}

#[test]
fn nothing_leaves_before_one_batch_holds_all_that_it_needs() {
    let (mut outbox, at) = (Outbox::new([1; 32]), now());
    let message = write(&mut dag(), 1, "hello");
    let key = (message.id(), to(2));
    outbox.handle_reachable(to(2), Reach::of(&ALL), at);
    outbox.handle_submit(&message, to(2), terms(at), at).unwrap();
    let queued = Output::State { key, state: State::Queued, via: None, reason: Some(Reason::NotStored) };
    assert_eq!(drain(&mut outbox), [queued, Output::Pack(key)]);
    let packed = pack(&message, &mut RoomSeal(0), at);
    outbox.handle_packed(key, packed.clone());
    let outputs = drain(&mut outbox);
    let [Output::Persist(batch)] = &outputs[..] else { panic!("{outputs:?}") };
    assert!(batch.sync);
    let saved = Saved { key, terms: terms(at), envelope: Some(packed.envelope.clone()), state: State::Queued };
    let expected = [
        Write::Message { id: key.0, conversation: ROOM, author: device(1), seq: 1, bytes: message.encode() },
        Write::Entry(Box::new(saved)),
        Write::Seal { key: packed.state[0].0.clone(), value: packed.state[0].1.clone() },
    ];
    assert_eq!(batch.writes, expected);
    // Whatever happens, it waits for the disk.
    for seconds in 0..100 {
        outbox.handle_timeout(at.plus(Duration::from_secs(seconds)));
        outbox.handle_reachable(to(2), Reach::of(&ALL[..1]), at);
        outbox.handle_failure(key, at);
    }
    outbox.handle_persisted(batch.number + 1, at);
    assert_eq!(drain(&mut outbox), []);
    outbox.handle_persisted(batch.number, at);
    outbox.handle_timeout(at);
    assert_eq!(sends(&drain(&mut outbox)), [Transport::Lan]);
}

#[test]
fn slower_ways_start_later_and_a_receipt_stops_them() {
    let (mut outbox, key, at) = ready(&ALL);
    let after = |outbox: &mut Outbox, millis| {
        outbox.handle_timeout(at.plus(Duration::from_millis(millis)));
        sends(&drain(outbox))
    };
    assert_eq!(after(&mut outbox, 0), [Transport::Lan]);
    assert_eq!(after(&mut outbox, 149), []);
    assert_eq!(after(&mut outbox, 150), [Transport::Direct]);
    outbox.handle_progress(key, Transport::Lan, State::Sent);
    assert_eq!(after(&mut outbox, 1_000), [Transport::Mix], "bytes that were taken are no receipt");
    outbox.handle_receipt(key, Some(Transport::Lan), State::Delivered);
    let told = drain(&mut outbox);
    assert!(told.contains(&Output::State { key, state: State::Delivered, via: Some(Transport::Lan), reason: None }));
    let batch = &batches(&told)[0];
    assert_eq!((batch.sync, &batch.writes[..]), (false, &[Write::Delete(key)][..]));
    assert_eq!(after(&mut outbox, 100_000), []);
    assert_eq!((outbox.is_empty(), outbox.poll_timeout()), (true, None));
}

#[test]
fn a_way_that_fails_starts_the_next_one_at_once() {
    let (mut outbox, key, at) = ready(&ALL);
    outbox.handle_timeout(at);
    assert_eq!(sends(&drain(&mut outbox)), [Transport::Lan]);
    for next in &ALL[1..] {
        outbox.handle_failure(key, at);
        assert_eq!(sends(&drain(&mut outbox)), [*next]);
    }
    outbox.handle_failure(key, at);
    assert_eq!(sends(&drain(&mut outbox)), []);
}

#[test]
fn attempts_are_repeated_ever_more_rarely_until_the_time_is_over() {
    let (mut outbox, key, at) = ready(&[Transport::Lan]);
    let mut times = Vec::new();
    while let Some(due) = outbox.poll_timeout() {
        let late = at.plus(due.saturating_duration_since(at.mono));
        outbox.handle_timeout(late);
        let outputs = drain(&mut outbox);
        times.extend(sends(&outputs).iter().map(|_| (due - at.mono).as_secs()));
        if let Some(Output::State { state: State::Failed, reason, .. }) = outputs.last().filter(|_| outbox.is_empty()) {
            assert_eq!(*reason, Some(Reason::Expired));
        }
    }
    assert!(outbox.is_empty() && outbox.state(&key).is_none());
    let waits: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (wait, expected) in waits.iter().zip([5, 10, 20, 40, 80, 160, 320, 600, 600, 600]) {
        assert!((expected * 8 / 10 - 1..=expected * 12 / 10 + 1).contains(wait), "{waits:?}");
    }
    assert!(times.last().is_some_and(|last| *last > LIFETIME.as_secs() - 730), "{:?}", times.last());
}

#[test]
fn an_unreachable_recipient_is_waited_for_and_then_served_at_once() {
    let (mut outbox, key, at) = ready(&[]);
    assert_eq!(outbox.state(&key), Some((State::Queued, Some(Reason::NoRoute))));
    outbox.handle_timeout(at.plus(Duration::from_secs(60)));
    assert_eq!(sends(&drain(&mut outbox)), []);
    let later = at.plus(Duration::from_secs(61));
    outbox.handle_reachable(to(2), Reach::of(&[Transport::Mailbox]), later);
    // Nothing else is there: the mailbox still starts at its time.
    outbox.handle_timeout(later.plus(Duration::from_secs(3)));
    assert_eq!(sends(&drain(&mut outbox)), [Transport::Mailbox]);
    outbox.handle_progress(key, Transport::Mailbox, State::Carried);
    outbox.handle_progress(key, Transport::Lan, State::Sent);
    assert_eq!(outbox.state(&key), Some((State::Carried, None)));
}

#[test]
fn one_device_has_32_under_way_and_the_others_are_stored_and_wait() {
    let (mut outbox, at, mut dag) = (Outbox::new([1; 32]), now(), dag());
    let messages: Vec<_> = (0..40).map(|i| write(&mut dag, 1, &format!("{i}"))).collect();
    for message in &messages {
        outbox.handle_submit(message, to(2), terms(at), at).unwrap();
    }
    let outputs = drain(&mut outbox);
    let packs = |outputs: &[Output]| -> Vec<MessageId> {
        let pack = |output: &Output| if let Output::Pack(key) = output { Some(key.0) } else { None };
        outputs.iter().filter_map(pack).collect()
    };
    let ids: Vec<_> = messages.iter().map(Verified::id).collect();
    assert_eq!(packs(&outputs), ids[..WINDOW]);
    // The others survive a crash, unsealed.
    let stored = batches(&outputs);
    assert_eq!(stored.len(), 8);
    assert!(stored.iter().all(|batch| batch.sync && matches!(batch.writes[0], Write::Message { .. })));
    assert_eq!(outbox.state(&(ids[39], to(2))), Some((State::Queued, Some(Reason::Window))));
    outbox.handle_receipt((ids[0], to(2)), None, State::Delivered);
    assert_eq!(packs(&drain(&mut outbox)), [ids[WINDOW]]);
}

#[test]
fn members_get_a_message_by_gossip_and_then_by_reconciliation() {
    let (mut outbox, at) = (Outbox::new([1; 32]), now());
    let message = write(&mut dag(), 1, "hello");
    let members = Recipient::Members(ROOM);
    let key = (message.id(), members);
    outbox.handle_submit(&message, members, terms(at), at).unwrap();
    outbox.handle_packed(key, pack(&message, &mut RoomSeal(0), at));
    let batch = batches(&drain(&mut outbox)).remove(0);
    outbox.handle_persisted(batch.number, at);
    outbox.handle_timeout(at);
    assert_eq!(outbox.state(&key), Some((State::Queued, Some(Reason::NoRoute))), "nobody is subscribed: not sent");
    outbox.handle_reachable(members, Reach::of(&[Transport::Gossip]), at);
    outbox.handle_timeout(at);
    assert_eq!(sends(&drain(&mut outbox)), [Transport::Gossip]);
    outbox.handle_progress(key, Transport::Gossip, State::Sent);
    assert!(outbox.is_empty());
}

#[test]
fn what_cannot_be_sent_fails_at_once_with_its_reason() {
    let (mut outbox, at) = (Outbox::new([1; 32]), now());
    let message = write(&mut dag(), 1, "hello");
    let mut submit = |terms| outbox.handle_submit(&message, to(2), terms, at);
    assert_eq!(submit(Terms { is_blocked: true, ..terms(at) }), Err(Reason::Blocked));
    let forbidden = Terms { policy: Policy::Mix, via: Via::Lan, ..terms(at) };
    assert_eq!(submit(forbidden), Err(Reason::ForbiddenByPolicy));
    assert_eq!(submit(Terms { expires: at.unix, ..terms(at) }), Err(Reason::Expired));
    assert!(outbox.is_empty() && drain(&mut outbox).is_empty());
}

#[test]
fn the_outbox_is_bounded() {
    let (mut outbox, at, mut dag) = (Outbox::new([1; 32]), now(), dag());
    let message = write(&mut dag, 1, "hello");
    for n in 0..MAX_ENTRIES {
        outbox.handle_submit(&message, to(u16::try_from(n).unwrap()), terms(at), at).unwrap();
        drain(&mut outbox);
    }
    assert_eq!(outbox.handle_submit(&message, to(60_000), terms(at), at), Err(Reason::QueueFull));
    let mut outbox = Outbox::new([1; 32]);
    let sent = (0..=MAX_FOR_RECIPIENT).filter(|i| {
        let message = write(&mut dag, 1, &format!("{i}"));
        outbox.handle_submit(&message, to(2), terms(at), at).is_ok()
    });
    assert_eq!(sent.count(), MAX_FOR_RECIPIENT);
}

/// What of a run survives: batches that were written.
#[derive(Default)]
struct Disk {
    entries: BTreeMap<Key, Saved>,
    messages: BTreeMap<MessageId, u32>,
    /// Whatever was there at some time.
    stored: BTreeSet<Key>,
    seal_steps: u64,
}

impl Disk {
    fn write(&mut self, batch: &Batch) {
        for write in &batch.writes {
            match write {
                Write::Message { id, seq, .. } => drop(self.messages.insert(*id, *seq)),
                Write::Entry(saved) => {
                    self.stored.insert(saved.key);
                    self.entries.insert(saved.key, (**saved).clone());
                }
                Write::Delete(key) => drop(self.entries.remove(key)),
                Write::Seal { value, .. } => {
                    let [a, b, c, d, e, f, g, h, ..] = value[..] else { panic!() };
                    self.seal_steps = self.seal_steps.max(u64::from_be_bytes([a, b, c, d, e, f, g, h]));
                }
            }
        }
    }
}

/// A node that crashes: its outbox, its disk, its sealer, and what left it.
struct Run {
    rng: ChaCha8Rng,
    at: Now,
    outbox: Outbox,
    dag: Dag,
    seal: RoomSeal,
    disk: Disk,
    in_flight: Vec<Batch>,
    messages: BTreeMap<MessageId, Verified>,
    left: BTreeMap<EnvelopeId, Key>,
    done: BTreeSet<Key>,
    states: BTreeMap<Key, State>,
}

impl Run {
    fn new(seed: u64) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            at: now(),
            outbox: Outbox::new([1; 32]),
            dag: dag(),
            seal: RoomSeal(0),
            disk: Disk::default(),
            in_flight: Vec::new(),
            messages: BTreeMap::new(),
            left: BTreeMap::new(),
            done: BTreeSet::new(),
            states: BTreeMap::new(),
        }
    }

    fn step(&mut self) {
        match self.rng.random_range(0..9) {
            0 | 1 => self.submit(),
            2 => {
                let reach: Vec<_> = Transport::ALL.into_iter().filter(|_| self.rng.random_bool(0.5)).collect();
                let recipient = to(self.rng.random_range(2..4));
                self.outbox.handle_reachable(recipient, Reach::of(&reach), self.at);
            }
            // The disk finishes the oldest batch.
            3 | 4 if !self.in_flight.is_empty() => {
                let batch = self.in_flight.remove(0);
                self.disk.write(&batch);
                self.outbox.handle_persisted(batch.number, self.at);
            }
            5 => {
                if let Some(key) = self.left.values().next_back().copied() {
                    self.outbox.handle_receipt(key, None, State::Delivered);
                    self.done.insert(key);
                }
            }
            6 => {
                if let Some(key) = self.left.values().next().copied() {
                    self.outbox.handle_failure(key, self.at);
                }
            }
            7 if self.rng.random_bool(0.3) => self.crash(),
            _ => {
                self.at = self.at.plus(Duration::from_millis(self.rng.random_range(0..5_000)));
                self.outbox.handle_timeout(self.at);
            }
        }
        while let Some(output) = self.outbox.poll_output() {
            self.follow(output);
        }
    }

    fn submit(&mut self) {
        let message = write(&mut self.dag, 1, "hello");
        let policy = if self.rng.random_bool(0.5) { Policy::Mix } else { Policy::Auto };
        let recipient = to(self.rng.random_range(2..4));
        self.messages.insert(message.id(), message.clone());
        self.outbox.handle_submit(&message, recipient, Terms { policy, ..terms(self.at) }, self.at).unwrap();
    }

    /// What is not on disk is gone, the sealer's state with it.
    fn crash(&mut self) {
        self.in_flight.clear();
        self.outbox = Outbox::new([2; 32]);
        self.seal = RoomSeal(self.disk.seal_steps);
        self.states.clear();
        for saved in self.disk.entries.values() {
            self.outbox.restore(saved.clone(), self.at).unwrap();
        }
        for key in self.disk.stored.difference(&self.done) {
            assert!(self.outbox.state(key).is_some(), "an entry that was stored is lost");
        }
    }

    fn follow(&mut self, output: Output) {
        match output {
            Output::Pack(key) => {
                let packed = pack(&self.messages[&key.0], &mut self.seal, self.at);
                self.outbox.handle_packed(key, packed);
            }
            Output::Persist(batch) => self.in_flight.push(batch),
            Output::Send { key, transport, envelope } => {
                let saved = &self.disk.entries[&key];
                assert_eq!(saved.envelope.as_ref(), Some(&*envelope), "it left before it was stored");
                assert!(self.disk.messages.contains_key(&key.0));
                // One envelope for one message and recipient, ever: no key of the sealer served twice.
                assert_eq!(*self.left.entry(envelope.id()).or_insert(key), key);
                if saved.terms.policy == Policy::Mix {
                    assert!(matches!(transport, Transport::Mix | Transport::MixMailbox));
                }
            }
            Output::State { key, state, .. } => {
                let before = self.states.insert(key, state);
                assert!(before.is_none_or(|before| state >= before), "{before:?} then {state:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_crash_at_any_point_reuses_no_key_loses_nothing_stored_and_downgrades_nothing(seed in 0u64..1_000_000) {
        let mut run = Run::new(seed);
        for _ in 0..200 {
            run.step();
        }
        let keys: BTreeSet<_> = run.left.values().collect();
        prop_assert_eq!(keys.len(), run.left.len(), "a message was sealed twice for one recipient and both left");
    }
}
