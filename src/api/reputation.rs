//! What peers proved about each other: `/v1/reputation`.

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    Api, ErrorBody,
    error::{ApiError, answer},
};
use crate::node::report::Reputation;

/// Of whom to tell.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Whom {
    /// The id or the invite of a peer, or a contact's name; if absent all that are known, the 1,000 lines with the most evidence.
    peer: Option<String>,
}

/// What this node thinks of its peers, for each kind of evidence.
///
/// A peer that was asked for and is unknown has the figures that everybody begins with, and `evidence` 0.
#[utoipa::path(get, path = "/v1/reputation", tag = "peers", params(Whom),
    responses((status = 200, body = [Reputation]), (status = 400, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn reputation(
    State(api): State<Api>,
    query: Result<Query<Whom>, QueryRejection>,
) -> Result<Json<Vec<Reputation>>, ApiError> {
    let Query(Whom { peer }) =
        query.map_err(|rejection| ApiError::usage(rejection.body_text(), "the one parameter is `peer`"))?;
    answer(api.node.reputation(peer)).await
}
