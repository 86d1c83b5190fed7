//! Whole nodes without sockets, in virtual time: the cores of circuits and of services, and links on which a cell takes ten milliseconds. What
//! README says of round trips is counted here.
#![allow(clippy::disallowed_methods, reason = "tests start their clocks somewhere")]

#[path = "common/virtual_net.rs"]
mod net;

use net::{Answered, Net};

/// To the end of a circuit of four relays and back, in links; to a client's rendezvous point, of three.
const R: u32 = 8;
const MEETING: u32 = 6;
/// From client to service through the introduction point and back through the rendezvous point; both ways through the latter.
const E: u32 = 8 + 7;
const STREAM: u32 = 14;

#[test]
fn a_cold_first_byte_takes_four_round_trips_and_one_end_to_end() {
    let mut net = Net::new(1);
    assert_eq!(net.ask(b"GET /", true, true), Answered { links: 4 * R + E, body: b"served GET /".to_vec() });
    // The descriptor is known, the circuits are new.
    assert_eq!(
        net.ask(b"GET /2", true, false),
        Answered { links: 2 * MEETING + R + E, body: b"served GET /2".to_vec() }
    );
}

#[test]
fn without_the_stream_in_the_introduction_it_takes_one_end_to_end_more() {
    let mut net = Net::new(2);
    assert_eq!(net.ask(b"GET /", false, true), Answered { links: 4 * R + E + STREAM, body: b"served GET /".to_vec() });
}

#[test]
fn a_request_longer_than_an_introduction_follows_and_arrives_once() {
    let mut net = Net::new(3);
    let request: Vec<u8> = (0..20_000u32).map(|i| (i % 251) as u8).collect();
    let Answered { links, body } = net.ask(&request, true, true);
    // The answer begins when the first bytes are there.
    assert_eq!((links, &body[..7]), (4 * R + E, &b"served "[..]));
    assert!(body[7..] == request);
}
