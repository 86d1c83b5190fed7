//! Why something from another party was refused. Each refusal is counted under its reason; nobody is told more than the answers in README.

/// The reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reject {
    /// Not a message of the protocol, or not its length.
    Malformed,
    /// Not expected in this state: twice, too late, or on a circuit that carries something else.
    Unexpected,
    /// A signature or a proof that does not verify.
    BadSignature,
    /// No key, cookie or point of that name here.
    Unknown,
    /// Beyond a rate.
    RateLimited,
    /// A bounded table or queue is full.
    Full,
    /// A descriptor of a period that is not open, expired, or of too long a lifetime.
    WrongTime,
    /// A lower revision than one that was seen.
    RolledBack,
    /// A descriptor that belongs to other relays.
    NotResponsible,
    /// An introduction that did not open under any key.
    Undecryptable,
    /// An introduction that was answered before.
    Replayed,
    /// A proof of work that is none, is over, or was used before.
    BadWork,
    /// A rendezvous at what is not a relay of the current set.
    NoSuchRelay,
    /// Waited too long.
    TimedOut,
}

impl Reject {
    /// All reasons, with their names in metrics.
    pub const ALL: [(Self, &'static str); 14] = [
        (Self::Malformed, "malformed"),
        (Self::Unexpected, "unexpected"),
        (Self::BadSignature, "bad_signature"),
        (Self::Unknown, "unknown"),
        (Self::RateLimited, "rate_limited"),
        (Self::Full, "full"),
        (Self::WrongTime, "wrong_time"),
        (Self::RolledBack, "rolled_back"),
        (Self::NotResponsible, "not_responsible"),
        (Self::Undecryptable, "undecryptable"),
        (Self::Replayed, "replayed"),
        (Self::BadWork, "bad_work"),
        (Self::NoSuchRelay, "no_such_relay"),
        (Self::TimedOut, "timed_out"),
    ];
}

impl Reject {
    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        Self::ALL.get(self as usize).map_or("", |(_, name)| name)
    }
}

/// How often each reason occurred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rejects([u64; Reject::ALL.len()]);

impl Rejects {
    /// Counts one, and returns it, to be passed on.
    pub fn count(&mut self, reason: Reject) -> Reject {
        if let Some(n) = self.0.get_mut(reason as usize) {
            *n = n.saturating_add(1);
        }
        reason
    }

    /// How often.
    pub fn get(&self, reason: Reject) -> u64 {
        self.0.get(reason as usize).copied().unwrap_or(0)
    }

    /// All reasons' names with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Reject::ALL.iter().map(|(reason, name)| (*name, self.get(*reason)))
    }

    /// The sum.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_counted_under_its_own_name() {
        let mut rejects = Rejects::default();
        for (n, (reason, _)) in Reject::ALL.into_iter().enumerate() {
            (0..=n).for_each(|_| _ = rejects.count(reason));
        }
        assert!(rejects.iter().map(|(_, n)| n).eq(1..=14));
        let names: std::collections::BTreeSet<_> = rejects.iter().map(|(name, _)| name).collect();
        assert_eq!((names.len(), rejects.total()), (14, 105));
    }
}
