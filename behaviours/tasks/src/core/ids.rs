//! Names of a task and of one attempt at it.

use std::fmt;

use fog_base::{NodeId, id::byte_array};
use serde::{Deserialize, Serialize};

/// A task at its coordinator: 16 random bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskId(#[serde(with = "byte_array")] pub [u8; 16]);

/// One attempt at a task on one worker. It tells a worker nothing of the task's other executions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ExecutionId(#[serde(with = "byte_array")] pub [u8; 16]);

impl ExecutionId {
    /// The first 16 bytes of `BLAKE3 derive_key("fog execution v1", task id ‖ attempt u32 big-endian ‖ worker)`.
    pub fn of(task: TaskId, attempt: u32, worker: NodeId) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("fog execution v1");
        hasher.update(&task.0);
        hasher.update(&attempt.to_be_bytes());
        hasher.update(&worker.0);
        let mut id = [0; 16];
        hasher.finalize_xof().fill(&mut id);
        Self(id)
    }
}

macro_rules! hex {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}
hex!(TaskId);
hex!(ExecutionId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executions_differ_by_task_attempt_and_worker_and_print_as_hex() {
        let of = |task, attempt, worker| ExecutionId::of(TaskId([task; 16]), attempt, NodeId([worker; 32]));
        let ids = std::collections::BTreeSet::from([of(1, 0, 1), of(2, 0, 1), of(1, 1, 1), of(1, 0, 2)]);
        assert_eq!((ids.len(), of(1, 0, 1)), (4, of(1, 0, 1)));
        assert_eq!(TaskId([0xa5; 16]).to_string(), "a5".repeat(16));
    }
}
