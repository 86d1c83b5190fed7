//! Sealing for the recipient: HPKE (RFC 9180) in base mode with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and ChaCha20-Poly1305,
//! one context for each packet. A mailbox, or the last hop where it is not the recipient, sees only this ciphertext, and two
//! fragments of one message have nothing in common.

use fog_base::NetworkId;
use hpke::{
    Deserializable, Kem, OpModeR, OpModeS, Serializable, aead::AeadTag, aead::ChaCha20Poly1305, inout::InOutBuf,
    kdf::HkdfSha256, kem::X25519HkdfSha256, setup_receiver, setup_sender_with_rng,
};
use rand::CryptoRng;
use zeroize::Zeroizing;

use crate::wire::SEAL_OVERHEAD;

const INFO: &[u8] = b"fog mix seal v1";
type PrivateKey = <X25519HkdfSha256 as Kem>::PrivateKey;
type PublicKey = <X25519HkdfSha256 as Kem>::PublicKey;

/// The recipient's key is not usable, or the ciphertext is not for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot be sealed or opened")]
pub struct SealError;

/// The public half of a seal key.
pub fn public_key(secret: &Zeroizing<[u8; 32]>) -> Result<[u8; 32], SealError> {
    let secret = PrivateKey::from_bytes(secret.as_slice()).map_err(|_| SealError)?;
    X25519HkdfSha256::sk_to_pk(&secret).to_bytes().as_slice().try_into().map_err(|_| SealError)
}

/// Seals in place. `buffer` is 32 bytes of room, the plaintext, and 16 bytes of room.
pub fn seal(
    buffer: &mut [u8],
    recipient: &[u8; 32],
    network: &NetworkId,
    rng: &mut impl CryptoRng,
) -> Result<(), SealError> {
    let recipient = PublicKey::from_bytes(recipient).map_err(|_| SealError)?;
    let (encapsulated, content, tag) = split(buffer)?;
    let (key, mut context) = setup_sender_with_rng::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
        &OpModeS::Base,
        &recipient,
        &info(network),
        rng,
    )
    .map_err(|_| SealError)?;
    let made = context.seal_inout_detached(InOutBuf::from(content), &[]).map_err(|_| SealError)?;
    encapsulated.copy_from_slice(&key.to_bytes());
    tag.copy_from_slice(&made.to_bytes());
    Ok(())
}

/// Opens in place and returns the plaintext.
pub fn open<'a>(
    buffer: &'a mut [u8],
    secret: &Zeroizing<[u8; 32]>,
    network: &NetworkId,
) -> Result<&'a [u8], SealError> {
    let secret = PrivateKey::from_bytes(secret.as_slice()).map_err(|_| SealError)?;
    let (encapsulated, content, tag) = split(buffer)?;
    let key = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(encapsulated).map_err(|_| SealError)?;
    let tag = AeadTag::<ChaCha20Poly1305>::from_bytes(tag).map_err(|_| SealError)?;
    let mut context =
        setup_receiver::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(&OpModeR::Base, &secret, &key, &info(network))
            .map_err(|_| SealError)?;
    context.open_inout_detached(InOutBuf::from(&mut *content), &[], &tag).map_err(|_| SealError)?;
    Ok(content)
}

fn info(network: &NetworkId) -> Vec<u8> {
    [INFO, &network.0].concat()
}

/// Encapsulated key, content, tag.
type Parts<'a> = (&'a mut [u8], &'a mut [u8], &'a mut [u8]);

fn split(buffer: &mut [u8]) -> Result<Parts<'_>, SealError> {
    let content_len = buffer.len().checked_sub(SEAL_OVERHEAD).ok_or(SealError)?;
    let (key, rest) = buffer.split_at_mut_checked(32).ok_or(SealError)?;
    let (content, tag) = rest.split_at_mut_checked(content_len).ok_or(SealError)?;
    Ok((key, content, tag))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    use super::*;

    #[test]
    fn only_the_recipient_on_the_same_network_opens_it_and_any_change_is_noticed() {
        let secret = Zeroizing::new([5; 32]);
        let public = public_key(&secret).unwrap();
        let network = NetworkId([1; 32]);
        let mut sealed = [0u8; 100 + SEAL_OVERHEAD];
        sealed[32..132].fill(7);
        seal(&mut sealed, &public, &network, &mut ChaCha20Rng::seed_from_u64(1)).unwrap();
        assert_ne!(sealed[32..132], [7; 100]);
        assert_eq!(open(&mut sealed.clone(), &secret, &network), Ok([7; 100].as_slice()));
        assert_eq!(open(&mut sealed.clone(), &Zeroizing::new([6; 32]), &network), Err(SealError));
        assert_eq!(open(&mut sealed.clone(), &secret, &NetworkId([2; 32])), Err(SealError));
        for at in [40, 131, 132, 147] {
            let mut changed = sealed;
            changed[at] ^= 1;
            assert_eq!(open(&mut changed, &secret, &network), Err(SealError), "byte {at}");
        }
    }

    #[test]
    fn a_low_order_recipient_key_and_a_short_buffer_are_refused() {
        let network = NetworkId([1; 32]);
        let rng = &mut ChaCha20Rng::seed_from_u64(1);
        assert_eq!(seal(&mut [0; 100], &[0; 32], &network, rng), Err(SealError));
        assert_eq!(open(&mut [0; 47], &Zeroizing::new([6; 32]), &network), Err(SealError));
    }
}
