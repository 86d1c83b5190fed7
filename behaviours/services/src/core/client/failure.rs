//! Why a service was not reached, and how SOCKS says it (proposal 304).

use crate::core::descriptor::DescriptorError;

/// Why a connection ended before it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The relay set or the ring of this period is not known yet.
    #[error("the relay directory is not ready yet")]
    NotReady,
    /// No directory has a descriptor.
    #[error("no directory has a descriptor of this service: it is offline, or the name is wrong")]
    NotFound,
    /// Directories had descriptors, and none was valid.
    #[error("the service's descriptor is not valid: {0}")]
    Invalid(DescriptorError),
    /// The service admits known clients only.
    #[error("the service admits known clients only, and there is no key for it here")]
    ClientKeyMissing,
    /// It does not know this client.
    #[error("the service does not know the client key that is kept for it here")]
    ClientKeyWrong,
    /// No introduction point passed an introduction on.
    #[error("none of the service's introduction points answers for it")]
    Introduction,
    /// No rendezvous point could be had, or the service did not come.
    #[error("no rendezvous point could be reached")]
    Rendezvous,
    /// Introduced, and the service did not come.
    #[error("the service was told and did not come in time")]
    TimedOut,
    /// Too many connections are being made.
    #[error("too many connections to services are being made at once")]
    TooMany,
}

impl Failure {
    /// The SOCKS reply; 1 is a general failure.
    pub fn socks_reply(self) -> u8 {
        match self {
            Self::NotReady | Self::TooMany => 0x01,
            Self::NotFound => 0xf0,
            Self::Invalid(_) => 0xf1,
            Self::Introduction => 0xf2,
            Self::Rendezvous => 0xf3,
            Self::ClientKeyMissing => 0xf4,
            Self::ClientKeyWrong => 0xf5,
            Self::TimedOut => 0xf7,
        }
    }

    pub(in crate::core) fn of_descriptor(error: DescriptorError) -> Self {
        match error {
            DescriptorError::ClientKeyMissing => Self::ClientKeyMissing,
            DescriptorError::ClientKeyWrong => Self::ClientKeyWrong,
            other => Self::Invalid(other),
        }
    }
}

/// The SOCKS reply to what is not a name.
pub const BAD_ADDRESS_REPLY: u8 = 0xf6;
