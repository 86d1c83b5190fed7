//! Watches the host on a thread of its own: its user's hands forty times a second, everything else once. What must happen at once when the
//! user is back, the freezing of task processes, happens here; the rest is told to the driver.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use fog_tasks::{
    core::harvest::{Action, OwnLoad, Policy, Preferences, Status},
    host::{Host, OwnProcesses},
    sandbox::Pool,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::driver::Input;
use crate::node::clock;

/// How often the user's hands are looked at.
const HANDS: Duration = Duration::from_millis(25);
/// Looks at them between two samples of everything.
const LOOKS: u32 = 40;

struct Watched {
    policy: Policy,
    host: Host,
    node: OwnProcesses,
    /// The processor time of the task processes at the last sample.
    used: Option<(Duration, Instant)>,
}

/// The host, and what follows from how it is.
pub(super) struct Harvest {
    watched: Mutex<Watched>,
    pool: Arc<Pool>,
    inputs: mpsc::Sender<Input>,
}

impl std::fmt::Debug for Harvest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Harvest").finish_non_exhaustive()
    }
}

impl Harvest {
    /// Looks at the host below `root` from now on, until `shutdown`.
    pub(super) fn start(
        preferences: Preferences,
        (root, disk): (&Path, &Path),
        pool: Arc<Pool>,
        inputs: mpsc::Sender<Input>,
        shutdown: CancellationToken,
    ) -> std::io::Result<Arc<Self>> {
        let watched = Watched {
            policy: Policy::new(preferences),
            host: Host::new(root, disk, clock::now()),
            node: OwnProcesses::new(Path::new("/")),
            used: None,
        };
        let harvest = Arc::new(Self { watched: Mutex::new(watched), pool, inputs });
        let watching = Arc::clone(&harvest);
        thread::Builder::new().name("host".into()).spawn(move || {
            for look in (0..LOOKS).cycle() {
                if shutdown.is_cancelled() || !watching.look(look == 0) {
                    return;
                }
                thread::sleep(HANDS);
            }
        })?;
        Ok(harvest)
    }

    /// The user's own wish: no work here, or again.
    pub(super) fn pause(&self, paused: bool) {
        let mut watched = self.lock();
        let now = clock::now();
        let actions = if paused { watched.policy.pause(now) } else { watched.policy.resume(now) };
        self.act(actions, &watched);
    }

    /// Whether task processes are without a filter of system calls.
    pub(super) fn is_unsealed(&self) -> bool {
        self.pool.is_unsealed()
    }

    /// What is known of the host.
    pub(super) fn status(&self) -> Status {
        self.lock().policy.status()
    }

    /// False when nobody listens any more.
    fn look(&self, at_everything: bool) -> bool {
        let mut watched = self.lock();
        let now = clock::now();
        let actions = if at_everything {
            let own = own_load(&mut watched, &self.pool);
            let signals = watched.host.sample(now);
            watched.policy.handle_signals(signals, own, now)
        } else {
            let input = watched.host.input(now);
            watched.policy.handle_input(input, now)
        };
        self.act(actions, &watched);
        !self.inputs.is_closed()
    }

    /// The lock is held, so that what is done is done in the order in which it was decided.
    fn act(&self, actions: Vec<Action>, _: &Watched) {
        for action in actions {
            match action {
                Action::Freeze => self.pool.freeze(),
                Action::Thaw => self.pool.thaw(),
                Action::Kill => {
                    self.pool.kill_all();
                    self.pool.thaw();
                }
                // Those that are to end get the processor for it.
                Action::Vacate => self.pool.thaw(),
                Action::Slots(slots) => self.pool.set_slots(usize::try_from(slots).unwrap_or(usize::MAX)),
            }
            // A driver that is behind gets it later; it takes from this queue whatever happens.
            let _stopped = self.inputs.blocking_send(Input::Harvest(action));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the node and its task processes used since the last sample.
fn own_load(watched: &mut Watched, pool: &Pool) -> OwnLoad {
    let now = clock::now();
    let node = watched.node.sample(std::process::id(), &[], now);
    let tasks = pool.usage();
    let before = watched.used.replace((tasks.cpu, now.mono));
    let cpus = before.map_or(0.0, |(cpu, at)| {
        let seconds = now.mono.saturating_duration_since(at).as_secs_f64();
        if seconds > 0.0 { tasks.cpu.saturating_sub(cpu).as_secs_f64() / seconds } else { 0.0 }
    });
    OwnLoad { cpus: node.cpus + cpus, resident: tasks.resident_bytes }
}
