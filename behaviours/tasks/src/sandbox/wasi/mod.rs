//! WASI preview 1 as a run sees it: arguments, environment, standard streams, a file system in memory, a clock that only its own calls
//! move, and randomness from a seed. Nothing here reads the host: two runs of one work see the same. Written from
//! `wasi_snapshot_preview1.witx`; the crate's README says where an answer is ours to choose.
//!
//! The functions know no wasmtime: each works on a [`Guest`], a slice of memory and a number of units of fuel, so they are tested and
//! fuzzed without a module. `link.rs` gives them to wasmtime.

mod clock;
mod descriptors;
mod errno;
mod files;
mod guest;
mod link;
mod paths;
mod streams;

use std::collections::BTreeMap;

use self::{clock::Clock, descriptors::Descriptors, files::Files};
pub use self::{
    errno::Errno,
    files::Bytes,
    guest::{CALL_FUEL, Guest},
    link::{FUNCTIONS, Hosted, Memory, link},
};

/// The module that every import must name.
pub const MODULE: &str = "wasi_snapshot_preview1";

/// What a function answers: success, an error number, or the end of the run.
pub(super) type Answer = Result<(), Fault>;

/// Why the run ends inside of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// `proc_exit`.
    Exit(u32),
    /// The fuel does not pay for the call.
    OutOfFuel,
    /// More output than the limit.
    OutputLimit,
}

/// Why a function did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The module is told.
    Errno(Errno),
    /// The run ends.
    Stop(Stop),
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<Stop> for Fault {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

/// One of the two streams that a run writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// Is given what a run writes to its streams, when it writes it.
pub type Log = std::sync::Arc<dyn Fn(Stream, &[u8]) + Send + Sync>;

/// What a run starts with.
#[derive(Clone)]
pub struct Setup {
    /// Arguments, the program's name first.
    pub args: Vec<String>,
    /// Environment.
    pub env: Vec<(String, String)>,
    /// Standard input.
    pub stdin: Bytes,
    /// Files under `/in`: names are those of files, each there once.
    pub inputs: Vec<(String, Bytes)>,
    /// Bytes of standard output, of standard error, and of all files under `/out`, each.
    pub output_bytes: u64,
    /// Where the clock and the randomness start.
    pub seed: [u8; 32],
    /// Who is shown the streams.
    pub log: Log,
}

impl std::fmt::Debug for Setup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Setup").field("args", &self.args).field("inputs", &self.inputs.len()).finish_non_exhaustive()
    }
}

/// Everything that a run can reach.
pub struct Wasi {
    args: Vec<String>,
    env: Vec<(String, String)>,
    stdin: Bytes,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    output_bytes: u64,
    log: Log,
    clock: Clock,
    files: Files,
    descriptors: Descriptors,
}

impl std::fmt::Debug for Wasi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wasi")
            .field("files", &self.files)
            .field("descriptors", &self.descriptors)
            .finish_non_exhaustive()
    }
}

/// What a run has written.
#[derive(Debug, Default)]
pub struct Written {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// Files by their path under `/out`.
    pub outputs: BTreeMap<String, Vec<u8>>,
}

impl Wasi {
    /// A system in which nothing has happened.
    pub fn new(setup: Setup) -> Self {
        let Setup { args, env, stdin, inputs, output_bytes, seed, log } = setup;
        let clock = Clock::new(seed);
        let files = Files::new(inputs, output_bytes, clock.real());
        let descriptors = Descriptors::default();
        let (stdout, stderr) = Default::default();
        Self { args, env, stdin, stdout, stderr, output_bytes, log, clock, files, descriptors }
    }

    /// What was written.
    pub fn into_written(self) -> Written {
        Written { stdout: self.stdout, stderr: self.stderr, outputs: self.files.into_outputs() }
    }
}
