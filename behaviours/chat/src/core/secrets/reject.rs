//! Why something was refused.

/// Why an input changed nothing. Each reason is counted by the caller; none is told to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Reject {
    /// Not of the expected shape or length.
    #[error("not a valid encoding")]
    Malformed,
    /// A signature that does not hold.
    #[error("a signature does not hold")]
    BadSignature,
    /// Too old.
    #[error("expired")]
    Expired,
    /// From or to a device that no bundle was given for.
    #[error("no keys of this device are known")]
    UnknownDevice,
    /// From a device that the person blocked.
    #[error("blocked")]
    Blocked,
    /// Seen before.
    #[error("seen before")]
    Replayed,
    /// The key of this message was used or discarded: it comes again under another one.
    #[error("the key of this message is gone")]
    KeyGone,
    /// No session opens it.
    #[error("no session opens this message")]
    Undecryptable,
    /// Opened, but made for another sender, recipient, conversation or place.
    #[error("bound to something else")]
    WrongBinding,
    /// Too many messages wait for an acknowledgement, or for the store.
    #[error("too much is waiting")]
    Full,
    /// A message id that is in use.
    #[error("a message with this id is on its way")]
    Duplicate,
    /// Longer than is carried.
    #[error("too long")]
    TooLong,
    /// The store failed: nothing is sent or taken any more.
    #[error("the store failed")]
    StoreFailed,
    /// A key that the ratchet refuses, such as a point of low order.
    #[error("a bad key")]
    BadKey,
    /// A group session whose key has not come yet: the message waits for it.
    #[error("the key of this group session has not come")]
    NoKey,
    /// Its author is not a member, or was not when it was written.
    #[error("not a member")]
    NotMember,
    /// Sealed in another way than its conversation is.
    #[error("sealed in another way than its conversation is")]
    WrongMode,
}
