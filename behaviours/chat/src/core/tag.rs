//! What names a conversation to its members and to nobody else: tags of envelopes, buckets of topics, tokens between peers.

use std::{collections::BTreeMap, fmt};

use fog_base::{NetworkId, NodeId, UnixMillis};

use super::{envelope::Envelope, id::ConversationId};

/// How many topics all live envelopes share.
pub const BUCKETS: u8 = 64;
const DAY_SECS: u64 = 86_400;
/// An envelope lives 14 days at most, and clocks differ: days before today and after, for which tags are known.
const DAYS: (u64, u64) = (1, 15);

/// A tag, or a token: 16 bytes.
pub type Tag = [u8; 16];

/// The secret of a conversation's members from which tags are made.
#[derive(Clone, PartialEq, Eq)]
pub struct TagKey(pub [u8; 32]);

impl fmt::Debug for TagKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TagKey")
    }
}

impl TagKey {
    /// The tag of envelopes that expire at `expires` (Unix seconds).
    pub fn tag(&self, expires: u32) -> Tag {
        self.of_day(u64::from(expires) / DAY_SECS)
    }

    /// Which of the [`BUCKETS`] the conversation is in.
    pub fn bucket(&self) -> u8 {
        let [first, ..] = *blake3::keyed_hash(&self.0, b"bucket").as_bytes();
        first % BUCKETS
    }

    /// By what `asking` names the conversation to `answering` under `salt`.
    pub fn token(&self, salt: &[u8; 32], asking: NodeId, answering: NodeId) -> Tag {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(b"meet").update(salt).update(&asking.0).update(&answering.0);
        first_16(&hasher)
    }

    fn of_day(&self, day: u64) -> Tag {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(b"tag").update(&u32::try_from(day).unwrap_or(u32::MAX).to_be_bytes());
        first_16(&hasher)
    }
}

fn first_16(hasher: &blake3::Hasher) -> Tag {
    let mut tag = [0; 16];
    hasher.finalize_xof().fill(&mut tag);
    tag
}

/// The name of the topic of `bucket` on `network`.
pub fn topic(network: &NetworkId, bucket: u8) -> String {
    network.protocol(&format!("chat/{bucket:02x}"), 1)
}

/// The conversations of this node, found by tag. One has several keys while old envelopes are under way.
#[derive(Debug, Default)]
pub struct TagBook {
    keys: Vec<(ConversationId, TagKey)>,
    day: u64,
    tags: BTreeMap<(u64, Tag), ConversationId>,
}

impl TagBook {
    /// Adds a key of a conversation.
    pub fn add(&mut self, conversation: ConversationId, key: TagKey, now: UnixMillis) {
        self.turn(now);
        self.index(conversation, &key);
        self.keys.push((conversation, key));
    }

    /// Forgets a conversation.
    pub fn remove(&mut self, conversation: &ConversationId) {
        self.keys.retain(|(known, _)| known != conversation);
        self.tags.retain(|_, known| known != conversation);
    }

    /// The conversation of an envelope.
    pub fn find(&mut self, envelope: &Envelope, now: UnixMillis) -> Option<ConversationId> {
        self.turn(now);
        self.tags.get(&(u64::from(envelope.expires()) / DAY_SECS, envelope.tag())).copied()
    }

    /// The topics that this node must be subscribed to.
    pub fn buckets(&self) -> std::collections::BTreeSet<u8> {
        self.keys.iter().map(|(_, key)| key.bucket()).collect()
    }

    fn turn(&mut self, now: UnixMillis) {
        let day = now.as_secs() / DAY_SECS;
        if day != self.day {
            self.day = day;
            self.tags.clear();
            for (conversation, key) in std::mem::take(&mut self.keys) {
                self.index(conversation, &key);
                self.keys.push((conversation, key));
            }
        }
    }

    fn index(&mut self, conversation: ConversationId, key: &TagKey) {
        for day in self.day.saturating_sub(DAYS.0)..=self.day + DAYS.1 {
            self.tags.insert((day, key.of_day(day)), conversation);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: (NodeId, NodeId) = (NodeId([1; 32]), NodeId([2; 32]));

    #[test]
    fn hundreds_of_rooms_share_64_topics() {
        let mut book = TagBook::default();
        for i in 0..500u16 {
            let mut key = [0; 32];
            key[..2].copy_from_slice(&i.to_be_bytes());
            book.add(ConversationId(key), TagKey(key), UnixMillis(0));
        }
        let buckets = book.buckets();
        assert!((60..=64).contains(&buckets.len()), "{}", buckets.len());
        assert_eq!(topic(&NetworkId([0xab; 32]), 63), "/fog/abababababababab/chat/3f/1");
    }

    #[test]
    fn a_token_is_of_its_salt_its_direction_and_its_key() {
        let token = |key: u8, salt: u8, (a, b): (NodeId, NodeId)| TagKey([key; 32]).token(&[salt; 32], a, b);
        let all = [token(1, 1, NODES), token(2, 1, NODES), token(1, 2, NODES), token(1, 1, (NODES.1, NODES.0))];
        for (i, one) in all.iter().enumerate() {
            assert_eq!(all.iter().filter(|other| *other == one).count(), 1, "{i}");
        }
        assert_eq!(token(1, 1, NODES), token(1, 1, NODES));
    }

    #[test]
    fn tags_change_by_the_day_and_not_within_it() {
        let key = TagKey([3; 32]);
        assert_eq!(key.tag(86_400), key.tag(2 * 86_400 - 1));
        assert_ne!(key.tag(86_400), key.tag(2 * 86_400));
        assert_ne!(key.tag(86_400), TagKey([4; 32]).tag(86_400));
    }
}
