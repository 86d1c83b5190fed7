//! The figures of the README.

use std::time::Duration;

use fog_base::{EpochSchedule, NetworkId, record::Kind as RecordKind};

use super::{
    evidence::{Fading, Kind},
    score,
};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// What evidence is worth and what bounds it.
#[derive(Debug, Clone)]
pub struct Config {
    /// The network that everything is signed for.
    pub network: NetworkId,
    /// How its time is cut: there is one report per reporter, subject and epoch.
    pub schedule: EpochSchedule,
    /// Fading of [`Kind::Correctness`] and [`Kind::Rating`].
    pub conduct: Fading,
    /// Fading of [`Kind::Availability`].
    pub availability: Fading,
    /// Fading of what was proved.
    pub proofs: Fading,
    /// The records of which two with one sequence number prove misbehaviour; their sequence numbers are Unix
    /// milliseconds.
    pub provable: Vec<RecordKind>,
    /// What one observation or receipt can weigh; and the most that [`super::reputation::Reputation::credit`] comes
    /// to, in units.
    pub weight_cap: f64,
    /// What a proof of misbehaviour weighs.
    pub proof_weight: f64,
    /// What one reporter can say of one peer, in evidence.
    pub rater_cap: f64,
    /// What all reporters together can say of one peer, in evidence.
    pub hearsay_cap: f64,
    /// From how much own evidence on it reports are compared with own experience.
    pub own_minimum: f64,
    /// The value that weighs 1.
    pub value_unit: u64,
    /// What a new identity costs, in the units of value: stake or fee. 0 in an open network.
    pub identity_price: u64,
    /// Below this upper bound of availability a peer is called unreliable.
    pub availability_floor: f64,
    /// Peers that are remembered.
    pub max_peers: usize,
    /// Pairs of subject and reporter that are remembered.
    pub max_heard: usize,
    /// Messages per second that are read from one source, and at once.
    pub source_rate: (f64, f64),
    /// Messages per second that no honest source exceeds, and at once.
    pub flood_rate: (f64, f64),
    /// Reports per second from all sources that are not trusted as raters, and at once.
    pub strangers_rate: (f64, f64),
    /// When peers are disconnected and banned.
    pub score: score::Config,
}

impl Config {
    /// The figures of the README.
    pub fn new(network: NetworkId, schedule: EpochSchedule) -> Self {
        Self {
            network,
            schedule,
            conduct: Fading { half_life: 7 * DAY, cap: 512.0 },
            availability: Fading { half_life: 6 * HOUR, cap: 512.0 },
            // Only bad evidence is proved, and that halves in twice this time.
            proofs: Fading { half_life: 45 * DAY, cap: 512.0 },
            provable: Vec::new(),
            weight_cap: 8.0,
            proof_weight: 64.0,
            rater_cap: 8.0,
            hearsay_cap: 32.0,
            own_minimum: 8.0,
            value_unit: 1_000,
            identity_price: 0,
            availability_floor: 0.9,
            max_peers: 4_096,
            max_heard: 16_384,
            source_rate: (2.0, 64.0),
            flood_rate: (64.0, 1024.0),
            strangers_rate: (20.0, 256.0),
            score: score::Config::default(),
        }
    }

    /// How evidence of `kind` fades.
    pub fn fading(&self, kind: Kind) -> &Fading {
        match kind {
            Kind::Availability => &self.availability,
            Kind::Correctness | Kind::Rating => &self.conduct,
        }
    }
}
