use super::*;
use crate::core::{
    cell::{BODY_LEN, Command, HopId},
    types::VirtualRole,
};

/// Changes the `nth` RELAY cell from one node to another.
fn flip(from: usize, to: usize, nth: usize, bit: usize) -> Tamper {
    let mut count = 0;
    Box::new(move |a, b, cell| {
        if (a, b) == (from, to) && cell.command() == Command::Relay {
            count += 1;
            if count == nth {
                cell.body_mut()[bit / 8] ^= 1 << (bit % 8);
            }
        }
        true
    })
}

#[test]
fn a_flipped_bit_on_any_link_ends_the_circuit_everywhere_in_the_same_way() {
    for (from, to) in [(0, 1), (1, 2), (2, 3), (3, 2), (2, 1), (1, 0)] {
        for bit in (0..BODY_LEN * 8).step_by(509) {
            let mut world = World::new(4);
            let circuit = world.opened(0, 3, 3);
            let stream = world.begin(0, circuit, host(), &[]);
            world.run();
            world.tamper = flip(from, to, 2, bit);
            let (inbound, _) = world.inbound(3);
            world.core(0).write(stream, bytes(20_000));
            world.core(3).write(inbound, bytes(20_000));
            world.run();
            let reason = world.closed(0, circuit);
            // The client finds it out itself, or is told that the circuit is gone, and no more.
            let expected = if from > to { CloseReason::Violation } else { CloseReason::Remote };
            assert_eq!((reason, world.relayed()), (Some(expected), 0), "{from} to {to}, bit {bit}");
        }
    }
}

#[test]
fn a_lost_a_repeated_and_a_swapped_cell_end_the_circuit() {
    for kind in 0..3 {
        let mut world = World::new(4);
        let circuit = world.opened(0, 3, 3);
        let stream = world.begin(0, circuit, host(), &[]);
        world.run();
        let mut kept: Option<Cell> = None;
        let mut count = 0;
        world.tamper = Box::new(move |from, to, cell| {
            if (from, to) != (1, 2) || cell.command() != Command::Relay {
                return true;
            }
            count += 1;
            match (kind, count) {
                (0, 2) => return false,
                (1, 1) => kept = Some(cell.clone()),
                (1, 2) => *cell = kept.clone().unwrap(),
                (2, 1) => {
                    kept = Some(cell.clone());
                    return false;
                }
                (2, 2) => std::mem::swap(cell, kept.as_mut().unwrap()),
                _ => {}
            }
            true
        });
        world.core(0).write(stream, bytes(20_000));
        world.run();
        assert_eq!((world.closed(0, circuit), world.relayed()), (Some(CloseReason::Remote), 0), "{kind}");
    }
}

#[test]
fn a_changed_handshake_is_not_believed() {
    for command in [Command::Create, Command::Created] {
        let mut world = World::new(4);
        world.tamper = Box::new(move |_, _, cell| {
            if cell.command() == command {
                cell.body_mut()[40] ^= 1;
            }
            true
        });
        let circuit = world.open(0, 3, 2);
        world.wait(Duration::from_secs(100));
        assert_eq!((world.closed(0, circuit), world.relayed()), (Some(CloseReason::Unbuilt), 0));
        let bad: u64 = (0..4).map(|at| world.drops(at, DropReason::BadMac)).sum();
        assert!(bad > 0);
    }
}

#[test]
fn cells_for_unknown_circuits_change_nothing() {
    let mut world = World::new(4);
    let circuit = world.opened(0, 3, 3);
    let (_, there) = world.link(3, 1);
    let now = world.now;
    for number in [1, 2, 77, 1 << 31, u32::MAX] {
        for command in [Command::Relay, Command::Created, Command::Destroy] {
            world.core(1).handle_cell(there, Cell::new(HopId(number), command), now);
        }
    }
    world.run();
    assert_eq!((world.drops(1, DropReason::NoRoute), world.closed(0, circuit)), (15, None));
}

#[test]
fn a_peer_that_sends_what_is_no_handshake_is_refused_and_one_that_takes_others_numbers_is_blamed() {
    let mut world = World::new(3);
    let (_, there) = world.link(0, 1);
    let now = world.now;
    world.core(1).handle_cell(there, Cell::with_body(HopId(1), Command::Create, &[0, 9, 1, 2, 3]), now);
    world.run();
    assert_eq!((world.relayed(), world.drops(1, DropReason::BadMac)), (0, 1));
    // The opener's numbers are the low ones.
    world.core(1).handle_cell(there, Cell::new(HopId(1 << 31), Command::Create), now);
    world.run();
    let is_blame = |output: &Output| matches!(output, Output::Blame(node, DropReason::Malformed) if *node == id(0));
    assert!(world.nodes[1].outputs.iter().any(is_blame));
    assert_eq!(world.nodes[1].core.counts().links, 0);
}

/// CREATE cells with a request that is right.
fn request(to: usize) -> Vec<u8> {
    let waiting = crate::core::crypto::handshake::Waiting::new(hop(to).relay, &[1], &[5; 96]).unwrap();
    [&(waiting.request().len() as u16).to_be_bytes(), waiting.request()].concat()
}

#[test]
fn a_flood_of_circuits_is_held_to_its_rate_and_others_still_get_theirs() {
    let config = |_: usize| Config { max_half_open: 50, creates: (1.0, 100.0), ..usual_config() };
    let mut world = World::with(5, config);
    let (_, there) = world.link(4, 1);
    let (request, now) = (request(1), world.now);
    for number in 1..=1000 {
        world.core(1).handle_cell(there, Cell::with_body(HopId(number), Command::Create, &request), now);
    }
    // None was answered yet: no more are half-open than may be.
    assert_eq!(world.nodes[1].core.counts().half_open, 50);
    assert_eq!((world.drops(1, DropReason::QueueFull), world.drops(1, DropReason::RateLimited)), (50, 900));
    world.run();
    assert_eq!(world.nodes[1].core.counts().half_open, 0);
    let circuit = world.open(0, 3, 3);
    world.run();
    assert!(world.is_opened(0, circuit));
}

#[test]
fn a_peer_has_no_more_circuits_than_it_may() {
    let config = |_: usize| Config { max_circuits_per_peer: 10, ..usual_config() };
    let mut world = World::with(4, config);
    let (_, there) = world.link(0, 1);
    let (request, now) = (request(1), world.now);
    for number in 1..=20 {
        world.core(1).handle_cell(there, Cell::with_body(HopId(number), Command::Create, &request), now);
        world.run();
    }
    assert_eq!((world.nodes[1].core.counts().relayed, world.drops(1, DropReason::RateLimited)), (10, 10));
}

#[test]
fn a_node_that_is_no_relay_takes_no_circuits() {
    let mut world = World::with(4, |at| Config { is_relay: at != 1, ..usual_config() });
    let (_, there) = world.link(0, 1);
    let (request, now) = (request(1), world.now);
    world.core(1).handle_cell(there, Cell::with_body(HopId(1), Command::Create, &request), now);
    world.run();
    assert_eq!((world.relayed(), world.drops(1, DropReason::NoRoute)), (0, 1));
}

#[test]
fn when_memory_is_short_the_circuit_that_waited_longest_goes_first() {
    let config = |at: usize| Config { max_held_bytes: if at == 2 { 1_000_000 } else { 1 << 30 }, ..usual_config() };
    let mut world = World::with(6, config);
    let (old, new) = (world.opened(0, 3, 3), world.opened(0, 4, 3));
    let streams = [old, new].map(|circuit| world.begin(0, circuit, host(), &[]));
    world.run();
    // Node 3 takes nothing any more, then node 4 neither: what is for them waits at node 2.
    let links: Vec<_> =
        world.links.iter().filter(|((at, _), (to, _))| *at == 2 && (*to == 3 || *to == 4)).map(|(k, _)| k.1).collect();
    let carry = |world: &mut World| {
        for _ in 0..50 {
            for at in [0, 1] {
                for link in world.nodes[at].core.ready_links() {
                    let now = world.now;
                    while let Some(cell) = world.core(at).next_cell(link, now) {
                        let (to, there) = world.links[&(at, link)];
                        world.core(to).handle_cell(there, cell, now);
                    }
                }
            }
        }
    };
    world.core(0).write(streams[0], bytes(250_000));
    carry(&mut world);
    world.now = world.now.plus(Duration::from_secs(1));
    world.core(0).write(streams[1], bytes(100_000));
    carry(&mut world);
    assert_eq!(links.len(), 2);
    let queued = world.nodes[2].core.counts().queued_cells;
    assert!((64..500).contains(&queued), "{queued}");
    let now = world.now;
    world.nodes[2].core.config.max_held_bytes = queued * CELL_LEN - 1;
    world.core(2).handle_timeout(now.plus(Duration::from_secs(2)));
    world.run();
    assert_eq!((world.closed(0, old), world.closed(0, new)), (Some(CloseReason::Remote), None));
    assert_eq!(world.drops(2, DropReason::QueueFull), 1);
}

#[test]
fn nobody_is_sent_back_or_to_itself() {
    for next in [1, 0] {
        let mut world = World::new(4);
        // A client whose path is wrong: relay 1, then relay 1 or the client itself.
        let now = world.now;
        let open = Open { purpose: Purpose::Probe, end: End::Relay(hop(1)), isolation: Isolation::default(), hops: 1 };
        let circuit = world.core(0).open(open, now);
        world.run();
        assert!(world.is_opened(0, circuit));
        if let Some(Circuit::Client(client)) = world.core(0).circuits.get_mut(&circuit) {
            client.path.push(hop(next));
            client.attempts = 0;
        }
        world.core(0).begin_build(circuit, now);
        world.run();
        assert_eq!((world.closed(0, circuit), world.relayed()), (Some(CloseReason::Unbuilt), 0));
        assert_eq!(world.drops(1, DropReason::BadPayload), 1);
    }
}

#[test]
fn a_middle_relay_that_speaks_for_itself_ends_the_circuit() {
    let mut world = World::new(4);
    let circuit = world.opened(0, 3, 3);
    // Relay 2 seals a cell of its own for the client.
    let middle = *world.core(2).circuits.keys().next().unwrap();
    assert!(world.send(2, middle, 64, b"from the middle"));
    world.run();
    assert_eq!((world.closed(0, circuit), world.relayed()), (Some(CloseReason::Violation), 0));
}

#[test]
fn acknowledgements_before_the_cells_end_the_circuit() {
    let mut world = World::new(4);
    let circuit = world.opened(0, 3, 3);
    let end = *world.core(3).circuits.keys().next().unwrap();
    world.core(3).edge(end).unwrap().push_sendme([1; 16]);
    world.core(3).list_edge(end);
    world.run();
    assert_eq!(world.closed(0, circuit), Some(CloseReason::Violation));
}

#[test]
fn a_flood_of_streams_is_answered_and_holds_nothing() {
    let mut world = World::new(4);
    let circuit = world.opened(0, 3, 3);
    let now = world.now;
    let opened = (0..5000).filter(|_| world.core(0).open_stream(circuit, host(), vec![], now).is_some()).count();
    assert_eq!(opened, crate::core::edge::MAX_STREAMS);
    world.run();
    for number in 1..=opened {
        let stream = StreamRef { circuit, stream: StreamId(number as u32) };
        world.core(0).reset(stream, EndReason::Other);
    }
    world.run();
    assert_eq!((world.nodes[0].core.held_bytes(), world.nodes[3].core.held_bytes()), (0, 0));
    assert_eq!(world.closed(0, circuit), None);
}

#[test]
fn a_virtual_hop_is_added_once_and_only_to_an_open_circuit() {
    let mut world = World::new(4);
    let circuit = world.open(0, 3, 3);
    assert!(!world.hop(0, circuit, VirtualRole::Client, 1));
    world.run();
    assert!(world.hop(0, circuit, VirtualRole::Client, 1));
    assert!(!world.hop(0, circuit, VirtualRole::Client, 1));
}
