//! `fog run`: opens everything in order, runs the node until it is asked to stop, and closes everything in reverse.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use fog_base::Network;
use tokio::{net::TcpListener, runtime::Runtime};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{CliError, Context};
use crate::{
    api::{NodeFile, Server},
    config::{Config, Key, Layers, key, unknown_variables},
    keys::{Keys, PassphraseSource},
    node::{self, RunningNode, report::Lifecycle},
    platform::{self, signals::StopSignals},
    store::{self, DataDirLock, Store},
};

/// A node that was asked to stop and has not after this long is left behind with an error.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// What `fog run` takes. Values stay text until the configuration reads them, so that flags, variables and file are read alike.
#[derive(Debug, Args)]
pub(super) struct Flags {
    /// The network to join [default: LAN mode, whoever is on the LAN]
    #[arg(long, value_name = "FILE")]
    network: Option<String>,
    /// Where to listen [default: all interfaces, TCP and QUIC, any port]
    #[arg(long, value_name = "ADDR", num_args = 1..)]
    listen: Vec<String>,
    /// First contacts
    #[arg(long, value_name = "ADDR", num_args = 1..)]
    bootstrap: Vec<String>,
    /// Do not look for peers on the local network by mDNS
    #[arg(long)]
    no_mdns: bool,
    /// How you are called in chat [default: fog- and the end of the peer id]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Look for peers on the local network by our own beacon [default: true, or false with --no-mdns]
    #[arg(long, value_name = "TRUTH")]
    lan_beacon: Option<bool>,
    /// What to offer: mix, guard, exit, mailbox, directory, worker; or none [default: all but exit]
    #[arg(long, value_name = "ROLES")]
    roles: Option<String>,
    /// Where the local API listens; loopback only [default: 127.0.0.1:0]
    #[arg(long, value_name = "ADDR")]
    api: Option<String>,
    /// Where the SOCKS proxy listens [default: off]
    #[arg(long, value_name = "ADDR")]
    socks: Option<String>,
    /// Where metrics can be read without a token [default: off]
    #[arg(long, value_name = "ADDR")]
    metrics: Option<String>,
    /// Mean packets a second that leave for your messages [default: 50]
    #[arg(long, value_name = "X")]
    send_per_second: Option<String>,
    /// Cover traffic [default: loops]
    #[arg(long, value_name = "COVER", value_parser = ["none", "loops", "full"])]
    cover: Option<String>,
    /// Mean loop packets a second [default: 0.2]
    #[arg(long, value_name = "X")]
    loops_per_second: Option<String>,
    /// Threads that unwrap packets [default: one for each core]
    #[arg(long, value_name = "N")]
    mix_workers: Option<String>,
    /// Where idle detection looks for /sys and /proc [default: /]
    #[arg(long, value_name = "DIR")]
    probe_root: Option<String>,
    /// On the first run, ask for a passphrase and seal the keys with it
    #[arg(long)]
    seal_keys: bool,
}

impl Flags {
    /// Adds what was given to the strongest layer.
    pub(super) fn add_to(&self, layers: &mut Layers) {
        let texts: [(Key, &Option<String>); 12] = [
            (key::NETWORK, &self.network),
            (key::NAME, &self.name),
            (key::ROLES, &self.roles),
            (key::API, &self.api),
            (key::SOCKS, &self.socks),
            (key::METRICS, &self.metrics),
            (key::SEND_PER_SECOND, &self.send_per_second),
            (key::COVER, &self.cover),
            (key::LOOPS_PER_SECOND, &self.loops_per_second),
            (key::MIX_WORKERS, &self.mix_workers),
            (key::PROBE_ROOT, &self.probe_root),
            (key::LISTEN, &None),
        ];
        for (key, text) in texts {
            if let Some(text) = text {
                layers.flag(key, [text.clone()]);
            }
        }
        if let Some(beacon) = self.lan_beacon {
            layers.flag(key::LAN_BEACON, [beacon.to_string()]);
        }
        for (key, list) in [(key::LISTEN, &self.listen), (key::BOOTSTRAP, &self.bootstrap)] {
            if !list.is_empty() {
                layers.flag(key, list.iter().flat_map(|text| text.split(',')).map(str::to_owned));
            }
        }
        for (key, given) in [(key::NO_MDNS, self.no_mdns), (key::SEAL_KEYS, self.seal_keys)] {
            if given {
                layers.flag(key, ["true".to_owned()]);
            }
        }
    }
}

/// What is open before the node starts.
struct Opened {
    network: Network,
    keys: Keys,
    store: Arc<dyn Store>,
    // Held until everything else is closed.
    lock: DataDirLock,
}

/// Runs a node until it is asked to stop.
pub(super) fn run(context: Context) -> Result<(), CliError> {
    platform::keep_private();
    let opened = open(&context.config)?;
    let runtime = Runtime::new()
        .map_err(|error| CliError::failed(format!("no threads: {error}"), "see the limits of this user"))?;
    let outcome = runtime.block_on(serve(context, opened));
    // Whatever hangs (a name lookup, say) is left behind: everything that must be written is.
    runtime.shutdown_timeout(Duration::from_millis(500));
    outcome
}

fn open(config: &Config) -> Result<Opened, CliError> {
    let network = config.read_network()?;
    config.check_faults(&network)?;
    let lock = DataDirLock::acquire(&config.data_dir)?;
    let keys = Keys::open_or_create(&config.data_dir, &PassphraseSource::from_environment(), config.seal_keys)?;
    let store = store::open(&config.data_dir, keys.storage())?;
    Ok(Opened { network, keys, store, lock })
}

async fn serve(context: Context, opened: Opened) -> Result<(), CliError> {
    let Opened { network, keys, store, lock } = opened;
    let config = &context.config;
    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    let signals = StopSignals::listen().map_err(|error| CliError::failed(format!("no signals: {error}"), ""))?;
    tasks.spawn(obey(signals, stop.clone()));
    let api = bind(config.api, "--api").await?;
    let metrics = match config.metrics {
        Some(address) => Some(bind(address, "--metrics").await?),
        None => None,
    };
    let socks = match config.socks {
        Some(address) => Some(listen_for_programs(address).await?),
        None => None,
    };
    warn(config);
    let socks_address = socks.as_ref().and_then(|socks| socks.local_addr().ok());
    let file = NodeFile { socks: socks_address.map(|at| at.to_string()), ..node_file(api.address(), &keys)? };
    let running = node::start(config.clone(), keys, store, network, stop.clone())?;
    tasks.spawn(answer(api.serve(running.handle.clone(), file.token.clone(), stop.clone()), stop.clone()));
    if let Some(metrics) = metrics {
        tasks.spawn(answer(metrics.serve_metrics(running.handle.clone(), stop.clone()), stop.clone()));
    }
    if let Some(socks) = socks {
        let services = running.handle.services().await;
        let services = services.map_err(|failure| CliError::failed(failure.message, failure.hint))?;
        tasks.spawn(services.serve(socks, stop.clone()));
    }
    // Only now may others find the API: it answers.
    let published = publish(file, config.data_dir.clone());
    let published = match published {
        Ok(published) => Some(published),
        Err(error) => {
            stop.cancel();
            follow(context, running, &stop).await?;
            return Err(error);
        }
    };
    let outcome = follow(context, running, &stop).await;
    tasks.close();
    tasks.wait().await;
    drop((published, lock));
    outcome
}

/// The first signal stops the node, the second this process.
async fn obey(mut signals: StopSignals, stop: CancellationToken) {
    tokio::select! {
        () = signals.next() => {}
        () = stop.cancelled() => return,
    }
    tracing::info!("stopping; a second signal stops at once");
    stop.cancel();
    // Not awaited by anybody: the process ends first if the node stops well.
    tokio::spawn(async move {
        signals.next().await;
        std::process::exit(1);
    });
}

async fn bind(address: SocketAddr, flag: &str) -> Result<Server, CliError> {
    Server::bind(address).await.map_err(|error| {
        CliError::failed(
            format!("cannot listen on {address}: {error}"),
            format!("name another port with {flag}, or 0 for any"),
        )
    })
}

/// The proxy's port.
async fn listen_for_programs(address: SocketAddr) -> Result<TcpListener, CliError> {
    let failed = |error: std::io::Error| {
        CliError::failed(format!("cannot listen on {address}: {error}"), "name another port with --socks, or 0 for any")
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    tracing::info!(%address, "programs reach services and the internet through this node by SOCKS5 or HTTP CONNECT");
    Ok(listener)
}

fn node_file(api: SocketAddr, keys: &Keys) -> Result<NodeFile, CliError> {
    NodeFile::new(api, keys.node_id().to_string()).map_err(|error| CliError::failed(error.to_string(), "try again"))
}

fn publish(file: NodeFile, data_dir: PathBuf) -> Result<crate::api::NodeFileGuard, CliError> {
    file.publish(&data_dir).map_err(|error| {
        let path = data_dir.join("node.json");
        CliError::failed(format!("`{}` cannot be written: {error}", path.display()), "see that its disk has room")
    })
}

/// A server that fails takes the node with it: a node that cannot be steered is of no use.
async fn answer(serving: impl Future<Output = std::io::Result<()>>, stop: CancellationToken) {
    if let Err(error) = serving.await {
        tracing::error!(%error, "the local API failed");
        stop.cancel();
    }
}

fn warn(config: &Config) {
    let variables = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for name in unknown_variables(variables) {
        tracing::warn!("the variable {name} names no setting; fog.example.toml shows every key");
    }
    if config.faults.any() {
        tracing::warn!("`[faults]` is on: this node harms its own links, as tests want it");
    }
    if config.socks.is_some_and(|socks| !socks.ip().is_loopback()) {
        tracing::warn!("--socks is not on loopback: whoever reaches it uses this node's circuits");
    }
}

/// Tells what the node tells, until it has stopped.
async fn follow(context: Context, running: RunningNode, stop: &CancellationToken) -> Result<(), CliError> {
    let RunningNode { handle: _, mut events, mut join } = running;
    let mut reader = Some(context.out);
    let overdue = async {
        stop.cancelled().await;
        tokio::time::sleep(STOP_WITHIN).await;
    };
    tokio::pin!(overdue);
    loop {
        tokio::select! {
            Some(event) = events.recv() => {
                // A reader that went away ends the telling, not the node.
                reader = reader.filter(|out| out.value(&event, human).is_ok());
            }
            ended = &mut join => {
                let outcome = ended.unwrap_or_else(|error| Err(anyhow::anyhow!("the node failed: {error}")));
                while let Ok(event) = events.try_recv() {
                    reader = reader.filter(|out| out.value(&event, human).is_ok());
                }
                stop.cancel();
                return outcome.map_err(CliError::from);
            }
            () = &mut overdue => {
                return Err(CliError::failed("the node did not stop in time", "its store is safe; report this as a bug"));
            }
        }
    }
}

fn human(event: &Lifecycle) -> String {
    match event {
        Lifecycle::Listening { address } => format!("listening on {address}\n"),
        Lifecycle::Ready => "ready\n".into(),
        Lifecycle::Stopping => "stopping\n".into(),
    }
}
