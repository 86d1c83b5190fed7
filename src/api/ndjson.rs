//! Streams of JSON values, one a line (<https://github.com/ndjson/ndjson-spec>): each is sent as soon as it is there.

use axum::{
    body::Body,
    http::header,
    response::{IntoResponse, Response},
};
use futures::{Stream, StreamExt};
use serde::Serialize;
use serde_json::Value;

use super::error::ApiError;

/// The content type of such a stream.
pub(super) const CONTENT_TYPE: &str = "application/x-ndjson";

/// A line, or why there is none: the last line then says so.
pub(super) type Line = Result<Value, ApiError>;

/// Any value as a line.
pub(super) fn line<T: Serialize>(value: &T) -> Line {
    serde_json::to_value(value).map_err(|error| {
        ApiError::new(axum::http::StatusCode::INTERNAL_SERVER_ERROR, error.to_string(), "report this as a bug")
    })
}

/// The response that carries `lines`.
pub(super) fn response(lines: impl Stream<Item = Line> + Send + 'static) -> Response {
    let bytes = lines.map(|line| {
        let value = match line {
            Ok(value) => value.to_string(),
            Err(error) => serde_json::to_string(&error.body()).unwrap_or_default(),
        };
        Ok::<_, std::convert::Infallible>(value + "\n")
    });
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], Body::from_stream(bytes)).into_response()
}
