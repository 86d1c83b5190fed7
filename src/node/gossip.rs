//! The topics of gossip.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use fog_base::NetworkId;
use fog_chat::core::tag::BUCKETS;
use libp2p::gossipsub::{IdentTopic, TopicHash};

/// What a gossip message is about: who judges it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Topic {
    /// Relay descriptors.
    Descriptors,
    /// What is certified of them.
    Certificates,
    /// What peers proved about each other.
    Reputation,
    /// What workers offer.
    Offers,
    /// Chat, in one of its buckets (fog-chat README).
    Chat(u8),
}

impl Topic {
    /// Those that every node listens to.
    pub(super) const ALL: [Self; 4] = [Self::Descriptors, Self::Certificates, Self::Reputation, Self::Offers];

    fn protocol(self) -> (String, u32) {
        let name = match self {
            Self::Descriptors => "directory".to_owned(),
            Self::Certificates => "certificate".to_owned(),
            Self::Reputation => "reputation".to_owned(),
            Self::Offers => "offers".to_owned(),
            Self::Chat(bucket) => format!("chat/{bucket:02x}"),
        };
        (name, 1)
    }

    /// Its name in a network.
    pub(super) fn ident(self, network: &NetworkId) -> IdentTopic {
        let (protocol, version) = self.protocol();
        IdentTopic::new(network.protocol(&protocol, version))
    }

    /// Which one a message came by.
    pub(super) fn of(hash: &TopicHash) -> Option<Self> {
        let ends_so = |topic: &Self| {
            let (protocol, version) = topic.protocol();
            hash.as_str().ends_with(&format!("/{protocol}/{version}"))
        };
        Self::ALL.into_iter().chain((0..BUCKETS).map(Self::Chat)).find(ends_so)
    }
}

/// How often gossipsub asked for a message's id: once for each copy that came, and once for each message of this node's own. Copies that
/// it knows already reach nobody else.
#[derive(Debug, Clone, Default)]
pub(super) struct Copies(Arc<AtomicU64>);

impl Copies {
    pub(super) fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_known_by_its_name() {
        let network = NetworkId([7; 32]);
        for topic in Topic::ALL.into_iter().chain([0, 9, 63].map(Topic::Chat)) {
            assert_eq!(Topic::of(&topic.ident(&network).hash()), Some(topic));
        }
        assert_eq!(Topic::of(&TopicHash::from_raw("/fog/directory/2")), None);
    }
}
