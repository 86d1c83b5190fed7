//! The proxy's way to services and exits.

use std::time::Duration;

use fog_circuits::{EndReason, Isolation, Stream, Target as To};
use fog_services::{
    Address, Failure as Unreached,
    runtime::{self, Wanted},
};
use tokio::{io::DuplexStream, sync::watch};
use tokio_util::either::Either;

use super::Desk;
use crate::{
    node::clock,
    proxy::{Ask, Dialer, Privacy, Progress, Refusal, Stage, Target},
};

/// How long a stream may take to be open.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long the other end of an open connection may take to answer: its server is on its own host. Then the connection is taken for dead.
const ANSWER: Duration = Duration::from_secs(8);

impl Dialer for Desk {
    type Stream = Either<Stream, DuplexStream>;

    async fn open(&self, ask: Ask, progress: Progress) -> Result<Self::Stream, Refusal> {
        if ask.privacy == Privacy::Mixed {
            return self.open_mixed(ask, &progress).await.map(Either::Right);
        }
        let isolation = Isolation(ask.isolation);
        let opening = async {
            let stream = match ask.target {
                Target::Service { name, port } => {
                    let address = name.parse().map_err(|_| Refusal::BadAddress)?;
                    return self.reach_until_taken(address, port, isolation, &ask.early, &progress).await;
                }
                Target::Name(name, port) => self.leave(name, port, isolation, ask.early)?,
                Target::Address(address, port) => self.leave(address.to_string(), port, isolation, ask.early)?,
            };
            progress.set(Stage::Connecting);
            stream.connected().await.map_err(|ended| refusal(ended.0))?;
            Ok(stream)
        };
        tokio::time::timeout(PATIENCE, opening).await.unwrap_or(Err(Refusal::TimedOut)).map(Either::Left)
    }
}

impl Desk {
    /// A stream through an exit. What names this host, somebody's own network or an onion service is nobody else's to know.
    fn leave(&self, host: String, port: u16, isolation: Isolation, early: Vec<u8>) -> Result<Stream, Refusal> {
        // Of a name that a resolver would not find (RFC 7686) an exit would only learn it.
        let is_onion = host == "onion" || host.ends_with(".onion");
        if is_onion || !self.asked.allows_host(&host, port) {
            return Err(Refusal::NotAllowed);
        }
        Ok(self.circuits.connect(To::Host(host, port), isolation, early))
    }

    /// A stream that the service has taken. A connection that does not answer, or ends meanwhile, is replaced by another one.
    async fn reach_until_taken(
        &self,
        address: Address,
        port: u16,
        isolation: Isolation,
        early: &[u8],
        progress: &Progress,
    ) -> Result<Stream, Refusal> {
        loop {
            let stream = self.reach(address, port, isolation, early.to_vec(), progress).await?;
            progress.set(Stage::Connecting);
            match tokio::time::timeout(ANSWER, stream.connected()).await {
                Ok(Ok(())) => return Ok(stream),
                Ok(Err(ended)) if ended.0 != EndReason::CircuitClosed => return Err(refusal(ended.0)),
                Ok(Err(_)) | Err(_) => self.services.renew(address, isolation, Some(&self.client)),
            }
        }
    }

    async fn reach(
        &self,
        address: Address,
        port: u16,
        isolation: Isolation,
        early: Vec<u8>,
        progress: &Progress,
    ) -> Result<Stream, Refusal> {
        let (stage, mut seen) = watch::channel(None);
        let attempt = || {
            let (client, stage) = (Some(self.client.clone()), stage.clone());
            self.services.connect(Wanted { address, port, client, isolation, early: early.clone(), stage })
        };
        let connecting = self.patiently(clock::now().mono + PATIENCE, attempt);
        tokio::pin!(connecting);
        loop {
            tokio::select! {
                outcome = &mut connecting => {
                    return outcome.map_err(|failure| failure.map_or(Refusal::TimedOut, unreached));
                }
                Ok(()) = seen.changed() => {
                    let stage = *seen.borrow_and_update();
                    progress.set(stage.map_or(Stage::Circuit, shown));
                }
            }
        }
    }
}

fn shown(stage: runtime::Stage) -> Stage {
    match stage {
        runtime::Stage::Descriptor => Stage::Descriptor,
        runtime::Stage::Circuits => Stage::Circuit,
        runtime::Stage::Introduction => Stage::Introduction,
        runtime::Stage::Service => Stage::Rendezvous,
    }
}

pub(super) fn unreached(failure: Unreached) -> Refusal {
    match failure {
        Unreached::NotReady => Refusal::NoCircuit,
        Unreached::NotFound => Refusal::NoDescriptor,
        Unreached::Invalid(_) => Refusal::BadDescriptor,
        Unreached::ClientKeyMissing => Refusal::ClientKeyMissing,
        Unreached::ClientKeyWrong => Refusal::ClientKeyWrong,
        Unreached::Introduction => Refusal::IntroductionFailed,
        Unreached::Rendezvous => Refusal::RendezvousFailed,
        Unreached::TimedOut => Refusal::IntroductionTimedOut,
        Unreached::TooMany => Refusal::Busy,
    }
}

fn refusal(reason: EndReason) -> Refusal {
    match reason {
        EndReason::Refused => Refusal::NotAllowed,
        EndReason::NotFound => Refusal::Unreachable,
        EndReason::Unreachable => Refusal::Refused,
        EndReason::Timeout => Refusal::TimedOut,
        EndReason::Busy => Refusal::Busy,
        EndReason::Other | EndReason::Reset => Refusal::Unreachable,
        EndReason::CircuitClosed => Refusal::NoCircuit,
    }
}
