//! A client and a service that meet at a relay, where the service speaks first.

use super::*;

const LAST: usize = 6;
const JOIN: u8 = 71;
const HOP: u8 = 72;

/// A world whose nodes hold cells after these messages, and the circuits of client 0 and service 1 to one relay, with those of the relay.
struct Meeting {
    world: World,
    client: CircuitId,
    service: CircuitId,
    at_relay: (CircuitId, CircuitId),
}

fn first(early: &[u8], said: usize) -> FirstStream {
    FirstStream { target: Target::Service(80), early: early.to_vec(), said }
}

impl Meeting {
    fn new(holds: bool) -> Self {
        let mut world = World::new(7);
        if holds {
            world.nodes.iter_mut().for_each(|node| node.core.hold_after(vec![JOIN, HOP]));
        }
        let (client, service) = (world.opened(0, LAST, 3), world.opened(1, LAST, 3));
        assert!(world.send(0, client, 69, b"waits"));
        world.run();
        let at_client = world.message(LAST).0;
        // The service says its part to the relay, and goes on to the client at once.
        assert!(world.send(1, service, JOIN, b"comes"));
        assert!(world.hop_with(1, service, VirtualRole::Service, 7, Some(first(b"GET", 3))));
        world.run();
        let at_service = world.message(LAST).0;
        Self { world, client, service, at_relay: (at_client, at_service) }
    }

    /// The service answers before the relay has joined the circuits.
    fn answer(&mut self, len: usize) -> StreamRef {
        let (inbound, target) = self.world.inbound(1);
        assert_eq!((inbound, target), (StreamRef { circuit: self.service, stream: StreamId(1) }, Target::Service(80)));
        assert_eq!(self.world.nodes[1].got[&inbound], b"GET");
        self.world.core(1).accept(inbound);
        self.world.core(1).write(inbound, bytes(len));
        self.world.run();
        inbound
    }

    /// The relay tells the client and joins.
    fn join(&mut self) {
        let (client, service) = self.at_relay;
        assert!(self.world.send(LAST, client, HOP, b"it is there"));
        let now = self.world.now;
        assert!(self.world.core(LAST).join(client, service, now));
        self.world.run();
    }

    fn is_over(&self) -> bool {
        self.world.closed(0, self.client).is_some() && self.world.closed(1, self.service).is_some()
    }
}

#[test]
fn an_answer_that_is_there_before_the_circuits_are_joined_and_the_hop_is_added_arrives_whole() {
    let mut meeting = Meeting::new(true);
    let inbound = meeting.answer(100_000);
    let held = meeting.world.nodes[LAST].core.counts().queued_cells;
    assert!(held >= 50, "{held}");
    meeting.join();
    let Meeting { mut world, client, .. } = meeting;
    // The message came first, and the cells wait for the node.
    assert_eq!((world.message(0).1, world.closed(0, client)), (HOP, None));
    assert!(world.nodes[0].core.held_bytes() > 100_000);
    assert!(world.hop_with(0, client, VirtualRole::Client, 7, Some(first(b"GET / and more", 3))));
    world.run();
    let stream = StreamRef { circuit: client, stream: StreamId(1) };
    assert!(world.nodes[0].got[&stream] == bytes(100_000));
    // What was said in the introduction is not said again.
    assert_eq!(world.nodes[1].got[&inbound], b"GET / and more");
    assert!(world.nodes[0].outputs.iter().any(|output| matches!(output, Output::Connected(of) if *of == stream)));
    assert_eq!((world.nodes[0].core.held_bytes(), world.nodes[LAST].core.counts().queued_cells), (0, 0));
    // The next stream is the client's to begin.
    let second = world.begin(0, client, Target::Service(80), b"second");
    world.core(1).write(inbound, bytes(1_000_000));
    world.run();
    let (inbound, _) = world.inbound(1);
    assert_eq!(
        (second.stream, inbound.stream, &world.nodes[1].got[&inbound][..]),
        (StreamId(2), StreamId(2), &b"second"[..])
    );
    assert_eq!(world.nodes[0].got[&stream].len(), 1_100_000);
}

#[test]
fn a_first_stream_without_bytes_and_one_that_is_refused() {
    let mut world = World::new(7);
    world.nodes.iter_mut().for_each(|node| node.core.hold_after(vec![JOIN, HOP]));
    let (client, service) = super::usual::rendezvous(&mut world, LAST, 7);
    world.run();
    assert!(world.closed(0, client).is_none() && world.closed(1, service).is_none());
    let mut meeting = Meeting::new(true);
    let (inbound, _) = meeting.world.inbound(1);
    meeting.world.core(1).reset(inbound, EndReason::Refused);
    meeting.world.run();
    meeting.join();
    let Meeting { mut world, client, .. } = meeting;
    assert!(world.hop_with(0, client, VirtualRole::Client, 7, Some(first(b"GET", 3))));
    world.run();
    let refused = |output: &Output| matches!(output, Output::Ended(of, EndReason::Refused) if of.stream == StreamId(1));
    assert!(world.nodes[0].outputs.iter().any(refused));
    assert_eq!(world.closed(0, client), None);
}

#[test]
fn cells_that_nobody_expects_are_not_held() {
    let mut meeting = Meeting::new(false);
    meeting.answer(10_000);
    assert!(meeting.world.closed(1, meeting.service).is_some());
    assert!(meeting.world.drops(LAST, DropReason::BadPayload) > 0);
}

#[test]
fn cells_are_not_held_for_ever() {
    let mut meeting = Meeting::new(true);
    meeting.answer(10_000);
    meeting.world.wait(Duration::from_secs(11));
    assert!(meeting.world.closed(1, meeting.service).is_some(), "at the relay");
    assert_eq!(meeting.world.nodes[LAST].core.counts().queued_cells, 0);
    let mut meeting = Meeting::new(true);
    meeting.answer(10_000);
    meeting.join();
    meeting.world.wait(Duration::from_secs(11));
    assert!(meeting.is_over(), "at the client");
}

#[test]
fn no_more_cells_are_held_than_may_be() {
    // An honest service has no more under way than its first window: this one does not wait for anybody.
    let mut meeting = Meeting::new(true);
    for _ in 0..300 {
        meeting.world.core(1).send_padding(meeting.service);
        meeting.world.run();
    }
    assert!(meeting.world.closed(1, meeting.service).is_some());
    assert_eq!(meeting.world.nodes[LAST].core.counts().queued_cells, 0);
    assert_eq!(meeting.world.drops(LAST, DropReason::BadPayload), 1);
}

#[test]
fn a_bit_flipped_in_a_held_cell_ends_both_circuits() {
    for (from, to) in [(2, LAST), (LAST, 2)] {
        let mut meeting = Meeting::new(true);
        let mut count = 0;
        meeting.world.tamper = Box::new(move |a, b, cell| {
            if (a, b) == (from, to) && cell.command() == crate::core::cell::Command::Relay {
                count += 1;
                if count == 3 {
                    cell.body_mut()[100] ^= 4;
                }
            }
            true
        });
        meeting.answer(20_000);
        meeting.join();
        assert!(meeting.world.hop_with(0, meeting.client, VirtualRole::Client, 7, Some(first(b"GET", 3))));
        meeting.world.run();
        assert!(meeting.is_over(), "{from} to {to}");
        assert_eq!(meeting.world.relayed(), 0);
    }
}

#[test]
fn a_circuit_that_is_held_goes_nowhere_else() {
    let mut meeting = Meeting::new(true);
    let extend = crate::wire::Extend { next: id(5), hints: vec![], request: vec![] };
    let now = meeting.world.now;
    meeting.world.core(LAST).handle_extend(meeting.at_relay.1, extend, now);
    meeting.world.run();
    assert!(meeting.world.closed(1, meeting.service).is_some());
}

#[test]
fn a_stream_that_was_there_before_is_not_taken_for_the_first() {
    let mut world = World::new(4);
    let circuit = world.opened(0, 3, 3);
    world.begin(0, circuit, host(), b"");
    assert!(!world.hop_with(0, circuit, VirtualRole::Client, 7, Some(first(b"GET", 3))));
    let circuit = world.opened(0, 3, 3);
    assert!(!world.hop_with(0, circuit, VirtualRole::Client, 7, Some(first(b"GET", 4))));
}
