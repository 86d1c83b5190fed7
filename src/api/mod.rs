//! The local HTTP API: what the command line, scripts and later the control panel use to steer a running node.
//!
//! It listens on loopback alone, and it is not for browsers of strangers: every request needs the token of `node.json`, a `Host` that
//! is ours (against DNS rebinding), and no foreign `Origin` (against other pages); `guard` does this before any handler. One file
//! per resource; each handler asks the [`NodeHandle`] and serves the values of `node::report`.

mod chat;
mod error;
mod extract;
mod files;
mod guard;
mod health;
mod metrics;
mod mix;
mod ndjson;
mod node_file;
mod openapi;
mod peers;
mod relays;
mod reputation;
mod serve;
mod services;
mod status;
mod tasks;

use std::net::SocketAddr;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware,
    routing::{get, post},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::serve::serve;
pub use self::{
    chat::{ChatMessage, ContactChange, Introduction, Membership, Named, Room, Topic, Whither},
    error::ErrorBody,
    files::{FileGet, FilePause, FileSend},
    mix::{MAX_MESSAGE, MAX_PINGS, PingRequest, ReceiveRequest, SendRequest},
    node_file::{NodeFile, NodeFileGuard},
    openapi::document,
    peers::ConnectRequest,
    services::{ServiceAdd, ServiceClient, ServiceLookup, ServiceName},
    tasks::{TaskLogs, TaskOutput, TaskWait},
};
use crate::node::handle::NodeHandle;

/// The largest request: a message of 1 MiB in base64, and room around it.
const MAX_BODY: usize = 1536 * 1024;
/// What every handler needs.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    node: NodeHandle,
    guard: guard::Guard,
    stopping: CancellationToken,
}

/// The local API, bound to its port and not serving yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Takes the port.
    pub async fn bind(address: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers with the token until `stopping`, and then for a short while finishes what is in progress.
    pub async fn serve(self, node: NodeHandle, token: String, stopping: CancellationToken) -> std::io::Result<()> {
        let guard = guard::Guard::new(&token, self.address.port());
        let routes = router(Api { node, guard, stopping: stopping.clone() });
        serve(self.listener, routes, stopping).await
    }

    /// Serves `/metrics` alone, without a token: for Prometheus.
    pub async fn serve_metrics(self, node: NodeHandle, stopping: CancellationToken) -> std::io::Result<()> {
        let routes = Router::new().route("/metrics", get(metrics::open)).with_state(node);
        serve(self.listener, routes, stopping).await
    }
}

fn router(api: Api) -> Router {
    Router::new()
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::guarded))
        .route("/v1/openapi.json", get(openapi::serve))
        .route("/v1/status", get(status::status))
        .route("/v1/id", get(status::identity))
        .route("/v1/peers", get(peers::peers))
        .route("/v1/connect", post(peers::connect))
        .route("/v1/relays", get(relays::relays))
        .route("/v1/relays/snapshot", get(relays::snapshot))
        .route("/v1/relays/{peer}/seat", get(relays::seat))
        .route("/v1/reputation", get(reputation::reputation))
        .merge(chat::routes())
        .merge(files::routes())
        .merge(services::routes())
        .merge(tasks::routes())
        .route("/v1/mix/send", post(mix::send))
        .route("/v1/mix/ping", post(mix::ping))
        .route("/v1/mix/recv", post(mix::receive))
        .fallback(error::not_found)
        .method_not_allowed_fallback(error::wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(api.guard.clone(), guard::check))
        .with_state(api)
}

#[cfg(test)]
mod tests;
