//! The level `mixed` at the client's proxy: a program's request is read to its end, goes through the mixnet as one, and its answer is the end of
//! the stream. Nothing of it ever goes by circuit instead.

use std::time::Duration;

use fog_services::{
    Address, Failure as Unreached,
    core::mixed::{
        Asking, Failure, MAX_REQUEST, NotServed,
        http::{self, Framing},
    },
    runtime::Services,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    time::{sleep, timeout, timeout_at},
};

use super::{Desk, dialer::unreached};
use crate::{
    node::clock,
    proxy::{self, Ask, Progress, Refusal, Stage, Target},
};

/// For the descriptor.
const PATIENCE: Duration = Duration::from_secs(90);
/// A program has so long to say all that it wants to say.
const ASKING: Duration = Duration::from_secs(60);
/// What is not HTTP is a whole request when its program has been quiet for so long, or has ended its half.
const IDLE: Duration = Duration::from_secs(1);
/// While the directory is not ready.
const PAUSE: Duration = Duration::from_millis(250);
/// A program that still speaks is listened to for so long after its answer, or the system would take the answer back.
const DRAIN: Duration = Duration::from_secs(5);
const BUFFER: usize = 64 * 1024;

impl Desk {
    /// A stream that carries one request and its answer, once it is known that the service takes such.
    pub(super) async fn open_mixed(&self, ask: Ask, progress: &Progress) -> Result<DuplexStream, Refusal> {
        let Target::Service { name, port } = ask.target else { return Err(Refusal::NotMixed) };
        let address: Address = name.parse().map_err(|_| Refusal::BadAddress)?;
        progress.set(Stage::Descriptor);
        let asking = Asking { address, client: Some(self.client.clone()), request: None };
        let looking = async {
            loop {
                match self.services.ask_mixed(asking.clone()).await {
                    Err(Failure::Lookup(Unreached::NotReady)) => sleep(PAUSE).await,
                    found => return found,
                }
            }
        };
        timeout(PATIENCE, looking).await.unwrap_or(Err(Failure::TimedOut)).map_err(refusal)?;
        let (program, ours) = tokio::io::duplex(BUFFER);
        tokio::spawn(carry(self.services.clone(), asking, (port, ask.early), ours));
        Ok(program)
    }
}

fn refusal(failure: Failure) -> Refusal {
    match failure {
        Failure::Lookup(failure) => unreached(failure),
        Failure::NotTaken => Refusal::NotTaken,
        Failure::NoPoint => Refusal::IntroductionFailed,
        Failure::TimedOut => Refusal::TimedOut,
        Failure::TooLarge | Failure::Lost | Failure::NotServed(_) => Refusal::Unreachable,
    }
}

/// What a program said, and whether it ended its half.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    bytes: Vec<u8>,
    half_closed: bool,
    outcome: Result<(), Failure>,
}

async fn carry(services: Services, asking: Asking, (port, early): (u16, Vec<u8>), mut stream: DuplexStream) {
    let Said { bytes, half_closed, outcome } = listen(&mut stream, early).await;
    let is_http = http::request(&bytes) != Framing::Other;
    let answer = match outcome {
        Ok(()) if bytes.is_empty() && half_closed => return,
        Ok(()) => services.ask_mixed(Asking { request: Some((port, bytes, half_closed)), ..asking }).await,
        Err(failure) => Err(failure),
    };
    let said = match answer {
        Ok(answer) => answer,
        // A program that does not speak HTTP sees that its stream ends.
        Err(failure) if is_http => proxy::http_answer(status(failure), &failure.to_string()),
        Err(failure) => {
            tracing::debug!(%failure, "an exchange through the mixnet failed");
            Vec::new()
        }
    };
    if stream.write_all(&said).await.is_ok() && stream.shutdown().await.is_ok() {
        let drained = async { while stream.read(&mut [0; 4096]).await.is_ok_and(|n| n > 0) {} };
        let _time_is_up = timeout(DRAIN, drained).await;
    }
}

fn status(failure: Failure) -> u16 {
    match failure {
        Failure::TooLarge => 413,
        Failure::TimedOut | Failure::NotServed(NotServed::TimedOut) => 504,
        Failure::NotServed(NotServed::Port) => 403,
        Failure::NotServed(NotServed::Busy) | Failure::NoPoint => 503,
        _ => 502,
    }
}

/// Reads a request to its end.
async fn listen(stream: &mut DuplexStream, mut bytes: Vec<u8>) -> Said {
    let until = clock::now().mono + ASKING;
    let mut buffer = vec![0; 16 * 1024];
    let (half_closed, outcome) = loop {
        if bytes.len() > MAX_REQUEST {
            break (false, Err(Failure::TooLarge));
        }
        let framing = http::request(&bytes);
        let wait = match framing {
            Framing::Whole => break (false, Ok(())),
            Framing::Other => until.min(clock::now().mono + IDLE),
            Framing::More | Framing::UntilEnd => until,
        };
        match timeout_at(wait.into(), stream.read(&mut buffer)).await {
            Ok(Ok(0) | Err(_)) => break (true, Ok(())),
            Ok(Ok(n)) => bytes.extend_from_slice(buffer.get(..n).unwrap_or_default()),
            Err(_) if framing == Framing::Other => break (false, Ok(())),
            Err(_) => break (false, Err(Failure::TimedOut)),
        }
    };
    Said { bytes, half_closed, outcome }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    /// What is heard of a program that says this in two pieces, and then ends its half or not.
    async fn heard(early: &[u8], more: &[u8], ends: bool) -> Said {
        let (mut program, mut ours) = tokio::io::duplex(BUFFER);
        let (early, more) = (early.to_vec(), more.to_vec());
        let program = tokio::spawn(async move {
            let _gone = program.write_all(&more).await;
            if ends {
                let _gone = program.shutdown().await;
            }
            program
        });
        let said = listen(&mut ours, early).await;
        drop((ours, program));
        said
    }

    #[tokio::test]
    async fn a_request_ends_with_http_with_its_half_or_with_silence() {
        let (head, rest) = GET.split_at(10);
        let whole = |bytes: &[u8], half_closed| Said { bytes: bytes.to_vec(), half_closed, outcome: Ok(()) };
        assert_eq!(heard(head, rest, false).await, whole(GET, false));
        assert_eq!(heard(GET, b"", false).await, whole(GET, false));
        assert_eq!(heard(b"\0bina", b"ry", false).await, whole(b"\0binary", false));
        assert_eq!(heard(b"\0bina", b"ry", true).await, whole(b"\0binary", true));
        assert_eq!(heard(head, b"", true).await, whole(head, true), "cut off, and for the service to judge");
    }

    #[tokio::test]
    async fn a_request_that_is_too_large_is_not_read_to_its_end() {
        let head = b"POST / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n";
        let said = heard(head, &vec![7; 1_000_000], false).await;
        assert_eq!(said.outcome, Err(Failure::TooLarge));
        assert!(said.bytes.len() <= MAX_REQUEST + 16 * 1024);
        assert_eq!(status(Failure::TooLarge), 413);
    }
}
