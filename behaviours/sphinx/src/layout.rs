//! Where every byte of a packet is. Sizes are composed from the parts that the README names; nothing here is secret.

use crate::Reject;

/// The packet version that this crate speaks, the first byte of every packet.
pub const VERSION: u8 = 1;
/// The longest path.
pub const MAX_HOPS: usize = 5;

pub(crate) const PREFIX_LEN: usize = 1 + 4;
pub(crate) const ALPHA_LEN: usize = 32;
pub(crate) const MAC_LEN: usize = 16;
pub(crate) const HOP_LEN: usize = 1 + 32 + 16;
pub(crate) const BETA_LEN: usize = MAX_HOPS * HOP_LEN;

/// Bytes of a header: version, epoch, α, γ, β.
pub const HEADER_LEN: usize = PREFIX_LEN + ALPHA_LEN + MAC_LEN + BETA_LEN;
/// Bytes of the zero tag in front of the body.
pub const TAG_LEN: usize = 16;
/// Bytes of the body that a packet carries.
pub const BODY_LEN: usize = 2048;
/// Bytes of the payload δ: the zero tag and the body.
pub const PAYLOAD_LEN: usize = TAG_LEN + BODY_LEN;
/// Bytes of every packet.
pub const PACKET_LEN: usize = HEADER_LEN + PAYLOAD_LEN;
/// Bytes of a single-use reply block: first hop, header, payload key.
pub const SURB_LEN: usize = 32 + HEADER_LEN + 32;

pub(crate) const ALPHA_AT: usize = PREFIX_LEN;
pub(crate) const GAMMA_AT: usize = ALPHA_AT + ALPHA_LEN;
pub(crate) const BETA_AT: usize = GAMMA_AT + MAC_LEN;
const _: () = assert!(HEADER_LEN == 298 && PACKET_LEN == 2362 && SURB_LEN == 362);

/// One packet.
pub type PacketBytes = [u8; PACKET_LEN];

/// The epoch of a packet, after its length and version were checked: the first thing to do with bytes from the network.
///
/// # Errors
/// [`Reject::Malformed`] if it is not [`PACKET_LEN`] bytes, [`Reject::UnknownVersion`] if its first byte is not
/// [`VERSION`].
pub fn peek(bytes: &[u8]) -> Result<u32, Reject> {
    let packet: &PacketBytes = bytes.try_into().map_err(|_| Reject::Malformed)?;
    let [version, epoch @ ..] = *field::<0, PREFIX_LEN, PACKET_LEN>(packet);
    if version != VERSION {
        return Err(Reject::UnknownVersion);
    }
    Ok(u32::from_be_bytes(epoch))
}

/// The body, once a last hop has processed the packet as `Deliver` or `Slot` (which checked the zero tag).
#[must_use]
pub fn body(packet: &PacketBytes) -> &[u8; BODY_LEN] {
    field::<{ HEADER_LEN + TAG_LEN }, BODY_LEN, PACKET_LEN>(packet)
}

/// The payload δ: what a last hop hands to the owner of a reply block after `Reply` or `SlotReply`.
#[must_use]
pub fn payload(packet: &PacketBytes) -> &[u8; PAYLOAD_LEN] {
    field::<HEADER_LEN, PAYLOAD_LEN, PACKET_LEN>(packet)
}

/// The `N` bytes at offset `AT`. That they exist is checked when the program is compiled.
pub(crate) const fn field<const AT: usize, const N: usize, const LEN: usize>(bytes: &[u8; LEN]) -> &[u8; N] {
    const { assert!(AT + N <= LEN) };
    match bytes.split_at(AT).1.first_chunk() {
        Some(chunk) => chunk,
        None => const { &[0; N] },
    }
}

/// Writes `N` bytes at offset `AT`.
pub(crate) const fn set_field<const AT: usize, const N: usize, const LEN: usize>(
    bytes: &mut [u8; LEN],
    value: &[u8; N],
) {
    const { assert!(AT + N <= LEN) };
    bytes.split_at_mut(AT).1.split_at_mut(N).0.copy_from_slice(value);
}
