//! What a service can say of itself: only what was shown.

use fog_base::{NodeId, UnixMillis};

use crate::wire::StoreReject;

/// Whether clients can reach it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// No introduction point is established yet.
    Starting,
    /// No probe went through yet.
    Publishing,
    /// The last probe failed, or all points were lost.
    Unreachable,
    /// The last probe went through; points or directories are missing.
    Degraded,
    /// The last probe went through.
    Reachable,
}

impl State {
    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Publishing => "publishing",
            Self::Unreachable => "unreachable",
            Self::Degraded => "degraded",
            Self::Reachable => "reachable",
        }
    }
}

/// How the last probe ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastProbe {
    /// It went through.
    pub ok: bool,
    /// When it ended.
    pub at: UnixMillis,
    /// How, in a few words.
    pub detail: String,
}

/// What is known of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectoryStatus {
    /// Which relay.
    pub relay: NodeId,
    /// When it last showed the newest descriptor.
    pub shown: Option<UnixMillis>,
    /// Why it refused the last one.
    pub refused: Option<StoreReject>,
    /// How often it did not have what it had said it stored.
    pub lies: u32,
}

/// The state of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// In a word.
    pub state: State,
    /// The introduction points' relays, and which of them are established.
    pub points: Vec<(NodeId, bool)>,
    /// The directories of the current period.
    pub directories: Vec<DirectoryStatus>,
    /// The newest descriptor's revision.
    pub revision: Option<u64>,
    /// Introductions that were answered since the start.
    pub answered: u64,
    /// Introductions that wait.
    pub waiting: usize,
    /// The effort that clients are asked for.
    pub effort: u32,
    /// The last probe.
    pub last_probe: Option<LastProbe>,
    /// Why no descriptor could be made.
    pub error: Option<String>,
}

impl Status {
    pub(super) fn judge(&self, wanted: usize) -> State {
        let established = self.points.iter().filter(|(_, established)| *established).count();
        let shown = self.directories.iter().filter(|directory| directory.shown.is_some()).count();
        match &self.last_probe {
            None if established == 0 => State::Starting,
            None => State::Publishing,
            Some(probe) if !probe.ok || established == 0 => State::Unreachable,
            Some(_) if established < wanted || shown * 2 < self.directories.len() => State::Degraded,
            Some(_) => State::Reachable,
        }
    }
}
