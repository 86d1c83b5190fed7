//! Which paths packets take: of which epoch, in which version, there and back.

use fog_base::{
    Epoch, NodeId, Now,
    relay::{NoPath, PathRequest, RelayHop, Role},
};
use fog_sphinx::LastHop;
use rand::RngExt;

use super::{Endpoint, SendError, crowd::Way};
use crate::{
    core::{VERSIONS, outgoing::Address},
    wire::Form,
};

/// What a path is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// To carry something: drawn by weight.
    Carry,
    /// To measure relays.
    Measure,
}

impl Endpoint {
    /// The epoch of a packet that leaves now: the one that lies half a grace ahead. If no relay of it is known yet, the running
    /// one, whose keys work for a grace longer.
    pub(super) fn sending_epoch(&mut self, now: Now) -> Epoch {
        let (running, ahead) = (self.config.schedule.at(now.unix), self.config.schedule.for_sending(now.unix));
        if ahead == running {
            return running;
        }
        let known = match self.coming {
            Some((epoch, known)) if epoch == ahead => known,
            _ => !self.paths.with_role(ahead, Role::Mix).is_empty(),
        };
        self.coming = Some((ahead, known));
        if known { ahead } else { running }
    }

    /// A way to `to`, and the version for it: the highest that all its relays speak, and for which there is a way back.
    pub(super) fn way_to(&mut self, to: &Address, hops: usize, form: Option<Form>, now: Now) -> Result<Way, SendError> {
        let epoch = self.sending_epoch(now);
        let (form, relay) = self.last_hop(to, epoch, form)?;
        let avoid = self.suspects.avoid(now.mono);
        let (relays, version) = self.highest(|endpoint, version| {
            let request =
                PathRequest { epoch, hops, last: relay, version, exclude: &[endpoint.config.me], avoid: &avoid };
            let relays = endpoint.paths.path(&request, &mut endpoint.rng)?;
            if VERSIONS.last() != Some(&version) {
                endpoint.return_path((epoch, version), hops, &[relay], Use::Carry, now)?;
            }
            Ok((relays, version))
        })?;
        let reference = self.rng.random();
        let last = match to.mailboxes.iter().find(|(mailbox, _)| form == Form::Slot && *mailbox == relay) {
            Some((_, slot)) => LastHop::Slot { slot: *slot, reference },
            None => LastHop::Deliver { reference },
        };
        Ok(Way { relays, last, form, epoch, version })
    }

    /// A way from this node to itself.
    pub(super) fn loop_way(&mut self, hops: usize, now: Now) -> Result<Way, SendError> {
        let epoch = self.sending_epoch(now);
        let purpose = if self.measure.is_on() { Use::Measure } else { Use::Carry };
        self.highest(|endpoint, version| {
            let (relays, last) = endpoint.return_path((epoch, version), hops, &[], purpose, now)?;
            let form = if matches!(last, LastHop::Slot { .. }) { Form::Slot } else { Form::Deliver };
            Ok(Way { relays, last, form, epoch, version })
        })
    }

    /// Whether there are paths of `hops` to `last` and back.
    pub(super) fn check_paths(&mut self, epoch: Epoch, hops: usize, last: NodeId, now: Now) -> Result<(), SendError> {
        self.highest(|endpoint, version| {
            let request = PathRequest { epoch, hops, last, version, exclude: &[endpoint.config.me], avoid: &[] };
            endpoint.paths.path(&request, &mut endpoint.rng)?;
            endpoint.return_path((epoch, version), hops, &[last], Use::Carry, now).map(|_| ())
        })
    }

    /// What `find` finds for the highest version for which it finds something.
    fn highest<T>(&mut self, mut find: impl FnMut(&mut Self, u16) -> Result<T, SendError>) -> Result<T, SendError> {
        let mut found = Err(SendError::NoReturn);
        for version in VERSIONS {
            found = find(self, version);
            if found.is_ok() {
                break;
            }
        }
        found
    }

    /// The relay where a packet to `to` ends: the recipient, or one of its mailboxes. A message that was cut for one form keeps it.
    pub(super) fn last_hop(
        &mut self,
        to: &Address,
        epoch: Epoch,
        form: Option<Form>,
    ) -> Result<(Form, NodeId), SendError> {
        if form != Some(Form::Slot) && self.paths.relay(epoch, to.node).is_some() {
            return Ok((Form::Deliver, to.node));
        }
        if form == Some(Form::Deliver) {
            return Err(NoPath::UnknownRelay(to.node).into());
        }
        let known: Vec<_> =
            to.mailboxes.iter().map(|(relay, _)| *relay).filter(|r| self.paths.relay(epoch, *r).is_some()).collect();
        let mailbox = Self::pick(&mut self.rng, &known).ok_or(NoPath::UnknownRelay(to.node))?;
        Ok((Form::Slot, mailbox))
    }

    /// A path that ends at this node or at its mailbox; the reference in the last hop is still to be set.
    pub(super) fn return_path(
        &mut self,
        (epoch, version): (Epoch, u16),
        hops: usize,
        exclude: &[NodeId],
        purpose: Use,
        now: Now,
    ) -> Result<(Vec<RelayHop>, LastHop), SendError> {
        let me = self.config.me;
        let reference = [0; 16];
        let (last, last_hop) = if self.paths.relay(epoch, me).is_some() {
            (me, LastHop::Deliver { reference })
        } else {
            let known: Vec<_> = self.claims.holding().filter(|r| self.paths.relay(epoch, *r).is_some()).collect();
            // Whoever reads the message should not be the one that hands the answer over.
            let others: Vec<_> = known.iter().copied().filter(|relay| !exclude.contains(relay)).collect();
            let mailbox = Self::pick(&mut self.rng, if others.is_empty() { &known } else { &others });
            let mailbox = mailbox.ok_or(SendError::NoReturn)?;
            (mailbox, LastHop::Slot { slot: self.slot(), reference })
        };
        let exclude: Vec<_> = exclude.iter().copied().chain([me]).collect();
        let path = match purpose {
            Use::Carry => {
                let avoid = self.suspects.avoid(now.mono);
                let request = PathRequest { epoch, hops, last, version, exclude: &exclude, avoid: &avoid };
                self.paths.path(&request, &mut self.rng)?
            }
            // Whoever is suspected is measured all the same.
            Use::Measure => {
                let request = PathRequest { epoch, hops, last, version, exclude: &exclude, avoid: &[] };
                let loops = |relay: &NodeId| self.measure.loops(epoch, relay);
                self.paths.measuring_path(&request, &loops, &mut self.rng)?
            }
        };
        Ok((path, last_hop))
    }
}
