//! How the inside of an envelope is sealed: a trait, so that order and delivery do not know Olm, Megolm or a room's key.

/// Why something cannot be sealed or opened. What exactly failed is told to nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot be sealed or opened")]
pub struct SealError;

/// Sealed bytes, and what must be stored in one batch before they leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Exactly the length that was asked for.
    pub ciphertext: Vec<u8>,
    /// Keys and values of the sealer's own state, such as a ratchet's next step; already sealed for the disk.
    pub state: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Opened bytes, and what must be stored in one batch with the message before anything else follows from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// The plaintext without padding.
    pub plaintext: Vec<u8>,
    /// As in [`Sealed`].
    pub state: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Seals and opens for one conversation and, between two devices, one recipient.
pub trait Seal {
    /// The most bytes by which a ciphertext is longer than its plaintext without padding.
    fn overhead(&self) -> usize;

    /// Seals `plaintext`, bound to `header`, padded inside to a ciphertext of exactly `length` bytes. The caller asks for at
    /// least `plaintext.len() + overhead()`.
    fn seal(&mut self, header: &[u8], plaintext: &[u8], length: usize) -> Result<Sealed, SealError>;

    /// Opens `ciphertext`, which was sealed with `header`.
    fn open(&mut self, header: &[u8], ciphertext: &[u8]) -> Result<Opened, SealError>;
}
