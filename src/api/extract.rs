//! Request bodies: JSON, with errors in our own form.

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    http::StatusCode,
};
use serde::de::DeserializeOwned;

use super::error::ApiError;

/// How long a body may take: it comes from this host.
const WITHIN: Duration = Duration::from_secs(30);
const HINT: &str = "GET /v1/openapi.json shows the fields";

/// A JSON body, whatever content type it claims. An empty one counts as `{}`: a request of defaults alone needs no body.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = tokio::time::timeout(WITHIN, Bytes::from_request(request, state)).await.map_err(|_| {
            ApiError::new(StatusCode::REQUEST_TIMEOUT, "the request did not come to its end", "send it at once")
        })?;
        let bytes = bytes.map_err(|rejection| {
            ApiError::new(rejection.status(), rejection.body_text(), "a message has at most 1 MiB")
        })?;
        let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        let value = serde_json::from_slice(text)
            .map_err(|error| ApiError::usage(format!("not the JSON wanted: {error}"), HINT))?;
        Ok(Self(value))
    }
}
