//! Whether the node lives, and whether it is of use: for supervisors. No token.

use axum::{Json, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use crate::node::report;

/// `/healthz`
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct Alive {
    /// Always true: otherwise nobody would answer.
    alive: bool,
}

/// `/readyz`
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct Ready {
    /// Where the node is in its life.
    state: report::State,
}

/// The process lives and answers.
#[utoipa::path(get, path = "/healthz", tag = "health", security(()), responses((status = 200, body = Alive)))]
pub(super) async fn alive() -> Json<Alive> {
    Json(Alive { alive: true })
}

/// Whether the node's state is `ready`.
#[utoipa::path(get, path = "/readyz", tag = "health", security(()),
    responses((status = 200, body = Ready), (status = 503, body = Ready, description = "not ready")))]
pub(super) async fn ready(State(api): State<Api>) -> (StatusCode, Json<Ready>) {
    let state = api.node.state();
    let status = if state == report::State::Ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Ready { state }))
}
