//! Properties of the format, through the public face.

use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::*;

mod malleability;
mod padding;
mod primitives;
mod tampering;

pub(crate) struct Net {
    pub(crate) keys: Vec<MixSecretKey>,
    pub(crate) path: Vec<Hop>,
    pub(crate) rng: ChaCha20Rng,
}

/// A path of `hops` relays with random keys.
pub(crate) fn net(seed: u64, hops: usize) -> Net {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let keys: Vec<_> = (0..hops).map(|_| MixSecretKey::generate(&mut rng)).collect();
    let path = keys
        .iter()
        .map(|key| {
            let mut id = [0; 32];
            rng.fill_bytes(&mut id);
            Hop { id, key: key.public() }
        })
        .collect();
    Net { keys, path, rng }
}

impl Net {
    pub(crate) fn body(&mut self) -> [u8; BODY_LEN] {
        let mut body = [0; BODY_LEN];
        self.rng.fill_bytes(&mut body);
        body
    }

    /// A packet to this path's last hop, with its body.
    pub(crate) fn packet(&mut self) -> (PacketBytes, [u8; BODY_LEN], Route) {
        let body = self.body();
        let mut packet = [0; PACKET_LEN];
        let last = LastHop::Deliver { reference: [9; 16] };
        let route = build(&self.path, 7, &last, &body, &mut self.rng, &mut packet).unwrap();
        (packet, body, route)
    }

    /// Takes the packet through every hop, and returns what the last one is told.
    pub(crate) fn walk(&self, packet: &mut PacketBytes, route: &Route) -> Unwrapped {
        assert_eq!(route.first, self.path[0].id);
        let mut told = None;
        for (index, key) in self.keys.iter().enumerate() {
            assert_eq!(peek(packet), Ok(7));
            let unwrapped = open(packet, key).unwrap().process(packet).unwrap();
            if let Some(next) = self.path.get(index + 1) {
                assert_eq!(unwrapped, Unwrapped::Forward { next: next.id, delay_seed: route.delay_seeds[index] });
            }
            told = Some(unwrapped);
        }
        told.unwrap()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_packet_arrives_over_one_to_five_hops(
        seed: u64, hops in 1..=MAX_HOPS, slot: Option<[u8; 32]>, reference: [u8; 16],
    ) {
        let mut net = net(seed, hops);
        let body_in = net.body();
        let mut packet = [0; PACKET_LEN];
        let last = slot.map_or(LastHop::Deliver { reference }, |slot| LastHop::Slot { slot, reference });
        let route = build(&net.path, 7, &last, &body_in, &mut net.rng, &mut packet).unwrap();
        prop_assert_eq!(route.delay_seeds.len(), hops);
        let delay_seed = route.delay_seeds[hops - 1];
        let told = net.walk(&mut packet, &route);
        let expected = slot.map_or(
            Unwrapped::Deliver { reference, delay_seed },
            |slot| Unwrapped::Slot { slot, reference, delay_seed },
        );
        prop_assert_eq!(told, expected);
        prop_assert_eq!(body(&packet), &body_in);
    }

    #[test]
    fn a_reply_arrives_over_one_to_five_hops(
        seed: u64, hops in 1..=MAX_HOPS, slot: Option<[u8; 32]>, reference: [u8; 16],
    ) {
        let surb_id = reference;
        let mut net = net(seed, hops);
        let last = slot.map_or(LastHop::Deliver { reference }, |slot| LastHop::Slot { slot, reference });
        let (surb, keys, route) = build_surb(&net.path, 7, &last, &mut net.rng).unwrap();
        prop_assert_eq!(surb.epoch(), 7);

        // Both halves travel as bytes.
        let surb = Surb::parse(&surb.to_bytes()).unwrap();
        let keys = SurbKeys::from_bytes(&*keys.to_bytes()).unwrap();
        let body_in = net.body();
        let mut packet = [0; PACKET_LEN];
        prop_assert_eq!(surb.reply(&body_in, &mut packet), net.path[0].id);

        let delay_seed = route.delay_seeds[hops - 1];
        let told = net.walk(&mut packet, &route);
        let expected = slot.map_or(
            Unwrapped::Reply { surb_id, delay_seed },
            |slot| Unwrapped::SlotReply { slot, surb_id, delay_seed },
        );
        prop_assert_eq!(told, expected);
        let mut payload = *payload(&packet);
        keys.open(&mut payload).unwrap();
        prop_assert_eq!(&payload[TAG_LEN..], &body_in);
    }

    #[test]
    fn a_batch_gives_what_single_packets_give(seed: u64, size in 0_usize..12, spoiled in 0_usize..12) {
        let mut net = net(seed, 3);
        let mut packets: Vec<PacketBytes> = (0..size).map(|_| net.packet().0).collect();
        for (index, packet) in packets.iter_mut().enumerate().filter(|(index, _)| index % 4 == spoiled) {
            packet[if index % 8 < 4 { 0 } else { 60 }] ^= 1;
        }
        let mut expected: Vec<PacketBytes> = packets.clone();
        let single: Vec<_> = expected
            .iter_mut()
            .map(|packet| open(packet, &net.keys[0]).and_then(|opened| opened.process(packet)))
            .collect();

        let mut opened = vec![Err(Reject::Malformed)];
        open_batch(&packets, &net.keys[0], &mut opened);
        let refused: Vec<_> = opened.iter().map(|opened| opened.as_ref().err().copied()).collect();
        let (mut good, expected): (Vec<&mut PacketBytes>, Vec<&PacketBytes>) = packets
            .iter_mut()
            .zip(&expected)
            .zip(&refused)
            .filter_map(|(pair, refused)| refused.is_none().then_some(pair))
            .unzip();
        let mut processed = Vec::new();
        let opened: Vec<_> = opened.into_iter().flatten().collect();
        process_batch(opened.into_iter().zip(good.iter_mut().map(|packet| &mut **packet)), &mut processed);
        prop_assert!(good.iter().zip(expected).all(|(packet, expected)| *packet == expected));
        let mut processed = processed.into_iter();
        let batch: Vec<_> = refused
            .into_iter()
            .map(|refused| refused.map_or_else(|| processed.next().unwrap(), Err))
            .collect();
        prop_assert_eq!(batch, single);
    }

    #[test]
    fn a_crowd_is_built_as_so_many_single_packets(seed: u64, hops in prop::collection::vec(1..=MAX_HOPS, 0..12)) {
        let mut net = net(seed, MAX_HOPS);
        let body = net.body();
        let last = |n: usize| {
            let reference = [n.to_le_bytes()[0]; 16];
            if n.is_multiple_of(2) { LastHop::Deliver { reference } } else { LastHop::Slot { slot: [7; 32], reference } }
        };
        let mut alone = net.rng.clone();
        let mut packets = vec![[0; PACKET_LEN]; hops.len()];
        let mut orders: Vec<_> = hops
            .iter()
            .zip(&mut packets)
            .enumerate()
            .map(|(n, (hops, packet))| Order { path: &net.path[..*hops], epoch: 7, last: last(n), body: &body, packet })
            .collect();
        let routes = build_batch(&mut orders, &mut net.rng).unwrap();
        let surb_orders: Vec<_> =
            hops.iter().enumerate().map(|(n, hops)| SurbOrder { path: &net.path[..*hops], epoch: 7, last: last(n) }).collect();
        let surbs = build_surbs(&surb_orders, &mut net.rng).unwrap();
        prop_assert_eq!((routes.len(), surbs.len()), (hops.len(), hops.len()));

        let mut expected = [0; PACKET_LEN];
        for (n, (packet, route)) in packets.iter().zip(&routes).enumerate() {
            let single = build(&net.path[..hops[n]], 7, &last(n), &body, &mut alone, &mut expected).unwrap();
            prop_assert_eq!((&single, &expected), (route, packet));
        }
        for (n, (surb, keys, route)) in surbs.iter().enumerate() {
            let single = build_surb(&net.path[..hops[n]], 7, &last(n), &mut alone).unwrap();
            prop_assert_eq!((single.0.to_bytes(), &single.1, &single.2), (surb.to_bytes(), keys, route));
        }
    }
}

#[test]
fn a_path_has_one_to_five_hops() {
    let mut net = net(1, 6);
    let last = LastHop::Deliver { reference: [0; 16] };
    let mut packet = [0; PACKET_LEN];
    for path in [&net.path[..0], &net.path[..6]] {
        let refused = build(path, 0, &last, &[0; BODY_LEN], &mut net.rng, &mut packet);
        assert_eq!(refused, Err(BuildError::PathLength(path.len())));
        assert!(build_surb(path, 0, &last, &mut net.rng).is_err());
        let good = SurbOrder { path: &net.path[..1], epoch: 0, last };
        assert!(build_surbs(&[good, SurbOrder { path, ..good }], &mut net.rng).is_err());
        let order = Order { path, epoch: 0, last, body: &[0; BODY_LEN], packet: &mut packet };
        assert!(build_batch(&mut [order], &mut net.rng).is_err());
    }
}

#[test]
fn debug_output_shows_no_secret() {
    let mut net = net(2, 2);
    let (mut packet, _, route) = net.packet();
    let (surb, keys, _) = build_surb(&net.path, 7, &LastHop::Deliver { reference: [0xab; 16] }, &mut net.rng).unwrap();
    let opened = open(&packet, &net.keys[0]).unwrap();
    assert_eq!(
        format!("{:?} {opened:?} {surb:?} {keys:?}", net.keys[0]),
        "MixSecretKey(..) Opened(..) Surb(..) SurbKeys(..)"
    );
    assert_eq!(format!("{:?}", opened.process(&mut packet).unwrap()), "Forward(..)");
    assert_eq!(format!("{:?}", route.delay_seeds), "DelaySeeds(2)");
}
