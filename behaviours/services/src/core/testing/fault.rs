//! What is wrong with a relay of the world in memory.

/// How a relay misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Circuits to it fail.
    Refuses,
    /// Circuits to it neither open nor fail.
    Hangs,
    /// It takes messages and does nothing.
    Silent,
    /// It says that it stored, and denies it.
    Forgets,
    /// It answers with the first descriptor that it got.
    Stale,
    /// It answers with bytes of no meaning.
    Garbage,
    /// It flips a bit in what it passes on.
    Flips,
    /// It passes each introduction on five times.
    Replays,
}
