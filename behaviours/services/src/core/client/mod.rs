//! The client's side: a descriptor and a rendezvous point at once, an introduction, and what to do when any of it fails.

pub(super) mod cache;
mod connection;
mod failure;
mod fetch;
mod recent;
mod shell;

use std::{collections::BTreeMap, time::Instant};

use fog_base::{Epoch, Now};

use super::{
    address::Address,
    blinding::BlindedKey,
    circuit::{Circuit, Purpose},
    descriptor::ClientSecret,
    handshake::SessionKeys,
    introduction::FirstStream,
    period::Calendar,
    pow::Work,
    reject::{Reject, Rejects},
    view::View,
};
use crate::wire::Message;

use cache::Cache;
use connection::{Connection, Progress, World};
use recent::Recent;
use shell::Shell;

pub use connection::{INTRODUCTIONS, Stage};
pub use failure::{BAD_ADDRESS_REPLY, Failure};
pub use fetch::FETCHES;

/// Connections that are being made at once.
pub const MAX_CONNECTIONS: usize = 512;

/// One connection that is being made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// What is wanted.
#[derive(Debug, Clone)]
pub struct Connect {
    /// The service.
    pub address: Address,
    /// The key for it, if it admits known clients only.
    pub client: Option<ClientSecret>,
    /// The first stream, with bytes that may arrive twice.
    pub stream: Option<FirstStream>,
    /// Not with a descriptor that was fetched before.
    pub fresh: bool,
    /// Through the point with this key only.
    pub through: Option<[u8; 32]>,
    /// Only the descriptor: [`Output::Found`] ends it.
    pub lookup: bool,
}

impl Connect {
    /// To a service, with this stream.
    pub fn to(address: Address, stream: Option<FirstStream>) -> Self {
        Self { address, client: None, stream, fresh: false, through: None, lookup: false }
    }
}

/// What a client asks for. In order.
#[derive(Debug)]
pub enum Output {
    /// A circuit to `relay`. [`Client::handle_opened`] or [`Client::handle_closed`] follows.
    Open {
        /// Its number.
        circuit: Circuit,
        /// Its last hop.
        relay: fog_base::NodeId,
        /// What for.
        purpose: Purpose,
        /// For which connection: circuits of connections that must not be linked share nothing.
        connection: ConnectionId,
    },
    /// A message to the circuit's last hop.
    Send(Circuit, Message),
    /// The circuit is not needed any more; it may be gone already.
    Close(Circuit),
    /// Make a proof of work ([`Work::make`]) away from this thread; the result goes to [`Client::handle_work`].
    Solve {
        /// For which connection.
        connection: ConnectionId,
        /// Over this key,
        key: BlindedKey,
        /// this seed,
        seed: [u8; 32],
        /// with this effort,
        effort: u32,
        /// from this nonce on.
        nonce: [u8; 16],
    },
    /// Which stage a connection is in.
    Stage(ConnectionId, Stage),
    /// The service is at the other end: add a virtual hop as the client. The circuit is the caller's. The first stream, if there
    /// was one, is with the service.
    Connected {
        /// Which connection.
        connection: ConnectionId,
        /// The circuit.
        circuit: Circuit,
        /// For the virtual hop.
        keys: SessionKeys,
    },
    /// The descriptor that was looked up.
    Found {
        /// Which connection.
        connection: ConnectionId,
        /// How many introduction points it names.
        points: usize,
        /// The last epoch in which it is valid.
        last_epoch: Epoch,
        /// Its revision.
        revision: u64,
    },
    /// It did not work out.
    Failed(ConnectionId, Failure),
}

/// All connections to services that are being made.
#[derive(Debug)]
pub struct Client {
    calendar: Calendar,
    view: View,
    cache: Cache,
    recent: Recent,
    shell: Shell,
    connections: BTreeMap<ConnectionId, Connection>,
    next: u64,
}

impl Client {
    /// Knows nothing yet. `seed` has 32 random bytes.
    pub fn new(calendar: Calendar, seed: [u8; 32]) -> Self {
        Self {
            shell: Shell::new(calendar.network, seed),
            calendar,
            view: View::default(),
            cache: Cache::default(),
            recent: Recent::default(),
            connections: BTreeMap::new(),
            next: 0,
        }
    }

    /// The network changed, or an epoch began.
    pub fn set_view(&mut self, view: View) {
        self.view = view;
    }

    /// Begins. Outputs tell how it ends, in any case.
    pub fn connect(&mut self, connect: Connect, now: Now) -> ConnectionId {
        self.next += 1;
        let id = ConnectionId(self.next);
        if self.connections.len() >= MAX_CONNECTIONS {
            self.shell.outputs.push_back(Output::Failed(id, Failure::TooMany));
            return id;
        }
        self.connections.insert(id, Connection::new(connect, now.mono));
        self.with(id, now, |connection, world| connection.start(world));
        id
    }

    /// The caller does not want it any more.
    pub fn cancel(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.remove(&id) {
            connection.close(&mut self.shell);
        }
    }

    /// A circuit is ready.
    pub fn handle_opened(&mut self, circuit: Circuit, now: Now) {
        match self.of(circuit) {
            Some(id) => self.with(id, now, |connection, world| connection.opened(circuit, world)),
            None => self.shell.close(circuit),
        }
    }

    /// A circuit could not be built, or is gone.
    pub fn handle_closed(&mut self, circuit: Circuit, now: Now) {
        if let Some(id) = self.of(circuit) {
            self.with(id, now, |connection, world| connection.closed(circuit, world));
        }
    }

    /// A message from a circuit's last hop.
    pub fn handle_message(&mut self, circuit: Circuit, command: u8, body: &[u8], now: Now) -> Result<(), Reject> {
        let Some(id) = self.of(circuit) else { return Err(self.shell.rejects.count(Reject::Unexpected)) };
        let Some(message) = Message::decode(command, body) else {
            self.shell.close(circuit);
            self.handle_closed(circuit, now);
            return Err(self.shell.rejects.count(Reject::Malformed));
        };
        let mut result = Ok(());
        self.with(id, now, |connection, world| {
            let (progress, judged) = connection.message(circuit, message, world);
            result = judged;
            progress
        });
        result.map_err(|reason| self.shell.rejects.count(reason))
    }

    /// A proof of work was made; `None`: it was given up.
    pub fn handle_work(&mut self, id: ConnectionId, work: Option<Work>, now: Now) {
        self.with(id, now, |connection, world| connection.worked(work, world));
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        let due = |connection: &Connection| connection.next_timeout() <= now.mono;
        let late: Vec<_> = self.connections.iter().filter(|(_, c)| due(c)).map(|(id, _)| *id).collect();
        for id in late {
            self.with(id, now, |connection, world| connection.timeout(world));
        }
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.connections.values().map(Connection::next_timeout).min()
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.shell.outputs.pop_front()
    }

    /// How often what was refused.
    pub fn rejects(&self) -> &Rejects {
        &self.shell.rejects
    }

    fn of(&self, circuit: Circuit) -> Option<ConnectionId> {
        self.connections.iter().find(|(_, connection)| connection.has(circuit)).map(|(id, _)| *id)
    }

    /// Runs one step of a connection, and ends it if that was the last.
    fn with(&mut self, id: ConnectionId, now: Now, step: impl FnOnce(&mut Connection, &mut World<'_>) -> Progress) {
        let Some(mut connection) = self.connections.remove(&id) else { return };
        self.shell.connection = id;
        let Self { calendar, view, cache, recent, shell, .. } = self;
        let mut world = World { calendar, view, cache, recent, shell, now };
        let progress = step(&mut connection, &mut world);
        let last = match progress {
            Progress::Pending => {
                self.connections.insert(id, connection);
                return;
            }
            Progress::Done(keys, circuit) => {
                connection.close_all_but(circuit, &mut self.shell);
                Output::Connected { connection: id, circuit, keys }
            }
            Progress::Found { points, last_epoch, revision } => {
                connection.close(&mut self.shell);
                Output::Found { connection: id, points, last_epoch, revision }
            }
            Progress::Failed(failure) => {
                connection.close(&mut self.shell);
                Output::Failed(id, failure)
            }
        };
        self.shell.outputs.push_back(last);
    }
}

#[cfg(test)]
mod tests;
