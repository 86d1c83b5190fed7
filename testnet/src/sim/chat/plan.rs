//! What a world is: how many peers, what goes wrong, who lies, when.

use std::{ops::Range, time::Duration};

const SECOND: Duration = Duration::from_secs(1);

/// When people begin to talk, and everything begins to go wrong.
pub(super) const TALK: Duration = Duration::from_secs(60);
/// When lines lose nothing any more and all are there again.
pub(super) const CALM: Duration = Duration::from_secs(360);
/// When the last words of the rooms are said, and when somebody comes who knows nothing.
pub(super) const LATE: Duration = Duration::from_secs(400);
pub(super) const NEWCOMER: Duration = Duration::from_secs(700);
/// When all must have the same.
pub(super) const END: Duration = Duration::from_secs(1_260);
/// Mean time that a peer is there, and away: a tenth of all is away.
pub(super) const PRESENT: Duration = Duration::from_secs(360);
pub(super) const AWAY: Duration = Duration::from_secs(40);

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// As it should be.
    Honest,
    /// A device that runs twice from one moment on, each with one half of the peers: it forks wherever both write.
    Twin,
    /// Tells one half of its peers nothing.
    Half,
    /// Writes hundreds of messages at once.
    Flooder,
    /// Signs false clocks, missing parents and forks under new names, and pushes them.
    Liar,
    /// Sends garbage, and envelopes that it heard, again and changed. It has no engine.
    Noise,
}

/// A world that is broken on purpose: what a check is for. One fault, one check that finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// One peer stays alone after the others are together again.
    Unhealed,
    /// History is sorted by what authors say of the time.
    OrderedByTime,
    /// Disks say that they have what they do not have.
    LyingDisk,
    /// A device is told of no fork.
    BlindToForks,
    /// A device takes its own number into no clock.
    ForgottenDot,
    /// The bounds are a thousandth of what they are.
    Overfull,
    /// Messages are shown as they come.
    OrderOfArrival,
    /// Ratchets keep old keys.
    KeptKeys,
    /// A device tells states in the wrong order.
    FallingStates,
    /// A line changes what a device answers.
    Forged,
}

/// One world.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) peers: usize,
    /// The most that a line loses of what it carries: each line between nothing and that.
    pub(super) loss: f64,
    /// How far clocks are off at most.
    pub(super) skew_ms: i64,
    /// When nodes with even and odd numbers do not reach each other.
    pub(super) parted: Range<Duration>,
    pub(super) fault: Option<Fault>,
}

impl Plan {
    pub(super) fn new(peers: usize) -> Self {
        Self { peers, loss: 0.4, skew_ms: 3_600_000, parted: 180 * SECOND..240 * SECOND, fault: None }
    }

    /// Whether this fault is at node `n`: at the first, which is honest.
    pub(super) fn breaks(&self, fault: Fault, n: usize) -> bool {
        self.fault == Some(fault) && n == 0
    }

    /// How many of each kind of adversary there are.
    fn each(&self) -> usize {
        (self.peers / 50).max(1)
    }

    /// What node `n` is.
    pub(super) fn role(&self, n: usize) -> Role {
        let from_the_end = self.peers - 1 - n.min(self.peers - 1);
        match from_the_end / self.each() {
            0 => Role::Twin,
            1 => Role::Half,
            2 => Role::Liar,
            3 => Role::Noise,
            4 if from_the_end % self.each() < 1 + self.peers / 250 => Role::Flooder,
            _ => Role::Honest,
        }
    }
}
