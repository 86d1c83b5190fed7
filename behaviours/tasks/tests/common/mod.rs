//! What the tests of the sandbox share: works, modules in text, and a log that goes nowhere.

#![allow(dead_code, unreachable_pub)]

use std::{sync::Arc, time::Duration};

use fog_tasks::{
    Content, Input, Limits, Work,
    sandbox::{Bytes, Job, Log},
};

/// A module of `tests/modules`.
macro_rules! program {
    ($name:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/modules/", $name, ".wasm")).to_vec()
    };
}
pub(crate) use program;

pub fn quiet() -> Log {
    Arc::new(|_, _| ())
}

pub fn job(module: Vec<u8>) -> Job {
    let work = Work {
        version: 1,
        module: Content::of(&module),
        args: Vec::new(),
        env: Vec::new(),
        stdin: None,
        inputs: Vec::new(),
        limits: Limits { fuel: 100_000_000, memory_bytes: 64 << 20, output_bytes: 1 << 20 },
        seed: [7; 32],
    };
    Job { work, module: Arc::new(module), stdin: Bytes::default(), inputs: Vec::new(), wall: Duration::from_secs(60) }
}

pub fn with_args(mut job: Job, args: &[&str]) -> Job {
    job.work.args = args.iter().map(|arg| (*arg).to_owned()).collect();
    job
}

pub fn with_inputs(mut job: Job, inputs: &[(&str, &[u8])]) -> Job {
    let named = |(name, bytes): &(&str, &[u8])| Input { name: (*name).to_owned(), content: Content::of(bytes) };
    job.work.inputs = inputs.iter().map(named).collect();
    job.inputs = inputs.iter().map(|(name, bytes)| ((*name).to_owned(), Arc::new(bytes.to_vec()))).collect();
    job
}

pub fn with_stdin(mut job: Job, bytes: &[u8]) -> Job {
    job.work.stdin = Some(Content::of(bytes));
    job.stdin = Arc::new(bytes.to_vec());
    job
}

/// A command whose `_start` is `body`, with `more` beside it.
pub fn command(more: &str, body: &str) -> Vec<u8> {
    wat::parse_str(format!(r#"(module {more} (memory (export "memory") 1) (func (export "_start") {body}))"#)).unwrap()
}

/// A command that does nothing.
pub fn nothing() -> Vec<u8> {
    command("", "")
}

/// The import of a function of WASI.
pub fn import(name: &str, parameters: &str) -> String {
    let result = if name == "proc_exit" { "" } else { "(result i32)" };
    format!(r#"(import "wasi_snapshot_preview1" "{name}" (func ${name} (param {parameters}) {result}))"#)
}
