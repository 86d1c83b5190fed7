//! What a node holds for others, and for the strangers that its services meet.

use super::*;

fn rendezvous(world: &mut World) -> CircuitId {
    let now = world.now;
    let (purpose, end) = (Purpose::ServiceRendezvous, End::Relay(hop(3)));
    let circuit = world.core(0).open(Open { purpose, end, isolation: Isolation::default(), hops: 3 }, now);
    world.run();
    world.now = world.now.plus(Duration::from_millis(10));
    circuit
}

fn use_it(world: &mut World, circuit: CircuitId) {
    world.begin(0, circuit, host(), b"busy");
    world.run();
}

#[test]
fn rendezvous_of_strangers_leave_a_quarter_of_the_own_circuits_free() {
    let mut world = World::with(4, |_| Config { max_own: 8, ..usual_config() });
    let circuits: Vec<_> = (0..6).map(|_| rendezvous(&mut world)).collect();
    // The oldest is in use; the next oldest is not.
    use_it(&mut world, circuits[0]);
    let seventh = rendezvous(&mut world);
    assert!(world.is_opened(0, seventh));
    assert_eq!(world.closed(0, circuits[1]), Some(CloseReason::Idle));
    assert_eq!(circuits.iter().filter(|circuit| world.closed(0, **circuit).is_some()).count(), 1);
    assert_eq!(world.drops(0, DropReason::QueueFull), 1);
    // What this node wants itself finds room.
    world.opened(0, 3, 3);
    world.opened(0, 3, 3);
    // All in use: nobody is put out for a stranger.
    for circuit in circuits.iter().skip(2).chain([&seventh]) {
        use_it(&mut world, *circuit);
    }
    let eighth = rendezvous(&mut world);
    assert_eq!(world.closed(0, eighth), Some(CloseReason::Memory));
    assert!(circuits.iter().skip(2).all(|circuit| world.closed(0, *circuit).is_none()));
    assert_eq!((world.nodes[0].core.counts().own, world.drops(0, DropReason::QueueFull)), (8, 2));
}

#[test]
fn a_flood_of_offered_messages_leaves_the_circuit_open_and_later_ones_pass() {
    let mut world = World::new(4);
    let circuit = world.opened(0, 3, 3);
    assert!(world.send(0, circuit, 64, b"here"));
    world.run();
    let (there, ..) = world.message(3);
    let offer = |world: &mut World, count: usize| {
        let now = world.now;
        (0..count).filter(|_| world.core(3).offer_message(there, 67, vec![7; 1872], now)).count()
    };
    // Within one round trip: so many wait, and what is on its way is one window more.
    let first = offer(&mut world, 1000);
    assert_eq!(first, crate::core::edge::MAX_MESSAGES);
    assert_eq!(world.drops(3, DropReason::QueueFull), 1000 - first as u64);
    world.run();
    let second = offer(&mut world, 10);
    world.run();
    assert_eq!(second, 10);
    let heard = world.nodes[0].outputs.iter().filter(|output| matches!(output, Output::Message { command: 67, .. }));
    assert_eq!((heard.count(), world.closed(0, circuit)), (first + second, None));
    let now = world.now;
    assert!(!world.core(3).offer_message(CircuitId(9999), 67, vec![], now));
    // What is no offer ends the circuit that it does not fit on, as before.
    assert!((0..1000).any(|_| !world.send(3, there, 67, &[7; 1872])));
}
