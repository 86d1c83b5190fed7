//! Outcomes as bytes: how they are revealed, and how they are kept.

use std::collections::BTreeMap;

use super::bytes::{Reader, WireError, Writer};
use crate::core::outcome::{Ending, Outcome};

/// The longest sentence that goes with an ending, in bytes.
pub const MAX_DETAIL: usize = 1_024;

impl Outcome {
    /// As bytes: kind and code as they are hashed (a host's ending is kind 5), fuel, standard output, standard error, the number of
    /// files and path and bytes of each, the sentence.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (kind, code) = self.ending.code();
        let mut out = Writer::default();
        out.u8(kind).u32(code).u64(self.fuel).bytes(&self.stdout).bytes(&self.stderr);
        out.u32(u32::try_from(self.outputs.len()).unwrap_or(u32::MAX));
        for (path, bytes) in &self.outputs {
            out.bytes(path.as_bytes()).bytes(bytes);
        }
        let detail = self.detail.get(..self.detail.floor_char_boundary(MAX_DETAIL)).unwrap_or_default();
        out.bytes(detail.as_bytes());
        out.0
    }

    /// From at most `max` bytes. Paths must be in order, so that an outcome has one form.
    pub fn from_bytes(bytes: &[u8], max: usize) -> Result<Self, WireError> {
        if bytes.len() > max {
            return Err(WireError::TooLong);
        }
        let mut read = Reader(bytes);
        let (kind, code, fuel) = (read.u8()?, read.u32()?, read.u64()?);
        let ending = Ending::of(kind, code).ok_or(WireError::Malformed)?;
        let (stdout, stderr) = (read.bytes(max)?.to_vec(), read.bytes(max)?.to_vec());
        let mut outputs = BTreeMap::new();
        for _ in 0..read.u32()? {
            let path = read.text(max)?;
            if outputs.last_key_value().is_some_and(|(last, _)| *last >= path) {
                return Err(WireError::Malformed);
            }
            outputs.insert(path, read.bytes(max)?.to_vec());
        }
        let detail = read.text(MAX_DETAIL)?;
        read.end()?;
        Ok(Self { ending, fuel, stdout, stderr, outputs, detail })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::outcome::{HostEnd, Trap};

    #[test]
    fn each_ending_survives() {
        let traps = Trap::ALL.into_iter().map(Ending::Trap);
        let hosts = HostEnd::ALL.into_iter().map(Ending::Host);
        let others = [Ending::Exit(3), Ending::OutOfFuel, Ending::OutputLimit, Ending::BadModule];
        for ending in others.into_iter().chain(traps).chain(hosts) {
            let outcome = Outcome::ended(ending, "é".repeat(600));
            let read = Outcome::from_bytes(&outcome.to_bytes(), 2_000).unwrap();
            assert_eq!((read.ending, read.detail.len()), (ending, MAX_DETAIL), "cut between characters");
        }
    }

    proptest! {
        #[test]
        fn outcomes_are_read_as_written(
            fuel in any::<u64>(), stdout in any::<Vec<u8>>(), outputs in any::<BTreeMap<String, Vec<u8>>>(),
        ) {
            let outcome = Outcome { fuel, stdout, outputs, ..Outcome::ended(Ending::Exit(0), "") };
            let bytes = outcome.to_bytes();
            prop_assert_eq!(Outcome::from_bytes(&bytes, bytes.len()), Ok(outcome));
            prop_assert_eq!(Outcome::from_bytes(&bytes, bytes.len() - 1), Err(WireError::TooLong));
            prop_assert!(Outcome::from_bytes(&bytes[..bytes.len() - 1], bytes.len()).is_err());
        }

        #[test]
        fn garbage_is_no_outcome_or_one_with_one_form(bytes in any::<Vec<u8>>()) {
            if let Ok(outcome) = Outcome::from_bytes(&bytes, 1_000) {
                prop_assert_eq!(outcome.to_bytes(), bytes);
            }
        }
    }
}
