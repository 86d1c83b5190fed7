//! What this host offers: what its owner configured, and what the host allows now.

use fog_tasks::core::{
    offer::{Accepts, Offer, Price},
    terms::Privacy,
};

use crate::config::WorkerConfig;

const MIB: u64 = 1024 * 1024;
/// A worker stages what a task may have: module, inputs, output.
const STAGING: u64 = 512 * MIB;
/// By how much the measured speed must differ from what was offered.
const TELLING: f64 = 0.2;

/// The capacity of this host.
#[derive(Debug, Clone)]
pub(super) struct Capacity {
    config: WorkerConfig,
    /// How many tasks may run now.
    pub(super) slots: u32,
    speed: u64,
}

impl Capacity {
    pub(super) fn new(config: WorkerConfig) -> Self {
        Self { config, slots: 0, speed: 0 }
    }

    /// What was measured; true if others should know.
    pub(super) fn measure(&mut self, speed: Option<u64>) -> bool {
        let Some(speed) = speed else { return false };
        let differs = (speed as f64 - self.speed as f64).abs() > TELLING * self.speed as f64;
        if differs {
            self.speed = speed;
        }
        differs
    }

    /// The speed that is offered.
    pub(super) fn speed(&self) -> u64 {
        self.speed
    }

    pub(super) fn offer(&self) -> Offer {
        // A host has fewer processors.
        let slots = u16::try_from(self.slots).unwrap_or(u16::MAX);
        Offer {
            slots,
            free: slots,
            queued: 0,
            speed: self.speed,
            memory_bytes: self.config.memory_mib * MIB,
            staging_bytes: STAGING,
            features: self.config.features.clone(),
            price: Price { rate: self.config.rate, ..Price::default() },
            accepts: Accepts { privacy: self.accepted(), ..Accepts::default() },
            family: self.config.family.clone(),
            milliwatts: self.config.milliwatts,
            eligible: slots > 0,
        }
    }

    fn accepted(&self) -> Vec<Privacy> {
        let mixed = self.config.accept_mixed.then_some(Privacy::Mixed);
        [Privacy::Open, Privacy::Sealed].into_iter().chain(mixed).collect()
    }
}
