//! `fog task`

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{
    CliError, Context, TIMEOUT,
    client::Client,
    output::{fields, printable, size, table},
};
use crate::{
    api::{TaskLogs, TaskOutput, TaskWait},
    node::tasks::{
        report::{Batch, Explanation, LogLine, Objectives, Submitted, Task, Written},
        spec::{BatchSpec, TaskSpec, read_file},
    },
};

/// When `run` and `batch` give up waiting.
const WAIT: Duration = Duration::from_secs(120);
/// What asking how a task stands may take beyond that.
const LAST_LOOK: Duration = Duration::from_secs(1);

/// What can be done with tasks.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a WASI preview 1 command on other nodes, and print what it prints
    Run(Box<Run>),
    /// Run many tasks, placed together
    Batch {
        /// TOML or JSON: `[[task]]` with module = "…", args, inputs, …
        file: PathBuf,
        /// Print the placement and the ids, and do not wait
        #[arg(long)]
        detach: bool,
    },
    /// List the tasks of this node, newest first
    List,
    /// A task, and who runs it
    Show {
        /// Its id, or the first digits of it
        id: String,
    },
    /// What a task wrote to standard output and standard error
    Logs {
        /// Its id, or the first digits of it
        id: String,
        /// Go on until it ends
        #[arg(long)]
        follow: bool,
    },
    /// Write the files that a task left under /out
    Output {
        /// Its id, or the first digits of it
        id: String,
        /// The folder [default: the task's id, in the current folder]
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// End a task
    Cancel {
        /// Its id, or the first digits of it
        id: String,
    },
    /// Which workers fit a task, which do not and why, and what would change it
    Explain {
        /// A module, or a task in TOML or JSON
        file: PathBuf,
    },
}

/// A task to run.
#[derive(Debug, Args)]
pub(super) struct Run {
    /// The module: a WASI preview 1 command
    module: PathBuf,
    /// An argument for it; may be given again
    #[arg(long = "arg", value_name = "A", allow_hyphen_values = true)]
    args: Vec<String>,
    /// A variable of its environment; may be given again
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// What it reads from standard input
    #[arg(long, value_name = "FILE")]
    stdin: Option<PathBuf>,
    /// A file that it finds as /in/NAME; may be given again
    #[arg(long = "input", value_name = "NAME=FILE")]
    inputs: Vec<String>,
    /// How many workers run it at first [default: as many as --trust takes]
    #[arg(long, value_name = "N")]
    replicas: Option<u8>,
    /// How sure the result must be [default: 0.99]
    #[arg(long, value_name = "P", value_parser = probability)]
    trust: Option<f64>,
    /// The most fuel, about one for each instruction [default: 10000000000]
    #[arg(long, value_name = "N")]
    fuel: Option<u64>,
    /// The most memory [default: 256]
    #[arg(long, value_name = "N")]
    memory_mib: Option<u64>,
    /// The most that it may write to each of its outputs [default: 16]
    #[arg(long, value_name = "N")]
    output_mib: Option<u64>,
    /// When it has failed if it is not done
    #[arg(long, value_name = "SECONDS")]
    deadline: Option<u64>,
    /// How long a run may take [default: by its fuel]
    #[arg(long, value_name = "SECONDS")]
    run_time: Option<u64>,
    /// round-robin, least-loaded, affinity, proximity, privacy or p2c [default: p2c]
    #[arg(long, value_name = "S")]
    strategy: Option<String>,
    /// best-effort, standard or urgent [default: standard]
    #[arg(long, value_name = "CLASS")]
    class: Option<String>,
    /// open, sealed, or mixed: its workers do not learn who you are [default: open]
    #[arg(long, value_name = "LABEL")]
    privacy: Option<String>,
    /// The most micro-credits for a run that uses all its fuel
    #[arg(long, value_name = "N")]
    max_price: Option<u64>,
    /// What the worker must have, such as gpu:cuda; may be given again
    #[arg(long = "feature", value_name = "NAME")]
    features: Vec<String>,
    /// What its randomness and its clock start from: 64 hex digits [default: zeros]
    #[arg(long, value_name = "HEX")]
    seed: Option<String>,
    /// If workers do not agree, take the most credible result
    #[arg(long)]
    accept_best: bool,
    /// Print the id, and do not wait
    #[arg(long)]
    detach: bool,
}

impl Run {
    fn spec(&self) -> TaskSpec {
        let text = |path: &Path| path.display().to_string();
        let mut spec = TaskSpec {
            module: text(&self.module),
            args: self.args.clone(),
            env: self.env.clone(),
            stdin: self.stdin.as_deref().map(text),
            inputs: self.inputs.clone(),
            replicas: self.replicas,
            trust: self.trust,
            fuel: self.fuel,
            memory_mib: self.memory_mib,
            output_mib: self.output_mib,
            deadline_s: self.deadline,
            run_s: self.run_time,
            strategy: self.strategy.clone(),
            class: self.class.clone(),
            privacy: self.privacy.clone(),
            max_price: self.max_price,
            features: self.features.clone(),
            seed: self.seed.clone(),
            accept_best: self.accept_best,
        };
        spec.resolve(&std::env::current_dir().unwrap_or_default());
        spec
    }
}

pub(super) fn run(context: &Context, command: Command) -> Result<(), CliError> {
    let client = Client::open(&context.config)?;
    let timeout = context.timeout(TIMEOUT);
    match command {
        Command::Run(run) => submit(context, &client, &run),
        Command::Batch { file, detach } => batch(context, &client, &file, detach),
        Command::List => {
            let tasks: Vec<Task> = client.get("/v1/tasks", timeout)?;
            context.out.value(&tasks, |tasks| list(tasks))
        }
        Command::Show { id } => {
            let task: Task = client.get(&path(&id, "")?, timeout)?;
            context.out.value(&task, describe)
        }
        Command::Logs { id, follow } => logs(context, &client, &id, follow),
        Command::Output { id, out } => output(context, &client, &id, out),
        Command::Cancel { id } => {
            let task: Task = client.post(&path(&id, "/cancel")?, &Empty {}, timeout)?;
            context.out.value(&task, |task| format!("{} is {}\n", task.id, task.state))
        }
        Command::Explain { file } => {
            let mut tasks = read_file(&file).map_err(CliError::from)?;
            if tasks.len() != 1 {
                return Err(CliError::usage(
                    format!("`{}` describes {} tasks", file.display(), tasks.len()),
                    "explain takes one",
                ));
            }
            let explained: Explanation = client.post("/v1/tasks/explain", &tasks.remove(0), timeout)?;
            context.out.value(&explained, explain)
        }
    }
}

/// The body of the process that runs modules: it obeys whoever started it, and nothing else.
pub(super) fn process() -> ExitCode {
    fog_tasks::sandbox::serve(std::io::stdin().lock(), std::io::stdout())
}

#[derive(Serialize)]
struct Empty {}

/// The path of a task; an id is of hex digits, so that nothing else gets into it.
fn path(id: &str, what: &str) -> Result<String, CliError> {
    let id = id.trim().to_ascii_lowercase();
    if id.is_empty() || id.len() > 32 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(CliError::usage(
            format!("`{}` is not the id of a task", printable(&id)),
            "`fog task list` lists them",
        ));
    }
    Ok(format!("/v1/tasks/{id}{what}"))
}

fn submit(context: &Context, client: &Client, run: &Run) -> Result<(), CliError> {
    let submitted: Submitted = client.post("/v1/tasks", &run.spec(), context.timeout(TIMEOUT))?;
    if run.detach {
        let task: Task = client.get(&path(&submitted.id, "")?, context.timeout(TIMEOUT))?;
        return context.out.value(&task, |task| format!("{}\n", task.id));
    }
    let (task, late) = wait(client, &submitted.id, context.timeout(WAIT))?;
    if context.out.is_json() {
        context.out.value(&task, |_| String::new())?;
    } else {
        eprint!("{}", printable(task.stderr.as_deref().unwrap_or_default()));
        context.out.text(task.stdout.as_deref().unwrap_or_default())?;
        eprintln!("{}", summary(&task));
    }
    late.map_or_else(|| ended(&task), Err)
}

/// The task when it has ended, or as it stands when time is up, and that it is.
fn wait(client: &Client, id: &str, timeout: Duration) -> Result<(Task, Option<CliError>), CliError> {
    let waited = client.post(&path(id, "/wait")?, &TaskWait { timeout_s: Some(timeout.as_secs()) }, timeout);
    match waited {
        Ok(task) => Ok((task, None)),
        Err(late) if late.is_timed_out() => match client.get(&path(id, "")?, LAST_LOOK) {
            Ok(task) => Ok((task, Some(late))),
            // A node that does not even tell that.
            Err(_) => Err(late),
        },
        Err(error) => Err(error),
    }
}

/// Exit code 0 only for a task that is done and a module that exited 0.
fn ended(task: &Task) -> Result<(), CliError> {
    let hint = format!("`fog task show {}` has the whole story", task.id);
    match (task.state.as_str(), task.exit) {
        ("done", Some(0)) => Ok(()),
        ("done", Some(code)) => Err(CliError::failed(format!("the module exited with {code}"), hint)),
        ("done", None) => {
            let ending = task.ending.as_deref().unwrap_or("nothing");
            let reason = task.reason.as_deref().map(|reason| format!(": {}", printable(reason))).unwrap_or_default();
            Err(CliError::failed(format!("the module ended by {}{reason}", ending.replace('_', " ")), hint))
        }
        (state, _) => {
            let reason = task.reason.as_deref().map_or_else(String::new, |reason| format!(": {}", printable(reason)));
            Err(CliError::failed(format!("the task is {state}{reason}"), hint))
        }
    }
}

fn batch(context: &Context, client: &Client, file: &Path, detach: bool) -> Result<(), CliError> {
    let tasks = read_file(file).map_err(CliError::from)?;
    let timeout = context.timeout(WAIT);
    let placed: Batch = client.post("/v1/tasks/batch", &BatchSpec { tasks }, timeout)?;
    context.out.value(&placed, placement)?;
    if detach {
        return Ok(());
    }
    let began = crate::clock::monotonic();
    let (mut failed, mut timed_out) = (None, None);
    for id in &placed.ids {
        let left = timeout.saturating_sub(began.elapsed());
        let (task, late): (Task, _) = match &timed_out {
            None => wait(client, id, left.max(Duration::from_secs(1)))?,
            Some(_) => (client.get(&path(id, "")?, LAST_LOOK)?, None),
        };
        context.out.value(&task, |task| summary(task) + "\n")?;
        if late.is_some() {
            timed_out = late;
        } else if timed_out.is_none() {
            failed = failed.or(ended(&task).err());
        }
    }
    timed_out.or(failed).map_or(Ok(()), Err)
}

fn logs(context: &Context, client: &Client, id: &str, follow: bool) -> Result<(), CliError> {
    let limit = (!follow).then(|| context.timeout(TIMEOUT));
    client.stream(&path(id, "/logs")?, &TaskLogs { follow }, limit, |value| {
        if context.out.is_json() {
            return context.out.value(&value, |_| String::new());
        }
        match serde_json::from_value::<LogLine>(value) {
            Ok(line) if line.stream == "stdout" => context.out.text(&printable(&line.text)),
            Ok(line) => {
                eprint!("{}", printable(&line.text));
                Ok(())
            }
            Err(error) => Err(CliError::failed(error.to_string(), "is the node of this version?")),
        }
    })
}

fn output(context: &Context, client: &Client, id: &str, out: Option<PathBuf>) -> Result<(), CliError> {
    let folder = out.unwrap_or_else(|| PathBuf::from(id.trim()));
    let dir = std::path::absolute(&folder)
        .map_err(|error| CliError::usage(error.to_string(), "name a folder with --out"))?
        .display()
        .to_string();
    let written: Written = client.post(&path(id, "/output")?, &TaskOutput { dir }, context.timeout(WAIT))?;
    context.out.value(&written, |written| {
        let line = |file: &crate::node::tasks::report::OutputFile| {
            format!("{}/{}  {}\n", printable(&written.dir), printable(&file.path), size(file.bytes))
        };
        written.files.iter().map(line).collect()
    })
}

fn list(tasks: &[Task]) -> String {
    let rows: Vec<_> = tasks
        .iter()
        .map(|task| {
            [
                task.id.clone(),
                task.state.clone(),
                task.exit.map_or_else(|| "-".into(), |code| code.to_string()),
                task.replicas.len().to_string(),
                task.total_ms.map_or_else(|| "-".into(), |ms| format!("{ms:.0} ms")),
                task.price.to_string(),
                printable(task.reason.as_deref().unwrap_or("-")),
            ]
        })
        .collect();
    table(["ID", "STATE", "EXIT", "RUNS", "TOOK", "PRICE", "REASON"], &rows)
}

fn summary(task: &Task) -> String {
    let took = task.total_ms.map_or_else(String::new, |ms| format!(" in {ms:.0} ms"));
    let by = match task.replicas.len() {
        0 => String::new(),
        1 => ", 1 run".into(),
        count => format!(", {count} runs"),
    };
    let verdict = task.verdict.as_deref().map(|verdict| format!(" ({verdict})")).unwrap_or_default();
    format!("task {} {}{took}{by}{verdict}, {} micro-credits", task.id, task.state, task.price)
}

fn describe(task: &Task) -> String {
    let text = |value: &Option<String>| value.as_deref().map_or_else(|| "-".into(), printable);
    let ms = |value: Option<f64>| value.map_or_else(|| "-".into(), |ms| format!("{ms:.1} ms"));
    let mut lines = fields(&[
        ("id", task.id.clone()),
        ("state", task.state.clone()),
        ("ending", text(&task.ending)),
        ("exit", task.exit.map_or_else(|| "-".into(), |code| code.to_string())),
        ("verdict", text(&task.verdict)),
        ("credibility", task.credibility.map_or_else(|| "-".into(), |p| format!("{p:.6}"))),
        ("result", text(&task.output_hash)),
        ("fuel", task.fuel.map_or_else(|| "-".into(), |fuel| fuel.to_string())),
        ("submitted", task.submitted_at.clone()),
        ("placed", ms(task.placed_ms)),
        ("took", ms(task.total_ms)),
        ("price", format!("{} micro-credits", task.price)),
        ("reason", text(&task.reason)),
    ]);
    for file in &task.outputs {
        lines += &format!("/out/{}  {}\n", printable(&file.path), size(file.bytes));
    }
    let rows: Vec<_> = task
        .replicas
        .iter()
        .map(|replica| {
            [
                replica.worker.clone(),
                replica.state.clone(),
                replica.fuel.map_or_else(|| "-".into(), |fuel| fuel.to_string()),
                replica.result_hash.as_deref().map_or_else(|| "-".into(), |hash| hash.chars().take(16).collect()),
                replica.price.to_string(),
                printable(replica.reason.as_deref().unwrap_or("-")),
            ]
        })
        .collect();
    lines + &table(["WORKER", "STATE", "FUEL", "RESULT", "PRICE", "REASON"], &rows)
}

fn placement(batch: &Batch) -> String {
    let point = |objectives: &Objectives| {
        let Objectives { makespan_s, price, energy_j, unreliability, moved_bytes } = objectives;
        format!(
            "{makespan_s:.2} s, {price:.0} micro-credits, {energy_j:.1} J, {unreliability:.3} failures, {moved_bytes:.0} bytes moved"
        )
    };
    let chosen = batch.chosen.as_ref().map_or_else(|| "nothing to place them on yet".into(), point);
    format!("{} tasks placed in {:.0} ms, {} points: {chosen}\n", batch.ids.len(), batch.placed_ms, batch.pareto.len())
}

fn explain(explained: &Explanation) -> String {
    let mut lines = format!("{} workers fit\n", explained.matches);
    for rejected in &explained.rejected {
        lines += &format!("{}  {}\n", rejected.worker, printable(&rejected.reason));
    }
    for relaxation in &explained.relaxations {
        lines += &format!("{}: {} more\n", printable(&relaxation.change), relaxation.more);
    }
    lines
}

fn probability(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (0.0..1.0).contains(number));
    number.ok_or_else(|| "a number from 0 to below 1 is wanted, such as 0.99".into())
}
