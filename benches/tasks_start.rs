//! What a worker adds to a task: start and run of a command that does nothing, beside wasmtime's own instantiate-and-call with fuel, by
//! either of its allocators; and such runs through a task process, by the second.

#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_methods)]

mod harness;

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use fog_tasks::{
    Content, Limits, Work,
    sandbox::{Bytes, Job, Pool, PoolConfig, PoolEvent, RunId, Runner, serve},
};
use harness::{Harness, Side, Target};
use wasmtime::{Config, Engine, Instance, InstanceAllocationStrategy, Linker, Module, PoolingAllocationConfig, Store};

/// `(module (memory (export "memory") 1) (func (export "_start")))`
const NOTHING: &[u8] = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x05\x03\x01\0\x01\x07\x13\x02\x06memory\x02\0\x06_start\0\0\x0a\x04\x01\x02\0\x0b";
const RUNS: u64 = 20_000;

fn job() -> Job {
    let work = Work {
        version: 1,
        module: Content::of(NOTHING),
        args: Vec::new(),
        env: Vec::new(),
        stdin: None,
        inputs: Vec::new(),
        limits: Limits::default(),
        seed: [0; 32],
    };
    let (module, stdin) = (Arc::new(NOTHING.to_vec()), Bytes::default());
    Job { work, module, stdin, inputs: Vec::new(), wall: Duration::from_secs(10) }
}

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("task-process") {
        return serve(std::io::stdin(), std::io::stdout());
    }
    let mut harness = Harness::from_env();
    let rivals = [
        ("task_start", "wasmtime as it comes, with fuel", InstanceAllocationStrategy::OnDemand),
        ("task_start_pooled", "wasmtime, pooling allocator, with fuel", pooling()),
    ];
    for (name, rival, strategy) in rivals {
        if harness.wants(name) {
            harness.compare_us(name, ours(), Some((rival, wasmtime_alone(strategy))), Some(2.0));
        }
    }
    if harness.wants("task_process_runs") {
        let mut rates: Vec<f64> = (0..5).map(|_| through_a_process()).collect();
        harness.medians("task_process_runs", &mut rates, None, "runs/s", Some(Target::AtLeast(10_000.0)));
    }
    harness.finish();
    ExitCode::SUCCESS
}

fn ours() -> Side<'static> {
    let job = job();
    let mut runner = Runner::new().unwrap();
    let log: fog_tasks::sandbox::Log = Arc::new(|_, _| ());
    Side::new(1, move || drop(runner.run(&job, Arc::clone(&log))))
}

/// One slot, and what a small module touches stays mapped.
fn pooling() -> InstanceAllocationStrategy {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_core_instances(1).total_memories(1).total_tables(1).max_unused_warm_slots(1);
    pool.linear_memory_keep_resident(64 * 1024).table_keep_resident(64 * 1024);
    InstanceAllocationStrategy::Pooling(pool)
}

/// wasmtime as it comes, but for the fuel and where it takes its memory from.
fn wasmtime_alone(strategy: InstanceAllocationStrategy) -> Side<'static> {
    let engine = Engine::new(Config::new().consume_fuel(true).allocation_strategy(strategy)).unwrap();
    let module = Module::new(&engine, NOTHING).unwrap();
    let start = Linker::<()>::new(&engine).instantiate_pre(&module).unwrap();
    Side::new(1, move || {
        let mut store = Store::new(&engine, ());
        store.set_fuel(1_000_000).unwrap();
        let instance: Instance = start.instantiate(&mut store).unwrap();
        instance.get_typed_func::<(), ()>(&mut store, "_start").unwrap().call(&mut store, ()).unwrap();
    })
}

fn through_a_process() -> f64 {
    let command = vec![std::env::current_exe().unwrap().into_os_string(), "task-process".into()];
    let done = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&done);
    let pool = Pool::new(PoolConfig { nice: 0, ..PoolConfig::new(command, 1) }, move |event| {
        if matches!(event, PoolEvent::Done { .. }) {
            count.fetch_add(1, Ordering::SeqCst);
        }
    })
    .unwrap();
    let job = job();
    let mut begun = Instant::now();
    for id in 0..RUNS {
        while pool.start(RunId(id), job.clone()).is_err() {
            std::thread::yield_now();
        }
        if id == 100 {
            begun = Instant::now();
        }
    }
    while done.load(Ordering::SeqCst) < RUNS {
        std::thread::yield_now();
    }
    (RUNS - 100) as f64 / begun.elapsed().as_secs_f64()
}
