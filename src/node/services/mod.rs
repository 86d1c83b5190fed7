//! `.fog` services in this node, and the way of the proxy to them. All of this runs beside the event loop, which only passes on what circuits
//! tell and what is known of the network.

mod dialer;
mod exchange;
pub(super) mod mixed;
mod registry;
pub mod report;

pub(crate) use registry::SERVICE;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use fog_base::{EpochSchedule, Network};
use fog_circuits::{Circuits, ExitPolicy};
use fog_services::{
    Address, Failure as Unreached,
    core::{
        blinding::Identity,
        descriptor::{ClientKey as Key, ClientSecret},
        period::Calendar,
        service::{LastProbe, Status},
    },
    runtime::{self, Hosted, MixOrder, Services},
};
use tokio::{
    net::TcpListener,
    sync::{Mutex, mpsc},
};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use self::{
    registry::{Record, Registry, Rows},
    report::{Added, ClientKey, Clients, Lookup, Removed, SelfProbe, Service},
};
use super::{clock, command::Failure, status::rfc3339};
use crate::{
    keys::Keys,
    proxy::{self, Requests},
    store::{Store, Writer},
};

/// The relays of a circuit.
pub(super) const HOPS: usize = 3;
/// Services of one node.
const MAX_SERVICES: usize = 64;
/// Clients of one service; itself is one more.
const MAX_CLIENTS: usize = fog_services::core::descriptor::MAX_CLIENTS - 1;
/// The port under which a service is reached unless somebody says otherwise.
const DEFAULT_PORT: u16 = 80;
/// Characters of an address by which a service is called without a name of its own.
const SHORT: usize = 8;
const MAX_NAME: usize = 64;

/// A service to add.
#[derive(Debug, Clone)]
pub(crate) struct NewService {
    /// Where its streams go.
    pub(crate) target: String,
    /// Under which port it is reached.
    pub(crate) port: Option<u16>,
    /// What it is called here.
    pub(crate) name: Option<String>,
    /// Whom it admits; everybody if there is none.
    pub(crate) clients: Vec<String>,
}

/// What people and programs do with services and circuits.
#[derive(Debug)]
pub struct Desk {
    pub(super) services: Services,
    pub(super) circuits: Circuits,
    pub(super) requests: Arc<Requests>,
    registry: Mutex<Registry>,
    client: ClientSecret,
    schedule: EpochSchedule,
    /// What exits are asked for at all.
    asked: ExitPolicy,
}

impl Desk {
    /// Starts the services that the store holds, within a tokio runtime.
    pub(super) fn start(
        keys: &Keys,
        network: &Network,
        (circuits, orders): (Circuits, mpsc::Sender<MixOrder>),
        (store, writer): (&Arc<dyn Store>, &Writer),
        asked: ExitPolicy,
    ) -> anyhow::Result<Arc<Self>> {
        let calendar = Calendar { network: network.id, schedule: network.schedule() };
        let config = runtime::Config { calendar, us: keys.node_id(), hops: HOPS, seed: super::chat::random() };
        let rows = Arc::new(Rows::new(Arc::clone(store), writer.clone()));
        let services = Services::start(config, circuits.clone(), rows, orders);
        let registry = Registry::open(Arc::clone(store), writer.clone())?;
        let desk = Arc::new(Self {
            services,
            circuits,
            requests: Arc::default(),
            registry: Mutex::new(registry),
            client: ClientSecret::from_bytes(*keys.service_client_secret()),
            schedule: network.schedule(),
            asked,
        });
        let starting = Arc::clone(&desk);
        tokio::spawn(async move { starting.host_all().await });
        Ok(desk)
    }

    async fn host_all(&self) {
        let registry = self.registry.lock().await;
        for (number, record) in registry.all() {
            match self.host(&registry, number, record) {
                Ok(_) => {}
                Err(error) => tracing::warn!(service = record.name, error = %error.message, "a service is not started"),
            }
        }
    }

    fn host(&self, registry: &Registry, number: u64, record: &Record) -> Result<Address, Failure> {
        let failed = |error: String| Failure::failed(format!("the service cannot be run: {error}"), "");
        let identity = Identity::from_seed(*record.seed).map_err(|error| failed(error.to_string()))?;
        let address = Address::new(*identity.key());
        let clients: Result<Vec<Key>, _> = record.clients.iter().map(|key| key.parse()).collect();
        let clients = clients.map_err(|_| failed("the key of a client is damaged".into()))?;
        let rows = registry.rows(number).map_err(|error| failed(error.to_string()))?;
        let (target, port) = (record.target, record.port);
        self.services.host(Hosted { number, identity, target, port, clients, rows });
        Ok(address)
    }

    /// Serves programs until `shutdown` is cancelled.
    pub(crate) fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        shutdown: CancellationToken,
    ) -> impl Future<Output = ()> + Send {
        let requests = Arc::clone(&self.requests);
        proxy::run(listener, self, requests, shutdown)
    }

    /// `fog service add`
    pub(crate) async fn add(&self, new: NewService) -> Result<Added, Failure> {
        let target = target(&new.target)?;
        let port = new.port.unwrap_or(DEFAULT_PORT);
        if port == 0 {
            return Err(Failure::usage("there is no port 0", "leave out --port for 80"));
        }
        let clients = new.clients.iter().map(|key| client_key(key)).collect::<Result<Vec<_>, _>>()?;
        if clients.len() > MAX_CLIENTS {
            return Err(Failure::usage(format!("a service admits at most {MAX_CLIENTS} clients"), "run another one"));
        }
        let seed = Zeroizing::new(super::chat::random::<32>());
        let identity = Identity::from_seed(*seed).map_err(|error| Failure::failed(error.to_string(), "try again"))?;
        let address = Address::new(*identity.key()).to_string();
        let name = match new.name {
            Some(name) => checked_name(name)?,
            None => address.get(..SHORT).unwrap_or_default().to_owned(),
        };
        let clients = clients.iter().map(ToString::to_string).collect();
        let mut registry = self.registry.lock().await;
        if registry.find(&name).is_some() {
            return Err(Failure::taken(format!("there is a service `{name}` already"), "choose another name"));
        }
        if registry.len() >= MAX_SERVICES {
            return Err(Failure::failed(format!("this node runs {MAX_SERVICES} services already"), "remove one"));
        }
        let record = Record { name: name.clone(), address: address.clone(), seed, target, port, clients };
        let number = registry.insert(record.clone()).await.map_err(unstored)?;
        self.host(&registry, number, &record)?;
        Ok(Added { address, name, target: target.to_string() })
    }

    /// `fog service remove`
    pub(crate) async fn remove(&self, name: &str) -> Result<Removed, Failure> {
        let mut registry = self.registry.lock().await;
        let (number, record) = registry.find(name).ok_or_else(|| unknown(name))?;
        let removed = Removed { name: record.name.clone(), address: record.address.clone() };
        self.services.remove(number).await;
        registry.remove(number).await.map_err(unstored)?;
        Ok(removed)
    }

    /// `fog service authorize`
    pub(crate) async fn authorize(&self, name: &str, key: &str) -> Result<Clients, Failure> {
        let key = client_key(key)?.to_string();
        let mut registry = self.registry.lock().await;
        let (number, record) = registry.find(name).ok_or_else(|| unknown(name))?;
        let mut record = record.clone();
        if !record.clients.contains(&key) {
            if record.clients.len() >= MAX_CLIENTS {
                let full = format!("a service admits at most {MAX_CLIENTS} clients");
                return Err(Failure::failed(full, "run another one"));
            }
            record.clients.push(key);
            registry.replace(number, record.clone()).await.map_err(unstored)?;
        }
        let clients: Vec<Key> = record.clients.iter().filter_map(|key| key.parse().ok()).collect();
        let count = clients.len();
        self.services.admit(number, clients);
        Ok(Clients { clients: count })
    }

    /// `fog service client-key`
    pub(crate) fn client_key(&self) -> ClientKey {
        ClientKey { client_key: self.client.public().to_string() }
    }

    /// `fog service list`
    pub(crate) async fn list(&self) -> Vec<Service> {
        let status = self.services.status().await;
        let registry = self.registry.lock().await;
        let of = |(number, record): (u64, &Record)| {
            let status = status.iter().find(|(of, _)| *of == number).map(|(_, status)| status);
            service(record, status)
        };
        registry.all().map(of).collect()
    }

    /// `fog service lookup`
    pub(crate) async fn lookup(&self, address: &str, patience: Duration) -> Result<Lookup, Failure> {
        let parsed: Address = address
            .parse()
            .map_err(|error| Failure::usage(format!("`{address}` is not the name of a service: {error}"), ""))?;
        let began = clock::now().mono;
        let looked = self.patiently(began + patience, || self.services.lookup(parsed, Some(self.client.clone())));
        let found = looked.await.map_err(|failure| match failure {
            Some(failure) => Failure::failed(failure.to_string(), unreached_hint(failure)),
            None => Failure::timed_out("the descriptor was not found in time", "`fog status`: are relays known?"),
        })?;
        Ok(Lookup {
            address: parsed.to_string(),
            introduction_points: found.points,
            expires_at: rfc3339(self.schedule.end(found.last_epoch).0),
            revision: found.revision,
            latency_ms: clock::now().mono.saturating_duration_since(began).as_secs_f64() * 1000.0,
        })
    }

    /// Tries again while the network is not known yet; an error without a failure is that time is up.
    async fn patiently<T, F>(&self, until: Instant, attempt: impl Fn() -> F) -> Result<T, Option<Unreached>>
    where
        F: Future<Output = Result<T, Unreached>>,
    {
        let trying = async {
            loop {
                match attempt().await {
                    Err(Unreached::NotReady) => tokio::time::sleep(Duration::from_millis(250)).await,
                    outcome => return outcome,
                }
            }
        };
        match tokio::time::timeout_at(until.into(), trying).await {
            Ok(outcome) => outcome.map_err(Some),
            Err(_) => Err(None),
        }
    }
}

/// What the user can do about a service that is not reached.
fn unreached_hint(why: Unreached) -> &'static str {
    match why {
        Unreached::NotReady => "wait until relays are known: `fog status`",
        Unreached::NotFound => "is the name copied whole? is it running? `fog service list` at its node says",
        Unreached::ClientKeyMissing | Unreached::ClientKeyWrong => {
            "give its owner what `fog service client-key` prints here, for `fog service authorize` there"
        }
        Unreached::Invalid(_) => "`fog service list` at its node says how it is",
        Unreached::Introduction | Unreached::Rendezvous | Unreached::TimedOut => {
            "try again; `fog service list` at its node says how it is"
        }
        Unreached::TooMany => "wait until some of them are there",
    }
}

/// Where a service's server listens: an address, or this host by its name. Other names would have to be looked up.
fn target(text: &str) -> Result<SocketAddr, Failure> {
    let text = text.trim();
    let local = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    let parsed = local.as_deref().unwrap_or(text).parse::<SocketAddr>().ok().filter(|target| target.port() != 0);
    parsed.ok_or_else(|| {
        Failure::usage(format!("`{text}` is not an address and a port"), "such as --target 127.0.0.1:8080")
    })
}

fn client_key(text: &str) -> Result<Key, Failure> {
    text.trim()
        .parse()
        .map_err(|_| Failure::usage("this is not the key of a client", "`fog service client-key` prints one"))
}

fn checked_name(name: String) -> Result<String, Failure> {
    let is_good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(is_good) || name.ends_with(".fog") {
        let hint = "at most 64 letters, digits, `-`, `_` and `.`, and not an address";
        return Err(Failure::usage("this cannot be the name of a service", hint));
    }
    Ok(name)
}

fn unknown(name: &str) -> Failure {
    Failure::missing(format!("there is no service `{name}`"), "`fog service list` lists them")
}

fn unstored(error: crate::store::StoreError) -> Failure {
    Failure::failed(format!("the store did not take it: {error}"), error.hint())
}

fn service(record: &Record, status: Option<&Status>) -> Service {
    let probe = |probe: &LastProbe| SelfProbe { ok: probe.ok, at: rfc3339(probe.at.0), detail: probe.detail.clone() };
    let points = status.map(|status| status.points.iter().filter(|(_, is_there)| *is_there).count());
    let shown = status.map(|status| status.directories.iter().filter(|of| of.shown.is_some()).count());
    Service {
        address: record.address.clone(),
        name: record.name.clone(),
        target: record.target.to_string(),
        port: record.port,
        state: status.map_or("starting", |status| status.state.name()).to_owned(),
        introductions: points.unwrap_or_default(),
        published: shown.unwrap_or_default(),
        clients: record.clients.len(),
        last_self_probe: status.and_then(|status| status.last_probe.as_ref()).map(probe),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_addresses() {
        for (text, expected) in
            [("127.0.0.1:80", "127.0.0.1:80"), ("localhost:8080", "127.0.0.1:8080"), ("[::1]:1", "[::1]:1")]
        {
            assert_eq!(target(text).unwrap().to_string(), expected);
        }
        for text in
            ["", "80", "127.0.0.1", "127.0.0.1:0", "example.com:80", "localhost:", "127.0.0.1:65536", "localhost:x"]
        {
            assert!(target(text).is_err(), "{text}");
        }
    }

    #[test]
    fn whoever_is_not_admitted_is_told_to_ask_for_it() {
        for why in [Unreached::ClientKeyMissing, Unreached::ClientKeyWrong] {
            let hint = unreached_hint(why);
            assert!(hint.contains("authorize") && !hint.contains("running"), "{hint}");
        }
        assert!(unreached_hint(Unreached::NotFound).contains("running"));
    }

    #[test]
    fn names_are_words() {
        for name in ["blog", "a.b-c_1"] {
            assert_eq!(checked_name(name.into()).unwrap(), name);
        }
        for name in ["", "a b", "x.fog", "é", "a/b", &"a".repeat(65)] {
            assert!(checked_name(name.into()).is_err(), "{name}");
        }
    }
}
