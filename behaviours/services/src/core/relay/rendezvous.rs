//! The clients that wait here for a service.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{
    core::{circuit::Circuit, reject::Reject},
    wire::COOKIE,
};

/// Clients that wait.
pub const MAX_COOKIES: usize = 8192;
/// How long one waits.
pub const WAIT: Duration = Duration::from_secs(60);

type Cookie = [u8; COOKIE];

#[derive(Debug, Default)]
pub(super) struct Rendezvous {
    by_cookie: BTreeMap<Cookie, Circuit>,
    by_circuit: BTreeMap<Circuit, (Cookie, Instant)>,
}

impl Rendezvous {
    pub(super) fn establish(&mut self, circuit: Circuit, cookie: Cookie, now: Instant) -> Result<(), Reject> {
        if self.by_cookie.len() >= MAX_COOKIES {
            return Err(Reject::Full);
        }
        // Two clients never draw the same one: this is somebody who heard of another's.
        if self.by_cookie.contains_key(&cookie) {
            return Err(Reject::Unexpected);
        }
        self.by_cookie.insert(cookie, circuit);
        self.by_circuit.insert(circuit, (cookie, now + WAIT));
        Ok(())
    }

    /// The client that waits for this cookie; it waits no more.
    pub(super) fn take(&mut self, cookie: &Cookie) -> Option<Circuit> {
        let circuit = self.by_cookie.remove(cookie)?;
        self.by_circuit.remove(&circuit);
        Some(circuit)
    }

    pub(super) fn closed(&mut self, circuit: Circuit) {
        if let Some((cookie, _)) = self.by_circuit.remove(&circuit) {
            self.by_cookie.remove(&cookie);
        }
    }

    /// The circuits whose time is over. Not yet forgotten: [`Self::closed`] does that.
    pub(super) fn expire(&self, now: Instant) -> Vec<Circuit> {
        self.by_circuit.iter().filter(|(_, (_, deadline))| *deadline <= now).map(|(circuit, _)| *circuit).collect()
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.by_circuit.values().map(|(_, deadline)| *deadline).min()
    }

    pub(super) fn len(&self) -> usize {
        self.by_cookie.len()
    }
}
