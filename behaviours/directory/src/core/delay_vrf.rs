//! The VRF of a relay, whose output seeds the delays that it draws in an epoch: nobody else can predict them, the relay cannot
//! choose them, and whoever has the descriptor can check them (DESIGN §5).
//!
//! A descriptor carries the outputs of two epochs under one merged proof (schnorrkel's `vrfs_sign`), which is a third shorter
//! and a half cheaper to check than two proofs.

use fog_base::{Epoch, NetworkId};
use schnorrkel::{
    Keypair, PublicKey,
    context::{attach_rng, signing_context},
    vrf::{VRFPreOut, VRFProof, VRFSigningTranscript},
};

const INPUT_LABEL: &[u8] = b"fog delay v1";
const PROOF_LABEL: &[u8] = b"fog delay proof v1";
const SALT_LABEL: &[u8] = b"fog delay salt v1";
const NONCE_LABEL: &[u8] = b"fog delay proof nonce v1";

/// The outputs of an epoch and the next, with their proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outputs {
    /// The VRF outputs of the epoch and of the next one.
    pub outputs: [[u8; 32]; 2],
    /// The proof for both.
    pub proof: [u8; 64],
}

/// The outputs do not belong to the key and the epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the VRF proof does not verify")]
pub struct BadProof;

fn input(network: &NetworkId, epoch: Epoch) -> impl VRFSigningTranscript {
    let mut bytes = [0; 36];
    for (to, from) in bytes.iter_mut().zip(network.0.iter().chain(&epoch.0.to_be_bytes())) {
        *to = *from;
    }
    signing_context(INPUT_LABEL).bytes(&bytes)
}

/// Proves the outputs of `epoch` and the next. `seed` is fresh randomness: it hedges the nonce, which also depends on the secret key
/// and on the input.
pub fn prove(key: &Keypair, network: &NetworkId, epoch: Epoch, seed: &[u8; 32]) -> Outputs {
    let nonce_context = [NONCE_LABEL, seed].concat();
    let nonce = key.vrf_create_hash(input(network, epoch)).make_merlin_rng(&nonce_context);
    let extra = attach_rng(signing_context(PROOF_LABEL).bytes(&network.0), nonce);
    let (outputs, proof, _) = key.vrfs_sign_extra([input(network, epoch), input(network, epoch.next())], extra);
    let mut pair = [[0; 32]; 2];
    for (to, from) in pair.iter_mut().zip(outputs.iter()) {
        *to = *from.as_output_bytes();
    }
    Outputs { outputs: pair, proof: proof.to_bytes() }
}

/// Verifies the outputs of `epoch` and the next, and yields the delay salts of both.
pub fn verify(key: &[u8; 32], network: &NetworkId, epoch: Epoch, outputs: &Outputs) -> Result<[[u8; 32]; 2], BadProof> {
    let key = PublicKey::from_bytes(key).map_err(|_| BadProof)?;
    let proof = VRFProof::from_bytes(&outputs.proof).map_err(|_| BadProof)?;
    let [first, second] = &outputs.outputs;
    let pre_out = |bytes: &[u8; 32]| VRFPreOut::from_bytes(bytes).map_err(|_| BadProof);
    let inputs = [input(network, epoch), input(network, epoch.next())];
    let extra = signing_context(PROOF_LABEL).bytes(&network.0);
    let (pairs, _) =
        key.vrfs_verify_extra(inputs, &[pre_out(first)?, pre_out(second)?], &proof, extra).map_err(|_| BadProof)?;
    match pairs.as_ref() {
        [first, second] => Ok([first.make_bytes(SALT_LABEL), second.make_bytes(SALT_LABEL)]),
        _ => Err(BadProof),
    }
}

/// Our own delay salt of `epoch`: what others compute from our descriptor.
pub fn own_salt(key: &Keypair, network: &NetworkId, epoch: Epoch) -> [u8; 32] {
    key.vrf_create_hash(input(network, epoch)).make_bytes(SALT_LABEL)
}

#[cfg(test)]
mod tests {
    use schnorrkel::{ExpansionMode, MiniSecretKey};

    use super::*;

    const NETWORK: NetworkId = NetworkId([4; 32]);

    fn key(seed: u8) -> Keypair {
        MiniSecretKey::from_bytes(&[seed; 32]).unwrap().expand_to_keypair(ExpansionMode::Uniform)
    }

    #[test]
    fn others_compute_the_salts_that_the_relay_uses() {
        let key = key(1);
        let outputs = prove(&key, &NETWORK, Epoch(7), &[9; 32]);
        let salts = verify(&key.public.to_bytes(), &NETWORK, Epoch(7), &outputs).unwrap();
        assert_eq!(salts, [own_salt(&key, &NETWORK, Epoch(7)), own_salt(&key, &NETWORK, Epoch(8))]);
        assert_ne!(salts[0], salts[1]);
    }

    #[test]
    fn the_output_does_not_depend_on_the_proof_s_randomness() {
        let (a, b) = (prove(&key(1), &NETWORK, Epoch(7), &[9; 32]), prove(&key(1), &NETWORK, Epoch(7), &[8; 32]));
        assert_eq!(a.outputs, b.outputs);
        assert_ne!(a.proof, b.proof);
    }

    #[test]
    fn another_key_epoch_network_or_order_is_refused() {
        let (key, other) = (key(1), key(2));
        let outputs = prove(&key, &NETWORK, Epoch(7), &[9; 32]);
        let public = key.public.to_bytes();
        assert_eq!(verify(&other.public.to_bytes(), &NETWORK, Epoch(7), &outputs), Err(BadProof));
        assert_eq!(verify(&public, &NETWORK, Epoch(8), &outputs), Err(BadProof));
        assert_eq!(verify(&public, &NetworkId([5; 32]), Epoch(7), &outputs), Err(BadProof));
        let [a, b] = outputs.outputs;
        assert_eq!(
            verify(&public, &NETWORK, Epoch(7), &Outputs { outputs: [b, a], proof: outputs.proof }),
            Err(BadProof)
        );
        for byte in 0..64 {
            let mut changed = outputs.clone();
            changed.proof[byte] ^= 1;
            assert_eq!(verify(&public, &NETWORK, Epoch(7), &changed), Err(BadProof), "byte {byte}");
        }
    }
}
