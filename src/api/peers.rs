//! Peers: `/v1/peers` and `/v1/connect`.

use std::time::Duration;

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Api, ErrorBody,
    error::{ApiError, answer, within},
    extract::Body,
    mix::{DEFAULT_TIMEOUT_S, timeout},
};
use crate::node::report::{Connected, Peer};

/// Whom to connect to.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConnectRequest {
    /// A multiaddress or an invite.
    pub target: String,
    /// When to give up; 30 seconds if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u64>,
}

/// The connected peers.
#[utoipa::path(get, path = "/v1/peers", tag = "peers", responses((status = 200, body = [Peer]), (status = 422, body = ErrorBody)))]
pub(super) async fn peers(State(api): State<Api>) -> Result<Json<Vec<Peer>>, ApiError> {
    answer(api.node.peers()).await
}

/// Connects to a peer and measures the round trip.
#[utoipa::path(post, path = "/v1/connect", tag = "peers", request_body = ConnectRequest,
    responses((status = 200, body = Connected), (status = 400, body = ErrorBody), (status = 422, body = ErrorBody), (status = 504, body = ErrorBody)))]
pub(super) async fn connect(
    State(api): State<Api>,
    Body(request): Body<ConnectRequest>,
) -> Result<Json<Connected>, ApiError> {
    let patience = timeout(request.timeout_s, DEFAULT_TIMEOUT_S)?;
    // The node itself gives up in time and says why; this only guards against a node that hangs.
    let asked = api.node.connect(request.target, patience);
    within(patience + Duration::from_secs(2), asked).await.map(Json)
}
