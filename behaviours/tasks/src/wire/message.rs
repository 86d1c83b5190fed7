//! What the two sides of a task say to each other.

use fog_base::record::SignedRecord;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::{
    bytes::{Reader, WireError, Writer},
    offers::OfferMessage,
    record::MAX_RECORD,
};
use crate::core::{
    ids::ExecutionId,
    outcome::{HostEnd, ResultHash},
    work::{Content, MAX_ITEMS, MAX_WORK},
};

/// The longest content that goes inline, in bytes.
pub const MAX_INLINE: usize = 64 * 1024;
/// All inline contents of one execution together, in bytes.
pub const MAX_INLINE_TOTAL: usize = 256 * 1024;
/// The longest manifest of a blob, in bytes (fog-blobs' README).
pub const MAX_MANIFEST: usize = 512;
/// The longest outcome that is revealed inline, encoded, in bytes.
pub const MAX_OUTCOME: usize = 256 * 1024;
/// The most contents of a work: module, standard input, and the inputs.
pub const MAX_CONTENTS: usize = MAX_ITEMS + 2;
/// The most executions in one heartbeat.
pub const MAX_HEARTBEAT: usize = 1_024;
/// The longest piece of a log, in bytes.
pub const MAX_LOG: usize = 16 * 1024;
/// The longest message: contents inline and named, all manifests, and their framing.
pub const MAX_MESSAGE: usize = MAX_INLINE_TOTAL + MAX_CONTENTS * (MAX_MANIFEST + 64) + MAX_RECORD + 64;

/// Where the bytes of a content are to be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// Here.
    Inline(ByteBuf),
    /// In the blob of this encoded manifest (fog-blobs).
    Blob(ByteBuf),
}

impl Source {
    /// The content, or the manifest.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Inline(bytes) | Self::Blob(bytes) => bytes,
        }
    }
}

/// Numbers an enum without fields: its place in `ALL`.
macro_rules! numbered {
    ($(#[$outer:meta])* $name:ident { $($(#[$inner:meta])* $variant:ident $text:literal,)* }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$inner])* $variant,)*
        }

        impl $name {
            /// All of them; the place is the number on the wire.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name in JSON and metrics.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }

            fn from_number(number: u8) -> Result<Self, WireError> {
                Self::ALL.get(usize::from(number)).copied().ok_or(WireError::Malformed)
            }
        }
    };
}

numbered! {
    /// Why a worker does not take a bid, or has no answer to a message.
    Refusal {
        /// No room in its queue.
        Busy "busy",
        /// Its host works for its user.
        NotEligible "not_eligible",
        /// Its price is higher than the bid.
        Price "price",
        /// The work wants more memory than it gives to one.
        Memory "memory",
        /// The contents exceed what it stages.
        Staging "staging",
        /// A feature that it does not have.
        Features "features",
        /// A class that it does not accept.
        Class "class",
        /// A privacy label that it does not accept.
        Privacy "privacy",
        /// The coordinator owes it too much.
        Unpaid "unpaid",
        /// An offer that it does not stand by any more.
        UnknownOffer "unknown_offer",
        /// An execution that it does not know, or knows no more.
        UnknownExecution "unknown_execution",
        /// Another bid for the execution is being done.
        Conflict "conflict",
        /// Not a work.
        BadWork "bad_work",
    }
}

numbered! {
    /// What a live execution does.
    Phase {
        /// Its contents are fetched.
        Staging "staging",
        /// It waits for a slot.
        Queued "queued",
        /// It runs.
        Running "running",
        /// It stands still for the host's user.
        Frozen "frozen",
    }
}

numbered! {
    /// Why contents could not be staged.
    StageError {
        /// Nobody has them.
        Missing "missing",
        /// They are not what is named.
        Mismatch "mismatch",
        /// There is no room for them.
        NoRoom "no_room",
    }
}

numbered! {
    /// Which of a run's texts.
    StreamKind {
        /// Standard output.
        Stdout "stdout",
        /// Standard error.
        Stderr "stderr",
    }
}

/// Why an execution ended without a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failure {
    /// The host ended the run.
    Host(HostEnd),
    /// Staging failed.
    Stage(StageError),
    /// Staging took longer than the bid allows.
    StagingTime,
    /// No slot became free in the time of the bid.
    QueueingTime,
    /// The lease was not renewed.
    LeaseExpired,
    /// The host needs its resources for its user.
    Vacated,
    /// The output does not fit through the mixnet.
    TooLarge,
}

impl Failure {
    /// The name in JSON and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Host(HostEnd::StackOverflow) => "stack_overflow",
            Self::Host(HostEnd::Deadline) => "running_time",
            Self::Host(HostEnd::Compile) => "compile_limit",
            Self::Host(HostEnd::Killed) => "killed",
            Self::Host(HostEnd::NoResources) => "no_resources",
            Self::Host(HostEnd::Unstaged) => "unstaged",
            Self::Stage(error) => error.name(),
            Self::StagingTime => "staging_time",
            Self::QueueingTime => "queueing_time",
            Self::LeaseExpired => "lease_expired",
            Self::Vacated => "vacated",
            Self::TooLarge => "output_too_large",
        }
    }

    fn numbers(self) -> (u8, u8) {
        match self {
            Self::Host(end) => (0, end as u8),
            Self::Stage(error) => (1, error as u8),
            Self::StagingTime => (2, 0),
            Self::QueueingTime => (3, 0),
            Self::LeaseExpired => (4, 0),
            Self::Vacated => (5, 0),
            Self::TooLarge => (6, 0),
        }
    }

    fn from_numbers(kind: u8, code: u8) -> Result<Self, WireError> {
        Ok(match (kind, code) {
            (0, code) => Self::Host(HostEnd::ALL.get(usize::from(code)).copied().ok_or(WireError::Malformed)?),
            (1, code) => Self::Stage(StageError::from_number(code)?),
            (2, 0) => Self::StagingTime,
            (3, 0) => Self::QueueingTime,
            (4, 0) => Self::LeaseExpired,
            (5, 0) => Self::Vacated,
            (6, 0) => Self::TooLarge,
            _ => return Err(WireError::Malformed),
        })
    }
}

/// From the coordinator of an execution to its worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToWorker {
    /// A signed bid and the work that it names.
    Bid {
        /// [`super::record::BidBody`].
        record: SignedRecord,
        /// The encoded work.
        work: Vec<u8>,
    },
    /// A signed lease.
    Lease(SignedRecord),
    /// Where its contents are: beside the first lease.
    Stage {
        /// The execution.
        execution: ExecutionId,
        /// Each content of the work once.
        items: Vec<(Content, Source)>,
    },
    /// It is not wanted any more.
    Cancel(ExecutionId),
    /// Show the result that was committed to.
    Reveal {
        /// The execution.
        execution: ExecutionId,
        /// Whether its output is wanted.
        want_output: bool,
    },
    /// A signed voucher.
    Voucher(SignedRecord),
}

/// From a worker to the coordinator of an execution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToCoordinator {
    /// A signed agreement.
    Agreement(SignedRecord),
    /// A bid that is not taken, or a message about an execution that the worker does not know.
    Refused {
        /// The execution.
        execution: ExecutionId,
        /// Why.
        reason: Refusal,
    },
    /// What all live executions of this coordinator do.
    Heartbeat(Vec<(ExecutionId, Phase)>),
    /// A piece of a run's text, as it comes; not part of the result.
    Log {
        /// The execution.
        execution: ExecutionId,
        /// Which text.
        stream: StreamKind,
        /// At most [`MAX_LOG`].
        bytes: Vec<u8>,
    },
    /// A signed commit.
    Commit(SignedRecord),
    /// There will be no result.
    Ended {
        /// The execution.
        execution: ExecutionId,
        /// Why.
        failure: Failure,
    },
    /// The result that was committed to.
    Revealed {
        /// The execution.
        execution: ExecutionId,
        /// The hash of the outcome.
        result: ResultHash,
        /// What hid it.
        nonce: [u8; 32],
        /// The fuel that it used: part of the hash, stated for the price.
        fuel: u64,
        /// The encoded outcome, if it was wanted.
        output: Option<Source>,
    },
    /// A signed acknowledgement.
    Acknowledged {
        /// The execution whose voucher it is for.
        execution: ExecutionId,
        /// [`super::record::AcknowledgedBody`].
        record: SignedRecord,
    },
}

/// What travels on a stream between two nodes: each is both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// For the worker.
    ToWorker(ToWorker),
    /// For the coordinator.
    ToCoordinator(ToCoordinator),
    /// For whoever keeps offers, which is the coordinator too.
    Offers(OfferMessage),
}

impl Message {
    /// As bytes, a tag first.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        match self {
            Self::ToWorker(message) => message.write(&mut out),
            Self::ToCoordinator(message) => message.write(&mut out),
            Self::Offers(message) => message.write(&mut out),
        }
        out.0
    }

    /// From bytes. Every length is checked, and nothing may be left.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        if bytes.len() > MAX_MESSAGE {
            return Err(WireError::TooLong);
        }
        let mut read = Reader(bytes);
        let tag = read.u8()?;
        let message = if tag < 64 {
            Self::ToWorker(ToWorker::read(tag, &mut read)?)
        } else if tag < 128 {
            Self::ToCoordinator(ToCoordinator::read(tag, &mut read)?)
        } else {
            Self::Offers(OfferMessage::read(tag, &mut read)?)
        };
        read.end()?;
        Ok(message)
    }
}

impl ToWorker {
    fn write(&self, out: &mut Writer) {
        match self {
            Self::Bid { record, work } => out.u8(1).bytes(record.as_bytes()).bytes(work),
            Self::Lease(record) => out.u8(2).bytes(record.as_bytes()),
            Self::Stage { execution, items } => {
                out.u8(3).put(&execution.0).count(items.len());
                for (content, source) in items {
                    out.put(&content.hash).u64(content.size);
                    write_source(source, out);
                }
                out
            }
            Self::Cancel(execution) => out.u8(4).put(&execution.0),
            Self::Reveal { execution, want_output } => out.u8(5).put(&execution.0).u8(u8::from(*want_output)),
            Self::Voucher(record) => out.u8(6).bytes(record.as_bytes()),
        };
    }

    fn read(tag: u8, read: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(match tag {
            1 => Self::Bid { record: record(read)?, work: read.bytes(MAX_WORK)?.to_vec() },
            2 => Self::Lease(record(read)?),
            3 => {
                let execution = ExecutionId(read.array()?);
                let mut inline = 0;
                let mut items = Vec::new();
                for _ in 0..read.count(MAX_CONTENTS)? {
                    let content = Content { hash: read.array()?, size: read.u64()? };
                    let source = read_source(read, MAX_INLINE)?;
                    inline += if let Source::Inline(bytes) = &source { bytes.len() } else { 0 };
                    items.push((content, source));
                }
                if inline > MAX_INLINE_TOTAL {
                    return Err(WireError::TooLong);
                }
                Self::Stage { execution, items }
            }
            4 => Self::Cancel(ExecutionId(read.array()?)),
            5 => Self::Reveal { execution: ExecutionId(read.array()?), want_output: read.bool()? },
            6 => Self::Voucher(record(read)?),
            _ => return Err(WireError::Malformed),
        })
    }
}

impl ToCoordinator {
    fn write(&self, out: &mut Writer) {
        match self {
            Self::Agreement(record) => out.u8(64).bytes(record.as_bytes()),
            Self::Refused { execution, reason } => out.u8(65).put(&execution.0).u8(*reason as u8),
            Self::Heartbeat(phases) => {
                out.u8(66).count(phases.len());
                for (execution, phase) in phases {
                    out.put(&execution.0).u8(*phase as u8);
                }
                out
            }
            Self::Log { execution, stream, bytes } => out.u8(67).put(&execution.0).u8(*stream as u8).bytes(bytes),
            Self::Commit(record) => out.u8(68).bytes(record.as_bytes()),
            Self::Ended { execution, failure } => {
                let (kind, code) = failure.numbers();
                out.u8(69).put(&execution.0).u8(kind).u8(code)
            }
            Self::Revealed { execution, result, nonce, fuel, output } => {
                out.u8(70).put(&execution.0).put(&result.0).put(nonce).u64(*fuel).u8(u8::from(output.is_some()));
                if let Some(source) = output {
                    write_source(source, out);
                }
                out
            }
            Self::Acknowledged { execution, record } => out.u8(71).put(&execution.0).bytes(record.as_bytes()),
        };
    }

    fn read(tag: u8, read: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(match tag {
            64 => Self::Agreement(record(read)?),
            65 => Self::Refused { execution: ExecutionId(read.array()?), reason: Refusal::from_number(read.u8()?)? },
            66 => {
                let count = read.count(MAX_HEARTBEAT)?;
                let phase = |_| Ok((ExecutionId(read.array()?), Phase::from_number(read.u8()?)?));
                Self::Heartbeat((0..count).map(phase).collect::<Result<_, WireError>>()?)
            }
            67 => Self::Log {
                execution: ExecutionId(read.array()?),
                stream: StreamKind::from_number(read.u8()?)?,
                bytes: read.bytes(MAX_LOG)?.to_vec(),
            },
            68 => Self::Commit(record(read)?),
            69 => Self::Ended {
                execution: ExecutionId(read.array()?),
                failure: Failure::from_numbers(read.u8()?, read.u8()?)?,
            },
            70 => Self::Revealed {
                execution: ExecutionId(read.array()?),
                result: ResultHash(read.array()?),
                nonce: read.array()?,
                fuel: read.u64()?,
                output: if read.bool()? { Some(read_source(read, MAX_OUTCOME)?) } else { None },
            },
            71 => Self::Acknowledged { execution: ExecutionId(read.array()?), record: record(read)? },
            _ => return Err(WireError::Malformed),
        })
    }
}

fn record(read: &mut Reader<'_>) -> Result<SignedRecord, WireError> {
    SignedRecord::parse(read.bytes(MAX_RECORD)?).map_err(|_| WireError::Malformed)
}

fn write_source(source: &Source, out: &mut Writer) {
    match source {
        Source::Inline(bytes) => out.u8(0).bytes(bytes),
        Source::Blob(manifest) => out.u8(1).bytes(manifest),
    };
}

fn read_source(read: &mut Reader<'_>, max_inline: usize) -> Result<Source, WireError> {
    match read.u8()? {
        0 => Ok(Source::Inline(ByteBuf::from(read.bytes(max_inline)?))),
        1 => Ok(Source::Blob(ByteBuf::from(read.bytes(MAX_MANIFEST)?))),
        _ => Err(WireError::Malformed),
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
