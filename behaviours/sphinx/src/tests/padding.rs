//! What a last hop sees of the header does not tell how long the path was.

use super::*;
use crate::kdf::{CheckKeys, HopKeys};
use crate::layout::{BETA_LEN, HOP_LEN, field, set_field};

/// The 245 bytes behind the last hop's own block, as it sees them.
fn residue(packet: &PacketBytes, key: &MixSecretKey) -> [u8; BETA_LEN] {
    let shared = x25519_dalek::x25519(*key.secret(), *field::<5, 32, PACKET_LEN>(packet));
    let keys = HopKeys::derive(&CheckKeys::derive(&shared));
    let mut routing = [0; BETA_LEN + HOP_LEN];
    set_field::<0, BETA_LEN, { BETA_LEN + HOP_LEN }>(&mut routing, field::<53, BETA_LEN, PACKET_LEN>(packet));
    header::mask(keys.stream(), &mut routing);
    *field::<HOP_LEN, BETA_LEN, _>(&routing)
}

#[test]
fn the_last_hops_residue_is_uniform_for_every_path_length() {
    const PACKETS: usize = 400;
    for hops in 1..=MAX_HOPS {
        let mut net = net(30, hops);
        // Counts per byte value within each fifth of the residue, which are made in different ways.
        let mut counts = [[0_u32; 256]; MAX_HOPS];
        for _ in 0..PACKETS {
            let (mut packet, _, _) = net.packet();
            for key in &net.keys[..hops - 1] {
                open(&packet, key).unwrap().process(&mut packet).unwrap();
            }
            for (fifth, bytes) in residue(&packet, &net.keys[hops - 1]).chunks(HOP_LEN).enumerate() {
                bytes.iter().for_each(|byte| counts[fifth][usize::from(*byte)] += 1);
            }
        }
        let expected = (PACKETS * HOP_LEN) as f64 / 256.0;
        for (fifth, counts) in counts.iter().enumerate() {
            let chi2: f64 = counts.iter().map(|count| (f64::from(*count) - expected).powi(2) / expected).sum();
            // 255 degrees of freedom: mean 255, standard deviation 22.6. Within 5 of them.
            assert!((142.0..368.0).contains(&chi2), "{hops} hops, part {fifth}: chi2 = {chi2}");
        }
    }
}
