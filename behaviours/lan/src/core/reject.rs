//! Why a packet is refused; each reason is counted.

/// Why nothing is believed of a packet. The first that applies, in the order in which a packet is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Reject {
    /// Shorter or longer than any beacon.
    #[error("not the size of a beacon")]
    Size,
    /// The sender's address is on none of this host's networks.
    #[error("from outside of this host's networks")]
    OffLink,
    /// Too many packets, or too many beacons of one address or of all, for this second.
    #[error("over the rate")]
    RateLimited,
    /// Sealed for another network or another day, or not sealed at all.
    #[error("not of this network and day")]
    Foreign,
    /// Not the layout of a beacon.
    #[error("not a beacon")]
    Malformed,
    /// Our own, heard by ourselves.
    #[error("our own")]
    Own,
    /// Heard before, or older than what was heard.
    #[error("heard before")]
    Replayed,
    /// Signed for another time.
    #[error("not of this time")]
    Expired,
    /// The signature does not verify.
    #[error("the signature does not verify")]
    BadSignature,
    /// It names another address than it came from.
    #[error("sent from another address than it names")]
    WrongSource,
    /// Too many neighbours, or too many at that address.
    #[error("too many neighbours")]
    Crowded,
}

impl Reject {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Size,
        Self::OffLink,
        Self::RateLimited,
        Self::Foreign,
        Self::Malformed,
        Self::Own,
        Self::Replayed,
        Self::Expired,
        Self::BadSignature,
        Self::WrongSource,
        Self::Crowded,
    ];

    /// The name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::OffLink => "off_link",
            Self::RateLimited => "rate_limited",
            Self::Foreign => "foreign",
            Self::Malformed => "malformed",
            Self::Own => "own",
            Self::Replayed => "replayed",
            Self::Expired => "expired",
            Self::BadSignature => "bad_signature",
            Self::WrongSource => "wrong_source",
            Self::Crowded => "crowded",
        }
    }
}
