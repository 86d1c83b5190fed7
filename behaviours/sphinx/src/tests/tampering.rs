//! What an attacker changes on the way is noticed, and noticed where it must be.

use super::*;

/// XORs one bit.
fn flip(packet: &mut PacketBytes, bit: usize) {
    packet[bit / 8] ^= 1 << (bit % 8);
}

#[test]
fn every_flipped_header_bit_is_refused_at_the_next_hop_in_the_same_way() {
    let mut net = net(10, 3);
    let (packet, _, _) = net.packet();
    for bit in 0..HEADER_LEN * 8 {
        let mut changed = packet;
        flip(&mut changed, bit);
        let expected = if bit < 8 { Reject::UnknownVersion } else { Reject::BadMac };
        assert_eq!(open(&changed, &net.keys[0]).err(), Some(expected), "bit {bit}");
    }
}

#[test]
fn a_header_changed_between_hops_is_refused_at_the_next_one() {
    let mut net = net(11, 3);
    let (mut packet, _, _) = net.packet();
    open(&packet, &net.keys[0]).unwrap().process(&mut packet).unwrap();
    for bit in (8..HEADER_LEN * 8).step_by(37) {
        let mut changed = packet;
        flip(&mut changed, bit);
        assert_eq!(open(&changed, &net.keys[1]).err(), Some(Reject::BadMac), "bit {bit}");
    }
}

#[test]
fn a_packet_for_another_relay_is_refused() {
    let mut net = net(12, 2);
    let (packet, _, _) = net.packet();
    assert_eq!(open(&packet, &net.keys[1]).err(), Some(Reject::BadMac));
}

#[test]
fn a_tagged_payload_is_garbage_after_one_hop_and_refused_by_the_last() {
    let mut net = net(13, 2);
    let (packet, body_in, _) = net.packet();
    let mut clean = packet;
    open(&clean, &net.keys[0]).unwrap().process(&mut clean).unwrap();
    for bit in (HEADER_LEN * 8..PACKET_LEN * 8).step_by(101) {
        let mut changed = packet;
        flip(&mut changed, bit);
        open(&changed, &net.keys[0]).unwrap().process(&mut changed).unwrap();
        assert_eq!(changed[..HEADER_LEN], clean[..HEADER_LEN], "the header does not depend on the payload");
        // 16,512 bits, each different with probability 1/2: 257 is four standard deviations, and there are 164 trials.
        let distance = payload(&changed).iter().zip(payload(&clean)).map(|(a, b)| (a ^ b).count_ones()).sum::<u32>();
        assert!(distance.abs_diff(8256) < 330, "bit {bit}: {distance} of 16512 bits differ");
        let opened = open(&changed, &net.keys[1]).unwrap();
        assert_eq!(opened.process(&mut changed), Err(Reject::BadPayload), "bit {bit}");
        assert!(body(&changed).iter().zip(&body_in).filter(|(a, b)| a == b).count() < 40);
    }
}

#[test]
fn a_tagged_reply_is_refused_by_its_owner() {
    let mut net = net(14, 3);
    let (surb, keys, route) = build_surb(&net.path, 7, &LastHop::Deliver { reference: [1; 16] }, &mut net.rng).unwrap();
    let (_, other_keys, _) = build_surb(&net.path, 7, &LastHop::Deliver { reference: [1; 16] }, &mut net.rng).unwrap();
    let mut packet = [0; PACKET_LEN];
    surb.reply(&[5; BODY_LEN], &mut packet);
    let mut changed = packet;
    flip(&mut changed, PACKET_LEN * 8 - 1);
    net.walk(&mut changed, &route);
    assert_eq!(keys.open(&mut payload(&changed).clone()), Err(Reject::BadPayload));
    net.walk(&mut packet, &route);
    assert_eq!(other_keys.open(&mut payload(&packet).clone()), Err(Reject::BadPayload));
    assert_eq!(keys.open(&mut payload(&packet).clone()), Ok(()));
}

#[test]
fn bytes_of_another_length_or_version_are_refused() {
    for len in [0, 1, 298, PACKET_LEN - 1, PACKET_LEN + 1, 1 << 16] {
        assert_eq!(peek(&vec![VERSION; len]), Err(Reject::Malformed));
    }
    for version in (0..=u8::MAX).filter(|version| *version != VERSION) {
        assert_eq!(peek(&[version; PACKET_LEN]), Err(Reject::UnknownVersion));
        assert_eq!(Surb::parse(&[version; SURB_LEN]).err(), Some(Reject::UnknownVersion));
    }
    assert_eq!(Surb::parse(&[VERSION; SURB_LEN - 1]).err(), Some(Reject::Malformed));
    assert_eq!(Surb::parse(&[VERSION; SURB_LEN + 1]).err(), Some(Reject::Malformed));
    for hops in [0, 6, 255] {
        assert_eq!(SurbKeys::from_bytes(&[hops; SURB_KEYS_LEN]).err(), Some(Reject::Malformed));
    }
}

#[test]
fn an_unknown_command_is_refused_although_its_mac_is_right() {
    for command in (0..=u8::MAX).filter(|command| !(1..=5).contains(command)) {
        let (key, mut packet) = forged_for_one_hop(command);
        assert_eq!(open(&packet, &key).unwrap().process(&mut packet), Err(Reject::Malformed), "command {command}");
    }
}

/// A packet for one hop whose command byte the library would not write.
fn forged_for_one_hop(command: u8) -> (MixSecretKey, PacketBytes) {
    let mut net = net(15, 1);
    let (mut packet, _, _) = net.packet();
    let shared = x25519_dalek::x25519(*net.keys[0].secret(), *layout::field::<5, 32, PACKET_LEN>(&packet));
    let check = kdf::CheckKeys::derive(&shared);
    // The stream is XORed, so changing the hidden byte by a difference changes the command by the same.
    packet[layout::BETA_AT] ^= 2 ^ command;
    let prefix = layout::field::<0, 5, PACKET_LEN>(&packet);
    let alpha = layout::field::<5, 32, PACKET_LEN>(&packet);
    let gamma = header::mac(check.mac(), prefix, alpha, layout::field::<53, 245, PACKET_LEN>(&packet));
    layout::set_field::<37, 16, PACKET_LEN>(&mut packet, &gamma);
    (net.keys.remove(0), packet)
}
