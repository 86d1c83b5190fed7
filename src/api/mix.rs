//! The mixnet: `/v1/mix/send`, `/v1/mix/ping`, `/v1/mix/recv`. All three answer with a stream of lines.

use std::{collections::VecDeque, time::Duration};

use axum::{extract::State, response::Response};
use data_encoding::BASE64;
use futures::{Stream, stream};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::{
    Api, ErrorBody,
    error::ApiError,
    extract::Body,
    ndjson::{self, Line},
};
use crate::node::{
    command::{Failure, MixPing, MixSend, MixSendEvent},
    handle::NodeHandle,
    report,
};

/// The largest message.
pub const MAX_MESSAGE: usize = 1024 * 1024;
/// Pings in one request at most.
pub const MAX_PINGS: u32 = 100_000;
/// When most requests give up.
pub(super) const DEFAULT_TIMEOUT_S: u64 = 30;
/// When sending gives up.
pub(super) const SEND_TIMEOUT_S: u64 = 120;
const LONGEST_TIMEOUT_S: u64 = 86_400;

/// A message to send.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SendRequest {
    /// Relay id, invite or contact.
    pub to: String,
    /// The message as text; or else `base64`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The message in base64; or else `text`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
    /// Relays on each path; 4 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hops: Option<usize>,
    /// Whether the sender stays unnamed to the recipient.
    #[serde(default)]
    pub anonymous: bool,
    /// Whether to wait for the recipient's node even if a mailbox stored the message.
    #[serde(default)]
    pub wait: bool,
    /// When to give up; 120 seconds if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u64>,
}

/// A series of pings.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PingRequest {
    /// Relay id, invite or contact.
    pub to: String,
    /// How many.
    pub count: u32,
    /// Relays on each path; 4 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hops: Option<usize>,
    /// How long to wait for each; 30 seconds if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u64>,
}

/// Which messages to read.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReceiveRequest {
    /// Also those already read, of the last seven days.
    #[serde(default)]
    pub all: bool,
    /// Whether to stay and read what comes.
    #[serde(default)]
    pub follow: bool,
}

/// A time limit of a request, in its bounds.
pub(super) fn timeout(seconds: Option<u64>, default: u64) -> Result<Duration, ApiError> {
    match seconds.unwrap_or(default) {
        seconds @ 1..=LONGEST_TIMEOUT_S => Ok(Duration::from_secs(seconds)),
        _ => Err(ApiError::usage("timeout_s is out of range", format!("it takes 1 to {LONGEST_TIMEOUT_S}"))),
    }
}

fn body(request: &SendRequest) -> Result<Vec<u8>, ApiError> {
    let message = match (&request.text, &request.base64) {
        (Some(text), None) => text.clone().into_bytes(),
        (None, Some(text)) => BASE64
            .decode(text.as_bytes())
            .map_err(|_| ApiError::usage("`base64` is not base64", "use the alphabet with + and /, and padding"))?,
        _ => return Err(ApiError::usage("a message is either `text` or `base64`", "give exactly one of them")),
    };
    if message.len() > MAX_MESSAGE {
        let error = format!("a message of {} bytes is too long", message.len());
        return Err(ApiError::usage(error, format!("a message has at most {MAX_MESSAGE} bytes; send a file in parts")));
    }
    Ok(message)
}

/// Sends a message: progress lines, then how it ended.
///
/// Each line but the last is `{"progress":{"acknowledged","packets"}}`.
#[utoipa::path(post, path = "/v1/mix/send", tag = "mix", request_body = SendRequest, responses(
    (status = 200, body = report::Sent, content_type = "application/x-ndjson", description = "progress lines, then this"),
    (status = 400, body = ErrorBody), (status = 422, body = ErrorBody), (status = 504, body = ErrorBody)))]
pub(super) async fn send(State(api): State<Api>, Body(request): Body<SendRequest>) -> Result<Response, ApiError> {
    let send = MixSend {
        body: body(&request)?,
        timeout: timeout(request.timeout_s, SEND_TIMEOUT_S)?,
        to: request.to,
        hops: request.hops,
        anonymous: request.anonymous,
        wait: request.wait,
    };
    let events = api.node.mix_send(send).await?;
    streamed(events, |event| match event {
        MixSendEvent::Progress(progress) => Ok(json!({ "progress": progress })),
        MixSendEvent::Done(sent) => ndjson::line(&sent),
    })
    .await
    .map(ndjson::response)
}

/// Pings through the mixnet: one line for each, then their sum.
#[utoipa::path(post, path = "/v1/mix/ping", tag = "mix", request_body = PingRequest, responses(
    (status = 200, body = report::PingSummary, content_type = "application/x-ndjson", description = "a line for each ping, then this"),
    (status = 400, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn ping(State(api): State<Api>, Body(request): Body<PingRequest>) -> Result<Response, ApiError> {
    if !(1..=MAX_PINGS).contains(&request.count) {
        return Err(ApiError::usage("count is out of range", format!("it takes 1 to {MAX_PINGS}")));
    }
    let timeout = timeout(request.timeout_s, DEFAULT_TIMEOUT_S)?;
    let ping = MixPing { to: request.to, count: request.count, hops: request.hops, timeout };
    let mut events = api.node.mix_ping(ping).await?;
    let first = first(&mut events).await?;
    Ok(ndjson::response(pings(first, events)))
}

/// Reads messages, oldest first, and marks them read; with `follow`, stays and reads what comes.
#[utoipa::path(post, path = "/v1/mix/recv", tag = "mix", request_body = ReceiveRequest, responses(
    (status = 200, body = report::Received, content_type = "application/x-ndjson", description = "a line for each message"),
    (status = 400, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn receive(State(api): State<Api>, Body(request): Body<ReceiveRequest>) -> Result<Response, ApiError> {
    let mut inbox = api.node.inbox();
    // Marked as seen before reading: what arrives in between is read now or wakes us again, but is never missed.
    inbox.borrow_and_update();
    let messages = api.node.mix_receive(request.all).await?.into();
    let reader = Reader { messages, follow: request.follow, node: api.node, inbox, stopping: api.stopping };
    Ok(ndjson::response(stream::unfold(reader, Reader::next)))
}

/// The first event decides the HTTP status: a failure there is an error and no stream.
async fn first<T>(events: &mut mpsc::Receiver<Result<T, Failure>>) -> Result<T, ApiError> {
    let stopped = || Failure::failed("the node stopped before it answered", "start it again with `fog run`");
    events.recv().await.unwrap_or_else(|| Err(stopped())).map_err(ApiError::from)
}

pub(super) async fn streamed<T: Send + 'static>(
    mut events: mpsc::Receiver<Result<T, Failure>>,
    line: impl Fn(T) -> Line + Send + 'static,
) -> Result<impl Stream<Item = Line> + Send + 'static, ApiError> {
    let first = first(&mut events).await?;
    let state = (Some(Ok(first)), events, line);
    Ok(stream::unfold(state, |(ahead, mut events, line)| async move {
        let event = match ahead {
            Some(event) => event,
            None => events.recv().await?,
        };
        let value = event.map_err(ApiError::from).and_then(&line);
        Some((value, (None, events, line)))
    }))
}

fn pings(
    first: report::PingReply,
    events: mpsc::Receiver<Result<report::PingReply, Failure>>,
) -> impl Stream<Item = Line> + Send + 'static {
    let state = Some((Some(Ok(first)), events, Vec::new()));
    stream::unfold(state, |state| async move {
        let (ahead, mut events, mut round_trips): (_, _, Vec<Option<f64>>) = state?;
        let event = match ahead {
            Some(event) => Some(event),
            None => events.recv().await,
        };
        match event {
            Some(Ok(reply)) => {
                round_trips.push(reply.rtt_ms);
                Some((ndjson::line(&reply), Some((None, events, round_trips))))
            }
            Some(Err(failure)) => Some((Err(failure.into()), None)),
            None => Some((ndjson::line(&summary(&round_trips)), None)),
        }
    })
}

fn summary(round_trips: &[Option<f64>]) -> report::PingSummary {
    let mut times: Vec<f64> = round_trips.iter().copied().flatten().collect();
    times.sort_by(f64::total_cmp);
    let median = match (times.get(times.len().saturating_sub(1) / 2), times.get(times.len() / 2)) {
        (Some(low), Some(high)) => Some(f64::midpoint(*low, *high)),
        _ => None,
    };
    // Bounded by MAX_PINGS.
    let (sent, received) = (round_trips.len() as u32, times.len() as u32);
    report::PingSummary {
        sent,
        received,
        loss: if sent == 0 { 0.0 } else { f64::from(sent - received) / f64::from(sent) },
        min_ms: times.first().copied(),
        median_ms: median,
        max_ms: times.last().copied(),
    }
}

/// Messages that were read and not written out yet, and where the next ones come from.
struct Reader {
    messages: VecDeque<report::Received>,
    follow: bool,
    node: NodeHandle,
    inbox: watch::Receiver<u64>,
    stopping: CancellationToken,
}

impl Reader {
    async fn next(mut self) -> Option<(Line, Self)> {
        loop {
            if let Some(message) = self.messages.pop_front() {
                return Some((ndjson::line(&message), self));
            }
            if !self.follow {
                return None;
            }
            tokio::select! {
                changed = self.inbox.changed() => changed.ok()?,
                () = self.stopping.cancelled() => return None,
            }
            match self.node.mix_receive(false).await {
                Ok(messages) => self.messages = messages.into(),
                Err(failure) => {
                    self.follow = false;
                    return Some((Err(failure.into()), self));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_of_pings_is_arithmetic() {
        let summary = summary(&[Some(3.0), None, Some(1.0), Some(2.0), Some(10.0)]);
        assert_eq!((summary.sent, summary.received), (5, 4));
        assert_eq!((summary.min_ms, summary.median_ms, summary.max_ms), (Some(1.0), Some(2.5), Some(10.0)));
        assert!((summary.loss - 0.2).abs() < 1e-12);
        let lost = super::summary(&[None]);
        assert_eq!((lost.loss, lost.median_ms), (1.0, None));
    }
}
