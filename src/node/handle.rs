//! A cloneable handle on a running node: what the API calls.

use std::{path::PathBuf, sync::Arc};

use fog_base::NetworkId;
use fog_chat::core::engine::RoomKey;
use fog_circuits::CircuitInfo;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use zeroize::Zeroizing;

use super::{
    chat::{
        Desk, FileEvent,
        report::{Destroyed, File, FileDone, FileProgress, News, Target},
    },
    circuits::report::{Circuit, ProxyRequest},
    command::{ChatJob, Command, Failure, MixPing, MixSend, MixSendEvent, Reply},
    report, services, tasks,
};
use crate::proxy;

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
    chat: broadcast::Sender<News>,
    network: NetworkId,
}

impl NodeHandle {
    /// A handle whose commands go to `commands`; `state` follows the node's state, `inbox` grows with each message received, `chat` tells
    /// what happens there.
    pub fn new(
        commands: mpsc::Sender<Command>,
        state: watch::Receiver<report::State>,
        (inbox, chat): (watch::Receiver<u64>, broadcast::Sender<News>),
        network: NetworkId,
    ) -> Self {
        Self { commands, state, inbox, chat, network }
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

    /// `fog chat …`: `job` runs in the event loop, between two events.
    pub(crate) async fn chat<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Desk<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        self.ask(|reply| Command::Chat(ChatJob(Box::new(move |desk| drop(reply.send(job(desk))))))).await
    }

    /// `fog chat join`: the key of a password takes a while, which is not the event loop's.
    pub(crate) async fn chat_join(&self, name: String, password: Option<String>) -> Result<Target, Failure> {
        let (network, room) = (self.network, name.strip_prefix('#').unwrap_or(&name).to_owned());
        let derived = room.clone();
        let key = match password.map(Zeroizing::new) {
            None => None,
            Some(password) => {
                let derive = move || RoomKey::derive(&network, &derived, &password);
                let key = tokio::task::spawn_blocking(derive)
                    .await
                    .map_err(|error| Failure::failed(error.to_string(), ""))?;
                Some(key.map_err(|error| Failure::usage(error.to_string(), "choose another"))?)
            }
        };
        self.chat(move |desk| desk.join(&room, key)).await
    }

    /// `fog chat file send`
    pub(crate) async fn file_send(&self, to: String, path: PathBuf) -> Result<FileDone, Failure> {
        self.ask(|reply| Command::FileSend { to, path, reply }).await
    }

    /// `fog chat file list`
    pub(crate) async fn file_list(&self) -> Result<Vec<File>, Failure> {
        self.ask(Command::FileList).await
    }

    /// `fog chat file pause`
    pub(crate) async fn file_pause(&self, id: String) -> Result<FileProgress, Failure> {
        self.ask(|reply| Command::FilePause(id, reply)).await
    }

    /// `fog chat file get`: progress, then the end.
    pub(crate) async fn file_get(
        &self,
        id: String,
        out: Option<PathBuf>,
    ) -> Result<mpsc::Receiver<Result<FileEvent, Failure>>, Failure> {
        let (events, receiver) = mpsc::channel(EVENT_QUEUE);
        self.commands.send(Command::FileGet { id, out, events }).await.map_err(|_| stopped())?;
        Ok(receiver)
    }

    /// `fog chat panic`
    pub(crate) async fn chat_panic(&self) -> Result<Destroyed, Failure> {
        self.ask(Command::ChatPanic).await
    }

    /// What happens in chat from now on.
    pub(crate) fn chat_news(&self) -> broadcast::Receiver<News> {
        self.chat.subscribe()
    }

    /// `fog circuits`
    pub(crate) async fn circuits(&self) -> Result<Vec<Circuit>, Failure> {
        let of = |circuit: CircuitInfo| Circuit {
            id: circuit.circuit.0,
            state: circuit.state.into(),
            purpose: circuit.purpose.name().into(),
            hops: circuit.hops.iter().map(ToString::to_string).collect(),
            streams: circuit.streams,
            age_s: circuit.age.as_secs_f64(),
            bytes_up: circuit.bytes_up,
            bytes_down: circuit.bytes_down,
        };
        Ok(self.services().await?.circuits.list().await.into_iter().map(of).collect())
    }

    /// What the proxy is asked for at present.
    pub(crate) async fn proxy_requests(&self) -> Result<Vec<ProxyRequest>, Failure> {
        let of = |view: proxy::View| ProxyRequest {
            target: view.target,
            stage: view.stage.name().into(),
            age_s: view.age.as_secs_f64(),
        };
        Ok(self.services().await?.requests.views().into_iter().map(of).collect())
    }

    /// `fog service …`, and what the proxy opens streams by.
    pub(crate) async fn services(&self) -> Result<Arc<services::Desk>, Failure> {
        self.ask(Command::Services).await
    }

    /// `fog task …` and `fog worker …`
    pub(crate) async fn tasks(&self) -> Result<Arc<tasks::Desk>, Failure> {
        self.ask(Command::Tasks).await
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
