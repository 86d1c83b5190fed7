//! Tasks through a node's local API, the modules that are run, and what they must give, computed here.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{Client, Error};

const SOON: Duration = Duration::from_secs(30);

/// Tiles of the Mandelbrot set: `x y width pixels limit`. Its source is beside it.
pub const MANDELBROT: &[u8] = include_bytes!("../../behaviours/tasks/tests/modules/mandelbrot.wasm");
/// Primes from a number up to another: `from to`. Its source is beside it.
pub const PRIMES: &[u8] = include_bytes!("../../behaviours/tasks/tests/modules/primes.wasm");

/// A task.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Task {
    /// 32 hex digits.
    pub id: String,
    /// `offered` to `done`, `failed` or `cancelled`.
    pub state: String,
    /// The module's exit code.
    pub exit: Option<u32>,
    /// What it printed.
    pub stdout: Option<String>,
    /// Who ran it.
    pub replicas: Vec<Replica>,
    /// Why its result is believed.
    pub verdict: Option<String>,
    /// How sure that is.
    pub credibility: Option<f64>,
    /// From submission until a worker agreed.
    pub placed_ms: Option<f64>,
    /// From submission to the end.
    pub total_ms: Option<f64>,
    /// Micro-credits.
    pub price: u64,
    /// Of one run.
    pub fuel: Option<u64>,
    /// Why it is not done.
    pub reason: Option<String>,
}

/// One execution.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Replica {
    /// Who.
    pub worker: String,
    /// Where it is.
    pub state: String,
    /// What it was paid.
    pub price: u64,
}

/// A node as a worker.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Worker {
    /// Whether it works.
    pub eligible: bool,
    /// Why not.
    pub reasons: Vec<String>,
    /// `eligible`, `suspended`, `vacating` or `stopped`.
    pub state: String,
    /// How many tasks may run.
    pub slots: u32,
    /// How many do.
    pub running: usize,
    /// Micro-credits that others promised it.
    pub earned: u64,
    /// Micro-credits that it promised to others.
    pub spent: u64,
}

#[derive(Deserialize)]
struct Look {
    workers: Vec<Known>,
}

/// What a node knows of a worker.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Known {
    /// Who.
    pub worker: String,
    /// Executions that it has.
    pub busy: usize,
    /// Whether it is left alone, as it failed.
    pub shunned: bool,
    /// How likely its next result is right.
    pub credibility: f64,
}

impl Client {
    /// Submits a task; its id. `more` has the fields of the API beside module and arguments.
    pub fn task_submit(&self, module: &Path, args: &[&str], more: &Value) -> Result<String, Error> {
        let mut body = json!({ "module": module.display().to_string(), "args": args });
        if let (Some(body), Some(more)) = (body.as_object_mut(), more.as_object()) {
            body.extend(more.clone());
        }
        let submitted: Vec<Value> = self.post("/v1/tasks", &body, SOON)?;
        let id = submitted.first().and_then(|one| one.get("id")).and_then(Value::as_str);
        id.map(str::to_owned).ok_or_else(|| self.refused("POST /v1/tasks", "no id".into()))
    }

    /// Submits many, placed together; their ids.
    pub fn task_batch(&self, tasks: &[Value]) -> Result<(Vec<String>, Value), Error> {
        let placed: Vec<Value> = self.post("/v1/tasks/batch", &json!({ "tasks": tasks }), SOON)?;
        let placed = placed.into_iter().next().unwrap_or_default();
        let ids = placed.get("ids").and_then(Value::as_array).cloned().unwrap_or_default();
        Ok((ids.iter().filter_map(Value::as_str).map(str::to_owned).collect(), placed))
    }

    /// The task, when it has ended.
    pub fn task_wait(&self, id: &str, patience: Duration) -> Result<Task, Error> {
        let body = json!({ "timeout_s": patience.as_secs().max(1) });
        let ended: Vec<Task> = self.post(&format!("/v1/tasks/{id}/wait"), &body, patience + SOON)?;
        ended.into_iter().next().ok_or_else(|| self.refused("wait for a task", "nothing came".into()))
    }

    /// The task as it is.
    pub fn task(&self, id: &str) -> Result<Task, Error> {
        self.get(&format!("/v1/tasks/{id}"))
    }

    /// Writes the files of a task into a folder.
    pub fn task_output(&self, id: &str, dir: &Path) -> Result<(), Error> {
        let body = json!({ "dir": dir.display().to_string() });
        self.post::<Value>(&format!("/v1/tasks/{id}/output"), &body, SOON).map(drop)
    }

    /// The workers that the node knows now.
    pub fn topology(&self) -> Result<Vec<Known>, Error> {
        let mut looks: Vec<Look> = self.list("/v1/worker/topology")?;
        Ok(looks.pop().map(|look| look.workers).unwrap_or_default())
    }

    /// The node as a worker.
    pub fn worker(&self) -> Result<Worker, Error> {
        self.get("/v1/worker")
    }
}

/// Writes a module where nodes can read it.
pub fn write_module(dir: &Path, name: &str, bytes: &[u8]) -> Result<PathBuf, Error> {
    let path = dir.join(name);
    fs::write(&path, bytes).map_err(Error::file("write", &path))?;
    Ok(path)
}

/// A tile as the module must draw it: the same operations on the same numbers in the same order.
pub fn mandelbrot(x: f64, y: f64, width: f64, pixels: i32, limit: i32) -> Vec<u8> {
    let mut tile = format!("P5\n{pixels} {pixels}\n255\n").into_bytes();
    for row in 0..pixels {
        for column in 0..pixels {
            let (a, b) =
                (x + width * f64::from(column) / f64::from(pixels), y + width * f64::from(row) / f64::from(pixels));
            let (mut re, mut im, mut n) = (0.0, 0.0, 0);
            while n < limit && re * re + im * im <= 4.0 {
                (re, im) = (re * re - im * im + a, 2.0 * re * im + b);
                n += 1;
            }
            // 0 to 255.
            tile.push(if n == limit { 0 } else { (255 - n * 255 / limit) as u8 });
        }
    }
    tile
}

/// What the module prints.
pub fn primes(from: u64, to: u64) -> String {
    let is_prime = |n: u64| (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d));
    let found: Vec<_> = (from.max(2)..to).filter(|n| is_prime(*n)).collect();
    format!("{} primes, the largest is {}\n", found.len(), found.last().copied().unwrap_or_default())
}
