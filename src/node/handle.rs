//! A cloneable handle on a running node: what the API calls.

use tokio::sync::{mpsc, oneshot, watch};

use super::{
    command::{Command, Failure, MixPing, MixSend, MixSendEvent, Reply},
    report,
};

/// Commands that may wait for the event loop at one time.
pub const COMMAND_QUEUE: usize = 64;
/// Progress lines that may wait for a slow reader.
const EVENT_QUEUE: usize = 64;

/// Asks a running node.
#[derive(Debug, Clone)]
pub struct NodeHandle {
    commands: mpsc::Sender<Command>,
    state: watch::Receiver<report::State>,
    inbox: watch::Receiver<u64>,
}

impl NodeHandle {
    /// A handle whose commands go to `commands`; `state` follows the node's state, `inbox` grows with each message received.
    pub fn new(
        commands: mpsc::Sender<Command>,
        state: watch::Receiver<report::State>,
        inbox: watch::Receiver<u64>,
    ) -> Self {
        Self { commands, state, inbox }
    }

    /// The node's state now.
    pub fn state(&self) -> report::State {
        *self.state.borrow()
    }

    /// Changes whenever a message arrives: what `recv --follow` waits on.
    pub fn inbox(&self) -> watch::Receiver<u64> {
        self.inbox.clone()
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    /// `fog status`
    pub async fn status(&self) -> Result<report::Status, Failure> {
        self.ask(Command::Status).await
    }

    /// `fog peers`
    pub async fn peers(&self) -> Result<Vec<report::Peer>, Failure> {
        self.ask(Command::Peers).await
    }

    /// `fog id`
    pub async fn identity(&self) -> Result<report::Identity, Failure> {
        self.ask(Command::Identity).await
    }

    /// `fog connect`
    pub async fn connect(&self, target: String, timeout: std::time::Duration) -> Result<report::Connected, Failure> {
        self.ask(|reply| Command::Connect { target, timeout, reply }).await
    }

    /// `fog relays`
    pub async fn relays(&self) -> Result<Vec<report::Relay>, Failure> {
        self.ask(Command::Relays).await
    }

    /// `fog relays snapshot`
    pub async fn snapshot(&self) -> Result<report::Snapshot, Failure> {
        self.ask(Command::Snapshot).await
    }

    /// `fog relays verify`
    pub async fn verify_seat(&self, relay: String) -> Result<report::Seat, Failure> {
        self.ask(|reply| Command::VerifySeat { relay, reply }).await
    }

    /// `fog reputation`
    pub async fn reputation(&self, peer: Option<String>) -> Result<Vec<report::Reputation>, Failure> {
        self.ask(|reply| Command::Reputation { peer, reply }).await
    }

    /// `fog mix recv`
    pub async fn mix_receive(&self, all: bool) -> Result<Vec<report::Received>, Failure> {
        self.ask(|reply| Command::MixReceive { all, reply }).await
    }

    /// The text of `/metrics`.
    pub async fn metrics(&self) -> Result<String, Failure> {
        self.ask(Command::Metrics).await
    }

    /// `fog mix send`: progress, then the end.
    pub async fn mix_send(&self, send: MixSend) -> Result<mpsc::Receiver<Result<MixSendEvent, Failure>>, Failure> {
        let (events, receiver) = mpsc::channel(EVENT_QUEUE);
        self.commands.send(Command::MixSend { send, events }).await.map_err(|_| stopped())?;
        Ok(receiver)
    }

    /// `fog mix ping`: one event for each ping.
    pub async fn mix_ping(&self, ping: MixPing) -> Result<mpsc::Receiver<Result<report::PingReply, Failure>>, Failure> {
        let (events, receiver) = mpsc::channel(EVENT_QUEUE);
        self.commands.send(Command::MixPing { ping, events }).await.map_err(|_| stopped())?;
        Ok(receiver)
    }
}

fn stopped() -> Failure {
    Failure::failed("the node is stopping", "start it again with `fog run`")
}
