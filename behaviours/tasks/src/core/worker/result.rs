//! From the commit to the voucher.

use std::sync::Arc;

use fog_base::{
    NodeId, Now,
    record::{SignedRecord, Verified},
};
use serde_bytes::ByteBuf;

use super::{
    Output, Worker,
    execution::{Committed, State},
};
use crate::{
    core::{
        ids::ExecutionId,
        outcome::{Outcome, ResultHash},
        pay::{ACKNOWLEDGED, Acknowledged, Balances, Payee, VOUCHER, Verdict, Voucher},
        reject::Reject,
    },
    wire::{
        Refusal, Source, ToCoordinator,
        message::{MAX_MANIFEST, MAX_OUTCOME},
        record::{COMMIT, CommitBody, commitment},
    },
};

impl<B: Balances> Worker<B> {
    pub(super) fn commit(&mut self, id: ExecutionId, result: ResultHash, outcome: Outcome, now: Now) {
        let mut hasher = blake3::Hasher::new_keyed(&self.secret);
        let nonce = *hasher.update(&id.0).finalize().as_bytes();
        let body = CommitBody { execution: id, hash: commitment(id, &result.0, &nonce) };
        let Ok(record) = self.signer.sign(&COMMIT, 0, now, &body) else { return };
        let Some(resend) = self.executions.get(&id).map(|execution| execution.resend(now.mono)) else { return };
        let committed = Committed {
            result,
            nonce,
            fuel: outcome.fuel,
            bytes: size(&outcome),
            outcome: Arc::new(outcome),
            record: record.clone(),
            resend: Some(resend),
            shared: None,
            sharing: false,
            until: now.mono + self.config.result_hold,
        };
        self.enter(id, State::Committed(Box::new(committed)));
        if let Some(execution) = self.executions.get(&id) {
            let to = execution.coordinator;
            self.send(to, ToCoordinator::Commit(record));
        }
    }

    pub(super) fn on_reveal(&mut self, from: NodeId, id: ExecutionId, want: bool, now: Now) -> Result<(), Reject> {
        let Some(execution) = self.executions.get_mut(&id) else {
            self.refuse(from, id, Refusal::UnknownExecution);
            return Err(Reject::UnknownExecution);
        };
        if execution.coordinator != from {
            return Err(Reject::Stranger);
        }
        let State::Committed(committed) = &mut execution.state else {
            // It was shown, and settled: nobody needs it any more.
            return if let State::Closed { .. } = execution.state { Ok(()) } else { Err(Reject::Contradicts) };
        };
        // Once: whoever asks again and again does not keep its result here for ever.
        if committed.resend.take().is_some() {
            committed.until = now.mono + self.config.result_hold;
        }
        if want && committed.shared.is_none() {
            if committed.bytes <= MAX_OUTCOME {
                let bytes = committed.outcome.to_bytes();
                if bytes.len() <= MAX_OUTCOME {
                    committed.shared = Some(Source::Inline(ByteBuf::from(bytes)));
                }
            }
            if committed.shared.is_none() && !committed.sharing {
                committed.sharing = true;
                let outcome = committed.outcome.clone();
                self.push(Output::ShareOutput { execution: id, to: from, outcome });
            }
        }
        self.show(id, want);
        self.reschedule(id);
        Ok(())
    }

    /// Reveals; where the output is wanted and not shared yet, without it.
    fn show(&mut self, id: ExecutionId, with_output: bool) {
        let Some(execution) = self.executions.get(&id) else { return };
        let State::Committed(committed) = &execution.state else { return };
        let message = ToCoordinator::Revealed {
            execution: id,
            result: committed.result,
            nonce: committed.nonce,
            fuel: committed.fuel,
            output: if with_output { committed.shared.clone() } else { None },
        };
        let to = execution.coordinator;
        self.send(to, message);
    }

    pub(super) fn on_shared(&mut self, id: ExecutionId, manifest: &[u8]) {
        let Some(execution) = self.executions.get_mut(&id) else { return };
        let State::Committed(committed) = &mut execution.state else { return };
        if manifest.len() <= MAX_MANIFEST {
            committed.shared = Some(Source::Blob(ByteBuf::from(manifest)));
            self.show(id, true);
        }
    }

    pub(super) fn on_voucher(&mut self, from: NodeId, record: SignedRecord, now: Now) -> Result<(), Reject> {
        let voucher: Verified<Voucher> = self.signer.open(record, &VOUCHER, from, now)?;
        let (hash, body) = (voucher.record().hash(), *voucher.body());
        let id = body.execution;
        let Some(execution) = self.executions.get(&id) else {
            self.refuse(from, id, Refusal::UnknownExecution);
            return Err(Reject::UnknownExecution);
        };
        if execution.coordinator != from {
            return Err(Reject::Stranger);
        }
        let fuel = match &execution.state {
            State::Closed { voucher, acknowledged, .. } => {
                if *voucher != hash {
                    return Err(Reject::BadVoucher);
                }
                let record = acknowledged.clone();
                self.send(from, ToCoordinator::Acknowledged { execution: id, record });
                return Ok(());
            }
            State::Committed(committed) => Some(committed.fuel),
            State::Ended { .. } => None,
            _ => return Err(Reject::Contradicts),
        };
        let (used, debtor, nameless) = ((fuel.unwrap_or(0), execution.rate), execution.debtor(), execution.nameless);
        if fuel.is_none() && body.verdict == Verdict::Good {
            return Err(Reject::BadVoucher);
        }
        // A key that is for one execution has an account with one voucher: nothing of it is kept.
        let mut alone = Payee::new();
        let payee = if nameless { &mut alone } else { &mut self.payee };
        let signed = (voucher.record().seq(), voucher.record().as_bytes());
        let amount = payee.take(from, signed, &body, used, now.unix).map_err(|_| Reject::BadVoucher)?;
        // A voucher of nobody's is worth nothing, whatever it says: what counts is what was computed.
        let earned = if nameless { execution.given_away() } else { amount };
        self.balances.earn(debtor, earned, now.unix);
        let mut rows = self.account_rows(from, body.interval);
        rows.push(self.balance_row(debtor));
        let acknowledged = Acknowledged { voucher: hash, cumulative: body.cumulative };
        let acknowledged = self.signer.sign(&ACKNOWLEDGED, voucher.record().seq(), now, &acknowledged)?;
        self.push(Output::Persist(rows));
        self.push(Output::Release(id));
        let until = now.mono + self.config.closed_hold;
        self.enter(id, State::Closed { voucher: hash, acknowledged: acknowledged.clone(), until });
        if let Some(execution) = self.executions.get_mut(&id) {
            let reserved = std::mem::take(&mut execution.reserved);
            if reserved > 0 {
                self.balances.release(debtor, reserved, now.unix);
            }
        }
        self.send(from, ToCoordinator::Acknowledged { execution: id, record: acknowledged });
        Ok(())
    }
}

/// Bytes of an outcome's output.
fn size(outcome: &Outcome) -> usize {
    let files = outcome.outputs.iter().map(|(path, bytes)| path.len() + bytes.len() + 8);
    files.fold(outcome.stdout.len() + outcome.stderr.len() + outcome.detail.len() + 64, usize::saturating_add)
}
