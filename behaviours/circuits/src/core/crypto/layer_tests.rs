use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::core::cell::{BODY_LEN, PAYLOAD_LEN};

fn keys(hop: u8) -> [u8; KEYS_LEN] {
    std::array::from_fn(|i| (i as u8).wrapping_mul(31).wrapping_add(hop))
}

/// A client and its relays.
struct Circuit {
    client: Vec<ClientLayer>,
    relays: Vec<RelayLayer>,
}

impl Circuit {
    fn new(hops: u8) -> Self {
        let client = (0..hops).map(|hop| ClientLayer::new(&keys(hop))).collect();
        Self { client, relays: (0..hops).map(|hop| RelayLayer::new(&keys(hop))).collect() }
    }

    /// Sends to hop `to`; before relay `at`, the cell is changed by `change`. Says which relay recognised which payload.
    fn away(&mut self, to: usize, payload: u8, change: impl Fn(usize, &mut Body)) -> Option<(usize, u8, bool)> {
        let mut body = [payload; BODY_LEN];
        let sealed = self.client[to].seal(&mut body);
        self.client[..to].iter_mut().rev().for_each(|layer| layer.pass(&mut body));
        for (at, relay) in self.relays.iter_mut().enumerate() {
            change(at, &mut body);
            if let Some(tag) = relay.open(&mut body) {
                return Some((at, body[BODY_LEN - 1], tag == sealed));
            }
        }
        None
    }

    /// Sends from relay `from`; `change` is what happens on the way from relay `at`.
    fn back(&mut self, from: usize, payload: u8, change: impl Fn(usize, &mut Body)) -> Option<(usize, u8, bool)> {
        let mut body = [payload; BODY_LEN];
        let sealed = self.relays[from].seal(&mut body);
        change(from, &mut body);
        for at in (0..from).rev() {
            self.relays[at].pass(&mut body);
            change(at, &mut body);
        }
        for (at, layer) in self.client.iter_mut().enumerate() {
            if let Some(tag) = layer.open(&mut body) {
                return Some((at, body[BODY_LEN - 1], tag == sealed));
            }
        }
        None
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_hop_is_reached_in_any_order(hops in 1u8..=8, cells in prop::collection::vec((any::<bool>(), 0u8..8), 1..20)) {
        let mut circuit = Circuit::new(hops);
        for (is_away, hop) in cells {
            let hop = usize::from(hop % hops);
            let seen = if is_away { circuit.away(hop, 7, |_, _| {}) } else { circuit.back(hop, 7, |_, _| {}) };
            prop_assert_eq!(seen, Some((hop, 7, true)));
        }
    }
}

/// Changes one bit between two hops; then nothing that comes later in this direction is recognised by anybody.
fn flip(hops: u8, at: usize, bit: usize, is_away: bool) {
    let mut circuit = Circuit::new(hops);
    let last = usize::from(hops) - 1;
    let change = |here: usize, body: &mut Body| {
        if here == at {
            body[bit / 8] ^= 1 << (bit % 8);
        }
    };
    let send = |circuit: &mut Circuit, change: &dyn Fn(usize, &mut Body)| {
        if is_away { circuit.away(last, 7, change) } else { circuit.back(last, 7, change) }
    };
    assert!(send(&mut circuit, &|_, _| {}).is_some());
    assert_eq!(send(&mut circuit, &change), None, "bit {bit} at {at}");
    for _ in 0..3 {
        assert_eq!(send(&mut circuit, &|_, _| {}), None, "after bit {bit} at {at}");
    }
}

#[test]
fn every_bit_flipped_at_every_hop_destroys_the_cell_and_all_that_follow() {
    for bit in 0..BODY_LEN * 8 {
        for at in 0..3 {
            flip(3, at, bit, true);
            flip(3, at, bit, false);
        }
    }
}

#[test]
fn what_an_attacker_put_into_a_cell_cannot_be_taken_out_further_on() {
    // The classic tag: one relay adds a mask to a cell, a later one takes the same mask off.
    let mut circuit = Circuit::new(3);
    let mask = |here: usize, body: &mut Body| {
        if here == 1 || here == 2 {
            body[BODY_LEN - 1] ^= 1;
        }
    };
    assert_eq!(circuit.away(2, 7, mask), None);
    let mut circuit = Circuit::new(3);
    assert_eq!(circuit.back(2, 7, mask), None);
}

#[test]
fn a_replayed_and_a_swapped_cell_are_not_recognised() {
    let mut client = ClientLayer::new(&keys(0));
    let mut relay = RelayLayer::new(&keys(0));
    let mut first = [1; BODY_LEN];
    client.seal(&mut first);
    let mut second = [2; BODY_LEN];
    client.seal(&mut second);
    assert!(relay.open(&mut first.clone()).is_some());
    assert_eq!(relay.open(&mut first), None);
    let mut relay = RelayLayer::new(&keys(0));
    assert_eq!(relay.open(&mut second), None);
    assert_eq!(relay.open(&mut first), None);
}

#[test]
fn layers_agree_with_the_frozen_vector() {
    let mut circuit = Circuit::new(2);
    let mut body = std::array::from_fn(|i| i as u8);
    circuit.client[1].seal(&mut body);
    circuit.client[0].pass(&mut body);
    let digest = |body: &Body| {
        use sha2::Digest;
        data_encoding::HEXLOWER.encode(&sha2::Sha256::digest(body))
    };
    assert_eq!(digest(&body), FIRST_AWAY);
    circuit.relays[0].open(&mut body);
    assert!(circuit.relays[1].open(&mut body).is_some());
    assert!(body.iter().enumerate().skip(16).all(|(i, byte)| *byte == i as u8));
    circuit.relays[1].seal(&mut body);
    circuit.relays[0].pass(&mut body);
    assert_eq!(digest(&body), FIRST_BACK);
    // The next cells use the next keys.
    circuit.relays[1].seal(&mut body);
    assert_eq!(digest(&body), SECOND_BACK);
}
const FIRST_AWAY: &str = "1cb6df885bbd8916ea9669ff8ed53e6ab8d34865f45f9802dc10a62688fcbbb8";
const FIRST_BACK: &str = "41d6b8d38c618b700f6ee8a5408c1729a5910a7bec231b66bcaf83be5e9e8dc1";
const SECOND_BACK: &str = "c2e64b6dde45bd63bc64e6ca9d2c96a6c5670fd062d974d20f390f1720950179";

/// `cargo test --release -p fog-circuits --no-default-features speed -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
#[expect(clippy::print_stdout, reason = "this is what it is for")]
fn speed_of_layers() {
    const CELLS: u32 = 100_000;
    let mut circuit = Circuit::new(3);
    let mut measure = |name: &str, run: &mut dyn FnMut(&mut Circuit, &mut Body)| {
        let mut body = [0; BODY_LEN];
        let start = Instant::now();
        for _ in 0..CELLS {
            run(&mut circuit, &mut body);
        }
        let seconds = start.elapsed().as_secs_f64();
        println!("{name}: {:.0} MB/s", f64::from(CELLS) * PAYLOAD_LEN as f64 / seconds / 1e6);
    };
    measure("a relay passes a cell on", &mut |circuit, body| circuit.relays[0].pass(body));
    measure("a relay seals a cell", &mut |circuit, body| {
        circuit.relays[0].seal(body);
    });
    measure("a client passes through one layer", &mut |circuit, body| circuit.client[0].pass(body));
    measure("a client seals for the third hop", &mut |circuit, body| {
        circuit.client[2].seal(body);
        circuit.client[1].pass(body);
        circuit.client[0].pass(body);
    });
}
