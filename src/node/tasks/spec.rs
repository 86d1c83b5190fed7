//! What a user asks for: files by their paths, limits in the units of people. Here it becomes work, terms and bytes.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use fog_tasks::{
    Content, Input, Limits, Work,
    core::{
        terms::{PPM, Privacy, Terms},
        work::{MAX_MODULE, PAGE, is_file_name},
    },
    wire::message::{MAX_INLINE, MAX_INLINE_TOTAL},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::node::command::Failure;

/// The largest input, and all of a task together.
const MAX_INPUT: u64 = 256 * 1024 * 1024;
const MIB: u64 = 1024 * 1024;
const MAX_MEMORY_MIB: u64 = 4096;
const MAX_OUTPUT_MIB: u64 = 256;
/// Each output of a task whose result comes through the mixnet: all three, and what is around them, fit in one answer.
const MIXED_OUTPUT: u64 = 20 * 1024;

/// A task as a user describes it. Paths are absolute.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TaskSpec {
    /// The module: a WASI preview 1 command.
    pub module: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment, `NAME=VALUE` each.
    pub env: Vec<String>,
    /// A file that it reads from standard input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// Files that it finds under `/in`, `NAME=FILE` each.
    pub inputs: Vec<String>,
    /// How many workers run it in the first round; as many as the trust takes if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u8>,
    /// How sure its result must be, from 0 to below 1; 0.99 if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust: Option<f64>,
    /// The most fuel that it may use, about one for each instruction; 10,000,000,000 if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fuel: Option<u64>,
    /// The most memory that it may use; 256 if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    /// The most that it may write: to standard output, to standard error, and under `/out`, each; 16 if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_mib: Option<u64>,
    /// When it has failed if it is not done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_s: Option<u64>,
    /// How long a run may take; by its fuel if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_s: Option<u64>,
    /// `round-robin`, `least-loaded`, `affinity`, `proximity`, `privacy` or `p2c`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy: Option<String>,
    /// `best-effort`, `standard` or `urgent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// `open`; `sealed`: the inputs are for its workers alone; or `mixed`: and they do not learn who submits it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub privacy: Option<String>,
    /// The most micro-credits for one run that uses all its fuel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_price: Option<u64>,
    /// What the worker must have, such as `gpu:cuda`.
    pub features: Vec<String>,
    /// What its randomness and its clock start from: 64 hex digits; zeros if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<String>,
    /// Where replicas do not agree: take the most credible result rather than fail.
    pub accept_best: bool,
}

/// Tasks that are placed together.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchSpec {
    /// The tasks.
    #[serde(alias = "task")]
    pub tasks: Vec<TaskSpec>,
}

/// A task as the coordinator takes it.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) work: Work,
    pub(super) terms: Terms,
    /// Each content once.
    pub(super) contents: Vec<(Content, Vec<u8>)>,
}

fn usage(message: impl Into<String>) -> Failure {
    Failure::usage(message, "`fog task run --help` lists what there is")
}

fn pair<'a>(text: &'a str, what: &str) -> Result<(&'a str, &'a str), Failure> {
    text.split_once('=').ok_or_else(|| usage(format!("`{text}` is not {what}")))
}

impl TaskSpec {
    /// Reads its files and checks all of it. Takes as long as the files are large.
    pub(super) fn parse(&self) -> Result<Parsed, Failure> {
        let mut contents: Vec<(Content, Vec<u8>)> = Vec::new();
        let mut take = |path: &str, most: u64| {
            let bytes = read(Path::new(path), most)?;
            let content = Content::of(&bytes);
            if !contents.iter().any(|(known, _)| *known == content) {
                contents.push((content, bytes));
            }
            Ok::<_, Failure>(content)
        };
        if self.module.is_empty() {
            return Err(usage("no module is named"));
        }
        let module = take(&self.module, MAX_MODULE)?;
        let stdin = self.stdin.as_deref().map(|path| take(path, MAX_INPUT)).transpose()?;
        let mut inputs = Vec::new();
        for input in &self.inputs {
            let (name, path) = pair(input, "NAME=FILE")?;
            if !is_file_name(name) {
                return Err(usage(format!("`{name}` cannot be the name of a file under /in")));
            }
            inputs.push(Input { name: name.to_owned(), content: take(path, MAX_INPUT)? });
        }
        inputs.sort_by(|one, other| one.name.cmp(&other.name));
        let env = self
            .env
            .iter()
            .map(|text| pair(text, "NAME=VALUE").map(|(name, value)| (name.to_owned(), value.to_owned())));
        let work = Work {
            version: 1,
            module,
            args: self.args.clone(),
            env: env.collect::<Result<_, _>>()?,
            stdin,
            inputs,
            limits: self.limits()?,
            seed: self.seed()?,
        };
        work.encode().map_err(|error| usage(error.to_string()))?;
        let terms = self.terms()?;
        if terms.privacy == Privacy::Mixed {
            fits_the_mixnet(&contents)?;
        }
        Ok(Parsed { work, terms, contents })
    }

    fn limits(&self) -> Result<Limits, Failure> {
        let default = Limits::default();
        let is_mixed = self.privacy.as_deref() == Some(Privacy::Mixed.name());
        if is_mixed && self.output_mib.is_some() {
            let message =
                format!("what comes through the mixnet has at most {} KiB of each output", MIXED_OUTPUT / 1024);
            return Err(Failure::usage(message, "leave --output-mib out, or choose `--privacy sealed`"));
        }
        let mib = |given: Option<u64>, default: u64, most: u64, what: &str| match given {
            None => Ok(default),
            Some(mib) if (1..=most).contains(&mib) => Ok(mib * MIB),
            Some(_) => Err(usage(format!("{what} is a number of MiB from 1 to {most}"))),
        };
        let memory_bytes = mib(self.memory_mib, default.memory_bytes, MAX_MEMORY_MIB, "the memory")?;
        let most_output = if is_mixed { MIXED_OUTPUT } else { default.output_bytes };
        let output_bytes = mib(self.output_mib, most_output, MAX_OUTPUT_MIB, "the output")?;
        debug_assert_eq!(memory_bytes % PAGE, 0);
        let fuel = self.fuel.unwrap_or(default.fuel);
        // wasmtime counts fuel in an i64.
        if fuel == 0 || fuel > i64::MAX as u64 {
            return Err(usage("the fuel is a number from 1 to 9,223,372,036,854,775,807"));
        }
        Ok(Limits { fuel, memory_bytes, output_bytes })
    }

    fn seed(&self) -> Result<[u8; 32], Failure> {
        let Some(text) = &self.seed else { return Ok([0; 32]) };
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok();
        bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| usage("a seed has 64 hex digits"))
    }

    fn terms(&self) -> Result<Terms, Failure> {
        fn parsed<T: std::str::FromStr<Err: std::fmt::Display> + Default>(text: Option<&String>) -> Result<T, Failure> {
            text.map_or(Ok(T::default()), |text| text.parse().map_err(|error| usage(format!("`{text}`: {error}"))))
        }
        let mut terms = Terms { accept_best: self.accept_best, max_price: self.max_price, ..Terms::default() };
        if let Some(trust) = self.trust {
            if !(0.0..1.0).contains(&trust) {
                return Err(usage("the trust is a number from 0 to below 1, such as 0.99"));
            }
            // Below 1, as checked.
            terms.trust_ppm = ((trust * f64::from(PPM)) as u32).min(PPM - 1);
        }
        if self.replicas == Some(0) {
            return Err(usage("a task has at least 1 replica"));
        }
        terms.replicas = self.replicas.unwrap_or_default();
        terms.class = parsed(self.class.as_ref())?;
        terms.privacy = parsed(self.privacy.as_ref())?;
        terms.strategy = parsed(self.strategy.as_ref())?;
        terms.deadline_ms = self.deadline_s.map(|seconds| seconds.saturating_mul(1000));
        terms.clocks.running_ms = self.run_s.map(|seconds| seconds.saturating_mul(1000));
        terms.features.clone_from(&self.features);
        terms.features.sort();
        terms.features.dedup();
        terms.check().map_err(|error| usage(error.to_string()))?;
        Ok(terms)
    }
}

/// Whether module and inputs go inside of messages: through the mixnet nothing is fetched.
fn fits_the_mixnet(contents: &[(Content, Vec<u8>)]) -> Result<(), Failure> {
    let largest = contents.iter().map(|(_, bytes)| bytes.len()).max().unwrap_or_default();
    let all: usize = contents.iter().map(|(_, bytes)| bytes.len()).sum();
    if largest <= MAX_INLINE && all <= MAX_INLINE_TOTAL {
        return Ok(());
    }
    let kib = |bytes: usize| bytes.div_ceil(1024);
    let message = format!(
        "a task labelled mixed brings at most {} KiB in one file and {} KiB in all, not {} KiB and {} KiB",
        kib(MAX_INLINE),
        kib(MAX_INLINE_TOTAL),
        kib(largest),
        kib(all)
    );
    Err(Failure::usage(message, "make its module or its inputs smaller, or choose `--privacy sealed`"))
}

/// The bytes of a file; a device or a pipe would never end.
fn read(path: &Path, most: u64) -> Result<Vec<u8>, Failure> {
    let shown = path.display();
    if !path.is_absolute() {
        return Err(Failure::usage(format!("`{shown}` is not an absolute path"), "name the file by its absolute path"));
    }
    let unread = |why: String| Failure::failed(format!("`{shown}` cannot be read: {why}"), "is the path right?");
    let file = File::open(path).map_err(|error| unread(error.to_string()))?;
    let meta = file.metadata().map_err(|error| unread(error.to_string()))?;
    if !meta.is_file() {
        return Err(unread("it is no file".into()));
    }
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(|error| unread(error.to_string()))?;
    if bytes.len() as u64 > most {
        let hint = "split the work into smaller tasks";
        return Err(Failure::usage(format!("`{shown}` has more than {} MiB", most / MIB), hint));
    }
    Ok(bytes)
}

/// Tasks in a file: TOML or JSON with `module`, `args`, … at its top, or a list of them under `task`; or a module by itself. Relative paths are
/// meant from the file's folder.
pub fn read_file(path: &Path) -> Result<Vec<TaskSpec>, Failure> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let bytes = read(&absolute, MAX_MODULE)?;
    if bytes.starts_with(b"\0asm") {
        return Ok(vec![TaskSpec { module: absolute.display().to_string(), ..TaskSpec::default() }]);
    }
    let bad = |why: String| {
        let message = format!("`{}` describes no task: {why}", path.display());
        Failure::usage(
            message,
            "a module, or TOML or JSON such as `module = \"hello.wasm\"`, or `[[task]]` for each of many",
        )
    };
    let text = String::from_utf8(bytes).map_err(|_| bad("it is neither a module nor text".into()))?;
    let value: serde_json::Value = match serde_json::from_str(&text) {
        Ok(value) => value,
        Err(_) => toml::from_str(&text).map_err(|error| bad(error.message().to_owned()))?,
    };
    let mut tasks = many(value).map_err(|error| bad(error.to_string()))?;
    if tasks.is_empty() || tasks.iter().any(|task| task.module.is_empty()) {
        return Err(bad("it names no module".into()));
    }
    let folder = absolute.parent().map(Path::to_owned).unwrap_or_default();
    for task in &mut tasks {
        task.resolve(&folder);
    }
    Ok(tasks)
}

fn many(value: serde_json::Value) -> serde_json::Result<Vec<TaskSpec>> {
    if value.is_array() {
        return serde_json::from_value(value);
    }
    if ["task", "tasks"].iter().any(|key| value.get(key).is_some()) {
        return serde_json::from_value::<BatchSpec>(value).map(|batch| batch.tasks);
    }
    serde_json::from_value(value).map(|task| vec![task])
}

impl TaskSpec {
    /// Makes paths absolute.
    pub fn resolve(&mut self, folder: &Path) {
        let joined = |path: &str| folder.join(path).display().to_string();
        if !self.module.is_empty() {
            self.module = joined(&self.module);
        }
        self.stdin = self.stdin.as_deref().map(joined);
        for input in &mut self.inputs {
            if let Some((name, path)) = input.split_once('=') {
                *input = format!("{name}={}", PathBuf::from(joined(path)).display());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("m.wasm"), b"\0asm\x01\0\0\0").unwrap();
        std::fs::write(folder.path().join("in.txt"), b"input").unwrap();
        folder
    }

    #[test]
    fn a_file_describes_one_task_or_many_or_is_the_module() {
        let folder = folder();
        let write = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).unwrap();
            folder.path().join(name)
        };
        let module = folder.path().join("m.wasm").display().to_string();
        assert_eq!(read_file(&folder.path().join("m.wasm")).unwrap()[0].module, module);
        let one =
            read_file(&write("one.toml", "module = \"m.wasm\"\nargs = [\"a\"]\ninputs = [\"x=in.txt\"]")).unwrap();
        assert_eq!((one.len(), &one[0].module), (1, &module));
        assert_eq!(one[0].inputs, [format!("x={}", folder.path().join("in.txt").display())]);
        let two = "[[task]]\nmodule = \"m.wasm\"\n[[task]]\nmodule = \"m.wasm\"\nreplicas = 2";
        assert_eq!(read_file(&write("two.toml", two)).unwrap()[1].replicas, Some(2));
        let json = r#"{"tasks":[{"module":"m.wasm"},{"module":"m.wasm","trust":0.5}]}"#;
        assert_eq!(read_file(&write("two.json", json)).unwrap()[1].trust, Some(0.5));
        for bad in ["", "modul = \"m.wasm\"", "[[task]]\nmodul = 1", "{\"tasks\":[]}", "\u{1}"] {
            assert!(read_file(&write("bad", bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_task_names_its_contents_by_hash_and_wrong_input_is_told() {
        let folder = folder();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let good = TaskSpec {
            module: path("m.wasm"),
            inputs: vec![format!("b={}", path("in.txt")), format!("a={}", path("in.txt"))],
            env: vec!["A=1=2".into()],
            trust: Some(0.999),
            ..TaskSpec::default()
        };
        let parsed = good.parse().unwrap();
        assert_eq!(parsed.contents.len(), 2);
        assert_eq!(parsed.work.inputs[0].name, "a");
        assert_eq!((parsed.work.env[0].1.as_str(), parsed.terms.trust_ppm), ("1=2", 999_000));
        let mixed = TaskSpec { privacy: Some("mixed".into()), ..good.clone() };
        assert_eq!(mixed.parse().unwrap().work.limits.output_bytes, MIXED_OUTPUT);
        std::fs::write(folder.path().join("large"), vec![7; MAX_INLINE + 1]).unwrap();
        let large = TaskSpec { stdin: Some(path("large")), ..mixed.clone() }.parse().unwrap_err().message;
        assert!(large.contains("64 KiB in one file"), "{large}");
        let output = TaskSpec { output_mib: Some(1), ..mixed }.parse().unwrap_err().message;
        assert!(output.contains("20 KiB"), "{output}");
        let with = |change: fn(&mut TaskSpec)| {
            let mut spec = good.clone();
            change(&mut spec);
            spec.parse().unwrap_err().message
        };
        for (change, what) in [
            ((|spec| spec.module = "m.wasm".into()) as fn(&mut TaskSpec), "absolute"),
            (|spec| spec.module = "/none.wasm".into(), "cannot be read"),
            (|spec| spec.module = "/dev/zero".into(), "no file"),
            (|spec| spec.inputs = vec!["a/b=/etc/hostname".into()], "under /in"),
            (|spec| spec.inputs = vec!["x".into()], "NAME=FILE"),
            (|spec| spec.env = vec!["x".into()], "NAME=VALUE"),
            (|spec| spec.trust = Some(1.0), "trust"),
            (|spec| spec.trust = Some(f64::NAN), "trust"),
            (|spec| spec.replicas = Some(0), "replica"),
            (|spec| spec.replicas = Some(99), "replicas"),
            (|spec| spec.fuel = Some(0), "fuel"),
            (|spec| spec.memory_mib = Some(5000), "memory"),
            (|spec| spec.deadline_s = Some(0), "time"),
            (|spec| spec.strategy = Some("best".into()), "strategy"),
            (|spec| spec.seed = Some("00".into()), "seed"),
            (|spec| spec.features = vec!["GPU".into()], "features"),
        ] {
            let message = with(change);
            assert!(message.contains(what), "{message} ({what})");
        }
    }
}
