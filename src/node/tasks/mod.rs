//! Fog compute in this node: a thread that drives the cores of fog-tasks, a pool of task processes, the host that is watched, and the desk where
//! people and programs ask. The event loop only carries: offers by gossip, files by fog-blobs, verdicts to reputation.
//!
//! | file | what it is |
//! |---|---|
//! | `driver.rs`, `driver/deeds.rs`, `driver/trouble.rs`, `runs.rs`, `staging.rs`, `contents.rs` | the thread; what follows and when; a store that takes nothing; runs of the pool; bytes of modules, inputs and outputs |
//! | `harvest.rs`, `offering.rs` | the host; what it offers |
//! | `mixed.rs` | what goes through the mixnet |
//! | `desk.rs`, `spec.rs`, `placing.rs`, `logs.rs` | what can be asked; what a user describes; many tasks at once; what tasks write |
//! | `view.rs`, `report.rs` | what is told |
//! | `lies.rs` | what a worker says that a test makes a liar |
//! | `wants.rs` | the event loop's part |

mod contents;
mod desk;
mod driver;
mod harvest;
mod lies;
mod logs;
mod mixed;
mod offering;
mod placing;
pub mod report;
mod runs;
pub mod spec;
mod staging;
mod view;
mod wants;

use std::{path::Path, sync::Arc};

use anyhow::Context as _;
use fog_base::{DropCounters, Network, relay::Role};
use fog_tasks::{
    Arrived, Streams,
    sandbox::{Pool, PoolConfig},
};
use futures::channel::mpsc as frames;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use self::desk::Desk;
pub(super) use self::wants::Wants;
use self::{
    contents::Contents,
    desk::Counts,
    driver::{Driver, Ground, INPUTS, Input, Parts},
    harvest::Harvest,
    lies::Lies,
    mixed::Mixed,
    offering::Capacity,
};
use super::clock;
use crate::{
    config::Config,
    keys::Keys,
    store::{Store, Writer},
};

/// What waits for the event loop.
const WANTS: usize = 1_024;
/// The command whose body is [`fog_tasks::sandbox::serve`].
pub const PROCESS: &str = "task-process";
const MIB: u64 = 1024 * 1024;
/// What a task process needs beside the memory of a task: the compiler, the module, inputs and outputs.
const AROUND: u64 = 768 * MIB;

/// Starts everything; it ends with `shutdown`.
pub(super) fn start(
    config: &Config,
    keys: &Keys,
    network: &Network,
    (store, writer): (&Arc<dyn Store>, &Writer),
    (streams, arrived): (Streams, frames::Receiver<Arrived>),
    shutdown: &CancellationToken,
) -> anyhow::Result<(Arc<Desk>, Wants)> {
    let (inputs, queue) = mpsc::channel(INPUTS);
    let (wants, wanted) = mpsc::channel(WANTS);
    let now = clock::now();
    let folder = config.data_dir.join("tasks");
    let contents =
        Contents::open(config.worker.cache_mib * MIB, folder).context("the folder of tasks cannot be made")?;
    let key = Arc::new(keys.identity().clone());
    let ground = Ground { me: keys.node_id(), key, network: network.id, store: Arc::clone(store) };
    let (coordinator, worker) = ground.cores(now)?;
    let is_worker = config.roles.has(Role::Worker);
    let pool = Arc::new(pool(config, is_worker, inputs.clone()).context("task processes cannot be started")?);
    let (drops, counts) = (Arc::new(DropCounters::default()), Arc::new(Counts::default()));
    let (relays, followed) = tokio::sync::watch::channel(Default::default());
    let driver = Driver::new(Parts {
        me: keys.node_id(),
        coordinator,
        worker,
        contents: contents.clone(),
        capacity: Capacity::new(config.worker.clone()),
        pool: Arc::clone(&pool),
        lies: Lies::new(config.faults.results),
        streams,
        wants: wants.clone(),
        inputs: inputs.clone(),
        writer: writer.clone(),
        ground,
        drops: Arc::clone(&drops),
        counts: Arc::clone(&counts),
        mixed: Mixed::new(network.id, followed),
    });
    let root = config.probe_root.as_path();
    // What cannot be read says nothing against working: a wrong path would switch all probes off.
    anyhow::ensure!(
        root == Path::new("/") || root.join("proc").is_dir(),
        "probe_root `{}` has no `proc`: it stands for the directory that has `sys` and `proc`",
        root.display()
    );
    let harvest = is_worker
        .then(|| {
            let preferences = config.worker.preferences.clone();
            let places = (root, config.data_dir.as_path());
            Harvest::start(preferences, places, pool, inputs.clone(), shutdown.clone())
        })
        .transpose()
        .context("the host cannot be watched")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let stop = shutdown.clone();
    std::thread::Builder::new()
        .name("tasks".into())
        .spawn(move || {
            runtime.block_on(tokio::task::LocalSet::new().run_until(driver.run(queue, arrived, stop)));
        })
        .context("the thread of tasks cannot be started")?;
    let (store, sharing) = (Arc::clone(store), Default::default());
    let desk = Desk { inputs, wants, contents, store, drops, counts, harvest, relays, sharing };
    Ok((Arc::new(desk), Wants::new(wanted)))
}

/// The task processes: this program again, which runs nothing but modules then.
fn pool(config: &Config, is_worker: bool, inputs: mpsc::Sender<Input>) -> anyhow::Result<Pool> {
    let program = std::env::current_exe().context("this program does not know where it is")?;
    let mut settings = PoolConfig::new(vec![program.into(), PROCESS.into()], 0);
    settings.memory_bytes = config.worker.memory_mib * MIB + AROUND;
    settings.nice = config.worker.nice;
    if !is_worker {
        settings.slots = 0;
    }
    // A pool's threads may wait: a process whose events are not taken is not read from.
    Ok(Pool::new(settings, move |event| drop(inputs.blocking_send(Input::Pool(event))))?)
}
