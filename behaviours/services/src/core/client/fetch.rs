//! One descriptor from the directories of its ring: two at once, six in all.
//!
//! The first valid one is used; what the other says may be newer, and is kept for the next time.

use std::{collections::BTreeMap, time::Duration, time::Instant};

use fog_base::NodeId;

use super::{Failure, shell::Shell};
use crate::{
    core::{
        blinding::BlindedKey,
        circuit::{Circuit, Purpose},
        descriptor::{Descriptor, DescriptorError},
        reject::Reject,
    },
    wire::Message,
};

/// Directories that are asked for one descriptor.
pub const FETCHES: usize = 6;
const AT_ONCE: usize = 2;
const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Fetch {
    key: BlindedKey,
    /// A lower revision was seen to be old, or its points to be dead.
    above: Option<u64>,
    left: Vec<NodeId>,
    running: BTreeMap<Circuit, Instant>,
    invalid: Option<DescriptorError>,
    /// Somebody had one that is not newer.
    old: bool,
}

/// How a fetch stands.
#[derive(Debug)]
pub(super) enum Fetched {
    /// It goes on.
    Pending,
    /// Found.
    Found(Box<Descriptor>),
    /// All were asked.
    Failed(Failure),
}

impl Fetch {
    /// `directories` of the ring, in any order; `above`: only a higher revision will do.
    pub(super) fn start(
        key: BlindedKey,
        mut directories: Vec<NodeId>,
        above: Option<u64>,
        shell: &mut Shell,
        now: Instant,
    ) -> Self {
        shell.random.shuffle(&mut directories);
        directories.truncate(FETCHES);
        let mut fetch = Self { key, above, left: directories, running: BTreeMap::new(), invalid: None, old: false };
        fetch.ask(shell, now);
        fetch
    }

    fn ask(&mut self, shell: &mut Shell, now: Instant) {
        while self.running.len() < AT_ONCE {
            let Some(relay) = self.left.pop() else { return };
            self.running.insert(shell.open(relay, Purpose::Directory), now + TIMEOUT);
        }
    }

    /// A circuit was opened.
    pub(super) fn opened(&self, circuit: Circuit, shell: &mut Shell) {
        shell.send(circuit, Message::Fetch(*self.key.as_bytes()));
    }

    /// An answer, or none: the circuit is gone, or it took too long.
    pub(super) fn answered(
        &mut self,
        circuit: Circuit,
        found: Option<&[u8]>,
        epoch: fog_base::Epoch,
        shell: &mut Shell,
        now: Instant,
    ) -> Fetched {
        self.running.remove(&circuit);
        let judged = found.map(|found| self.judge(found, epoch, shell));
        match judged {
            Some(Ok(descriptor)) => return Fetched::Found(Box::new(descriptor)),
            Some(Err(e)) => self.invalid = self.invalid.or(e),
            None => {}
        }
        self.ask(shell, now);
        if !self.running.is_empty() {
            return Fetched::Pending;
        }
        // Only an old one was found: its points are known to be dead.
        let failure = if self.old { Failure::Introduction } else { Failure::NotFound };
        Fetched::Failed(self.invalid.map_or(failure, Failure::Invalid))
    }

    fn judge(
        &mut self,
        found: &[u8],
        epoch: fog_base::Epoch,
        shell: &mut Shell,
    ) -> Result<Descriptor, Option<DescriptorError>> {
        let descriptor = Descriptor::parse(found, &shell.network).and_then(|descriptor| {
            let ours = descriptor.header().key == self.key;
            if ours { descriptor.check(epoch).map(|()| descriptor) } else { Err(DescriptorError::OtherService) }
        });
        let descriptor = descriptor.map_err(|e| {
            shell.rejects.count(match e {
                DescriptorError::Certificate | DescriptorError::Signature => Reject::BadSignature,
                DescriptorError::Period | DescriptorError::Expired | DescriptorError::Lifetime => Reject::WrongTime,
                _ => Reject::Malformed,
            });
            Some(e)
        })?;
        match self.above {
            Some(above) if descriptor.header().revision <= above => {
                if descriptor.header().revision < above {
                    shell.rejects.count(Reject::RolledBack);
                }
                self.old = true;
                Err(None)
            }
            _ => Ok(descriptor),
        }
    }

    pub(super) fn has(&self, circuit: Circuit) -> bool {
        self.running.contains_key(&circuit)
    }

    /// The circuits that took too long.
    pub(super) fn late(&self, now: Instant) -> Vec<Circuit> {
        self.running.iter().filter(|(_, deadline)| **deadline <= now).map(|(circuit, _)| *circuit).collect()
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.running.values().min().copied()
    }

    pub(super) fn close(self, shell: &mut Shell) {
        self.running.into_keys().for_each(|circuit| shell.close(circuit));
    }
}
