//! Acknowledgements that found no way. Olm makes each once, and the other side sends again after a while; but a device that has just started, or
//! whose mixnet is not ready yet, would make it wait for its next attempts.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use fog_base::Now;

use super::{Chat, MixProgress, Timer};
use crate::core::{envelope::Envelope, id::DeviceId};

/// The newest so many for one device, for so many devices.
pub(super) const MAX_OWED: (usize, usize) = (4, 256);
/// For so long they are tried, each second; then the other side's repetition is what counts.
const PATIENCE: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_secs(1);

/// What is owed, and what is in the mixnet.
#[derive(Debug, Default)]
pub(super) struct Owed {
    waiting: BTreeMap<DeviceId, VecDeque<(Instant, Envelope)>>,
    mixing: BTreeMap<u64, (DeviceId, Instant, Envelope)>,
    is_due: bool,
}

impl Owed {
    /// The most for one device, for how many devices, and how many are in the mixnet.
    pub(super) fn load(&self) -> (usize, usize, usize) {
        let most = self.waiting.values().map(VecDeque::len).max().unwrap_or(0);
        (most, self.waiting.len(), self.mixing.len())
    }
}

impl Chat {
    /// An acknowledgement goes by the first way that is open, or as soon as there is one.
    pub(super) fn acknowledge(&mut self, to: DeviceId, envelope: Envelope, until: Option<Instant>, now: Now) {
        let until = until.unwrap_or(now.mono + PATIENCE);
        match self.send_once(to, &envelope) {
            Some(Some(handle)) => {
                self.owed.mixing.insert(handle, (to, until, envelope));
                while self.owed.mixing.len() > super::disk::MAX_OUTPUTS {
                    self.owed.mixing.pop_first();
                }
            }
            Some(None) => {}
            None => self.owe(to, until, envelope, now),
        }
    }

    fn owe(&mut self, to: DeviceId, until: Instant, envelope: Envelope, now: Now) {
        let is_known = self.owed.waiting.contains_key(&to);
        if until <= now.mono || !is_known && self.owed.waiting.len() >= MAX_OWED.1 {
            return;
        }
        let owed = self.owed.waiting.entry(to).or_default();
        owed.push_back((until, envelope));
        while owed.len() > MAX_OWED.0 {
            owed.pop_front();
        }
        if !std::mem::replace(&mut self.owed.is_due, true) {
            self.at(now.mono + AGAIN, Timer::Owed);
        }
    }

    /// Tries again what found no way.
    pub(super) fn run_owed(&mut self, now: Now) {
        self.owed.is_due = false;
        for (to, owed) in std::mem::take(&mut self.owed.waiting) {
            for (until, envelope) in owed {
                self.acknowledge(to, envelope, Some(until), now);
            }
        }
    }

    /// How far an acknowledgement is in the mixnet.
    pub(super) fn handle_owed_progress(&mut self, handle: u64, progress: MixProgress, now: Now) {
        if progress == MixProgress::Sent {
            return;
        }
        if let Some((to, until, envelope)) = self.owed.mixing.remove(&handle)
            && progress == MixProgress::Failed
        {
            self.owe(to, until, envelope, now);
        }
    }
}
