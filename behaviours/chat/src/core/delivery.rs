//! How far a message has come, why it failed, and by which transports it may travel.

use std::time::Duration;

/// How far a message is on its way to one recipient. Only advances; the order of the variants is the order of the states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Waits here.
    Queued,
    /// A transport took the bytes.
    Sent,
    /// A mailbox or a carrier said that it has them.
    Carried,
    /// Given up, with a reason. A receipt that comes later is still the truth.
    Failed,
    /// The recipient said that it has the message.
    Delivered,
    /// The recipient said that it was read.
    Read,
}

impl State {
    /// All states, in their order.
    pub const ALL: [Self; 6] = [Self::Queued, Self::Sent, Self::Carried, Self::Failed, Self::Delivered, Self::Read];

    /// Goes to `to` if that is further; whether it did.
    pub fn advance(&mut self, to: Self) -> bool {
        let is_further = to > *self;
        *self = (*self).max(to);
        is_further
    }

    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Sent => "sent",
            Self::Carried => "carried",
            Self::Failed => "failed",
            Self::Delivered => "delivered",
            Self::Read => "read",
        }
    }
}

/// Why a message was given up, or what it waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// It waits for the disk.
    NotStored,
    /// It waits for receipts of earlier messages to the same device.
    Window,
    /// It waits: the recipient is reachable by no transport that is allowed.
    NoRoute,
    /// It waits for the next attempt.
    Retry,
    /// Failed: its time is over.
    Expired,
    /// Failed: the outbox is full.
    QueueFull,
    /// Failed: the recipient is blocked.
    Blocked,
    /// Failed: the contact's policy does not allow the transport that was asked for.
    ForbiddenByPolicy,
    /// Failed: it fits no envelope, or cannot be sealed.
    Unsealable,
}

impl Reason {
    /// All reasons, in their order.
    pub const ALL: [Self; 9] = [
        Self::NotStored,
        Self::Window,
        Self::NoRoute,
        Self::Retry,
        Self::Expired,
        Self::QueueFull,
        Self::Blocked,
        Self::ForbiddenByPolicy,
        Self::Unsealable,
    ];

    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotStored => "not_stored",
            Self::Window => "window",
            Self::NoRoute => "no_route",
            Self::Retry => "retry",
            Self::Expired => "expired",
            Self::QueueFull => "queue_full",
            Self::Blocked => "blocked",
            Self::ForbiddenByPolicy => "forbidden_by_policy",
            Self::Unsealable => "unsealable",
        }
    }
}

/// A way to a recipient, in the order in which ways are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// The topic of a conversation's bucket.
    Gossip,
    /// A link in the local network.
    Lan,
    /// A link over the internet.
    Direct,
    /// The mixnet, with an acknowledgement by reply block.
    Mix,
    /// A mailbox of the recipient: where the mixnet leaves what finds nobody. Never begun by itself.
    Mailbox,
    /// A peer that carries the envelope until it meets the recipient.
    Carrier,
}

impl Transport {
    /// All, in their order.
    pub const ALL: [Self; 6] = [Self::Gossip, Self::Lan, Self::Direct, Self::Mix, Self::Mailbox, Self::Carrier];

    /// How long after the attempt begins this one starts, unless an earlier one failed before.
    pub fn start(self) -> Duration {
        Duration::from_millis(match self {
            Self::Gossip | Self::Lan => 0,
            Self::Direct => 150,
            Self::Mix => 1_000,
            Self::Mailbox | Self::Carrier => 3_000,
        })
    }

    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gossip => "gossip",
            Self::Lan => "lan",
            Self::Direct => "direct",
            Self::Mix => "mix",
            Self::Mailbox => "mailbox",
            Self::Carrier => "carrier",
        }
    }

    /// Whether an observer does not learn who writes to whom.
    fn is_mixed(self) -> bool {
        matches!(self, Self::Mix | Self::Mailbox)
    }
}

/// A set of transports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reach(u8);

impl Reach {
    /// Of these.
    pub fn of(transports: &[Transport]) -> Self {
        transports.iter().fold(Self::default(), |reach, transport| reach.with(*transport))
    }

    /// One more.
    pub fn with(self, transport: Transport) -> Self {
        Self(self.0 | 1 << transport as u8)
    }

    /// Whether it is among them.
    pub fn has(self, transport: Transport) -> bool {
        self.0 & 1 << transport as u8 != 0
    }
}

/// What a contact allows. Nothing widens it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Every transport.
    Auto,
    /// The mixnet alone.
    Mix,
}

/// What was asked for, for one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// Whatever the policy allows.
    Auto,
    /// The local network alone.
    Lan,
    /// The local network or the internet, without mixnet and carriers.
    Direct,
    /// The mixnet alone.
    Mix,
}

impl Via {
    /// All, in their order.
    pub const ALL: [Self; 4] = [Self::Auto, Self::Lan, Self::Direct, Self::Mix];
}

/// The transports that a message may ever use; none is an error at once, and never another transport instead.
pub fn allowed(policy: Policy, via: Via) -> Result<Reach, Reason> {
    let by_policy = |transport: &Transport| policy == Policy::Auto || transport.is_mixed();
    let by_via = |transport: &Transport| match via {
        Via::Auto => true,
        Via::Lan => *transport == Transport::Lan,
        Via::Direct => matches!(transport, Transport::Lan | Transport::Direct),
        Via::Mix => transport.is_mixed(),
    };
    let both: Vec<_> = Transport::ALL.into_iter().filter(by_policy).filter(by_via).collect();
    if both.is_empty() { Err(Reason::ForbiddenByPolicy) } else { Ok(Reach::of(&both)) }
}

/// The transports of one attempt, each with its start.
pub fn plan(allowed: Reach, reachable: Reach) -> Vec<(Transport, Duration)> {
    let usable = |transport: &Transport| allowed.has(*transport) && reachable.has(*transport);
    Transport::ALL.into_iter().filter(usable).map(|transport| (transport, transport.start())).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn states_only_advance() {
        for from in State::ALL {
            for to in State::ALL {
                let mut state = from;
                assert_eq!(state.advance(to), to > from);
                assert_eq!(state, from.max(to));
            }
        }
    }

    #[test]
    fn what_the_policy_forbids_fails_at_once() {
        for via in [Via::Lan, Via::Direct] {
            assert_eq!(allowed(Policy::Mix, via), Err(Reason::ForbiddenByPolicy));
        }
        for (policy, via) in [(Policy::Mix, Via::Auto), (Policy::Mix, Via::Mix), (Policy::Auto, Via::Mix)] {
            assert_eq!(allowed(policy, via), Ok(Reach::of(&[Transport::Mix, Transport::Mailbox])));
        }
    }

    #[test]
    fn the_fast_ways_start_first() {
        let all = Reach::of(&Transport::ALL);
        let auto = allowed(Policy::Auto, Via::Auto).unwrap();
        let starts: Vec<_> =
            plan(auto, all).into_iter().map(|(transport, start)| (transport, start.as_millis())).collect();
        let expected = [
            (Transport::Gossip, 0),
            (Transport::Lan, 0),
            (Transport::Direct, 150),
            (Transport::Mix, 1_000),
            (Transport::Mailbox, 3_000),
            (Transport::Carrier, 3_000),
        ];
        assert_eq!(starts, expected);
    }

    proptest! {
        #[test]
        fn nothing_that_is_reachable_makes_a_mixed_message_travel_openly(reach in 0u8..64) {
            let mix = allowed(Policy::Mix, Via::Auto).unwrap();
            for (transport, _) in plan(mix, Reach(reach)) {
                prop_assert!(matches!(transport, Transport::Mix | Transport::Mailbox));
            }
        }
    }
}
