//! What a download says of itself.

use fog_base::NodeId;

use crate::{core::slice::Verified, wire::ToSource};

/// What a source did, for the reputation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// It sent bytes that are not the blob's, in this group.
    Lied {
        /// Which source.
        peer: NodeId,
        /// Which group.
        group: u64,
    },
    /// It promised and sent nothing for the time of [`super::Config::stall`].
    Stalled {
        /// Which source.
        peer: NodeId,
    },
}

/// What the download wants done.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a message.
    Send {
        /// To which source.
        to: NodeId,
        /// What.
        message: ToSource,
    },
    /// Write a group, and then call [`super::Download::handle_written`].
    Persist(Verified),
    /// Tell the reputation.
    Report(Report),
    /// All groups are written.
    Done,
}

/// What came and went since the start, in groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Requested, again or not.
    pub requested: u64,
    /// Given up by a source that lied, stalled, left or refused, or by a pause, and free to be requested again.
    pub released: u64,
    /// Taken from a slower source.
    pub stolen: u64,
    /// Requested from a second source at the end.
    pub doubled: u64,
    /// Came when they were there already.
    pub duplicates: u64,
    /// Could not be written.
    pub unwritten: u64,
}

/// How far a download is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that were verified.
    pub bytes: u64,
    /// Bytes of the blob.
    pub total_bytes: u64,
    /// Bytes a second from all sources.
    pub bytes_per_second: u64,
    /// Sources that said what they have.
    pub sources: usize,
    /// Sources of which something is requested.
    pub active: usize,
    /// Whether something is missing that no source has.
    pub is_starved: bool,
    /// Whether nothing is requested until [`super::Download::resume`].
    pub is_paused: bool,
}
