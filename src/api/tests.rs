//! The API over a node that answers from a script: statuses, streams, and that the document tells the truth.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use axum::{
    body::{Body, to_bytes},
    http::{Method, Request, Response, StatusCode, header},
};
use fog_base::NetworkId;
use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc, watch};
use tower::ServiceExt;

use super::*;
use crate::node::{
    command::{Command, Failure, MixSendEvent},
    report,
};

struct Fixture {
    router: Router,
    state: watch::Sender<report::State>,
    inbox: watch::Sender<u64>,
    stopping: CancellationToken,
}

/// A node that does what `script` says with each command.
fn node(script: impl Fn(Command) + Send + Sync + 'static) -> Fixture {
    let (commands, mut queue) = mpsc::channel(8);
    let (state, state_seen) = watch::channel(report::State::Joining);
    let (inbox, inbox_seen) = watch::channel(0);
    let script = Arc::new(script);
    tokio::spawn(async move {
        while let Some(command) = queue.recv().await {
            let script = script.clone();
            tokio::task::spawn_blocking(move || script(command));
        }
    });
    let stopping = CancellationToken::new();
    let api = Api {
        node: NodeHandle::new(commands, state_seen, (inbox_seen, broadcast::channel(8).0), NetworkId([7; 32])),
        guard: guard::Guard::new("token", 80),
        stopping: stopping.clone(),
    };
    Fixture { router: router(api), state, inbox, stopping }
}

impl Fixture {
    async fn ask(&self, method: Method, path: &str, body: impl Into<Body>) -> Response<Body> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "127.0.0.1:80")
            .header(header::AUTHORIZATION, "Bearer token")
            .body(body.into())
            .unwrap();
        self.router.clone().oneshot(request).await.unwrap()
    }

    async fn lines(&self, method: Method, path: &str, body: &Value) -> (StatusCode, Vec<Value>) {
        let response = self.ask(method, path, body.to_string()).await;
        let status = response.status();
        let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        let lines = std::str::from_utf8(&bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap());
        (status, lines.collect())
    }
}

fn message(id: &str) -> report::Received {
    report::Received {
        id: id.into(),
        from: None,
        text: Some("hello".into()),
        base64: None,
        bytes: 5,
        received_at: "2026-01-01T00:00:00Z".into(),
    }
}

fn sent() -> report::Sent {
    report::Sent {
        id: "aa".into(),
        state: "delivered".into(),
        acked: true,
        reason: None,
        latency_ms: 5,
        packets: 2,
        retransmissions: 0,
        hops: 4,
    }
}

/// Every resource of the API.
const RESOURCES: [&str; 61] = [
    "/healthz",
    "/metrics",
    "/readyz",
    "/v1/chat/contacts",
    "/v1/chat/contacts/block",
    "/v1/chat/contacts/policy",
    "/v1/chat/contacts/verify",
    "/v1/chat/conversations",
    "/v1/chat/events",
    "/v1/chat/files",
    "/v1/chat/files/get",
    "/v1/chat/files/pause",
    "/v1/chat/groups",
    "/v1/chat/groups/accept",
    "/v1/chat/groups/invite",
    "/v1/chat/groups/remove",
    "/v1/chat/groups/role",
    "/v1/chat/history",
    "/v1/chat/leave",
    "/v1/chat/members",
    "/v1/chat/messages",
    "/v1/chat/nick",
    "/v1/chat/panic",
    "/v1/chat/read",
    "/v1/chat/rooms",
    "/v1/chat/status",
    "/v1/chat/topic",
    "/v1/chat/trace",
    "/v1/chat/why",
    "/v1/circuits",
    "/v1/connect",
    "/v1/id",
    "/v1/mix/ping",
    "/v1/mix/recv",
    "/v1/mix/send",
    "/v1/openapi.json",
    "/v1/peers",
    "/v1/proxy/requests",
    "/v1/relays",
    "/v1/relays/snapshot",
    "/v1/relays/{peer}/seat",
    "/v1/reputation",
    "/v1/services",
    "/v1/services/authorize",
    "/v1/services/client-key",
    "/v1/services/lookup",
    "/v1/services/remove",
    "/v1/status",
    "/v1/tasks",
    "/v1/tasks/batch",
    "/v1/tasks/explain",
    "/v1/tasks/{id}",
    "/v1/tasks/{id}/cancel",
    "/v1/tasks/{id}/logs",
    "/v1/tasks/{id}/output",
    "/v1/tasks/{id}/wait",
    "/v1/worker",
    "/v1/worker/pause",
    "/v1/worker/receipts",
    "/v1/worker/resume",
    "/v1/worker/topology",
];

#[tokio::test]
async fn every_documented_resource_exists_and_answers_its_method() {
    let fixture = node(drop);
    let document = serde_json::to_value(document()).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let known: BTreeSet<&str> = paths.keys().map(String::as_str).collect();
    assert_eq!(known, BTreeSet::from(RESOURCES));
    for (path, methods) in paths {
        for method in methods.as_object().unwrap().keys() {
            let method: Method = method.to_uppercase().parse().unwrap();
            let status = fixture
                .ask(method, &path.replace("{peer}", "somebody").replace("{id}", "00"), "{\"bad\":1}")
                .await
                .status();
            assert!(!matches!(status.as_u16(), 401 | 403 | 404 | 405), "{path}: {status}");
        }
    }
    assert_eq!(fixture.ask(Method::GET, "/v1/nothing", "").await.status(), 404);
    assert_eq!(fixture.ask(Method::DELETE, "/v1/status", "").await.status(), 405);
}

#[tokio::test]
async fn readiness_follows_the_state() {
    let fixture = node(drop);
    assert_eq!(fixture.ask(Method::GET, "/readyz", "").await.status(), 503);
    fixture.state.send(report::State::Ready).unwrap();
    assert_eq!(
        fixture.lines(Method::GET, "/readyz", &json!({})).await,
        (StatusCode::OK, vec![json!({"state": "ready"})])
    );
    assert_eq!(fixture.ask(Method::GET, "/healthz", "").await.status(), 200);
}

#[tokio::test]
async fn failures_become_statuses_with_a_hint() {
    let fixture = node(|command| match command {
        Command::Connect { reply, .. } => drop(reply.send(Err(Failure::timed_out("no answer", "wait")))),
        Command::Peers(reply) => drop(reply.send(Err(Failure::failed("no peers", "")))),
        Command::Relays(reply) => drop(reply.send(Err(Failure::missing("not here", "")))),
        Command::Snapshot(reply) => drop(reply.send(Err(Failure::taken("here already", "")))),
        // A node that drops the question is one that stops.
        command => drop(command),
    });
    let (status, body) = fixture.lines(Method::POST, "/v1/connect", &json!({"target": "x"})).await;
    assert_eq!((status.as_u16(), &body[0]), (504, &json!({"error": "no answer", "hint": "wait", "status": 504})));
    assert_eq!(fixture.ask(Method::GET, "/v1/peers", "").await.status(), 422);
    assert_eq!(fixture.ask(Method::GET, "/v1/relays", "").await.status(), 404);
    assert_eq!(fixture.ask(Method::GET, "/v1/relays/snapshot", "").await.status(), 409);
    assert_eq!(fixture.ask(Method::GET, "/v1/status", "").await.status(), 422);
}

#[tokio::test]
async fn bad_requests_are_refused_before_the_node_sees_them() {
    let fixture = node(|_| panic!("the node must not be asked"));
    let big = data_encoding::BASE64.encode(&vec![0; mix::MAX_MESSAGE + 1]);
    for (path, body) in [
        ("/v1/mix/send", json!({"to": "x"})),
        ("/v1/mix/send", json!({"to": "x", "text": "a", "base64": "YQ=="})),
        ("/v1/mix/send", json!({"to": "x", "base64": "!"})),
        ("/v1/mix/send", json!({"to": "x", "base64": big})),
        ("/v1/mix/send", json!({"to": "x", "text": "a", "timeout_s": 0})),
        ("/v1/mix/send", json!({"to": "x", "text": "a", "unknown": 0})),
        ("/v1/mix/ping", json!({"to": "x", "count": 0})),
        ("/v1/connect", json!({})),
        ("/v1/connect", json!("x")),
    ] {
        let (status, lines) = fixture.lines(Method::POST, path, &body).await;
        assert_eq!(status, 400, "{path} {lines:?}");
    }
    assert_eq!(fixture.ask(Method::POST, "/v1/mix/send", vec![b' '; MAX_BODY + 1]).await.status(), 413);
}

#[tokio::test]
async fn sending_streams_progress_and_then_the_end() {
    let fixture = node(|command| {
        let Command::MixSend { send, events } = command else { panic!("{command:?}") };
        assert_eq!((send.to.as_str(), send.body.as_slice(), send.hops), ("bob", b"hi".as_slice(), Some(3)));
        assert_eq!((send.anonymous, send.wait, send.timeout), (true, false, Duration::from_secs(7)));
        let progress = report::SendProgress { acknowledged: 1, packets: 2 };
        events.blocking_send(Ok(MixSendEvent::Progress(progress))).unwrap();
        events.blocking_send(Ok(MixSendEvent::Done(sent()))).unwrap();
    });
    let body = json!({"to": "bob", "base64": "aGk=", "hops": 3, "anonymous": true, "timeout_s": 7});
    let (status, lines) = fixture.lines(Method::POST, "/v1/mix/send", &body).await;
    assert_eq!(status, 200);
    assert_eq!(lines, [json!({"progress": {"acknowledged": 1, "packets": 2}}), serde_json::to_value(sent()).unwrap()]);
}

#[tokio::test]
async fn a_failure_before_the_first_line_is_a_status_and_after_it_a_line() {
    let fixture = node(|command| {
        let Command::MixSend { send, events } = command else { panic!("{command:?}") };
        if send.to == "later" {
            let progress = report::SendProgress { acknowledged: 1, packets: 2 };
            events.blocking_send(Ok(MixSendEvent::Progress(progress))).unwrap();
        }
        events.blocking_send(Err(Failure::timed_out("too slow", "wait"))).unwrap();
    });
    let (status, _) = fixture.lines(Method::POST, "/v1/mix/send", &json!({"to": "now", "text": ""})).await;
    assert_eq!(status, 504);
    let (status, lines) = fixture.lines(Method::POST, "/v1/mix/send", &json!({"to": "later", "text": ""})).await;
    assert_eq!((status.as_u16(), &lines[1]), (200, &json!({"error": "too slow", "hint": "wait", "status": 504})));
}

#[tokio::test]
async fn pings_end_with_their_summary() {
    let fixture = node(|command| {
        let Command::MixPing { events, .. } = command else { panic!("{command:?}") };
        for (seq, rtt_ms) in [(1, Some(4.0)), (2, None)] {
            events.blocking_send(Ok(report::PingReply { seq, rtt_ms, hops: 4 })).unwrap();
        }
    });
    let (_, lines) = fixture.lines(Method::POST, "/v1/mix/ping", &json!({"to": "bob", "count": 2})).await;
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[1], json!({"seq": 2, "rtt_ms": null, "hops": 4}));
    assert_eq!(
        lines[2],
        json!({"sent": 2, "received": 1, "loss": 0.5, "min_ms": 4.0, "median_ms": 4.0, "max_ms": 4.0})
    );
}

#[tokio::test]
async fn following_reads_what_comes_until_the_node_stops() {
    let reads = std::sync::atomic::AtomicUsize::new(0);
    let fixture = node(move |command| {
        let Command::MixReceive { all, reply } = command else { panic!("{command:?}") };
        let read = reads.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(all, read == 0, "only the first read asks for all");
        reply.send(Ok(vec![message(&read.to_string())])).unwrap();
    });
    let response = fixture.ask(Method::POST, "/v1/mix/recv", json!({"all": true, "follow": true}).to_string()).await;
    let mut lines = response.into_body().into_data_stream();
    let mut next = async || futures::StreamExt::next(&mut lines).await.map(|line| line.unwrap());
    assert!(String::from_utf8_lossy(&next().await.unwrap()).contains("\"id\":\"0\""));
    fixture.inbox.send(1).unwrap();
    assert!(String::from_utf8_lossy(&next().await.unwrap()).contains("\"id\":\"1\""));
    fixture.stopping.cancel();
    assert!(next().await.is_none());
}

#[tokio::test]
async fn over_a_socket_it_serves_with_the_token_and_ends_when_told() {
    let (commands, _queue) = mpsc::channel(1);
    let (_state, state) = watch::channel(report::State::Ready);
    let (_inbox, inbox) = watch::channel(0);
    let server = Server::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = server.address();
    let stopping = CancellationToken::new();
    let serving = tokio::spawn(server.serve(
        NodeHandle::new(commands, state, (inbox, broadcast::channel(8).0), NetworkId([7; 32])),
        "t".into(),
        stopping.clone(),
    ));
    let get = move |path: &'static str, token: &'static str| {
        tokio::task::spawn_blocking(move || {
            let request = ureq::get(format!("http://{address}{path}")).config().http_status_as_error(false).build();
            request.header("Authorization", format!("Bearer {token}")).call().unwrap().status().as_u16()
        })
    };
    assert_eq!(get("/readyz", "").await.unwrap(), 200);
    assert_eq!(get("/v1/openapi.json", "t").await.unwrap(), 200);
    assert_eq!(get("/v1/openapi.json", "wrong").await.unwrap(), 401);
    stopping.cancel();
    tokio::time::timeout(Duration::from_secs(60), serving).await.unwrap().unwrap().unwrap();
}
