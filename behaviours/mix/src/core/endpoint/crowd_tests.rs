//! What is built ahead must not outlive what it was built for.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use fog_base::{
    Epoch, EpochSchedule, MessageId, NetworkId, NodeId, Now, UnixMillis,
    relay::{NoPath, PathRequest, PathSelector, RelayHop, Role},
};
use fog_sphinx::MixSecretKey;
use rand::{Rng, RngExt};
use zeroize::Zeroizing;

use super::{Config, Endpoint, Kind, Output, Ping, Restored, Secrets, Send};
use crate::core::{
    cover::{Cover, SendClock},
    delay::Delays,
    outgoing::Address,
    seal,
};

const ME: NodeId = NodeId([200; 32]);

/// Relays that are known in every epoch.
#[derive(Debug)]
struct Relays(BTreeMap<NodeId, RelayHop>);

impl PathSelector for Relays {
    fn path(&self, request: &PathRequest<'_>, rng: &mut dyn Rng) -> Result<Vec<RelayHop>, NoPath> {
        let without = |unusable: &[NodeId]| -> Vec<_> {
            let free = |relay: &&RelayHop| relay.id != request.last && !unusable.contains(&relay.id);
            self.0.values().filter(free).cloned().collect()
        };
        let mut usable = without(&[request.exclude, request.avoid].concat());
        if usable.len() < request.hops {
            // Nobody answers here, so in the end every relay is suspected.
            usable = without(request.exclude);
        }
        let mut path: Vec<_> =
            (1..request.hops).map(|_| usable.swap_remove(rng.random_range(0..usable.len()))).collect();
        path.push(self.0.get(&request.last).cloned().ok_or(NoPath::UnknownRelay(request.last))?);
        Ok(path)
    }

    fn measuring_path(
        &self,
        request: &PathRequest<'_>,
        _: &dyn Fn(&NodeId) -> u32,
        rng: &mut dyn Rng,
    ) -> Result<Vec<RelayHop>, NoPath> {
        self.path(request, rng)
    }

    fn relay(&self, _: Epoch, id: NodeId) -> Option<RelayHop> {
        self.0.get(&id).cloned()
    }

    fn with_role(&self, _: Epoch, _: Role) -> Vec<NodeId> {
        self.0.keys().copied().collect()
    }
}

fn relays(numbers: impl Iterator<Item = u8>) -> Arc<Relays> {
    let seal_key = seal::public_key(&Zeroizing::new([1; 32])).unwrap();
    let mix_key = MixSecretKey::from_bytes([1; 32]).public().to_bytes();
    let hop = |id| (id, RelayHop { id, mix_key, delay_salt: [0; 32], seal_key, versions: [1].into() });
    Arc::new(Relays(numbers.map(|n| hop(NodeId([n; 32]))).chain([hop(ME)]).collect()))
}

struct Sender {
    endpoint: Endpoint,
    now: Now,
}

/// A packet that left: when, to whom, of which epoch.
type Left = (Now, NodeId, Epoch);

impl Sender {
    fn new(cover: Cover) -> Self {
        let now = Now { mono: Instant::now(), unix: UnixMillis(1_800_000_000_000) };
        let config = Config {
            me: ME,
            network: NetworkId([1; 32]),
            schedule: EpochSchedule::new(Duration::from_secs(60)),
            delays: Delays { mean: Duration::from_millis(20), max: Duration::from_millis(200) },
            send_per_second: 50.0,
            cover,
            loops_per_second: 0.2,
            hops: 3,
            offers_roles: true,
        };
        let secrets = Secrets {
            identity: ed25519_dalek::SigningKey::from_bytes(&[2; 32]),
            seal: Zeroizing::new([2; 32]),
            slot: ed25519_dalek::SigningKey::from_bytes(&[3; 32]),
        };
        let (restored, paths) = (Restored::default(), relays(1..=9));
        let endpoint = Endpoint::new(config, secrets, restored, paths, Arc::default(), [7; 32], now).unwrap();
        Self { endpoint, now }
    }

    fn message(&mut self, length: usize) {
        self.send(MessageId([5; 16]), length);
    }

    fn send(&mut self, id: MessageId, length: usize) {
        let seal_key = seal::public_key(&Zeroizing::new([1; 32])).unwrap();
        let to = Address { node: NodeId([9; 32]), seal_key, mailboxes: Vec::new() };
        let (body, timeout) = (vec![0; length], Duration::from_secs(600));
        self.endpoint.send(Send { id, to, body, hops: None, kind: Kind::Anonymous, timeout }, self.now).unwrap();
    }

    /// What leaves within `time`.
    fn run(&mut self, time: Duration) -> Vec<Left> {
        let end = self.now.mono + time;
        let mut left = Vec::new();
        while self.now.mono < end {
            while let Some(output) = self.endpoint.poll_output() {
                if let Output::Send { first, packet, .. } = output {
                    left.push((self.now, first, Epoch(fog_sphinx::peek(packet.as_slice()).unwrap())));
                }
            }
            let next = self.endpoint.poll_timeout(self.now.mono).unwrap().min(end);
            // Wall time counts milliseconds.
            let step = next.saturating_duration_since(self.now.mono).max(Duration::from_millis(1));
            self.now = self.now.plus(step);
            self.endpoint.handle_timeout(self.now);
        }
        left
    }

    fn ahead(&self) -> usize {
        self.endpoint.ahead.drops.len() + self.endpoint.ahead.fragments.len()
    }
}

#[test]
fn packets_are_built_ahead_and_leave_one_by_one() {
    for (cover, length) in [(Cover::None, 40_000), (Cover::Full, 0)] {
        let mut sender = Sender::new(cover);
        if length > 0 {
            sender.message(length);
        }
        let mut built_ahead = 0;
        for _ in 0..40 {
            sender.run(Duration::from_millis(5));
            built_ahead = built_ahead.max(sender.ahead());
        }
        assert_eq!(built_ahead, super::crowd::CROWD - 1, "{cover:?}");
    }
}

#[test]
fn many_messages_share_a_crowd_and_nothing_old_leaves() {
    for cover in [Cover::None, Cover::Full] {
        let mut sender = Sender::new(cover);
        for n in 0..100 {
            sender.send(MessageId([n; 16]), 40_000);
        }
        let mut oldest = Duration::ZERO;
        for _ in 0..2_000 {
            sender.run(Duration::from_millis(5));
            let ages = sender.endpoint.ahead.fragments.values().map(|built| sender.now.mono - built.at);
            oldest = oldest.max(ages.max().unwrap_or_default());
        }
        assert!(oldest <= super::crowd::AHEAD + Duration::from_millis(200), "{oldest:?} {cover:?}");
        let messages = sender.endpoint.ahead.fragments.keys().map(|(id, _)| id).collect::<BTreeSet<_>>().len();
        assert_eq!(messages, sender.endpoint.ahead.fragments.len(), "each of another message: they take turns");
    }
}

#[test]
fn little_is_built_that_does_not_leave() {
    let mut sender = Sender::new(Cover::None);
    sender.message(200_000);
    // Nobody answers, so in the end everything is due again and again.
    let left = sender.run(Duration::from_secs(20)).len();
    let built = sender.endpoint.built;
    // What became due takes the turn of what was built ahead, and some of that grows old.
    assert!(built <= left + left / 8, "{built} were built, {left} left");
    let message = sender.endpoint.messages.values().next().unwrap();
    assert!(message.retransmissions() > 100, "{}", message.retransmissions());
}

#[test]
fn nothing_that_was_built_for_an_epoch_leaves_in_the_next() {
    let mut sender = Sender::new(Cover::Full);
    sender.message(400_000);
    let schedule = sender.endpoint.config.schedule;
    let left = sender.run(Duration::from_secs(150));
    let epochs: BTreeSet<_> = left.iter().map(|(_, _, epoch)| *epoch).collect();
    assert!(left.len() > 5_000 && epochs.len() >= 3, "{} packets, {epochs:?}", left.len());
    let mut tick_before = left[0].0.unix;
    for (now, _, epoch) in left {
        // With full cover the packet of a tick is chosen right after the tick before.
        let allowed = [schedule.for_sending(now.unix), schedule.for_sending(tick_before)];
        assert!(allowed.contains(&epoch), "{epoch:?} at {:?}", now.unix);
        tick_before = now.unix;
    }
}

fn slow_clock() -> Sender {
    let mut sender = Sender::new(Cover::Full);
    sender.endpoint.clock = SendClock::new(0.1);
    sender
}

/// With one packet in ten seconds the packet of the next tick waits long, also across the end of its epoch.
#[test]
fn with_a_slow_clock_no_packet_of_an_ended_epoch_leaves() {
    let mut sender = slow_clock();
    let schedule = sender.endpoint.config.schedule;
    let left = sender.run(Duration::from_secs(4_000));
    assert!((320..480).contains(&left.len()), "{}", left.len());
    let wrong = left.iter().filter(|(now, _, epoch)| *epoch != schedule.for_sending(now.unix)).count();
    assert_eq!(wrong, 0, "of {}", left.len());
}

#[test]
fn a_ping_that_waits_for_its_tick_is_not_forgotten_with_its_packet() {
    for boundary in [true, false] {
        let mut sender = slow_clock();
        let seal_key = seal::public_key(&Zeroizing::new([1; 32])).unwrap();
        let to = Address { node: NodeId([9; 32]), seal_key, mailboxes: Vec::new() };
        let ping = Ping { id: 1, to, hops: None, timeout: Duration::from_secs(1_000) };
        sender.endpoint.ping(ping, sender.now).unwrap();
        while !sender.endpoint.pings.is_empty() {
            sender.run(Duration::from_millis(100));
        }
        assert!(sender.endpoint.surbs.is_empty(), "it is built and has not left");
        if boundary {
            let next = sender.endpoint.ahead.next_ends().unwrap();
            sender.endpoint.clock = SendClock::new(0.01);
            sender.endpoint.clock.wake(next + Duration::from_secs(1), &mut sender.endpoint.rng);
            sender.run(next - sender.now.mono + Duration::from_secs(1));
        } else {
            (1..=9).for_each(|n| sender.endpoint.unreachable(NodeId([n; 32]), sender.now));
        }
        assert!(sender.endpoint.surbs.is_empty());
        let left = (0..60).any(|_| {
            sender.run(Duration::from_secs(15));
            !sender.endpoint.surbs.is_empty()
        });
        assert!(left, "its answer is waited for");
    }
}

#[test]
fn nothing_leaves_by_a_relay_that_cannot_be_reached_or_is_not_known_any_more() {
    let gone = NodeId([4; 32]);
    let uses_it = |left: &[Left]| left.iter().any(|(_, first, _)| *first == gone);
    for cover in [Cover::None, Cover::Full] {
        let mut sender = Sender::new(cover);
        sender.message(400_000);
        assert!(uses_it(&sender.run(Duration::from_millis(500))));
        sender.endpoint.unreachable(gone, sender.now);
        let left = sender.run(Duration::from_millis(500));
        assert!(left.len() > 10 && !uses_it(&left), "{cover:?}");

        let mut sender = Sender::new(cover);
        sender.message(400_000);
        assert!(uses_it(&sender.run(Duration::from_secs(3))));
        sender.endpoint.set_paths(relays((1..=9).filter(|n| *n != 4)));
        let left = sender.run(Duration::from_secs(3));
        assert!(left.len() > 50 && !uses_it(&left), "{cover:?}");
    }
}

/// With full cover the packet of a tick leaves before the next one is built, which takes long.
#[test]
fn the_next_packet_is_built_after_the_last_one_has_left() {
    let mut sender = Sender::new(Cover::Full);
    sender.run(Duration::from_millis(100));
    let mut ticks = 0;
    while ticks < 20 {
        sender.now = sender.now.plus(Duration::from_millis(1));
        sender.endpoint.handle_timeout(sender.now);
        if let Some(Output::Send { .. }) = sender.endpoint.poll_output() {
            ticks += 1;
            assert!(sender.endpoint.ahead.next.is_none());
            assert_eq!(sender.endpoint.poll_timeout(sender.now.mono), Some(sender.now.mono), "at once, but later");
            sender.endpoint.handle_timeout(sender.now);
            assert!(sender.endpoint.ahead.next.is_some() && sender.endpoint.poll_output().is_none());
        }
    }
}

#[test]
fn a_message_that_ends_leaves_nothing_behind() {
    let mut sender = Sender::new(Cover::None);
    sender.message(40_000);
    while sender.ahead() == 0 {
        sender.run(Duration::from_millis(1));
    }
    sender.endpoint.end_message(&MessageId([5; 16]));
    assert_eq!(sender.ahead(), 0);
}
