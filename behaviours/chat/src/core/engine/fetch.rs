//! Missing messages are asked for at once, but no peer more often than ten times a second: what is missing by then is asked for together.
//! Gossip brings many messages before their predecessors, which mostly come by themselves in the next moment.

use std::{collections::BTreeSet, time::Duration};

use fog_base::{NodeId, Now};

use super::{Chat, ConversationId, MessageId, Timer, links::Asked};
use crate::wire::request::{MAX_FETCH, Request};

/// Between two questions to one peer.
const PACE: Duration = Duration::from_millis(100);
/// Ids that wait to be asked of one peer; what finds no room is asked of another one later.
const MAX_WANTED: usize = 4 * MAX_FETCH;

impl Chat {
    /// Has messages asked of `from` if it shares the conversation, or else of another peer that does.
    pub(super) fn fetch(&mut self, id: ConversationId, ids: &[MessageId], from: Option<NodeId>, now: Now) {
        if self.talks.get(&id).is_some_and(|talk| !talk.is_shared()) {
            return self.ask_other(id, now);
        }
        let shares = |node: &NodeId| self.links.get(node).is_some_and(|link| link.shares.contains(&id));
        let node = from.filter(shares).or_else(|| {
            let all: Vec<_> = self.links.keys().copied().filter(shares).collect();
            let at = (self.numbers as usize).checked_rem(all.len())?;
            all.get(at).copied()
        });
        let Some((node, link)) = node.and_then(|node| Some((node, self.links.get_mut(&node)?))) else {
            self.meet_all(now);
            return;
        };
        let room = MAX_WANTED.saturating_sub(link.wanted.len());
        link.wanted.extend(ids.iter().take(room).map(|message| (id, *message)));
        self.fetching.insert(node);
    }

    /// Asks what this call found missing, of peers that may be asked now.
    pub(super) fn fetch_all(&mut self, now: Now) {
        for node in std::mem::take(&mut self.fetching) {
            self.fetch_from(node, now);
        }
    }

    /// Asks a peer for what is still missing of one conversation.
    pub(super) fn fetch_from(&mut self, node: NodeId, now: Now) {
        let Self { links, talks, .. } = self;
        let Some(link) = links.get_mut(&node) else { return };
        link.wanted.retain(|(id, message)| talks.get(id).is_some_and(|talk| talk.dag.is_wanted(message)));
        let Some((id, _)) = link.wanted.first().copied() else { return };
        if let Some(at) = link.fetch_at.filter(|at| *at > now.mono) {
            self.at(at, Timer::Fetch(node));
            return;
        }
        let ids: BTreeSet<_> = link.wanted.iter().take_while(|(of, _)| *of == id).take(MAX_FETCH).copied().collect();
        link.wanted.retain(|wanted| !ids.contains(wanted));
        let next = now.mono + PACE;
        link.fetch_at = Some(next);
        if !link.wanted.is_empty() {
            self.at(next, Timer::Fetch(node));
        }
        let salt = self.random();
        let Some(talk) = self.talks.get(&id) else { return };
        let token = talk.tag_key.token(&salt, self.config.node, node);
        let ids = ids.into_iter().map(|(_, message)| message).collect();
        self.ask(node, &Request::Fetch { salt, token, ids }, Asked::Fetch { conversation: id, token });
    }
}
