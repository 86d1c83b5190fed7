//! The driver's part in bytes: contents of executions are found, taken or fetched, and outputs that are too large for a message are shared.

use std::sync::Arc;

use fog_base::{NodeId, Now};
use fog_tasks::{
    Content, Outcome,
    core::ids::ExecutionId,
    wire::{Source, StageError},
};
use tokio::sync::oneshot;

use super::{
    contents::{self, Bytes},
    driver::{Driver, Fetch, Input, Want},
};

impl Driver {
    pub(super) fn stage(&mut self, execution: ExecutionId, items: Vec<(Content, Source)>, now: Now) {
        self.staged.insert(execution, Vec::new());
        self.lacking.insert(execution, items.len());
        for (content, source) in items {
            match (self.contents.get(&content), source) {
                (Some(bytes), _) => self.on_content(execution, content, Ok(bytes), now),
                (None, Source::Inline(bytes)) => {
                    let bytes = self.contents.put(&content, Arc::new(bytes.into_vec()));
                    self.on_content(execution, content, bytes.ok_or(StageError::Mismatch), now);
                }
                (None, Source::Blob(manifest)) => {
                    let Some(from) = self.worker.coordinator(execution) else { continue };
                    let wanted = self.wanted.entry(content).or_default();
                    wanted.push(execution);
                    // What is being fetched is fetched once, from the first who has it.
                    if wanted.len() == 1 {
                        self.fetch(Fetch::Content(content), manifest.into_vec(), from);
                    }
                }
            }
        }
    }

    pub(super) fn on_content(
        &mut self,
        execution: ExecutionId,
        content: Content,
        bytes: Result<Bytes, StageError>,
        now: Now,
    ) {
        let Some(left) = self.lacking.get_mut(&execution) else { return };
        match bytes {
            Ok(bytes) => {
                *left -= 1;
                self.staged.entry(execution).or_default().push((content, bytes));
                if *left == 0 {
                    self.lacking.remove(&execution);
                    self.worker.handle_staged(execution, Ok(()), now);
                }
            }
            Err(error) => {
                self.lacking.remove(&execution);
                self.worker.handle_staged(execution, Err(error), now);
            }
        }
    }

    /// Fetches a file into memory. What is fetched already is fetched once, also for cores that began anew meanwhile.
    pub(super) fn fetch(&mut self, what: Fetch, manifest: Vec<u8>, from: NodeId) {
        let is_on_its_way = self.fetches.contains_key(&manifest);
        self.fetches.entry(manifest.clone()).or_default().insert(what);
        if is_on_its_way {
            return;
        }
        let path = self.contents.temporary(blake3::hash(&manifest).to_hex().as_str());
        let (reply, fetched) = oneshot::channel();
        self.want(Want::Fetch { manifest: manifest.clone(), path: path.clone(), from, reply });
        let (inputs, wants) = (self.inputs.clone(), self.wants.clone());
        tokio::task::spawn(async move {
            let is_here = fetched.await.unwrap_or(false);
            let read = move || {
                let bytes = if is_here { std::fs::read(&path).ok() } else { None };
                contents::remove(&path);
                bytes
            };
            let bytes = tokio::task::spawn_blocking(read).await.ok().flatten();
            if is_here {
                let _stopped = wants.send(Want::Unshare(manifest.clone())).await;
            }
            let _stopped = inputs.send(Input::Fetched(manifest, bytes)).await;
        });
    }

    /// The file of a manifest is here, or not: for all who wanted it.
    pub(super) fn on_fetched(&mut self, manifest: &[u8], bytes: Option<Vec<u8>>, now: Now) {
        for what in self.fetches.remove(manifest).unwrap_or_default() {
            match what {
                Fetch::Content(content) => {
                    let bytes = bytes.clone().and_then(|bytes| self.contents.put(&content, Arc::new(bytes)));
                    for execution in self.wanted.remove(&content).unwrap_or_default() {
                        self.on_content(execution, content, bytes.clone().ok_or(StageError::Missing), now);
                    }
                }
                Fetch::Output(task, from) => self.coordinator.handle_fetched(task, from, bytes.as_deref(), now),
            }
        }
    }

    /// Makes a file of an output that is too large for a message.
    pub(super) fn share(&self, execution: ExecutionId, outcome: &Outcome) {
        let path = self.contents.temporary(&format!("{execution}-out"));
        let written = std::fs::write(&path, outcome.to_bytes());
        let (reply, shared) = oneshot::channel();
        if written.is_ok() {
            self.want(Want::Share { path, is_sealed: true, reply });
        }
        let inputs = self.inputs.clone();
        tokio::task::spawn(async move {
            let manifest = shared.await.ok().flatten();
            let _stopped = inputs.send(Input::Shared(execution, manifest)).await;
        });
    }

    pub(super) fn release(&mut self, execution: ExecutionId) {
        self.staged.remove(&execution);
        self.lacking.remove(&execution);
        self.lies.forget(execution);
        if let Some(manifest) = self.outputs.remove(&execution) {
            self.want(Want::Unshare(manifest));
            contents::remove(&self.contents.temporary(&format!("{execution}-out")));
        }
    }
}
