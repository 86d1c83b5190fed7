//! The header's parts that sender and relay share: the routing block of one hop, the stream that hides it, the MAC
//! over all.
//!
//! Follows Danezis and Goldberg, "Sphinx: A Compact and Provably Secure Mix Format" (2009); the MAC also covers
//! version, epoch and α.

use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};

use crate::Reject;
use crate::hmac::Keyed;
use crate::layout::{ALPHA_LEN, BETA_LEN, HOP_LEN, MAC_LEN, PREFIX_LEN, field, set_field};

/// What a hop is told to do with the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    Forward,
    Deliver,
    Slot,
    Reply,
    SlotReply,
}

impl Command {
    const fn to_byte(self) -> u8 {
        match self {
            Self::Forward => 1,
            Self::Deliver => 2,
            Self::Slot => 3,
            Self::Reply => 4,
            Self::SlotReply => 5,
        }
    }

    const fn parse(byte: u8) -> Result<Self, Reject> {
        match byte {
            1 => Ok(Self::Forward),
            2 => Ok(Self::Deliver),
            3 => Ok(Self::Slot),
            4 => Ok(Self::Reply),
            5 => Ok(Self::SlotReply),
            _ => Err(Reject::Malformed),
        }
    }
}

/// The 49 bytes that one hop reads: `command ‖ id ‖ tail`.
#[derive(Clone, Copy)]
pub(crate) struct RoutingBlock {
    pub(crate) command: Command,
    /// The next hop, or a slot, or zero.
    pub(crate) id: [u8; 32],
    /// The next hop's MAC, or a reference.
    pub(crate) tail: [u8; 16],
}

impl RoutingBlock {
    pub(crate) fn to_bytes(self) -> [u8; HOP_LEN] {
        let mut bytes = [0; HOP_LEN];
        set_field::<0, 1, HOP_LEN>(&mut bytes, &[self.command.to_byte()]);
        set_field::<1, 32, HOP_LEN>(&mut bytes, &self.id);
        set_field::<33, 16, HOP_LEN>(&mut bytes, &self.tail);
        bytes
    }

    pub(crate) fn parse(bytes: &[u8; HOP_LEN]) -> Result<Self, Reject> {
        let [command] = *field::<0, 1, HOP_LEN>(bytes);
        Ok(Self {
            command: Command::parse(command)?,
            id: *field::<1, 32, HOP_LEN>(bytes),
            tail: *field::<33, 16, HOP_LEN>(bytes),
        })
    }
}

/// XORs the header stream of one hop, from its first byte, into `bytes`.
pub(crate) fn mask(stream_key: &[u8; 32], bytes: &mut [u8]) {
    ChaCha20::new(stream_key.into(), &[0; 12].into()).apply_keystream(bytes);
}

/// γ: HMAC-SHA256 over version, epoch, α and β, cut to 16 bytes.
pub(crate) fn mac(
    key: &[u8; 32],
    prefix: &[u8; PREFIX_LEN],
    alpha: &[u8; ALPHA_LEN],
    beta: &[u8; BETA_LEN],
) -> [u8; MAC_LEN] {
    *field::<0, MAC_LEN, 32>(&Keyed::new(key).hmac([prefix, alpha, beta]))
}
