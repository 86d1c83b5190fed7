//! What comes live: envelopes are opened, and the signatures of messages in them are checked, many at once where many came.

use std::collections::BTreeSet;

use fog_base::{NodeId, Now};

use super::{Chat, ConversationKind, MAX_PARKED, Validation, pack::mode};
use crate::core::{
    delivery::Transport,
    envelope::Envelope,
    id::{ConversationId, DeviceId},
    message::{Claimed, Kind, Message, Verified},
    reject::Reject,
    secrets::{self, group::Unsealed},
};

/// A message of a room or group whose signatures are to be checked.
struct Live {
    id: ConversationId,
    from: NodeId,
    via: Transport,
    claimed: Claimed,
    /// How a group's message was sealed.
    unsealed: Option<Unsealed>,
}

impl Chat {
    /// Takes what gossip brought, before it is forwarded. What is of no conversation of ours is forwarded within a rate: nobody can tell
    /// from a node what it belongs to.
    pub fn handle_gossip(&mut self, from: NodeId, bytes: &[u8], now: Now) -> Validation {
        self.handle_gossips(&[(from, bytes)], now).pop().unwrap_or(Validation::Ignore)
    }

    /// The same of many envelopes, which cost less together: a verdict on each.
    pub fn handle_gossips(&mut self, came: &[(NodeId, &[u8])], now: Now) -> Vec<Validation> {
        let mut verdicts = Vec::with_capacity(came.len());
        let (mut lives, mut places) = (Vec::new(), Vec::new());
        for (place, (from, bytes)) in came.iter().enumerate() {
            let begun = match Envelope::parse(bytes, now.unix) {
                Ok(envelope) if !self.seen.insert(&envelope, now.unix) => {
                    verdicts.push(Validation::Ignore);
                    continue;
                }
                Ok(envelope) if self.book.find(&envelope, now.unix).is_none() => {
                    self.forwards.take(*from, now.mono).map(|()| None)
                }
                Ok(envelope) => self.begin_envelope(&envelope, *from, Transport::Gossip, now),
                Err(reject) if reject.is_misbehaviour() => {
                    self.count(reject);
                    verdicts.push(Validation::Reject);
                    continue;
                }
                Err(reject) => Err(reject),
            };
            let outcome = begun.map(|live| {
                if let Some(live) = live {
                    lives.push(live);
                    places.push(place);
                }
            });
            verdicts.push(self.verdict(outcome));
        }
        for (place, outcome) in places.into_iter().zip(self.end_lives(lives, now)) {
            let judged = self.verdict(outcome);
            verdicts.get_mut(place).into_iter().for_each(|verdict| *verdict = judged);
        }
        self.settle(now);
        verdicts
    }

    /// Takes an envelope whose tag is one of ours.
    pub(super) fn take_envelope(
        &mut self,
        envelope: &Envelope,
        from: NodeId,
        via: Transport,
        now: Now,
    ) -> Result<(), Reject> {
        let Some(live) = self.begin_envelope(envelope, from, via, now)? else { return Ok(()) };
        self.end_lives(vec![live], now).into_iter().collect()
    }

    /// Takes again what waited for keys of a group.
    pub(super) fn unpark(&mut self, id: ConversationId, now: Now) {
        let (ready, rest) = std::mem::take(&mut self.parked).into_iter().partition(|(of, ..)| *of == id);
        self.parked = rest;
        let mut lives = Vec::new();
        for (_, from, envelope) in Vec::from(ready) {
            match self.begin_envelope(&envelope, from, Transport::Gossip, now) {
                Ok(live) => lives.extend(live),
                Err(reject) => self.count(reject),
            }
        }
        for reject in self.end_lives(lives, now).into_iter().filter_map(Result::err) {
            self.count(reject);
        }
    }

    fn verdict(&mut self, outcome: Result<(), Reject>) -> Validation {
        match outcome {
            Ok(()) | Err(Reject::Known) => Validation::Accept,
            Err(reject) => {
                self.count(reject);
                Validation::Ignore
            }
        }
    }

    /// Opens an envelope, and takes what is no signed message of several.
    fn begin_envelope(
        &mut self,
        envelope: &Envelope,
        from: NodeId,
        via: Transport,
        now: Now,
    ) -> Result<Option<Live>, Reject> {
        let id = self.book.find(envelope, now.unix).ok_or(Reject::Unknown)?;
        let body = self.open_envelope(id, envelope)?;
        let (&first, rest) = body.split_first().ok_or(Reject::Malformed)?;
        let Some(talk) = self.talks.get(&id) else {
            let (sender, olm) = rest.split_first_chunk::<32>().ok_or(Reject::Sealed)?;
            return if first == mode::FIRST {
                self.take_olm(DeviceId(*sender), olm, from, via, now).map(|()| None)
            } else {
                Err(Reject::Sealed)
            };
        };
        match (talk.kind, first) {
            (ConversationKind::Open, mode::OPEN) | (ConversationKind::Password, mode::PASSWORD) => {
                let message = Message::parse(rest, &self.config.network)?;
                self.begin_live(id, message, from, via).map(Some)
            }
            (ConversationKind::Group, mode::MEMBERSHIP) => {
                let message = Message::parse(rest, &self.config.network)?;
                let is_membership = message.header().kind == Kind::MEMBERSHIP.0;
                if is_membership { self.begin_live(id, message, from, via).map(Some) } else { Err(Reject::Sealed) }
            }
            (ConversationKind::Group, mode::GROUP) => match self.unseal(id, &body) {
                Ok((unsealed, message)) => {
                    let claimed = message.claim(&id, &mut self.keys)?.within(unsealed.claim);
                    let via = Transport::Gossip;
                    Ok(Some(Live { id, from, via, claimed, unsealed: Some(unsealed) }))
                }
                Err(secrets::Reject::NoKey) => {
                    // The key comes by another way; what finds no room comes by reconciliation.
                    if self.parked.len() >= MAX_PARKED {
                        self.parked.pop_front();
                        self.count(Reject::Full);
                    }
                    self.parked.push_back((id, from, envelope.clone()));
                    Ok(None)
                }
                Err(reject) => Err(reject.into()),
            },
            (ConversationKind::Direct, mode::DIRECT) => {
                let peer = talk.record.peer.ok_or(Reject::Unknown)?;
                self.take_olm(peer, &body, from, via, now).map(|()| None)
            }
            // Another way of sealing than the conversation's: nobody can downgrade it.
            _ => Err(Reject::Sealed),
        }
    }

    fn begin_live(
        &mut self,
        id: ConversationId,
        message: Message,
        from: NodeId,
        via: Transport,
    ) -> Result<Live, Reject> {
        if self.talks.get(&id).is_some_and(|talk| talk.dag.contains(&message.id())) {
            return Err(Reject::Known);
        }
        let claimed = message.claim(&id, &mut self.keys)?;
        Ok(Live { id, from, via, claimed, unsealed: None })
    }

    /// Opens a body of a group; its signatures are not checked, and nothing changes.
    fn unseal(&mut self, id: ConversationId, body: &[u8]) -> Result<(Unsealed, Message), secrets::Reject> {
        let Self { talks, keys, config, .. } = self;
        let club = talks.get_mut(&id).and_then(|talk| talk.club.as_mut()).ok_or(secrets::Reject::WrongMode)?;
        let mut refused = secrets::Reject::NoKey;
        // A member may have told us of another one's session as its own: the text says whose it is.
        for author in club.keys.authors_of(body) {
            match club.keys.unseal(keys, author, &id.0, body) {
                Ok(unsealed) => {
                    let message = Message::parse(&unsealed.text, &config.network);
                    let message = message.map_err(|_| secrets::Reject::Malformed)?;
                    if message.header().author == author {
                        return Ok((unsealed, message));
                    }
                    refused = secrets::Reject::BadSignature;
                }
                Err(reject) => refused = reject,
            }
        }
        Err(refused)
    }

    /// Checks the signatures of them all, and takes those that are true.
    fn end_lives(&mut self, lives: Vec<Live>, now: Now) -> Vec<Result<(), Reject>> {
        let mut rest = Vec::with_capacity(lives.len());
        let mut claimed = Vec::with_capacity(lives.len());
        for live in lives {
            claimed.push(live.claimed);
            rest.push((live.id, live.from, live.via, live.unsealed));
        }
        let checked = Claimed::verify_all(claimed, &mut self.rng);
        let (mut outcomes, mut groups) = (Vec::with_capacity(rest.len()), BTreeSet::new());
        for (checked, (id, from, via, unsealed)) in checked.into_iter().zip(rest) {
            outcomes.push(checked.and_then(|message| {
                if let Some(unsealed) = unsealed {
                    groups.insert(id);
                    self.use_up(id, &unsealed)?;
                }
                self.take_live(id, &message, from, via, now)
            }));
        }
        for id in groups {
            self.save_sessions(id);
        }
        outcomes
    }

    /// A group's body has opened, and opens no more.
    fn use_up(&mut self, id: ConversationId, unsealed: &Unsealed) -> Result<(), Reject> {
        let club = self.talks.get_mut(&id).and_then(|talk| talk.club.as_mut()).ok_or(Reject::Unknown)?;
        Ok(club.keys.take(unsealed)?)
    }

    /// Stores the sessions of a group that changed.
    fn save_sessions(&mut self, id: ConversationId) {
        let Some(club) = self.talks.get_mut(&id).and_then(|talk| talk.club.as_mut()) else { return };
        let mut rows = Vec::new();
        club.keys.save(self.secrets.vault(), &mut rows);
        self.disk.write(rows, false);
    }

    fn take_live(
        &mut self,
        id: ConversationId,
        message: &Verified,
        from: NodeId,
        via: Transport,
        now: Now,
    ) -> Result<(), Reject> {
        if self.talks.get(&id).is_some_and(|talk| talk.dag.contains(&message.id())) {
            return self.fill_bare(id, message, via, now);
        }
        // The rate is spent by who signed, not by whoever writes a name.
        self.limits.authors.take(message.header().author, now.mono)?;
        self.take_message(id, message, Some(from), via, now)
    }
}
