use super::*;
use crate::core::types::{Side, VirtualRole};

#[test]
fn circuits_of_one_to_eight_hops_are_built() {
    for hops in 1..=MAX_HOPS {
        let mut world = World::new(MAX_HOPS + 1);
        let circuit = world.opened(0, MAX_HOPS, hops);
        let info = world.nodes[0].core.list_circuits(world.now);
        assert_eq!((info.len(), info[0].hops.len(), info[0].state), (1, hops, "open"));
        assert_eq!(info[0].hops.last(), Some(&id(MAX_HOPS)));
        assert_eq!(world.relayed(), hops);
        let now = world.now;
        world.core(0).close(circuit, now);
        world.run();
        assert_eq!((world.closed(0, circuit), world.relayed()), (Some(CloseReason::Asked), 0));
    }
}

#[test]
fn a_relay_without_a_link_is_asked_for_where_the_client_says_it_is() {
    let mut world = World::new(4);
    world.open(0, 3, 3);
    let connects: Vec<_> = std::iter::from_fn(|| world.core(0).poll_output()).collect();
    assert!(
        matches!(&connects[..], [Output::Connect { node, addresses, is_hint: false }] if *node == id(1) && *addresses == [[1]])
    );
}

#[test]
fn a_stream_through_an_exit_carries_bytes_both_ways() {
    let mut world = World::new(4);
    let circuit = world.open(0, 3, 3);
    // Before there is a circuit.
    let stream = world.begin(0, circuit, host(), b"early");
    world.run();
    let (inbound, target) = world.inbound(3);
    assert_eq!((target, world.nodes[3].got[&inbound].as_slice()), (host(), b"early".as_slice()));
    world.core(3).accept(inbound);
    world.core(3).write(inbound, bytes(3_000_000));
    world.core(3).finish(inbound);
    world.core(0).write(stream, bytes(1_000_000));
    world.run();
    assert!(world.nodes[0].got[&stream] == bytes(3_000_000));
    assert!(world.nodes[3].got[&inbound][5..] == bytes(1_000_000));
    let told = |output: &Output| matches!(output, Output::Connected(s) | Output::Finished(s) if *s == stream);
    assert_eq!(world.nodes[0].outputs.iter().filter(|output| told(output)).count(), 2);
    world.core(0).finish(stream);
    world.run();
    assert_eq!(world.nodes[0].core.list_circuits(world.now)[0].streams, 0);
}

#[test]
fn an_exit_refuses_what_its_policy_does_not_allow() {
    let mut world = World::new(4);
    let circuit = world.opened(0, 3, 3);
    for target in [Target::Host("example.com".into(), 25), Target::Host("127.0.0.1".into(), 80), Target::Service(80)] {
        let stream = world.begin(0, circuit, target, &[]);
        world.run();
        let refused = |output: &Output| matches!(output, Output::Ended(s, EndReason::Refused) if *s == stream);
        assert!(world.nodes[0].outputs.iter().any(refused));
    }
    assert!(!world.nodes[3].outputs.iter().any(|output| matches!(output, Output::Inbound { .. })));
    assert!(world.closed(0, circuit).is_none());
}

#[test]
fn messages_pass_both_ways_and_both_ends_know_the_same_binding() {
    let mut world = World::new(4);
    let circuit = world.opened(0, 3, 3);
    assert!(world.send(0, circuit, 64, &bytes(20_000)));
    world.run();
    let (there, command, body, binding) = world.message(3);
    assert_eq!((command, body), (64, bytes(20_000)));
    assert!(world.send(3, there, 127, b"answer"));
    world.run();
    let opened = |output: &Output| if let Output::Opened { binding, .. } = output { Some(*binding) } else { None };
    let own = world.nodes[0].outputs.iter().find_map(opened).unwrap();
    assert_eq!(world.message(0), (circuit, 127, b"answer".to_vec(), binding));
    assert_eq!(own, binding);
    let sides = |at: usize| {
        let side = |output: &Output| if let Output::Message { side, .. } = output { Some(*side) } else { None };
        world.nodes[at].outputs.iter().find_map(side)
    };
    assert_eq!((sides(0), sides(3)), (Some(Side::Client), Some(Side::Relay)));
    for (command, len) in [(63, 0), (128, 0), (64, 32 * 1024 + 1)] {
        assert!(!world.send(0, circuit, command, &vec![0; len]));
    }
    let now = world.now;
    world.core(3).close(there, now);
    world.run();
    assert_eq!(world.closed(0, circuit), Some(CloseReason::Remote));
}

/// A client 0 and a service 1, each with a circuit to relay `last`, where they are joined; hops are counted without virtual ones.
pub(super) fn rendezvous(world: &mut World, last: usize, service_seed: u8) -> (CircuitId, CircuitId) {
    let (client, service) = (world.opened(0, last, 3), world.opened(1, last, 3));
    for (at, circuit) in [(0, client), (1, service)] {
        assert!(world.send(at, circuit, 70, &[at as u8]));
    }
    world.run();
    let circuits: Vec<_> = world.nodes[last]
        .outputs
        .iter()
        .filter_map(|output| if let Output::Message { circuit, .. } = output { Some(*circuit) } else { None })
        .collect();
    let now = world.now;
    assert!(world.core(last).join(circuits[0], circuits[1], now));
    assert!(!world.core(last).join(circuits[0], circuits[1], now));
    assert!(world.hop(0, client, VirtualRole::Client, 7));
    assert!(world.hop(1, service, VirtualRole::Service, service_seed));
    (client, service)
}

#[test]
fn streams_pass_a_rendezvous_end_to_end() {
    let mut world = World::new(7);
    let (client, service) = rendezvous(&mut world, 6, 7);
    let stream = world.begin(0, client, Target::Service(80), b"GET /");
    world.run();
    let (inbound, target) = world.inbound(1);
    assert_eq!((inbound.circuit, target), (service, Target::Service(80)));
    world.core(1).accept(inbound);
    world.core(1).write(inbound, bytes(2_000_000));
    world.core(0).write(stream, bytes(2_000_000));
    world.run();
    assert!(world.nodes[0].got[&stream] == bytes(2_000_000));
    assert!(world.nodes[1].got[&inbound][5..] == bytes(2_000_000));
    // A service takes no hosts.
    let stream = world.begin(0, client, host(), &[]);
    world.run();
    let refused = |output: &Output| matches!(output, Output::Ended(s, EndReason::Refused) if *s == stream);
    assert!(world.nodes[0].outputs.iter().any(refused));
    let now = world.now;
    world.core(0).close(client, now);
    world.run();
    assert_eq!((world.closed(1, service), world.relayed()), (Some(CloseReason::Remote), 0));
}

#[test]
fn what_was_said_to_the_relay_before_a_virtual_hop_still_reaches_it() {
    let mut world = World::new(7);
    let service = world.opened(1, 6, 3);
    // Nothing has left between the two.
    assert!(world.send(1, service, 71, b"for the relay"));
    assert!(world.hop(1, service, VirtualRole::Service, 7));
    world.run();
    let heard =
        |output: &Output| matches!(output, Output::Message { command: 71, body, .. } if body == b"for the relay");
    assert!(world.nodes[6].outputs.iter().any(heard));
    assert_eq!(world.closed(1, service), None);
}

#[test]
fn ends_of_a_virtual_hop_with_other_keys_do_not_understand_each_other() {
    let mut world = World::new(7);
    let (client, service) = rendezvous(&mut world, 6, 9);
    world.begin(0, client, Target::Service(80), b"GET /");
    world.run();
    assert!(world.closed(0, client).is_some() && world.closed(1, service).is_some());
    assert_eq!(world.relayed(), 0);
}

#[test]
fn another_path_is_tried_when_a_relay_is_down() {
    let mut world = World::new(6);
    world.kill(1);
    let circuit = world.opened(0, 5, 3);
    assert!(!world.nodes[0].core.hops(circuit).contains(&id(1)));
    assert!(world.nodes[0].core.hops(circuit).ends_with(&[id(5)]));
}

#[test]
fn what_was_to_be_sent_waits_for_the_path_that_works() {
    let mut world = World::new(6);
    let circuit = world.open(0, 5, 3);
    world.begin(0, circuit, host(), b"early");
    world.step();
    world.kill(1);
    world.run();
    assert!(world.is_opened(0, circuit));
    let (inbound, _) = world.inbound(5);
    assert_eq!(world.nodes[5].got[&inbound], b"early");
}

#[test]
fn a_circuit_that_cannot_be_built_ends_after_its_attempts() {
    let mut world = World::new(5);
    world.kill(4);
    let circuit = world.open(0, 4, 3);
    world.wait(Duration::from_secs(200));
    assert_eq!(world.closed(0, circuit), Some(CloseReason::Unbuilt));
    assert_eq!(world.relayed(), 0);
    let circuit = world.open(0, 4, 9);
    assert!(world.closed(0, circuit).is_none());
    world.run();
    assert_eq!(world.closed(0, circuit), Some(CloseReason::NoPath(NoPath::TooFewRelays)));
}

#[test]
fn a_relay_that_never_answers_costs_only_the_timeout() {
    let mut world = World::new(6);
    // Cells to node 2 are lost: whoever is sent over it does not come to be.
    world.tamper = Box::new(|_, to, _| to != 2);
    let circuit = world.open(0, 5, 2);
    world.wait(Duration::from_secs(1));
    assert!(world.is_opened(0, circuit));
    let circuit = world.open(0, 5, 3);
    world.wait(Duration::from_millis(2_900));
    assert!(!world.is_opened(0, circuit));
    world.wait(Duration::from_millis(200));
    assert!(world.is_opened(0, circuit) && !world.nodes[0].core.hops(circuit).contains(&id(2)));
}

#[test]
fn a_spare_circuit_is_taken_further_and_replaced() {
    let mut world = World::with(6, |at| Config { spares: if at == 0 { 2 } else { 0 }, ..usual_config() });
    world.wait(Duration::from_secs(3));
    let spares = |world: &World| {
        world.nodes[0].core.list_circuits(world.now).iter().filter(|info| info.purpose == Purpose::Spare).count()
    };
    assert_eq!(spares(&world), 2);
    let before = world.nodes[5].core.counts().relayed;
    world.opened(0, 5, 3);
    assert_eq!(world.nodes[5].core.counts().relayed, before + 1);
    world.wait(Duration::from_secs(2));
    assert_eq!(spares(&world), 2);
}

#[test]
fn streams_of_one_isolation_share_a_circuit_until_it_is_dirty() {
    let mut world = World::new(5);
    let find = |world: &mut World, port, isolation| {
        let now = world.now;
        let circuit = world.core(0).circuit_for(port, Isolation([isolation; 32]), now);
        world.run();
        circuit
    };
    let first = find(&mut world, 80, 1);
    assert_eq!(find(&mut world, 80, 1), first);
    assert_eq!(find(&mut world, 443, 1), first);
    let other = find(&mut world, 80, 2);
    assert_ne!(other, first);
    let now = world.now;
    world.core(0).open_stream(first, host(), vec![], now).unwrap();
    world.wait(Duration::from_secs(601));
    assert_ne!(find(&mut world, 80, 1), first);
    world.wait(Duration::from_secs(2));
    // The one with a stream lives on, the other one is closed.
    assert_eq!(world.closed(0, first), None);
    assert_eq!(world.closed(0, other), Some(CloseReason::Idle));
}

#[test]
fn an_idle_link_is_closed_and_a_used_one_is_not() {
    let mut world = World::new(4);
    let circuit = world.opened(0, 3, 3);
    world.wait(Duration::from_secs(600));
    assert_eq!(world.nodes[0].core.counts().links, 1);
    let now = world.now;
    world.core(0).close(circuit, now);
    world.wait(Duration::from_secs(130));
    assert!(world.nodes.iter().all(|node| node.core.counts().links == 0));
}

#[test]
fn a_reader_that_does_not_read_stops_its_stream_and_nothing_piles_up_in_relays() {
    let mut world = World::new(4);
    let circuit = world.opened(0, 3, 3);
    world.nodes[3].reads = false;
    let slow = world.begin(0, circuit, host(), &[]);
    world.core(0).write(slow, bytes(10_000_000));
    world.run();
    let (inbound, _) = world.inbound(3);
    assert_eq!(world.nodes[3].got[&inbound].len(), 128 * 1024);
    assert!(world.nodes.iter().all(|node| node.core.counts().queued_cells == 0));
    let quick = world.begin(0, circuit, host(), b"not held up");
    world.run();
    let (inbound, _) = world.inbound(3);
    assert_eq!(world.nodes[3].got[&inbound], b"not held up");
    assert_eq!(world.nodes[0].core.unsent(quick), Some(0));
}

#[test]
fn no_relay_receives_what_another_received_but_for_its_neighbours_cell() {
    // What two relays that are not neighbours see of a circuit has no cell body in common.
    let mut world = World::new(5);
    world.seen = Some(vec![HashSet::new(); 5]);
    let circuit = world.opened(0, 4, 4);
    let stream = world.begin(0, circuit, host(), &[]);
    world.core(0).write(stream, bytes(500_000));
    world.run();
    let seen = world.seen.unwrap();
    for (at, a) in seen.iter().enumerate() {
        for b in &seen[at + 1..] {
            let bodies: HashSet<_> = b.iter().map(|cell| &cell[16..]).collect();
            assert!(a.iter().all(|cell| !bodies.contains(&cell[16..])));
        }
    }
}
