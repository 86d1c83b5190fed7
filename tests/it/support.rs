//! The built program, run to its end or kept running.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use data_encoding::BASE64;
use fog_testnet::{Client, Error, Process, free_port, until};
use serde_json::Value;
use tempfile::TempDir;

/// What any command may take here, even on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn fog() -> PathBuf {
    env!("CARGO_BIN_EXE_fog").into()
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// Its standard output as one JSON value, after it ended with 0.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.code, Some(0), "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("not one JSON value ({e}): {self:?}"))
    }

    /// Its standard output as one JSON value a line, after it ended with 0.
    pub(crate) fn json_lines(&self) -> Vec<Value> {
        assert_eq!(self.code, Some(0), "{self:?}");
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("not JSON ({e}): {line}"));
        self.stdout.lines().map(parse).collect()
    }

    /// That it failed as INTERFACE says: this code, one line `error:`, one line `hint:`, nothing on standard output.
    #[track_caller]
    pub(crate) fn refused(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(self.stdout, "", "{self:?}");
        let starts = |with: &str| self.stderr.lines().filter(|line| line.starts_with(with)).count();
        assert_eq!(starts("error: "), 1, "{self:?}");
        assert!(!self.stderr.contains("panicked"), "{self:?}");
        if code != 2 {
            assert_eq!(starts("hint: "), 1, "{self:?}");
        }
        self
    }

    /// That standard error says `what`.
    #[track_caller]
    pub(crate) fn says(&self, what: &str) -> &Self {
        assert!(self.stderr.contains(what), "`{what}` expected: {self:?}");
        self
    }
}

/// Runs `fog` with a data directory.
pub(crate) fn run_in(data_dir: &Path, args: &[&str]) -> Ended {
    run(Command::new(fog()).arg("--data-dir").arg(data_dir).args(args))
}

/// Runs `command` to its end, without settings from the environment.
pub(crate) fn run(command: &mut Command) -> Ended {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("FOG_") {
            command.env_remove(name);
        }
    }
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|e| panic!("{command:?}: {e}"));
    // Read while it runs: a full pipe would stop it.
    let reader = |mut pipe: Box<dyn Read + Send>| {
        thread::spawn(move || {
            let mut text = Vec::new();
            pipe.read_to_end(&mut text).map(|_| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default()
        })
    };
    let stdout = reader(Box::new(child.stdout.take().expect("piped")));
    let stderr = reader(Box::new(child.stderr.take().expect("piped")));
    let status = until("the end of a command", PATIENCE * 2, || {
        child.try_wait().map_err(|e| e.to_string())?.ok_or_else(|| format!("{command:?} still runs"))
    });
    let status = status.unwrap_or_else(|e| {
        let _ = child.kill();
        panic!("{e}");
    });
    let [stdout, stderr] = [stdout, stderr].map(|thread| thread.join().expect("a reader"));
    Ended { code: status.code(), stdout, stderr }
}

/// A node that runs alone: on loopback, without mDNS. Ended when dropped.
pub(crate) struct Alone {
    pub(crate) dir: PathBuf,
    pub(crate) port: u16,
    pub(crate) process: Process,
    _temporary: Option<TempDir>,
}

impl Alone {
    pub(crate) fn start() -> Self {
        let temporary = tempfile::tempdir().expect("a directory");
        let dir = temporary.path().join("data");
        let mut node = Self::start_in(&dir);
        node._temporary = Some(temporary);
        node
    }

    /// Starts a node in `dir` and waits until its API answers.
    pub(crate) fn start_in(dir: &Path) -> Self {
        Self::start_with(dir, &[])
    }

    /// The same with variables of the environment, `NAME=VALUE` each.
    pub(crate) fn start_with(dir: &Path, variables: &[String]) -> Self {
        let port = free_port().expect("a port");
        let listen = [format!("/ip4/127.0.0.1/tcp/{port}"), format!("/ip4/127.0.0.1/udp/{port}/quic-v1")];
        let data_dir = dir.display().to_string();
        let program = fog().display().to_string();
        let mut args: Vec<&str> = variables.iter().map(String::as_str).collect();
        args.extend([&*program, "--data-dir", &data_dir, "run", "--no-mdns", "--listen", &listen[0], &listen[1]]);
        let log = dir.with_extension("log");
        let mut process = Process::start(Path::new("/usr/bin/env"), &args, &log).expect("the program");
        let pid = process.pid();
        let answers = until("an answer of the API", PATIENCE, || {
            let said = || std::fs::read_to_string(&log).unwrap_or_default();
            if !process.is_running() {
                return Err(format!("it ended: {}", said()));
            }
            let client = Client::open(0, dir).map_err(|e| e.to_string())?;
            if client.pid() != pid {
                return Err("node.json is of another process".into());
            }
            client.status().map(|_| ()).map_err(|e| e.to_string())
        });
        answers.unwrap_or_else(|e| panic!("{e}"));
        Self { dir: dir.to_owned(), port, process, _temporary: None }
    }

    pub(crate) fn client(&self) -> Client {
        Client::open(0, &self.dir).expect("node.json")
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ended {
        run_in(&self.dir, args)
    }

    /// `node.json`.
    pub(crate) fn node_file(&self) -> Value {
        let text = std::fs::read_to_string(self.dir.join("node.json")).expect("node.json");
        serde_json::from_str(&text).expect("JSON")
    }
}

/// Sends `request` as it is to `address` (`host:port`) and yields the status code and the body.
pub(crate) fn raw_http(address: &str, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("the API");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(request.as_bytes()).expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    (status.unwrap_or_else(|| panic!("not HTTP: {answer}")), body)
}

/// A number of a running node's `/metrics`.
pub(crate) fn metric(data_dir: &Path, name: &str) -> f64 {
    let text = std::fs::read_to_string(data_dir.join("node.json")).expect("node.json");
    let file: Value = serde_json::from_str(&text).expect("JSON");
    let address = file["api"].as_str().and_then(|api| api.strip_prefix("http://")).expect("an address");
    let token = file["token"].as_str().expect("a token");
    let head = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    let (status, body) = raw_http(address, &format!("{head}Authorization: Bearer {token}\r\n\r\n"));
    assert_eq!(status, 200, "{body}");
    let line = body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is not counted: {body}")).trim().parse().expect("a number")
}

/// How long the first page of a service takes on circuits that are for `user` alone.
pub(crate) fn page_alone(proxy: &str, address: &str, user: usize) -> Result<Duration, String> {
    let began = Instant::now();
    let mut socket = TcpStream::connect(proxy).map_err(|error| error.to_string())?;
    socket.set_read_timeout(Some(PATIENCE * 2)).map_err(|error| error.to_string())?;
    let credentials = BASE64.encode(format!("user{user}:x").as_bytes());
    let head = format!("CONNECT {address}:80 HTTP/1.1\r\nProxy-Authorization: Basic {credentials}\r\n\r\n");
    socket.write_all(head.as_bytes()).map_err(|error| error.to_string())?;
    let mut answer = [0; 39];
    socket.read_exact(&mut answer).map_err(|error| error.to_string())?;
    if !answer.starts_with(b"HTTP/1.1 200 ") {
        return Err(String::from_utf8_lossy(&answer).into_owned());
    }
    socket.write_all(b"GET / HTTP/1.1\r\n\r\n").map_err(|error| error.to_string())?;
    let mut page = Vec::new();
    socket.read_to_end(&mut page).map_err(|error| error.to_string())?;
    if page.ends_with(b"a page") { Ok(began.elapsed()) } else { Err(format!("{} bytes", page.len())) }
}

/// One whole network at a time; nextest holds the same by its test group.
pub(crate) fn one_network_at_a_time() -> MutexGuard<'static, ()> {
    static NETWORKS: Mutex<()> = Mutex::new(());
    NETWORKS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says on standard error why a test cannot be tried here. `make test` shows and counts these lines.
pub(crate) fn not_tried(test: &str, why: &str) {
    eprintln!("NOT TRIED: {test}: {why}");
}

/// Unwraps with the error's own words.
#[track_caller]
pub(crate) fn ok<T>(result: Result<T, Error>) -> T {
    result.unwrap_or_else(|e| panic!("{e}"))
}
