//! The node itself: `/v1/status` and `/v1/id`.

use axum::{Json, extract::State};

use super::{
    Api, ErrorBody,
    error::{ApiError, answer},
};
use crate::node::report::{Identity, Status};

/// How the node fares.
#[utoipa::path(get, path = "/v1/status", tag = "node", responses((status = 200, body = Status), (status = 422, body = ErrorBody)))]
pub(super) async fn status(State(api): State<Api>) -> Result<Json<Status>, ApiError> {
    answer(api.node.status()).await
}

/// Who the node is, where it can be dialled, and an invite to it.
#[utoipa::path(get, path = "/v1/id", tag = "node", responses((status = 200, body = Identity), (status = 422, body = ErrorBody)))]
pub(super) async fn identity(State(api): State<Api>) -> Result<Json<Identity>, ApiError> {
    answer(api.node.identity()).await
}
