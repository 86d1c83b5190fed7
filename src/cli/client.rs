//! The command line's side of the local API: finds the node of a data directory, asks it, and turns refusals into exit codes.

use std::{
    io::{self, BufRead, BufReader},
    path::PathBuf,
    thread,
    time::Duration,
};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, error::Category};
use ureq::{Agent, Body, Error, http::Response};

use super::CliError;
use crate::{
    api::{ErrorBody, NodeFile},
    config::Config,
};

const CONNECT: Duration = Duration::from_secs(5);
/// What the node may take beyond the limit that it was given, before we stop waiting for it.
const MARGIN: Duration = Duration::from_secs(1);
/// How often it is tried whether a node that broke a connection is gone, and the pause in between.
const ATTEMPTS: usize = 10;
const BETWEEN: Duration = Duration::from_millis(100);

/// A running node.
pub(super) struct Client {
    node: NodeFile,
    data_dir: PathBuf,
    agent: Agent,
}

impl Client {
    /// The node of the configured data directory. That it answers shows with the first request.
    pub(super) fn open(config: &Config) -> Result<Self, CliError> {
        let data_dir = config.data_dir.clone();
        let node = match NodeFile::read(&data_dir) {
            Ok(Some(node)) => node,
            Ok(None) => return Err(CliError::no_node(&data_dir)),
            Err(error) => {
                let message = format!("`{}` cannot be read: {error}", data_dir.join("node.json").display());
                return Err(CliError::failed(message, "is the data directory yours? a running node writes this file"));
            }
        };
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            // The token is for this host: no proxy may see it.
            .proxy(None)
            .max_redirects(0)
            .timeout_connect(Some(CONNECT))
            .build();
        Ok(Self { node, data_dir, agent: agent.into() })
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.node.api)
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.node.token)
    }

    /// Asks for a value.
    pub(super) fn get<T: DeserializeOwned>(&self, path: &str, timeout: Duration) -> Result<T, CliError> {
        self.get_with(path, &[], timeout)
    }

    /// Asks for a value, with these parameters.
    pub(super) fn get_with<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
        timeout: Duration,
    ) -> Result<T, CliError> {
        let request = self.agent.get(self.url(path)).header("Authorization", self.bearer());
        let request = request.query_pairs(query.iter().copied());
        let answer = request.config().timeout_global(Some(timeout)).build().call();
        self.value(answer)
    }

    /// Asks for something to be done within `timeout`, which the request names too.
    pub(super) fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
        timeout: Duration,
    ) -> Result<T, CliError> {
        let request = self.agent.post(self.url(path)).header("Authorization", self.bearer());
        let answer = request.config().timeout_global(Some(timeout + MARGIN)).build().send_json(body);
        self.value(answer)
    }

    /// Asks for a stream and hands on each line. Without a limit it lasts as long as the node sends.
    pub(super) fn stream<B: Serialize>(
        &self,
        path: &str,
        body: &B,
        timeout: Option<Duration>,
        each: impl FnMut(Value) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let request = self.agent.post(self.url(path)).header("Authorization", self.bearer());
        let limit = timeout.map(|timeout| timeout + MARGIN);
        let answer = request.config().timeout_global(limit).build().send_json(body);
        let response = self.accepted(answer)?;
        self.lines(response, each)
    }

    /// Follows a stream without end: `opened` once the node sends it, then `each` line.
    pub(super) fn follow(
        &self,
        path: &str,
        opened: impl FnOnce() -> Result<(), CliError>,
        each: impl FnMut(Value) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let answer = self.agent.get(self.url(path)).header("Authorization", self.bearer()).call();
        let response = self.accepted(answer)?;
        opened()?;
        self.lines(response, each)
    }

    fn lines(
        &self,
        response: Response<Body>,
        mut each: impl FnMut(Value) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        // Each line is bounded by the node; the stream as a whole is not.
        let lines = BufReader::new(response.into_body().into_with_config().limit(u64::MAX).reader()).lines();
        for line in lines {
            let line = line.map_err(|error| self.broken(&error))?;
            let value: Value = serde_json::from_str(&line).map_err(|error| self.unreadable(error))?;
            if value.get("error").is_some() {
                let body = serde_json::from_value(value).map_err(|error| self.strange(&error))?;
                return Err(self.refused(body));
            }
            each(value)?;
        }
        Ok(())
    }

    fn value<T: DeserializeOwned>(&self, answer: Result<Response<Body>, Error>) -> Result<T, CliError> {
        let response = self.accepted(answer)?;
        let reader = response.into_body().into_with_config().limit(u64::MAX).reader();
        serde_json::from_reader(BufReader::new(reader)).map_err(|error| self.unreadable(error))
    }

    fn accepted(&self, answer: Result<Response<Body>, Error>) -> Result<Response<Body>, CliError> {
        let mut response = answer.map_err(|error| self.unreachable(error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        if response.status() == 401 {
            // Another program has the port now: the file was left by a node that was killed.
            return Err(CliError::no_node(&self.data_dir));
        }
        match response.body_mut().read_json::<ErrorBody>() {
            Ok(body) => Err(self.refused(body)),
            Err(Error::Json(error)) => Err(self.strange(&error)),
            Err(error) => Err(self.unreachable(error)),
        }
    }

    fn refused(&self, body: ErrorBody) -> CliError {
        match body.status {
            400 => CliError::usage(body.error, body.hint),
            401 => CliError::no_node(&self.data_dir),
            504 => CliError::timed_out(body.error, body.hint),
            _ => CliError::failed(body.error, body.hint),
        }
    }

    fn unreachable(&self, error: Error) -> CliError {
        match error {
            Error::ConnectionFailed => CliError::no_node(&self.data_dir),
            // Also when it takes no connection: nobody listening would have refused it.
            Error::Timeout(_) => {
                CliError::timed_out("the node did not answer in time", "allow it more with --timeout, and see its log")
            }
            Error::Io(error) => self.broken(&error),
            Error::Json(error) => self.unreadable(error),
            error => self.strange(&error),
        }
    }

    /// An answer that is no JSON, or that was cut off.
    fn unreadable(&self, error: serde_json::Error) -> CliError {
        match error.classify() {
            Category::Io | Category::Eof => self.broken(&error.into()),
            Category::Syntax | Category::Data => self.strange(&error),
        }
    }

    /// A stream that only the node ends is over: it stops.
    pub(super) fn stopped(&self) -> CliError {
        CliError::no_node(&self.data_dir)
    }

    /// Whether nobody listens any more where the node was. A node that ends breaks its connections a moment before.
    fn is_gone(&self) -> bool {
        for _ in 0..ATTEMPTS {
            let asked = self.agent.get(self.url("/healthz")).config().timeout_global(Some(MARGIN)).build().call();
            match asked {
                Err(Error::ConnectionFailed) => return true,
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::ConnectionRefused => return true,
                _ => thread::sleep(BETWEEN),
            }
        }
        false
    }

    fn broken(&self, error: &io::Error) -> CliError {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => CliError::no_node(&self.data_dir),
            io::ErrorKind::TimedOut => {
                CliError::timed_out("the node did not answer in time", "allow it more with --timeout, and see its log")
            }
            // ureq wraps its own errors when a body is read.
            _ => match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
                Some(Error::Timeout(_)) => CliError::timed_out(
                    "the node did not answer in time",
                    "allow it more with --timeout, and see its log",
                ),
                _ if self.is_gone() => self.stopped(),
                _ => CliError::failed(
                    format!("the connection to the node broke: {error}"),
                    "see whether it still runs: `fog status`",
                ),
            },
        }
    }

    fn strange(&self, error: &dyn std::fmt::Display) -> CliError {
        let message = format!("what answers at {} is not this node: {error}", self.node.api);
        CliError::failed(message, "see whether another program took its port, and start it again with `fog run`")
    }
}
