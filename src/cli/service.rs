//! `fog service`

use std::{fs, path::PathBuf};

use clap::Subcommand;

use super::{
    CliError, Context, TIMEOUT,
    client::Client,
    output::{fields, printable, table},
};
use crate::{
    api::{ServiceAdd, ServiceClient, ServiceLookup, ServiceName},
    node::services::report::{Added, ClientKey, Clients, Lookup, Removed, Service},
};

/// The largest file of clients.
const MAX_CLIENTS_FILE: u64 = 64 * 1024;

/// What can be done with services.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a local server reachable under a name of its own
    Add {
        /// Where the server listens
        #[arg(long, value_name = "HOST:PORT")]
        target: String,
        /// The port under which it is reached [default: 80]
        #[arg(long, value_name = "N")]
        port: Option<u16>,
        /// What to call it here [default: the beginning of its address]
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// Only these clients: a file with a client key on each line
        #[arg(long, value_name = "FILE")]
        clients: Option<PathBuf>,
    },
    /// List the services of this node
    List,
    /// Remove a service and destroy its key: its address is gone for good
    Remove {
        /// Its name here, or its address
        name: String,
    },
    /// Fetch and check the descriptor of a service, through a circuit
    Lookup {
        /// `….fog`
        address: String,
    },
    /// Let a client use a service; from the first one on nobody else can
    Authorize {
        /// The service's name here
        name: String,
        /// What the client's `fog service client-key` prints
        client_key: String,
    },
    /// This node's key as a client, for those who run a service
    ClientKey,
}

pub(super) fn run(context: &Context, command: Command) -> Result<(), CliError> {
    let client = Client::open(&context.config)?;
    let timeout = context.timeout(TIMEOUT);
    match command {
        Command::Add { target, port, name, clients } => {
            let clients = clients.map(read_clients).transpose()?.unwrap_or_default();
            let added: Added = client.post("/v1/services", &ServiceAdd { target, port, name, clients }, timeout)?;
            context.out.value(&added, |added| format!("{}\n", added.address))
        }
        Command::List => {
            let services: Vec<Service> = client.get("/v1/services", timeout)?;
            context.out.value(&services, |services| list(services))
        }
        Command::Remove { name } => {
            let removed: Removed = client.post("/v1/services/remove", &ServiceName { name }, timeout)?;
            context.out.value(&removed, |removed| format!("removed {}\n", printable(&removed.name)))
        }
        Command::Lookup { address } => {
            let wanted = ServiceLookup { address, timeout_s: Some(timeout.as_secs()) };
            let found: Lookup = client.post("/v1/services/lookup", &wanted, timeout)?;
            context.out.value(&found, describe)
        }
        Command::Authorize { name, client_key } => {
            let client_of = ServiceClient { name, client_key };
            let clients: Clients = client.post("/v1/services/authorize", &client_of, timeout)?;
            context.out.value(&clients, |clients| format!("{} clients\n", clients.clients))
        }
        Command::ClientKey => {
            let key: ClientKey = client.get("/v1/services/client-key", timeout)?;
            context.out.value(&key, |key| format!("{}\n", key.client_key))
        }
    }
}

/// The keys in a file, without comments.
fn read_clients(path: PathBuf) -> Result<Vec<String>, CliError> {
    let unread = |why: String| {
        CliError::failed(format!("`{}` cannot be read: {why}", path.display()), "a file with a client key on each line")
    };
    let size = fs::metadata(&path).map_err(|error| unread(error.to_string()))?.len();
    if size > MAX_CLIENTS_FILE {
        return Err(unread(format!("it has more than {MAX_CLIENTS_FILE} bytes")));
    }
    let text = fs::read_to_string(&path).map_err(|error| unread(error.to_string()))?;
    let keys = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let keys: Vec<_> = keys.filter(|line| !line.is_empty()).map(str::to_owned).collect();
    // Without any client a service is open to everybody, which is not what somebody who names a file wants.
    if keys.is_empty() { Err(unread("it names no client".into())) } else { Ok(keys) }
}

fn list(services: &[Service]) -> String {
    let rows: Vec<_> = services
        .iter()
        .map(|service| {
            let probe = service.last_self_probe.as_ref();
            [
                printable(&service.name),
                service.state.clone(),
                printable(&service.target),
                service.port.to_string(),
                service.introductions.to_string(),
                service.published.to_string(),
                if service.clients == 0 { "anybody".into() } else { service.clients.to_string() },
                probe.map_or_else(|| "-".into(), |probe| format!("{} {}", probe.at, printable(&probe.detail))),
                service.address.clone(),
            ]
        })
        .collect();
    table(["NAME", "STATE", "TARGET", "PORT", "POINTS", "PUBLISHED", "CLIENTS", "LAST PROBE", "ADDRESS"], &rows)
}

fn describe(found: &Lookup) -> String {
    fields(&[
        ("address", found.address.clone()),
        ("introduction points", found.introduction_points.to_string()),
        ("expires", found.expires_at.clone()),
        ("revision", found.revision.to_string()),
        ("took", format!("{:.0} ms", found.latency_ms)),
    ])
}
