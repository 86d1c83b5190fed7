//! Errors as JSON: one line of what is wrong, one of what to do.

use std::{future::Future, time::Duration};

use axum::{
    Json,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::node::command::{Failure, FailureKind};

/// How long a plain question to the node may take: its event loop answers in microseconds when it is well.
const PATIENCE: Duration = Duration::from_secs(20);

/// The body of every answer that is not a success, and the last line of a stream that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// What is wrong, in one line.
    pub error: String,
    /// What to do, in one line; may be empty.
    pub hint: String,
    /// The HTTP status that belongs to it: in a stream the real one is long gone.
    pub status: u16,
}

/// Why a request is not answered.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    error: String,
    hint: String,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { status, error: error.into(), hint: hint.into() }
    }

    pub(super) fn usage(error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error, hint)
    }

    pub(super) fn body(self) -> ErrorBody {
        ErrorBody { error: self.error, hint: self.hint, status: self.status.as_u16() }
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        let status = match failure.kind {
            FailureKind::Usage => StatusCode::BAD_REQUEST,
            FailureKind::Missing => StatusCode::NOT_FOUND,
            FailureKind::Taken => StatusCode::CONFLICT,
            FailureKind::Failed => StatusCode::UNPROCESSABLE_ENTITY,
            FailureKind::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        };
        Self::new(status, failure.message, failure.hint)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status;
        let mut response = (status, Json(self.body())).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// The node's answer as JSON. A node that does not answer at all is a timeout, not a request that hangs.
pub(super) async fn answer<T: Serialize>(asked: impl Future<Output = Result<T, Failure>>) -> Result<Json<T>, ApiError> {
    within(PATIENCE, asked).await.map(Json)
}

pub(super) async fn within<T>(
    patience: Duration,
    asked: impl Future<Output = Result<T, Failure>>,
) -> Result<T, ApiError> {
    match tokio::time::timeout(patience, asked).await {
        Ok(answer) => answer.map_err(ApiError::from),
        Err(_) => Err(Failure::timed_out("the node did not answer in time", "try again; see its log").into()),
    }
}

pub(super) async fn not_found() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "no such resource", "GET /v1/openapi.json lists them")
}

pub(super) async fn wrong_method() -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "this resource takes another method",
        "GET /v1/openapi.json lists them",
    )
}
