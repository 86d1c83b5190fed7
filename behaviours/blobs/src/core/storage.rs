//! What a download writes to and an upload reads from. `files` has both on disk.

use super::slice::{Step, Verified};

/// Where the groups of one blob go.
pub trait GroupSink {
    /// Why it failed.
    type Error;

    /// Keeps a group and the parents above it. Only what was verified can be written. Writing the same group again changes
    /// nothing.
    fn write(&mut self, verified: &Verified) -> Result<(), Self::Error>;
}

/// Where the steps of one blob come from.
pub trait StepSource {
    /// Why it failed.
    type Error;

    /// Reads the bytes of a step as they travel. They are not verified here: whoever sends them does that, so that bytes which
    /// rotted or were changed do not make this node a liar.
    fn read(&mut self, step: &Step) -> Result<Vec<u8>, Self::Error>;
}
