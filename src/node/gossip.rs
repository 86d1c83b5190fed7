//! The topics of gossip.

use fog_base::NetworkId;
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
}

impl Topic {
    pub(super) const ALL: [Self; 3] = [Self::Descriptors, Self::Certificates, Self::Reputation];

    fn protocol(self) -> (&'static str, u32) {
        match self {
            Self::Descriptors => ("directory", 1),
            Self::Certificates => ("certificate", 1),
            Self::Reputation => ("reputation", 1),
        }
    }

    /// Its name in a network.
    pub(super) fn ident(self, network: &NetworkId) -> IdentTopic {
        let (protocol, version) = self.protocol();
        IdentTopic::new(network.protocol(protocol, version))
    }

    /// Which one a message came by.
    pub(super) fn of(hash: &TopicHash) -> Option<Self> {
        let ends_so = |topic: &Self| {
            let (protocol, version) = topic.protocol();
            hash.as_str().ends_with(&format!("/{protocol}/{version}"))
        };
        Self::ALL.into_iter().find(ends_so)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_known_by_its_name() {
        let network = NetworkId([7; 32]);
        for topic in Topic::ALL {
            assert_eq!(Topic::of(&topic.ident(&network).hash()), Some(topic));
        }
        assert_eq!(Topic::of(&TopicHash::from_raw("/fog/directory/2")), None);
    }
}
