//! What a worker says that is told to lie, for tests: a wrong result, one that others collude about, or a copied one.

use std::collections::BTreeMap;

use fog_base::NodeId;
use fog_tasks::{
    Ending, Outcome,
    core::ids::ExecutionId,
    wire::{Message, Source, ToCoordinator},
};
use serde_bytes::ByteBuf;

use crate::config::Results;

/// A worker's habit.
#[derive(Debug)]
pub(super) struct Lies {
    habit: Results,
    /// What the other replicas of an execution's work show: this node finds out by running it, after it has committed to something else.
    others: BTreeMap<ExecutionId, Outcome>,
}

impl Lies {
    pub(super) fn new(habit: Results) -> Self {
        Self { habit, others: BTreeMap::new() }
    }

    /// What is committed to, of a run that gave `outcome`.
    pub(super) fn committed(&mut self, execution: ExecutionId, mut outcome: Outcome, me: NodeId) -> Outcome {
        match self.habit {
            Results::Right => {}
            Results::Wrong => outcome.stdout.extend_from_slice(&me.0),
            Results::Colluding => outcome.stdout.extend_from_slice(b"all of us say so"),
            Results::Copy if outcome.ending.is_deterministic() => {
                self.others.insert(execution, outcome);
                return Outcome::ended(Ending::Exit(0), "");
            }
            Results::Copy => {}
        }
        outcome
    }

    /// What is sent in the place of `message`.
    pub(super) fn sent(&self, message: Message) -> Message {
        let Message::ToCoordinator(ToCoordinator::Revealed { execution, nonce, output, .. }) = &message else {
            return message;
        };
        let Some((outcome, result)) = self.others.get(execution).and_then(|other| Some((other, other.hash()?))) else {
            return message;
        };
        let output = output.as_ref().map(|_| Source::Inline(ByteBuf::from(outcome.to_bytes())));
        let (execution, nonce, fuel) = (*execution, *nonce, outcome.fuel);
        Message::ToCoordinator(ToCoordinator::Revealed { execution, result, nonce, fuel, output })
    }

    /// Nothing more is said of it.
    pub(super) fn forget(&mut self, execution: ExecutionId) {
        self.others.remove(&execution);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copier_shows_what_it_did_not_commit_to() {
        let (execution, me) = (ExecutionId([1; 16]), NodeId([2; 32]));
        let right = Outcome { stdout: b"right".to_vec(), fuel: 7, ..Outcome::ended(Ending::Exit(0), "") };
        let mut lies = Lies::new(Results::Copy);
        let committed = lies.committed(execution, right.clone(), me);
        assert_ne!(committed.hash(), right.hash());
        let (nonce, output) = ([3; 32], Some(Source::Inline(ByteBuf::from(committed.to_bytes()))));
        let shown = ToCoordinator::Revealed {
            execution,
            result: committed.hash().unwrap(),
            nonce,
            fuel: committed.fuel,
            output,
        };
        let said = lies.sent(Message::ToCoordinator(shown.clone()));
        let Message::ToCoordinator(ToCoordinator::Revealed { result, fuel, output, .. }) = said else {
            panic!("{said:?}")
        };
        assert_eq!((Some(result), fuel), (right.hash(), 7));
        assert_eq!(output, Some(Source::Inline(ByteBuf::from(right.to_bytes()))));
        lies.forget(execution);
        assert_eq!(lies.sent(Message::ToCoordinator(shown.clone())), Message::ToCoordinator(shown));
    }
}
