//! Files in conversations: `/v1/chat/files`.

use std::path::PathBuf;

use axum::{
    Json, Router,
    extract::State,
    response::Response,
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Api, ErrorBody,
    error::{ApiError, answer, within},
    extract::Body,
    mix::streamed,
    ndjson,
};
use crate::node::chat::{
    FileEvent,
    report::{File, FileDone, FileProgress},
};

/// Hashing a file of 16 GiB may take so long.
const SHARING: std::time::Duration = std::time::Duration::from_secs(3600);

/// A file to send.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FileSend {
    /// `@name`, `@PEER`, `#room` or `&group`.
    pub to: String,
    /// Its absolute path. It stays there, and is read from there when somebody fetches it.
    pub path: String,
}

/// A file to fetch.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FileGet {
    /// The message that it came in, in hex.
    pub id: String,
    /// A folder, or a path where nothing is yet; the folder `files` of the data directory if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out: Option<String>,
}

/// Which file.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FilePause {
    /// The message that it came in, in hex.
    pub id: String,
}

/// All of them.
pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/chat/files", get(list).post(send))
        .route("/v1/chat/files/get", post(fetch))
        .route("/v1/chat/files/pause", post(pause))
}

/// Files that were sent in all conversations.
#[utoipa::path(get, path = "/v1/chat/files", tag = "chat", responses((status = 200, body = [File]), (status = 422, body = ErrorBody)))]
pub(super) async fn list(State(api): State<Api>) -> Result<Json<Vec<File>>, ApiError> {
    answer(api.node.file_list()).await
}

/// Offers a file in a conversation: it is encrypted and hashed first.
#[utoipa::path(post, path = "/v1/chat/files", tag = "chat", request_body = FileSend, responses(
    (status = 200, body = FileDone), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn send(State(api): State<Api>, Body(file): Body<FileSend>) -> Result<Json<FileDone>, ApiError> {
    within(SHARING, api.node.file_send(file.to, PathBuf::from(file.path))).await.map(Json)
}

/// Fetches a file: lines of progress, then the end.
#[utoipa::path(post, path = "/v1/chat/files/get", tag = "chat", request_body = FileGet, responses(
    (status = 200, body = FileProgress, content_type = "application/x-ndjson", description = "lines of progress, then a FileDone"),
    (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn fetch(State(api): State<Api>, Body(file): Body<FileGet>) -> Result<Response, ApiError> {
    let events = api.node.file_get(file.id, file.out.map(PathBuf::from)).await?;
    let lines = streamed(events, |event| match event {
        FileEvent::Progress(progress) => ndjson::line(&progress),
        FileEvent::Done(done) => ndjson::line(&done),
    });
    lines.await.map(ndjson::response)
}

/// Stops a fetch; what is here of it stays, and it goes on when it is asked for.
#[utoipa::path(post, path = "/v1/chat/files/pause", tag = "chat", request_body = FilePause, responses(
    (status = 200, body = FileProgress), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn pause(State(api): State<Api>, Body(file): Body<FilePause>) -> Result<Json<FileProgress>, ApiError> {
    answer(api.node.file_pause(file.id)).await
}
