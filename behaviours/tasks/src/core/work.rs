//! What is to be computed: the part of a task that decides its result, and nothing else. Two tasks with one [`WorkId`] have one result,
//! which is why results are compared, remembered and sold by it. What a user wants beside (trust, price, deadline) is in the terms.

use std::collections::BTreeSet;

use fog_base::codec;
use serde::{Deserialize, Serialize};

/// The largest encoded work, in bytes.
pub const MAX_WORK: usize = 64 * 1024;
/// The largest module, in bytes.
pub const MAX_MODULE: u64 = 64 * 1024 * 1024;
/// The most arguments, variables or inputs.
pub const MAX_ITEMS: usize = 256;
/// The longest name of an input, in bytes.
pub const MAX_NAME: usize = 255;
/// One page of WebAssembly memory.
pub const PAGE: u64 = 64 * 1024;

/// Bytes that are named by their hash; where they are to be had is told with the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    /// BLAKE3 of the bytes.
    pub hash: [u8; 32],
    /// How many they are.
    pub size: u64,
}

impl Content {
    /// Names `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self { hash: *blake3::hash(bytes).as_bytes(), size: bytes.len() as u64 }
    }

    /// Whether `bytes` are what is named.
    pub fn is(&self, bytes: &[u8]) -> bool {
        bytes.len() as u64 == self.size && *blake3::hash(bytes).as_bytes() == self.hash
    }
}

/// A file that the module finds under `/in`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Its name there: one component of a path.
    pub name: String,
    /// Its bytes.
    pub content: Content,
}

/// What a run may use. Reaching one of them is part of the result, so they decide it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Units of fuel: about one for each instruction.
    pub fuel: u64,
    /// Bytes of linear memory, a multiple of [`PAGE`].
    pub memory_bytes: u64,
    /// Bytes of standard output, of standard error, and of everything under `/out`, each.
    pub output_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { fuel: 10_000_000_000, memory_bytes: 256 * 1024 * 1024, output_bytes: 16 * 1024 * 1024 }
    }
}

/// The hash of a work's encoding: what results are remembered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WorkId(pub [u8; 32]);

/// A computation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Work {
    /// Layout: 1.
    pub version: u8,
    /// The module: a WASI preview 1 command.
    pub module: Content,
    /// Its arguments, behind the program's name, which is `module`.
    pub args: Vec<String>,
    /// Its environment.
    pub env: Vec<(String, String)>,
    /// What it reads from standard input.
    pub stdin: Option<Content>,
    /// What it finds under `/in`, sorted by name.
    pub inputs: Vec<Input>,
    /// What it may use.
    pub limits: Limits,
    /// What its randomness and its clock start from.
    pub seed: [u8; 32],
}

/// Why a work is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WorkError {
    /// Not the layout, or another version.
    #[error("not a description of work")]
    Malformed,
    /// More than a work may hold.
    #[error("the work has too many arguments, variables or inputs, or they are too long")]
    TooLarge,
    /// The module exceeds [`MAX_MODULE`].
    #[error("the module has more than 64 MiB")]
    ModuleTooLarge,
    /// An input's name is not one component of a path, or there twice, or not in order.
    #[error("the name of an input is no file name, or is there twice")]
    BadName,
    /// Memory that is no multiple of a page, or a limit of zero.
    #[error("a limit is zero, or the memory is no multiple of 64 KiB")]
    BadLimits,
}

impl Work {
    /// The bytes that are hashed and sent.
    pub fn encode(&self) -> Result<Vec<u8>, WorkError> {
        self.check()?;
        codec::encode(self, MAX_WORK).map_err(|_| WorkError::TooLarge)
    }

    /// Reads and checks what a peer sent.
    pub fn decode(bytes: &[u8]) -> Result<Self, WorkError> {
        let work: Self = codec::decode(bytes, MAX_WORK).map_err(|_| WorkError::Malformed)?;
        work.check()?;
        Ok(work)
    }

    /// The id of an encoded work.
    pub fn id_of(bytes: &[u8]) -> WorkId {
        let mut hasher = blake3::Hasher::new_derive_key("fog work v1");
        hasher.update(bytes);
        WorkId(*hasher.finalize().as_bytes())
    }

    /// All bytes that a worker must have before it starts.
    pub fn staged_bytes(&self) -> u64 {
        let inputs = self.inputs.iter().map(|input| input.content.size);
        inputs.chain(self.stdin.map(|content| content.size)).fold(self.module.size, u64::saturating_add)
    }

    /// All contents that a worker must have, each once.
    pub fn contents(&self) -> BTreeSet<Content> {
        let inputs = self.inputs.iter().map(|input| input.content);
        inputs.chain(self.stdin).chain([self.module]).collect()
    }

    fn check(&self) -> Result<(), WorkError> {
        if self.version != 1 {
            return Err(WorkError::Malformed);
        }
        if self.args.len() > MAX_ITEMS || self.env.len() > MAX_ITEMS || self.inputs.len() > MAX_ITEMS {
            return Err(WorkError::TooLarge);
        }
        if self.module.size > MAX_MODULE {
            return Err(WorkError::ModuleTooLarge);
        }
        let nul = |text: &String| text.contains('\0');
        let bad_variable =
            |(name, value): &(String, String)| name.is_empty() || name.contains('=') || nul(name) || nul(value);
        if self.args.iter().any(nul) || self.env.iter().any(bad_variable) {
            return Err(WorkError::Malformed);
        }
        let names = || self.inputs.iter().map(|input| input.name.as_str());
        if names().any(|name| !is_file_name(name)) || !names().zip(names().skip(1)).all(|(one, next)| one < next) {
            return Err(WorkError::BadName);
        }
        let Limits { fuel, memory_bytes, output_bytes } = self.limits;
        if fuel == 0 || output_bytes == 0 || memory_bytes == 0 || memory_bytes % PAGE != 0 {
            return Err(WorkError::BadLimits);
        }
        Ok(())
    }
}

/// Whether `name` is one component of a path in the virtual file system: 1 to 255 bytes, no slash, no NUL, neither `.` nor `..`.
pub fn is_file_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME && !name.contains(['/', '\0']) && name != "." && name != ".."
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work() -> Work {
        let input = |name: &str| Input { name: name.into(), content: Content::of(name.as_bytes()) };
        Work {
            version: 1,
            module: Content::of(b"module"),
            args: vec!["one".into()],
            env: vec![("A".into(), "b=c".into())],
            stdin: None,
            inputs: vec![input("a"), input("b")],
            limits: Limits::default(),
            seed: [7; 32],
        }
    }

    #[test]
    fn work_is_read_as_it_was_written_and_any_change_is_another_work() {
        let bytes = work().encode().unwrap();
        assert_eq!(Work::decode(&bytes).unwrap(), work());
        let other = Work { seed: [8; 32], ..work() };
        assert_ne!(Work::id_of(&other.encode().unwrap()), Work::id_of(&bytes));
    }

    #[test]
    fn what_no_worker_could_run_is_refused() {
        let mut twice = work();
        twice.inputs[1].name = "a".into();
        let mut escapes = work();
        escapes.inputs[0].name = "../a".into();
        let mut page = work();
        page.limits.memory_bytes += 1;
        let mut nul = work();
        nul.args = vec!["a\0b".into()];
        let large = Work { module: Content { hash: [0; 32], size: MAX_MODULE + 1 }, ..work() };
        let cases = [
            (twice, WorkError::BadName),
            (escapes, WorkError::BadName),
            (page, WorkError::BadLimits),
            (nul, WorkError::Malformed),
            (large, WorkError::ModuleTooLarge),
            (Work { version: 2, ..work() }, WorkError::Malformed),
            (Work { args: vec![String::new(); 257], ..work() }, WorkError::TooLarge),
        ];
        for (work, error) in cases {
            assert_eq!(work.encode().unwrap_err(), error);
        }
        assert_eq!(Work::decode(b"\xa1").unwrap_err(), WorkError::Malformed);
    }
}
