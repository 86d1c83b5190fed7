//! A pool whose processes are this program, and its events, one after the other.

use std::{
    collections::HashMap,
    io::{Read, Write},
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, sync_channel},
    },
    time::{Duration, Instant},
};

use fog_tasks::{
    Outcome,
    sandbox::{Busy, Job, Pool, PoolConfig, PoolEvent, RunId, serve},
};

use crate::common::{job, nothing};

/// What a test waits for at most.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What this program does as a process of a pool.
pub(crate) fn play(role: &str) -> Option<ExitCode> {
    match role {
        "task-process" => return Some(serve(std::io::stdin(), std::io::stdout())),
        // One that looks around as often as it reads, and fails if it gets anywhere.
        "curious" => return Some(serve(Curious(std::io::stdin()), std::io::stdout())),
        // One whose system has no filter, and that never answers.
        "unsealed" => {
            std::io::stdout().write_all(&[21, 1, 0, 0, 0, 0]).ok();
            std::io::stdout().flush().ok();
            std::io::stdin().read_to_end(&mut Vec::new()).ok();
        }
        // One that never answers.
        "silent" => drop(std::io::stdin().read_to_end(&mut Vec::new())),
        // One that answers what nobody asked, when it is asked something.
        "garbage" => {
            std::io::stdout().write_all(&[21, 1, 0, 0, 0, 1]).ok();
            std::io::stdin().read_exact(&mut [0; 100]).ok();
            std::io::stdout().write_all(&[20; 1000]).ok();
            std::io::stdout().flush().ok();
            std::io::stdin().read_to_end(&mut Vec::new()).ok();
        }
        // One that has a run, and tells the number of its process.
        "parent" => {
            let pool = Tested::new(config("task-process", 1));
            pool.pool.start(RunId(1), endless(PATIENCE)).unwrap();
            pool.next(PATIENCE);
            println!("{}", pool.processes()[0]);
            // Until it is killed.
            loop {
                std::thread::park();
            }
        }
        _ => return None,
    }
    Some(ExitCode::SUCCESS)
}

struct Curious(std::io::Stdin);

impl Read for Curious {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let read = self.0.read(into)?;
        // The setup comes first, and alone; after it the process is sealed before it reads on.
        if TIMES.fetch_add(1, Ordering::Relaxed) > 0 {
            let tried: [(&str, Option<std::io::Error>); 6] = [
                ("open", std::fs::File::open("/proc/self/status").err()),
                ("create", std::fs::File::create("/tmp/fog-task-was-here").err()),
                ("list", std::fs::read_dir("/").err()),
                ("connect", std::net::TcpStream::connect("127.0.0.1:1").err()),
                ("bind", std::net::UdpSocket::bind("127.0.0.1:0").err()),
                ("start", std::process::Command::new("/bin/true").spawn().err()),
            ];
            for (what, error) in tried {
                let is_refused = error.is_some_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied);
                assert!(is_refused, "it may {what}");
            }
        }
        Ok(read)
    }
}

static TIMES: AtomicUsize = AtomicUsize::new(0);

pub(crate) fn config(role: &str, slots: usize) -> PoolConfig {
    let program = std::env::current_exe().unwrap();
    // Nobody else's work makes a test slow.
    PoolConfig { nice: 0, ..PoolConfig::new(vec![program.into_os_string(), role.into()], slots) }
}

/// A run that does not end by itself.
pub(crate) fn endless(wall: Duration) -> Job {
    let mut job = job(crate::common::command("", "(loop br 0)"));
    (job.work.limits.fuel, job.wall) = (u64::MAX, wall);
    job
}

pub(crate) struct Tested {
    pub(crate) pool: Pool,
    events: Mutex<Receiver<PoolEvent>>,
}

impl Tested {
    pub(crate) fn new(config: PoolConfig) -> Self {
        let (to, events) = sync_channel(100_000);
        // A test that is over hears nothing.
        let pool = Pool::new(config, move |event| drop(to.send(event))).unwrap();
        Self { pool, events: Mutex::new(events) }
    }

    pub(crate) fn next(&self, wait: Duration) -> Option<PoolEvent> {
        self.events.lock().unwrap().recv_timeout(wait).ok()
    }

    /// Starts a run as soon as there is room.
    pub(crate) fn start(&self, id: u64, job: &Job) {
        let begun = Instant::now();
        while let Err(busy) = self.pool.start(RunId(id), job.clone()) {
            assert_eq!(busy, Busy::Full);
            assert!(begun.elapsed() < PATIENCE, "no room for {id}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The outcomes of as many runs; each is done once.
    pub(crate) fn outcomes(&self, runs: usize) -> HashMap<u64, Outcome> {
        let mut done = HashMap::new();
        while done.len() < runs {
            match self.next(PATIENCE) {
                Some(PoolEvent::Done { run, outcome }) => {
                    assert!(done.insert(run.0, outcome).is_none(), "{run:?} twice")
                }
                Some(_) => {}
                None => panic!("only {} of {runs} runs are done", done.len()),
            }
        }
        done
    }

    /// Runs one job to its end.
    pub(crate) fn run(&self, job: &Job) -> Outcome {
        self.start(u64::MAX, job);
        self.outcomes(1).remove(&u64::MAX).unwrap()
    }

    pub(crate) fn still_serves(&self) {
        assert_eq!(self.run(&job(nothing())).ending, fog_tasks::Ending::Exit(0));
    }

    /// The processes that this program has as children.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            let fields = stat(pid);
            let parent = fields.get(1).and_then(|field| field.parse::<u32>().ok());
            if parent == Some(std::process::id()) && fields.first().is_some_and(|state| state != "Z") {
                found.push(pid);
            }
        }
        found
    }
}

impl Drop for Tested {
    /// The next test sees only its own processes.
    fn drop(&mut self) {
        self.pool.set_slots(0);
        self.pool.kill_all();
        if std::thread::panicking() {
            return;
        }
        until("all processes are gone", || self.pool.usage().processes == 0);
    }
}

/// The fields of `/proc/<pid>/stat` from the state on; none if there is no such process.
pub(crate) fn stat(pid: u32) -> Vec<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    fields.split_whitespace().map(str::to_owned).collect()
}

pub(crate) fn signal(pid: u32, signal: &str) {
    let sent = std::process::Command::new("kill").args([signal, &pid.to_string()]).status().unwrap();
    assert!(sent.success());
}

/// Waits until it is so.
pub(crate) fn until(what: &str, is: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
