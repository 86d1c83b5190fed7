//! The relay directory: `/v1/relays` and `/v1/relays/snapshot`.

use axum::{Json, extract::State};

use super::{
    Api, ErrorBody,
    error::{ApiError, answer},
};
use crate::node::report::{Relay, Snapshot};

/// The known relays.
#[utoipa::path(get, path = "/v1/relays", tag = "relays", responses((status = 200, body = [Relay]), (status = 422, body = ErrorBody)))]
pub(super) async fn relays(State(api): State<Api>) -> Result<Json<Vec<Relay>>, ApiError> {
    answer(api.node.relays()).await
}

/// The snapshot that paths are drawn from now.
#[utoipa::path(get, path = "/v1/relays/snapshot", tag = "relays", responses((status = 200, body = Snapshot), (status = 422, body = ErrorBody)))]
pub(super) async fn snapshot(State(api): State<Api>) -> Result<Json<Snapshot>, ApiError> {
    answer(api.node.snapshot()).await
}
