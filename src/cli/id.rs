//! `fog id`: of the running node if there is one, else from the keys alone.

use std::path::PathBuf;

use clap::Args;

use super::{CliError, Context, TIMEOUT, client::Client, output::fields};
use crate::{
    clock,
    invite::{self, Invite},
    keys::{Keys, KeysError, PassphraseSource},
    node::{self, report::Identity},
    store::{self, DataDirLock},
};

/// What `fog id` takes.
#[derive(Debug, Args)]
pub(super) struct Flags {
    /// The network that the invite is for, if no node runs [default: as configured, else LAN mode]
    #[arg(long, value_name = "FILE")]
    pub(super) network: Option<PathBuf>,
}

/// Prints who this node is.
pub(super) fn run(context: &Context) -> Result<(), CliError> {
    let running = Client::open(&context.config).and_then(|client| client.get("/v1/id", context.timeout(TIMEOUT)));
    let identity: Identity = match running {
        Err(error) if error.is_no_node() => from_keys(context)?,
        answer => answer?,
    };
    context.out.value(&identity, |identity| {
        let mut lines = vec![("peer id", identity.peer_id.clone())];
        lines.extend(identity.addresses.iter().map(|address| ("address", address.clone())));
        lines.push(("invite", identity.invite.clone()));
        fields(&lines)
    })
}

fn from_keys(context: &Context) -> Result<Identity, CliError> {
    let config = &context.config;
    let network = config.read_network()?;
    let passphrases = PassphraseSource::from_environment();
    let keys = match Keys::open(&config.data_dir, &passphrases) {
        Err(KeysError::None(_)) => {
            // As a first `fog run` would, and not beside one.
            let _lock = DataDirLock::acquire(&config.data_dir)?;
            Keys::open_or_create(&config.data_dir, &passphrases, config.seal_keys)?
        }
        outcome => outcome?,
    };
    // The mailboxes of the last run go on keeping messages while the node is away.
    let store = store::open_to_read(&config.data_dir, keys.storage());
    let relays = store.ok().and_then(|store| node::stored_mailboxes(&*store).ok()).unwrap_or_default();
    let mailboxes = node::mailboxes(&keys, &relays);
    let invite = Invite::create(&keys, &network, &[], &mailboxes, &[], clock::unix(), invite::LIFETIME)?;
    eprintln!(
        "note: no node is running, so the invite (for the network `{}`) names no address, and {} mailboxes",
        network.name,
        mailboxes.len()
    );
    Ok(Identity { peer_id: keys.node_id().to_string(), addresses: Vec::new(), invite: invite.to_string() })
}
