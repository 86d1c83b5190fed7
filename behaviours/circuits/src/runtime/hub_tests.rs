use std::task::{Context, Poll};

use super::*;
use crate::core::types::{CloseReason, End, Purpose};

fn full() -> Arc<Hub> {
    let hub = Arc::new(Hub::default());
    (0..MAX_COMMANDS).for_each(|_| hub.command(Command::HoldAfter(vec![])));
    hub
}

fn take(hub: &Hub) -> Inbox {
    let now = Instant::now();
    hub.wait(now, now)
}

fn told(hub: &Hub) -> Vec<Told> {
    let waker = Waker::noop();
    std::iter::from_fn(|| match hub.poll_told(&Context::from_waker(waker)) {
        Poll::Ready(told) => told,
        Poll::Pending => None,
    })
    .collect()
}

fn hop(circuit: CircuitId, flow: Option<Arc<Flow>>) -> Command {
    let seed = Seed(zeroize::Zeroizing::new([0; 64]));
    Command::VirtualHop { circuit, role: VirtualRole::Client, seed, transcript: [0; 32], first: None, flow }
}

#[test]
fn a_circuit_is_closed_however_much_waits() {
    let hub = full();
    (0..100_000).for_each(|n| hub.command(Command::Close(CircuitId(n))));
    let found = take(&hub);
    assert_eq!((found.commands.len(), found.closing.len()), (MAX_COMMANDS, 100_000));
    assert_eq!(hub.drops.get(DropReason::QueueFull), 0);
}

#[test]
fn what_finds_no_room_ends_its_circuit() {
    let hub = full();
    let flow = Flow::new(&hub);
    hub.command(hop(CircuitId(1), None));
    hub.command(hop(CircuitId(3), Some(Arc::clone(&flow))));
    hub.command(Command::Message(CircuitId(5), 64, vec![]));
    hub.command(Command::Join(CircuitId(2), CircuitId(4)));
    let found = take(&hub);
    assert_eq!(found.commands.len(), MAX_COMMANDS);
    assert!(found.closing.iter().map(|circuit| circuit.0).eq(1..=5));
    assert_eq!(flow.error(), Some(EndReason::Busy));
    assert_eq!(hub.drops.get(DropReason::QueueFull), 4);
    // There is room again.
    hub.command(hop(CircuitId(7), None));
    assert_eq!(take(&hub).commands.len(), 1);
}

#[test]
fn a_circuit_that_is_not_even_asked_for_is_told_to_be_gone() {
    let hub = full();
    let hop = crate::core::path::Hop {
        relay: crate::core::crypto::handshake::RelaySecret::new(NodeId([1; 32]), &[1; 32]).public(),
        addresses: vec![],
    };
    let open = Open { purpose: Purpose::Probe, end: End::Relay(hop), isolation: Isolation::default(), hops: 3 };
    hub.command(Command::Open(CircuitId(9), open));
    let told = told(&hub);
    let is_closed = |told: &Told| {
        matches!(told, Told::Event(Event::Closed { circuit: CircuitId(9), reason: CloseReason::Memory, .. }))
    };
    assert!(told.len() == 1 && told.iter().all(is_closed), "{told:?}");
}

#[test]
fn a_stream_that_cannot_be_answered_is_ended_at_both_ends() {
    let hub = full();
    let flows: Vec<_> = (0..2).map(|_| Flow::new(&hub)).collect();
    hub.command(Command::Accept(Arc::clone(&flows[0])));
    hub.command(Command::Refuse(Arc::clone(&flows[1]), EndReason::Refused));
    // The engine finds them, and that nobody holds them any more: it resets them.
    let found = take(&hub).flows;
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|flow| flow.take().is_dropped && flow.error() == Some(EndReason::Busy)));
}

#[test]
fn a_question_that_finds_no_room_is_answered_with_no() {
    let hub = full();
    let (give, mut take) = oneshot::channel();
    hub.command(Command::Offer(CircuitId(1), 67, vec![], give));
    assert!(take.try_recv().is_err());
}

#[test]
fn beginnings_and_ends_of_circuits_are_told_however_much_waits() {
    let hub = Hub::default();
    let message = || {
        let (circuit, side, binding) = (CircuitId(2), Side::Relay, [0; 32]);
        Told::Event(Event::Message { circuit, side, command: 66, body: vec![], binding })
    };
    assert_eq!((0..MAX_TOLD + 10).filter(|_| hub.tell(message())).count(), MAX_TOLD);
    let closed =
        |n| Told::Event(Event::Closed { circuit: CircuitId(n), side: Side::Relay, reason: CloseReason::Asked });
    assert!((0..2 * MAX_TOLD as u64).all(|n| hub.tell(closed(n))));
    assert_eq!(told(&hub).len(), 3 * MAX_TOLD);
}
