//! The node's configuration: flags over `FOG_…` variables over `fog.toml` over defaults, all of it typed and checked here.

mod layers;

use std::{
    fs, io,
    net::SocketAddr,
    num::NonZeroUsize,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use fog_base::{Network, relay::Roles};
use fog_circuits::ExitPolicy;
use fog_tasks::core::harvest::Preferences;
use libp2p::Multiaddr;

pub use self::layers::{ConfigError, Key, Layers, Origin};

macro_rules! keys {
    ($($constant:ident $name:literal $takes:literal)*) => {
        /// The keys, by name.
        #[allow(missing_docs, reason = "each says what it takes")]
        pub mod key {
            use super::Key;
            $(pub const $constant: Key = Key { name: $name, takes: $takes };)*
        }
        /// Every key.
        pub const KEYS: &[Key] = &[$(key::$constant),*];
    };
}

keys! {
    DATA_DIR "data_dir" "a directory"
    NETWORK "network" "a network file, as `fog network create` writes it"
    LISTEN "listen" "multiaddresses, such as /ip4/0.0.0.0/tcp/4001 or /ip4/0.0.0.0/udp/4001/quic-v1"
    BOOTSTRAP "bootstrap" "multiaddresses, such as /ip4/192.0.2.1/tcp/4001/p2p/12D3Koo…"
    NO_MDNS "no_mdns" "true or false"
    LAN_BEACON "lan_beacon" "true or false"
    ROLES "roles" "roles separated by commas (mix, guard, exit, mailbox, directory, worker), or none alone"
    API "api" "a loopback address and port, such as 127.0.0.1:0"
    SOCKS "socks" "an address and port, such as 127.0.0.1:9050"
    METRICS "metrics" "an address and port, such as 127.0.0.1:9100"
    SEND_PER_SECOND "send_per_second" "a number from 0.1 to 10000"
    COVER "cover" "none, loops or full"
    LOOPS_PER_SECOND "loops_per_second" "a number from 0.001 to 1000"
    NAME "name" "1 to 64 bytes without control characters, and no peer id"
    MIX_WORKERS "mix_workers" "a number from 1 to 256"
    PROBE_ROOT "probe_root" "a directory that has `sys` and `proc`"
    SEAL_KEYS "seal_keys" "true or false"
    LOG_LEVEL "log_level" "off, error, warn, info, debug, trace, or directives such as fog=debug,libp2p=info"
    LOG_FORMAT "log_format" "human or json"
    TIMEOUT "timeout" "whole seconds, from 1 to 86400"
    JSON "json" "true or false"
    CONNECTIONS "limits.connections" "a number from 1 to 10000"
    CONNECTIONS_PER_PEER "limits.connections_per_peer" "a number from 1 to 16"
    MEMORY_MIB "limits.memory_mib" "a number from 64 to 1048576"
    LINK_PACKETS "limits.link_packets_per_second" "a number from 1 to 10000000"
    LINK_BURST "limits.link_packet_burst" "a number from 1 to 10000000"
    PACKETS "limits.packets_per_second" "a number from 1 to 10000000"
    MIXING_POOL "limits.mixing_pool" "a number of packets from 64 to 1000000"
    MAILBOX_MIB "limits.mailbox_mib" "a number from 1 to 1048576"
    MAILBOX_SLOT_MIB "limits.mailbox_slot_mib" "a number from 1 to 1048576"
    INBOX_MIB "limits.inbox_mib" "a number from 2 to 1048576"
    RELAYS "limits.relays" "a number from 1 to 1000000"
    FILES_UP_KIB "limits.files_up_kib_per_second" "a number from 0 to 10000000; 0 for no limit"
    FILES_DOWN_KIB "limits.files_down_kib_per_second" "a number from 0 to 10000000; 0 for no limit"
    EXIT_POLICY "exit.policy" "rules in order, such as `accept 80, accept 443, reject *`"
    EXIT_PRIVATE "exit.private" "true or false"
    WORKER_RUN_ON_BATTERIES "worker.run_on_batteries" "true or false"
    WORKER_BATTERY_CHARGE_MIN_PCT "worker.battery_charge_min_pct" "a number from 0 to 100"
    WORKER_BATTERY_MAX_TEMPERATURE_C "worker.battery_max_temperature_c" "degrees Celsius, from 1 to 150"
    WORKER_MAX_TEMPERATURE_C "worker.max_temperature_c" "degrees Celsius, from 1 to 150"
    WORKER_RUN_IF_USER_ACTIVE "worker.run_if_user_active" "true or false"
    WORKER_IDLE_TIME_TO_RUN_MIN "worker.idle_time_to_run_min" "minutes, from 0 to 10080"
    WORKER_SUSPEND_IF_NO_RECENT_INPUT_MIN "worker.suspend_if_no_recent_input_min" "minutes, from 0 to 10080"
    WORKER_SUSPEND_CPU_USAGE_PCT "worker.suspend_cpu_usage_pct" "a number from 0 to 100"
    WORKER_SUSPEND_MEMORY_PRESSURE_PCT "worker.suspend_memory_pressure_pct" "a number from 0 to 100"
    WORKER_START_CPU_PRESSURE_PCT "worker.start_cpu_pressure_pct" "a number from 0 to 100"
    WORKER_START_IO_PRESSURE_PCT "worker.start_io_pressure_pct" "a number from 0 to 100"
    WORKER_MAX_NCPUS_PCT "worker.max_ncpus_pct" "a number from 1 to 100"
    WORKER_RAM_MAX_USED_BUSY_FRAC "worker.ram_max_used_busy_frac" "a number from 0 to 1"
    WORKER_RAM_MAX_USED_IDLE_FRAC "worker.ram_max_used_idle_frac" "a number from 0 to 1"
    WORKER_SLOT_MEMORY_MIB "worker.slot_memory_mib" "a number from 1 to 1048576"
    WORKER_DISK_MIN_FREE_GB "worker.disk_min_free_gb" "a number from 0 to 1000000"
    WORKER_NETWORK_WIFI_ONLY "worker.network_wifi_only" "true or false"
    WORKER_RUN_IF_METERED "worker.run_if_metered" "true or false"
    WORKER_START_HOUR "worker.start_hour" "hours, from 0 to 24"
    WORKER_END_HOUR "worker.end_hour" "hours, from 0 to 24"
    WORKER_MONDAY "worker.monday" "hours such as 22:00-06:30, always or never"
    WORKER_TUESDAY "worker.tuesday" "hours such as 22:00-06:30, always or never"
    WORKER_WEDNESDAY "worker.wednesday" "hours such as 22:00-06:30, always or never"
    WORKER_THURSDAY "worker.thursday" "hours such as 22:00-06:30, always or never"
    WORKER_FRIDAY "worker.friday" "hours such as 22:00-06:30, always or never"
    WORKER_SATURDAY "worker.saturday" "hours such as 22:00-06:30, always or never"
    WORKER_SUNDAY "worker.sunday" "hours such as 22:00-06:30, always or never"
    WORKER_CONTINUE_AFTER_S "worker.continue_after_s" "whole seconds, from 0 to 86400"
    WORKER_MAX_SUSPEND_TIME_S "worker.max_suspend_time_s" "whole seconds, from 0 to 86400"
    WORKER_MAX_VACATE_TIME_S "worker.max_vacate_time_s" "whole seconds, from 0 to 86400"
    WORKER_RATE "worker.rate" "micro-credits, from 0 to 1000000000000"
    WORKER_ACCEPT_MIXED "worker.accept_mixed" "true or false"
    WORKER_FEATURES "worker.features" "names such as gpu:cuda"
    WORKER_FAMILY "worker.family" "1 to 64 bytes"
    WORKER_MEMORY_MIB "worker.memory_mib" "a number from 1 to 4096"
    WORKER_CACHE_MIB "worker.cache_mib" "a number from 1 to 1048576"
    WORKER_MILLIWATTS "worker.milliwatts" "a number from 0 to 10000000"
    WORKER_NICE "worker.nice" "a number from 0 to 19"
    LOSS "faults.loss" "a fraction from 0 to 1"
    DELAY_MS "faults.delay_ms" "a number from 0 to 600000"
    REORDER "faults.reorder" "a fraction from 0 to 1"
    RESULTS "faults.results" "right, wrong, colluding or copy"
    RECORD "faults.record" "true or false"
    CIRCUITS "faults.circuits" "a fraction from 0 to 1"
}

/// The name of the file that is looked for in the data directory.
pub const FILE_NAME: &str = "fog.toml";
const MAX_FILE: u64 = 1024 * 1024;

/// Which packets a node sends to hide when it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cover {
    /// None.
    None,
    /// Loops to itself, by a Poisson process of their own.
    Loops,
    /// Loops, and a drop packet at every tick of the send clock that carries no message.
    Full,
}

impl Cover {
    /// All of them, with their names.
    pub const ALL: [(Self, &'static str); 3] = [(Self::None, "none"), (Self::Loops, "loops"), (Self::Full, "full")];
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Human,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// All of them, with their names.
    pub const ALL: [(Self, &'static str); 2] = [(Self::Human, "human"), (Self::Json, "json")];
}

/// What is bounded, and by how much. The defaults suit a laptop on a home router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections to peers.
    pub connections: u32,
    /// Connections to one peer.
    pub connections_per_peer: u32,
    /// Resident memory beyond which no connection is taken.
    pub memory_mib: u64,
    /// Mix packets a second from one link.
    pub link_packets_per_second: u32,
    /// Mix packets at once from one link.
    pub link_packet_burst: u32,
    /// Mix packets a second from all links.
    pub packets_per_second: u32,
    /// Packets in the mixing pool.
    pub mixing_pool: usize,
    /// What this node keeps for others as their mailbox.
    pub mailbox_mib: u64,
    /// What it keeps for one of them.
    pub mailbox_slot_mib: u64,
    /// Messages received, read ones included.
    pub inbox_mib: u64,
    /// Relays whose descriptors are kept.
    pub relays: usize,
    /// What leaves of files, those of tasks included, to all peers together; 0 for no limit.
    pub files_up_kib: u64,
    /// What comes of them.
    pub files_down_kib: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            connections_per_peer: 3,
            memory_mib: 512,
            link_packets_per_second: 1_000,
            link_packet_burst: 2_000,
            packets_per_second: 10_000,
            mixing_pool: 8_192,
            mailbox_mib: 64,
            mailbox_slot_mib: 4,
            inbox_mib: 256,
            relays: 10_000,
            files_up_kib: 0,
            files_down_kib: 0,
        }
    }
}

/// Faults that the node injects into its own mix links: for tests. Off unless a file turns them on, and never in LAN mode.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Faults {
    /// The fraction of packets that are lost.
    pub loss: f64,
    /// What each packet waits.
    pub delay: Duration,
    /// The fraction of packets that are overtaken by later ones.
    pub reorder: f64,
    /// Whether what circuits bring is written to a file in the data directory: to show in a test what this node can see.
    pub record: bool,
    /// The fraction of others' circuits that this relay drops.
    pub circuits: f64,
    /// What this worker says that tasks gave.
    pub results: Results,
}

/// Whether a worker lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Results {
    /// It does not.
    #[default]
    Right,
    /// It says something of its own.
    Wrong,
    /// It says what all that collude say.
    Colluding,
    /// It commits to a guess, and shows what the others show.
    Copy,
}

impl Results {
    /// All of them, with their names.
    pub const ALL: [(Self, &'static str); 4] =
        [(Self::Right, "right"), (Self::Wrong, "wrong"), (Self::Colluding, "colluding"), (Self::Copy, "copy")];
}

/// What this node is as a worker.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerConfig {
    /// When and how much.
    pub preferences: Preferences,
    /// Micro-credits for 10⁹ units of fuel.
    pub rate: u64,
    /// Whether it takes tasks of submitters that it cannot know.
    pub accept_mixed: bool,
    /// What it has beside WebAssembly.
    pub features: Vec<String>,
    /// Whose it is.
    pub family: Option<String>,
    /// The most memory of one task.
    pub memory_mib: u64,
    /// Modules and inputs that are kept.
    pub cache_mib: u64,
    /// What a busy processor takes.
    pub milliwatts: u32,
    /// How far behind others task processes stand: 19 is furthest.
    pub nice: u8,
}

impl Faults {
    /// Whether any fault is on.
    pub fn any(&self) -> bool {
        *self != Self::default()
    }
}

/// Everything that is configured.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Keys, store and `node.json`.
    pub data_dir: PathBuf,
    /// The file that was read, if any.
    pub config_file: Option<PathBuf>,
    /// The network file; LAN mode without it.
    pub network: Option<PathBuf>,
    /// Where to listen.
    pub listen: Vec<Multiaddr>,
    /// First contacts, besides those of the network file.
    pub bootstrap: Vec<Multiaddr>,
    /// Whether peers are looked for on the local network by mDNS.
    pub mdns: bool,
    /// How this person is called in chat; `None` for a name that says nothing.
    pub chat_name: Option<String>,
    /// Whether this node's beacon is sent there, and others' are heard.
    pub lan_beacon: bool,
    /// What the node offers once it is reachable.
    pub roles: Roles,
    /// What an exit connects to, as [`ExitPolicy`] reads it; counts if `roles` names the exit.
    pub exit_policy: String,
    /// Whether an exit connects to private addresses, and whether this node asks exits for such: each is in somebody's network.
    pub exit_private: bool,
    /// Where the local API listens; always loopback.
    pub api: SocketAddr,
    /// Where the SOCKS proxy listens; off without it.
    pub socks: Option<SocketAddr>,
    /// Where metrics can be read without a token; off without it.
    pub metrics: Option<SocketAddr>,
    /// Mean packets a second that leave for the application.
    pub send_per_second: f64,
    /// Cover traffic.
    pub cover: Cover,
    /// Mean loop packets a second.
    pub loops_per_second: f64,
    /// Threads that unwrap packets.
    pub mix_workers: usize,
    /// Where idle detection looks for `/sys` and `/proc`.
    pub probe_root: PathBuf,
    /// Whether new keys are sealed with a passphrase.
    pub seal_keys: bool,
    /// A level or directives; `None` for each command's own default.
    pub log_level: Option<String>,
    /// How logs are written.
    pub log_format: LogFormat,
    /// When commands give up; `None` for each command's own default.
    pub timeout: Option<Duration>,
    /// Whether output is JSON.
    pub json: bool,
    /// Bounds.
    pub limits: Limits,
    /// What it is as a worker.
    pub worker: WorkerConfig,
    /// Injected faults.
    pub faults: Faults,
}

impl Config {
    /// From flags, this process's environment, and the file that they name or the data directory has.
    pub fn load(flags: Layers, file: Option<&Path>) -> Result<Self, ConfigError> {
        Self::resolve(flags, file, &|name| std::env::var(name).ok())
    }

    /// As [`Self::load`], with an environment of the caller's.
    pub fn resolve(
        mut layers: Layers,
        file: Option<&Path>,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        layers.variables(KEYS, environment);
        let named =
            file.map(Path::to_owned).or_else(|| environment("FOG_CONFIG").filter(|f| !f.is_empty()).map(PathBuf::from));
        let found = match &named {
            Some(file) => Some((file.clone(), read(file)?)),
            None => default_file(&layers)?,
        };
        if let Some((file, text)) = &found {
            layers.file(KEYS, file, text)?;
        }
        let from_file = matches!(layers.origin(key::DATA_DIR), Some(Origin::File(_)));
        if named.is_none() && from_file {
            return Err(ConfigError::Conflict {
                message: "`data_dir` stands in a fog.toml that was found in the data directory".into(),
                hint: "remove it there, or name the file with --config".into(),
            });
        }
        Self::from_layers(&layers, found.map(|(file, _)| file))
    }

    fn from_layers(layers: &Layers, config_file: Option<PathBuf>) -> Result<Self, ConfigError> {
        let addresses = |key| layers.parse_list(key, |text| text.parse::<Multiaddr>().ok().filter(|a| !a.is_empty()));
        let socket = |key| layers.parse(key, |text| text.parse::<SocketAddr>().ok());
        let truth = |key| layers.parse(key, |text| text.parse::<bool>().ok());
        let cover = layers.parse(key::COVER, |text| by_name(&Cover::ALL, text))?;
        let format = layers.parse(key::LOG_FORMAT, |text| by_name(&LogFormat::ALL, text))?;
        let api =
            layers.parse(key::API, |text| text.parse::<SocketAddr>().ok().filter(|api| api.ip().is_loopback()))?;
        let mdns = !truth(key::NO_MDNS)?.unwrap_or(false);
        let workers = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Ok(Self {
            data_dir: data_dir(layers)?,
            config_file,
            network: layers.path(key::NETWORK)?,
            listen: addresses(key::LISTEN)?.unwrap_or_else(default_listen),
            bootstrap: addresses(key::BOOTSTRAP)?.unwrap_or_default(),
            chat_name: layers.parse(key::NAME, chat_name)?,
            mdns,
            lan_beacon: truth(key::LAN_BEACON)?.unwrap_or(mdns),
            roles: layers.parse(key::ROLES, |text| text.parse().ok())?.unwrap_or_else(default_roles),
            exit_policy: layers.parse(key::EXIT_POLICY, exit_policy)?.unwrap_or_default(),
            exit_private: truth(key::EXIT_PRIVATE)?.unwrap_or(false),
            api: api.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0))),
            socks: socket(key::SOCKS)?,
            metrics: socket(key::METRICS)?,
            send_per_second: number(layers, key::SEND_PER_SECOND, 0.1..=10_000.0, 50.0)?,
            cover: cover.unwrap_or(Cover::Loops),
            loops_per_second: number(layers, key::LOOPS_PER_SECOND, 0.001..=1_000.0, 0.2)?,
            mix_workers: number(layers, key::MIX_WORKERS, 1..=256, workers())?,
            probe_root: layers.path(key::PROBE_ROOT)?.unwrap_or_else(|| PathBuf::from("/")),
            seal_keys: truth(key::SEAL_KEYS)?.unwrap_or(false),
            log_level: layers.parse(key::LOG_LEVEL, log_level)?,
            log_format: format.unwrap_or(LogFormat::Human),
            timeout: layers.parse(key::TIMEOUT, |text| within(text, 1..=86_400).map(Duration::from_secs))?,
            json: truth(key::JSON)?.unwrap_or(false),
            limits: limits(layers)?,
            worker: worker(layers)?,
            faults: faults(layers)?,
        })
    }

    /// The network that the configured file describes, or LAN mode's.
    pub fn read_network(&self) -> Result<Network, ConfigError> {
        let Some(file) = &self.network else {
            return Ok(Network::lan());
        };
        Network::from_file(&read(file)?)
            .map_err(|error| ConfigError::File { file: file.clone(), reason: error.to_string() })
    }

    /// Refuses faults outside a network of one's own: they would hurt strangers.
    pub fn check_faults(&self, network: &Network) -> Result<(), ConfigError> {
        if self.faults.any() && network.is_lan() {
            return Err(ConfigError::Conflict {
                message: "`[faults]` injects faults for tests and is refused in LAN mode".into(),
                hint: "remove it, or name a network of your own with --network".into(),
            });
        }
        Ok(())
    }
}

/// `FOG_…` variables that no key has: most likely misspelt.
pub fn unknown_variables(names: impl Iterator<Item = String>) -> Vec<String> {
    let others = ["FOG_CONFIG", crate::keys::PASSPHRASE_VARIABLE, fog_x25519::Backend::VARIABLE];
    let known =
        |name: &str| others.contains(&name) || KEYS.iter().any(|key| !key.name.contains('.') && key.variable() == name);
    names.filter(|name| name.starts_with("FOG_") && !known(name)).collect()
}

/// The platform's data folder for this program.
pub fn default_data_dir() -> Option<PathBuf> {
    directories::ProjectDirs::from("", "", "fog").map(|dirs| dirs.data_dir().to_owned())
}

/// Rules, as they are published.
fn exit_policy(text: &str) -> Option<String> {
    ExitPolicy::parse(text).is_ok().then(|| text.to_owned())
}

/// A name as others will see it.
fn chat_name(text: &str) -> Option<String> {
    (fog_chat::core::engine::clean_name(text) == text).then(|| text.to_owned())
}

fn data_dir(layers: &Layers) -> Result<PathBuf, ConfigError> {
    let dir = layers.path(key::DATA_DIR)?.or_else(default_data_dir).ok_or_else(|| ConfigError::Conflict {
        message: "this system has no home directory to keep data in".into(),
        hint: "name a directory with --data-dir".into(),
    })?;
    // Absolute, so that messages name it whole and a later change of directory does not move it.
    std::path::absolute(&dir).map_err(|error| ConfigError::File { file: dir, reason: error.to_string() })
}

fn default_file(layers: &Layers) -> Result<Option<(PathBuf, String)>, ConfigError> {
    let file = data_dir(layers)?.join(FILE_NAME);
    match file.try_exists() {
        Ok(false) => Ok(None),
        _ => read(&file).map(|text| Some((file, text))),
    }
}

fn read(file: &Path) -> Result<String, ConfigError> {
    let failed = |reason: String| ConfigError::File { file: file.to_owned(), reason };
    let size = file.metadata().map_err(|error| failed(io_reason(&error)))?.len();
    if size > MAX_FILE {
        return Err(failed("larger than 1 MiB".into()));
    }
    fs::read_to_string(file).map_err(|error| failed(io_reason(&error)))
}

fn io_reason(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::NotFound { "there is no such file".into() } else { error.to_string() }
}

fn default_listen() -> Vec<Multiaddr> {
    let all = ["/ip4/0.0.0.0/tcp/0", "/ip4/0.0.0.0/udp/0/quic-v1", "/ip6/::/tcp/0", "/ip6/::/udp/0/quic-v1"];
    all.iter().filter_map(|text| text.parse().ok()).collect()
}

fn default_roles() -> Roles {
    use fog_base::relay::Role::{Directory, Guard, Mailbox, Mix, Worker};
    [Mix, Guard, Mailbox, Directory, Worker].into_iter().fold(Roles::NONE, Roles::with)
}

fn by_name<T: Copy>(all: &[(T, &str)], text: &str) -> Option<T> {
    all.iter().find(|(_, name)| *name == text).map(|(value, _)| *value)
}

fn within<T: FromStr + PartialOrd>(text: &str, range: RangeInclusive<T>) -> Option<T> {
    text.parse().ok().filter(|number| range.contains(number))
}

fn number<T>(layers: &Layers, key: Key, range: RangeInclusive<T>, default: T) -> Result<T, ConfigError>
where
    T: FromStr + PartialOrd,
{
    Ok(layers.parse(key, |text| within(text, range))?.unwrap_or(default))
}

fn log_level(text: &str) -> Option<String> {
    // A bare word that is no level would be taken for the name of a crate.
    let is_level = ["off", "error", "warn", "info", "debug", "trace"].contains(&text);
    let is_filter = is_level || (text.contains('=') && tracing_subscriber::EnvFilter::try_new(text).is_ok());
    is_filter.then(|| text.to_owned())
}

fn worker(layers: &Layers) -> Result<WorkerConfig, ConfigError> {
    let mut given = serde_json::Map::new();
    for key in KEYS {
        let Some(name) = key.name.strip_prefix("worker.") else { continue };
        // Those that are not preferences are read below.
        let Some(value) = layers.parse(*key, |text| preference(name, text))?.flatten() else { continue };
        given.insert(name.to_owned(), value);
    }
    let preferences = serde_json::from_value(given.into()).map_err(|error| ConfigError::Conflict {
        message: format!("`[worker]` cannot be followed: {error}"),
        hint: "fog.example.toml shows every key".into(),
    })?;
    let is_name = |text: &str| (1..=64).contains(&text.len()) && !text.chars().any(char::is_control);
    let mut features = layers
        .parse_list(key::WORKER_FEATURES, |text| fog_tasks::core::terms::is_feature(text).then(|| text.to_owned()))?;
    if let Some(features) = &mut features {
        features.sort();
        features.dedup();
    }
    Ok(WorkerConfig {
        preferences,
        rate: number(layers, key::WORKER_RATE, 0..=1_000_000_000_000, 1_000)?,
        accept_mixed: layers.parse(key::WORKER_ACCEPT_MIXED, |text| text.parse().ok())?.unwrap_or(true),
        features: features.unwrap_or_default(),
        family: layers.parse(key::WORKER_FAMILY, |text| is_name(text).then(|| text.to_owned()))?,
        memory_mib: number(layers, key::WORKER_MEMORY_MIB, 1..=4096, 1024)?,
        cache_mib: number(layers, key::WORKER_CACHE_MIB, 1..=1024 * 1024, 256)?,
        milliwatts: number(layers, key::WORKER_MILLIWATTS, 0..=10_000_000, 0)?,
        nice: number(layers, key::WORKER_NICE, 0..=19, 19)?,
    })
}

/// The value of a preference; nothing for a key of `[worker]` that is none, an error if no preference takes it.
fn preference(name: &str, text: &str) -> Option<Option<serde_json::Value>> {
    let known = serde_json::to_value(Preferences::default()).ok()?;
    if known.get(name).is_none() && !name.ends_with("day") {
        return Some(None);
    }
    let value: serde_json::Value = serde_json::from_str(text).unwrap_or_else(|_| text.into());
    let alone = serde_json::Map::from_iter([(name.to_owned(), value.clone())]);
    let preferences: Preferences = serde_json::from_value(alone.into()).ok()?;
    preferences.check().ok()?;
    Some(Some(value))
}

fn limits(layers: &Layers) -> Result<Limits, ConfigError> {
    const LARGEST_MIB: u64 = 1024 * 1024;
    let default = Limits::default();
    Ok(Limits {
        connections: number(layers, key::CONNECTIONS, 1..=10_000, default.connections)?,
        connections_per_peer: number(layers, key::CONNECTIONS_PER_PEER, 1..=16, default.connections_per_peer)?,
        memory_mib: number(layers, key::MEMORY_MIB, 64..=LARGEST_MIB, default.memory_mib)?,
        link_packets_per_second: number(layers, key::LINK_PACKETS, 1..=10_000_000, default.link_packets_per_second)?,
        link_packet_burst: number(layers, key::LINK_BURST, 1..=10_000_000, default.link_packet_burst)?,
        packets_per_second: number(layers, key::PACKETS, 1..=10_000_000, default.packets_per_second)?,
        mixing_pool: number(layers, key::MIXING_POOL, 64..=1_000_000, default.mixing_pool)?,
        mailbox_mib: number(layers, key::MAILBOX_MIB, 1..=LARGEST_MIB, default.mailbox_mib)?,
        mailbox_slot_mib: number(layers, key::MAILBOX_SLOT_MIB, 1..=LARGEST_MIB, default.mailbox_slot_mib)?,
        inbox_mib: number(layers, key::INBOX_MIB, 2..=LARGEST_MIB, default.inbox_mib)?,
        relays: number(layers, key::RELAYS, 1..=1_000_000, default.relays)?,
        files_up_kib: number(layers, key::FILES_UP_KIB, 0..=10_000_000, default.files_up_kib)?,
        files_down_kib: number(layers, key::FILES_DOWN_KIB, 0..=10_000_000, default.files_down_kib)?,
    })
}

fn faults(layers: &Layers) -> Result<Faults, ConfigError> {
    Ok(Faults {
        loss: number(layers, key::LOSS, 0.0..=1.0, 0.0)?,
        delay: Duration::from_millis(number(layers, key::DELAY_MS, 0..=600_000, 0)?),
        reorder: number(layers, key::REORDER, 0.0..=1.0, 0.0)?,
        results: layers.parse(key::RESULTS, |text| by_name(&Results::ALL, text))?.unwrap_or_default(),
        record: layers.parse(key::RECORD, |text| text.parse().ok())?.unwrap_or(false),
        circuits: number(layers, key::CIRCUITS, 0.0..=1.0, 0.0)?,
    })
}

#[cfg(test)]
mod tests;
