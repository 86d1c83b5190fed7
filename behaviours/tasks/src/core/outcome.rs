//! How a run ended, and which endings are the same everywhere. Only those are compared between workers, and only they are evidence:
//! how deep a host's stack is, how fast it is and what its user does meanwhile is nobody's lie.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A trap that every host raises at the same instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trap {
    /// `unreachable`, as after `abort()`.
    Unreachable,
    /// Outside of a memory.
    Memory,
    /// Outside of a table, or an empty place of it.
    Table,
    /// A function of another type than the call's.
    Signature,
    /// Division by zero.
    DivisionByZero,
    /// A result that does not fit an integer.
    IntegerOverflow,
    /// A float that is no integer.
    Conversion,
    /// Any other that the specification names.
    Other,
}

impl Trap {
    /// All of them, in the order of their codes.
    pub const ALL: [Self; 8] = [
        Self::Unreachable,
        Self::Memory,
        Self::Table,
        Self::Signature,
        Self::DivisionByZero,
        Self::IntegerOverflow,
        Self::Conversion,
        Self::Other,
    ];
}

/// An ending that a host decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostEnd {
    /// Calls nested deeper than this host's stack.
    StackOverflow,
    /// The time ran out.
    Deadline,
    /// Compiling took too long or too much.
    Compile,
    /// The process was killed, or died.
    Killed,
    /// The host has no memory or no disk.
    NoResources,
    /// The bytes that were brought are not those that the work names.
    Unstaged,
}

impl HostEnd {
    /// All of them, in the order of their codes.
    pub const ALL: [Self; 6] =
        [Self::StackOverflow, Self::Deadline, Self::Compile, Self::Killed, Self::NoResources, Self::Unstaged];
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// The module returned, or called `proc_exit`.
    Exit(u32),
    /// It trapped.
    Trap(Trap),
    /// It used up its fuel.
    OutOfFuel,
    /// It wrote more than it may.
    OutputLimit,
    /// It is no WASI preview 1 command, or needs what no worker has.
    BadModule,
    /// The host ended it.
    Host(HostEnd),
}

impl Ending {
    /// Whether every honest host ends so.
    pub fn is_deterministic(self) -> bool {
        !matches!(self, Self::Host(_))
    }

    /// Kind and code, wherever an ending is written: 0 exit, 1 trap, 2 out of fuel, 3 output limit, 4 bad module, 5 the host's.
    pub fn code(self) -> (u8, u32) {
        match self {
            Self::Exit(code) => (0, code),
            Self::Trap(trap) => (1, trap as u32),
            Self::OutOfFuel => (2, 0),
            Self::OutputLimit => (3, 0),
            Self::BadModule => (4, 0),
            Self::Host(end) => (5, end as u32),
        }
    }

    /// The ending of this kind and code, if there is one.
    pub fn of(kind: u8, code: u32) -> Option<Self> {
        let place = usize::try_from(code).ok()?;
        match (kind, code) {
            (0, _) => Some(Self::Exit(code)),
            (1, _) => Trap::ALL.get(place).copied().map(Self::Trap),
            (2, 0) => Some(Self::OutOfFuel),
            (3, 0) => Some(Self::OutputLimit),
            (4, 0) => Some(Self::BadModule),
            (5, _) => HostEnd::ALL.get(place).copied().map(Self::Host),
            _ => None,
        }
    }
}

/// The hash of everything that a run gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ResultHash(pub [u8; 32]);

/// What a run gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended.
    pub ending: Ending,
    /// Units of fuel that it used. Of a [`HostEnd`] this is what is known.
    pub fuel: u64,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// Files under `/out` by their path there.
    pub outputs: BTreeMap<String, Vec<u8>>,
    /// One sentence for the user where the ending needs it, such as which import is unknown; no part of the hash.
    pub detail: String,
}

impl Outcome {
    /// An outcome without output.
    pub fn ended(ending: Ending, detail: impl Into<String>) -> Self {
        let (stdout, stderr, outputs) = Default::default();
        Self { ending, fuel: 0, stdout, stderr, outputs, detail: detail.into() }
    }

    /// What replicas compare: ending, fuel, and all output. `None` where a host decided the ending.
    pub fn hash(&self) -> Option<ResultHash> {
        if !self.ending.is_deterministic() {
            return None;
        }
        let (kind, code) = self.ending.code();
        let mut hasher = blake3::Hasher::new_derive_key("fog result v1");
        hasher.update(&[kind]);
        hasher.update(&code.to_be_bytes());
        hasher.update(&self.fuel.to_be_bytes());
        let mut part = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_be_bytes());
            hasher.update(bytes);
        };
        part(&self.stdout);
        part(&self.stderr);
        for (path, bytes) in &self.outputs {
            part(path.as_bytes());
            part(bytes);
        }
        Some(ResultHash(*hasher.finalize().as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ending_has_a_code_of_its_own() {
        let traps = Trap::ALL.into_iter().map(Ending::Trap);
        let hosts = HostEnd::ALL.into_iter().map(Ending::Host);
        let others = [Ending::Exit(7), Ending::OutOfFuel, Ending::OutputLimit, Ending::BadModule];
        let all: Vec<_> = traps.chain(hosts).chain(others).collect();
        let codes: std::collections::BTreeSet<_> = all.iter().map(|ending| ending.code()).collect();
        assert_eq!(codes.len(), all.len());
        for ending in all {
            let (kind, code) = ending.code();
            assert_eq!(Ending::of(kind, code), Some(ending));
        }
        for (kind, code) in [(1, 8), (5, 6), (2, 1), (3, 1), (4, 1), (6, 0)] {
            assert_eq!(Ending::of(kind, code), None);
        }
    }

    #[test]
    fn results_differ_by_each_part_and_hosts_endings_have_none() {
        let exit = |fuel, stdout: &[u8], path: &str| Outcome {
            fuel,
            stdout: stdout.to_vec(),
            outputs: BTreeMap::from([(path.to_owned(), b"1".to_vec())]),
            ..Outcome::ended(Ending::Exit(0), "")
        };
        let one = exit(5, b"x", "a").hash();
        assert_eq!(one, Outcome { detail: "said".into(), ..exit(5, b"x", "a") }.hash());
        for other in [exit(6, b"x", "a"), exit(5, b"y", "a"), exit(5, b"x", "b"), exit(5, b"", "xa")] {
            assert_ne!(one, other.hash());
        }
        assert_eq!(Outcome::ended(Ending::Host(HostEnd::StackOverflow), "").hash(), None);
        assert_ne!(
            Outcome::ended(Ending::Trap(Trap::Unreachable), "").hash(),
            Outcome::ended(Ending::Trap(Trap::Memory), "").hash()
        );
    }
}
