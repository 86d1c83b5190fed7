//! The relay directory: `/v1/relays`, `/v1/relays/snapshot` and `/v1/relays/{peer}/seat`.

use axum::{
    Json,
    extract::{Path, State},
};

use super::{
    Api, ErrorBody,
    error::{ApiError, answer},
};
use crate::node::report::{Relay, Seat, Snapshot};

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

/// A relay's ticket and seat, checked from public data alone.
#[utoipa::path(
    get, path = "/v1/relays/{peer}/seat", tag = "relays", params(("peer" = String, Path, description = "A relay's id")),
    responses((status = 200, body = Seat), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody))
)]
pub(super) async fn seat(State(api): State<Api>, Path(peer): Path<String>) -> Result<Json<Seat>, ApiError> {
    answer(api.node.verify_seat(peer)).await
}
