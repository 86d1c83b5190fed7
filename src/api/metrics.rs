//! `/metrics` in Prometheus' text form.

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};

use super::{
    Api,
    error::{ApiError, within},
};
use crate::node::handle::NodeHandle;

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// Counters and gauges of the node, for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "health", responses((status = 200, body = String, content_type = "text/plain")))]
pub(super) async fn guarded(State(api): State<Api>) -> Result<Response, ApiError> {
    text(&api.node).await
}

/// The same on its own listener, without a token.
pub(super) async fn open(State(node): State<NodeHandle>) -> Result<Response, ApiError> {
    text(&node).await
}

async fn text(node: &NodeHandle) -> Result<Response, ApiError> {
    let text = within(PATIENCE, node.metrics()).await?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response())
}
