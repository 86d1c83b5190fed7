//! One period's descriptor: made, given to the directories, and fetched from them again.
//!
//! A directory's word is not believed. What it said it had stored is fetched over another circuit, which to the directory is one of
//! a client, and compared.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use fog_base::{NodeId, Now, UnixMillis};

use super::{saved::Row, shell::Shell};
use crate::{
    core::{
        blinding::{BlindedSecret, Fog, Identity, Subcredential},
        circuit::{Circuit, Purpose},
        descriptor::{ClientKey, Contents, Descriptor, DescriptorError, Draft, Revisions},
        period::{Calendar, LIFETIME, Period},
    },
    wire::{Message, StoreAnswer, StoreReject},
};

/// For a circuit and the answer on it.
const TIMEOUT: Duration = Duration::from_secs(20);
/// When what was stored is fetched.
const READ_BACK: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(10));
/// After failures: twice that each time, up to the second.
const RETRY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
/// Steps that a revision goes ahead when a directory has a higher one: another holder of the key, or a clock set back.
const CATCH_UP: u64 = 1 << 12;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Stores(Circuit, Instant),
    Reads(Circuit, Instant),
}

/// What is known of one directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Directory {
    phase: Phase,
    /// It said that it has this revision.
    said: Option<u64>,
    /// It showed that it has it, and when.
    pub(super) showed: Option<(u64, UnixMillis)>,
    /// When it is asked again.
    at: Instant,
    failures: u32,
    /// How often it denied what it had said.
    pub(super) lies: u32,
    pub(super) refused: Option<StoreReject>,
}

impl Directory {
    fn failed(&mut self, now: Instant) {
        self.phase = Phase::Idle;
        self.failures = self.failures.saturating_add(1);
        self.at = now + RETRY.0.saturating_mul(1 << (self.failures - 1).min(8)).min(RETRY.1);
    }
}

/// The descriptor of a period.
#[derive(Debug)]
pub(super) struct Publication {
    pub(super) period: Period,
    secret: BlindedSecret,
    pub(super) subcredential: Subcredential,
    revisions: Revisions,
    step: Option<u64>,
    current: Option<(u64, Vec<u8>)>,
    /// A directory has a higher revision than ours.
    pub(super) behind: bool,
    pub(super) directories: BTreeMap<NodeId, Directory>,
}

/// What a descriptor is to tell.
pub(super) struct News<'a> {
    pub(super) contents: &'a Contents,
    pub(super) clients: Option<&'a [ClientKey]>,
}

impl Publication {
    pub(super) fn new(identity: &Identity, calendar: &Calendar, period: Period, step: Option<u64>) -> Self {
        let secret = identity.blind::<Fog>(&calendar.context(period));
        let subcredential = Subcredential::derive::<Fog>(identity.key(), secret.key());
        let revisions = Revisions::new(calendar, period);
        Self {
            period,
            secret,
            subcredential,
            revisions,
            step,
            current: None,
            behind: false,
            directories: BTreeMap::new(),
        }
    }

    pub(super) fn secret(&self) -> &BlindedSecret {
        &self.secret
    }

    pub(super) fn revision(&self) -> Option<u64> {
        self.current.as_ref().map(|(revision, _)| *revision)
    }

    /// Whether a directory showed the newest revision.
    pub(super) fn is_shown(&self) -> bool {
        let revision = self.revision();
        self.directories.values().any(|d| revision.is_some() && d.showed.map(|(shown, _)| shown) == revision)
    }

    /// Makes a new descriptor, which then goes to all directories. Its step is on disk before it leaves.
    pub(super) fn publish(
        &mut self,
        news: &News<'_>,
        calendar: &Calendar,
        shell: &mut Shell,
        now: Now,
    ) -> Result<(), DescriptorError> {
        let step = self.revisions.step(now.unix, self.step);
        let revision = Revisions::encrypt(&self.secret, step);
        let draft = Draft {
            network: &calendar.network,
            period: self.period,
            last_epoch: fog_base::Epoch(calendar.epoch(now.unix).0.saturating_add(LIFETIME)),
            revision,
            contents: news.contents,
            clients: news.clients,
        };
        let bytes = draft.seal(&self.secret, &self.subcredential, &mut shell.random)?;
        (self.step, self.behind) = (Some(step), false);
        shell.persist([Row::step(self.period, step)]);
        self.current = Some((revision, bytes));
        for directory in self.directories.values_mut() {
            if let Phase::Stores(circuit, _) | Phase::Reads(circuit, _) = directory.phase {
                shell.close(circuit);
            }
            (directory.phase, directory.at, directory.failures) = (Phase::Idle, now.mono, 0);
        }
        Ok(())
    }

    /// The period is over: what is under way ends.
    pub(super) fn stop(&mut self, shell: &mut Shell) {
        self.set_directories(&[], shell, None);
    }

    /// The ring's answer: which relays keep the descriptor.
    pub(super) fn set_directories(&mut self, relays: &[NodeId], shell: &mut Shell, now: Option<Now>) {
        self.directories.retain(|relay, directory| {
            let stays = relays.contains(relay);
            if let (false, Phase::Stores(circuit, _) | Phase::Reads(circuit, _)) = (stays, directory.phase) {
                shell.close(circuit);
            }
            stays
        });
        let Some(now) = now else { return };
        for relay in relays {
            let new = Directory {
                phase: Phase::Idle,
                said: None,
                showed: None,
                at: now.mono,
                failures: 0,
                lies: 0,
                refused: None,
            };
            self.directories.entry(*relay).or_insert(new);
        }
    }

    /// All directories are asked again what they have.
    pub(super) fn probe(&mut self, shell: &mut Shell, now: Now) {
        for directory in self.directories.values_mut().filter(|directory| directory.phase == Phase::Idle) {
            if directory.said.is_some() && directory.at > now.mono + READ_BACK.1 {
                directory.at = now.mono + shell.random.between(Duration::ZERO, READ_BACK.1);
            }
        }
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, shell: &mut Shell, now: Now) {
        let Some((revision, _)) = self.current else { return };
        for (relay, directory) in &mut self.directories {
            match directory.phase {
                Phase::Stores(circuit, deadline) | Phase::Reads(circuit, deadline) if deadline <= now.mono => {
                    shell.close(circuit);
                    directory.failed(now.mono);
                }
                Phase::Idle if directory.at <= now.mono => {
                    let deadline = now.mono + TIMEOUT;
                    directory.phase = if directory.said == Some(revision) {
                        Phase::Reads(shell.open(*relay, Purpose::Probe), deadline)
                    } else {
                        Phase::Stores(shell.open(*relay, Purpose::Directory), deadline)
                    };
                }
                _ => {}
            }
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.current.as_ref()?;
        let at = |directory: &Directory| match directory.phase {
            Phase::Idle => directory.at,
            Phase::Stores(_, deadline) | Phase::Reads(_, deadline) => deadline,
        };
        self.directories.values().map(at).min()
    }

    fn of(&mut self, circuit: Circuit) -> Option<&mut Directory> {
        let is = |phase| matches!(phase, Phase::Stores(c, _) | Phase::Reads(c, _) if c == circuit);
        self.directories.values_mut().find(|directory| is(directory.phase))
    }

    /// A circuit was opened; false if it is none of these.
    pub(super) fn opened(&mut self, circuit: Circuit, shell: &mut Shell) -> bool {
        let key = *self.secret.key().as_bytes();
        let bytes = self.current.as_ref().map(|(_, bytes)| bytes.clone());
        let Some(directory) = self.of(circuit) else { return false };
        match (directory.phase, bytes) {
            (Phase::Stores(..), Some(bytes)) => shell.send(circuit, Message::Store(bytes)),
            _ => shell.send(circuit, Message::Fetch(key)),
        }
        true
    }

    /// A circuit is gone; false if it was none of these.
    pub(super) fn closed(&mut self, circuit: Circuit, now: Now) -> bool {
        let Some(directory) = self.of(circuit) else { return false };
        directory.failed(now.mono);
        true
    }

    /// The answer to a STORE; false if none was asked for.
    pub(super) fn stored(&mut self, circuit: Circuit, answer: StoreAnswer, shell: &mut Shell, now: Now) -> bool {
        let revision = self.revision();
        let wait = shell.random.between(READ_BACK.0, READ_BACK.1);
        let Some(directory) = self.of(circuit) else { return false };
        if !matches!(directory.phase, Phase::Stores(..)) {
            return false;
        }
        shell.close(circuit);
        directory.refused = None;
        match answer {
            StoreAnswer::Stored(stored) if Some(stored) == revision => {
                (directory.phase, directory.failures) = (Phase::Idle, 0);
                (directory.said, directory.at) = (revision, now.mono + wait);
            }
            StoreAnswer::Stored(_) => directory.failed(now.mono),
            StoreAnswer::Stale(_) => {
                directory.failed(now.mono);
                self.step = self.step.map(|step| step.saturating_add(CATCH_UP));
                self.behind = true;
            }
            StoreAnswer::Rejected(reason) => {
                directory.refused = Some(reason);
                directory.failed(now.mono);
            }
        }
        true
    }

    /// The answer to a FETCH; false if none was asked for. `interval`: when the next one is due.
    pub(super) fn fetched(
        &mut self,
        circuit: Circuit,
        found: Option<&[u8]>,
        interval: Duration,
        shell: &mut Shell,
        now: Now,
    ) -> bool {
        let current = self.current.as_ref().map(|(revision, bytes)| (*revision, found == Some(bytes.as_slice())));
        let network = shell.network;
        let Some(directory) = self.of(circuit) else { return false };
        if !matches!(directory.phase, Phase::Reads(..)) {
            return false;
        }
        shell.close(circuit);
        let Some((revision, same)) = current else { return true };
        (directory.phase, directory.at) = (Phase::Idle, now.mono + interval);
        if same {
            directory.showed = Some((revision, now.unix));
            return true;
        }
        // A newer one was signed by another holder of the key; anything else is not what it said it keeps.
        let newer = found.and_then(|found| Descriptor::parse(found, &network).ok());
        if newer.is_none_or(|newer| newer.header().revision <= revision) {
            directory.lies = directory.lies.saturating_add(1);
            (directory.said, directory.showed) = (None, None);
            directory.at = now.mono + RETRY.0;
        }
        true
    }
}
