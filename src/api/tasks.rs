//! Fog compute: `/v1/tasks…` and `/v1/worker…`.

use std::time::Duration;

use axum::{
    Json, Router,
    extract::{Path, State},
    response::Response,
    routing::{get, post},
};
use futures::stream;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Api, ErrorBody,
    error::{ApiError, answer, within},
    extract::Body,
    mix::timeout,
    ndjson,
};
use crate::node::tasks::{
    report::{Batch, Explanation, LogLine, Receipt, Submitted, Task, Topology, Worker, Written},
    spec::{BatchSpec, TaskSpec},
};

const WAIT_S: u64 = 120;
/// What the node may take beyond the time that it was given.
const MARGIN: Duration = Duration::from_secs(5);
/// Reading, hashing and writing the files of a task may take so long.
const READING: Duration = Duration::from_secs(600);

/// How long to wait for a task.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskWait {
    /// When to give up; 120 if not given.
    pub timeout_s: Option<u64>,
}

/// Whose log.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskLogs {
    /// Whether to go on until the task ends.
    #[serde(default)]
    pub follow: bool,
}

/// Where to write what a task gave.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskOutput {
    /// A folder by its absolute path; it is made if it is not there.
    pub dir: String,
}

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/tasks", get(list).post(submit))
        .route("/v1/tasks/batch", post(batch))
        .route("/v1/tasks/explain", post(explain))
        .route("/v1/tasks/{id}", get(show))
        .route("/v1/tasks/{id}/wait", post(wait))
        .route("/v1/tasks/{id}/logs", post(logs))
        .route("/v1/tasks/{id}/output", post(output))
        .route("/v1/tasks/{id}/cancel", post(cancel))
        .route("/v1/worker", get(worker))
        .route("/v1/worker/pause", post(pause))
        .route("/v1/worker/resume", post(resume))
        .route("/v1/worker/topology", get(topology))
        .route("/v1/worker/receipts", get(receipts))
}

/// The tasks of this node, newest first.
#[utoipa::path(get, path = "/v1/tasks", tag = "tasks", responses((status = 200, body = [Task]), (status = 422, body = ErrorBody)))]
pub(super) async fn list(State(api): State<Api>) -> Result<Json<Vec<Task>>, ApiError> {
    answer(async { api.node.tasks().await?.list().await }).await
}

/// Submits a task. It is on the disk when this answers.
#[utoipa::path(post, path = "/v1/tasks", tag = "tasks", request_body = TaskSpec, responses(
    (status = 200, body = Submitted), (status = 400, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn submit(State(api): State<Api>, Body(spec): Body<TaskSpec>) -> Result<Json<Submitted>, ApiError> {
    within(READING, async { api.node.tasks().await?.submit(spec).await }).await.map(Json)
}

/// Submits many tasks, which are placed together.
#[utoipa::path(post, path = "/v1/tasks/batch", tag = "tasks", request_body = BatchSpec, responses(
    (status = 200, body = Batch), (status = 400, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn batch(State(api): State<Api>, Body(spec): Body<BatchSpec>) -> Result<Json<Batch>, ApiError> {
    within(READING, async { api.node.tasks().await?.batch(spec).await }).await.map(Json)
}

/// Which workers fit a task, which do not, and what would change it.
#[utoipa::path(post, path = "/v1/tasks/explain", tag = "tasks", request_body = TaskSpec, responses(
    (status = 200, body = Explanation), (status = 400, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn explain(State(api): State<Api>, Body(spec): Body<TaskSpec>) -> Result<Json<Explanation>, ApiError> {
    answer(async { api.node.tasks().await?.explain(spec).await }).await
}

/// A task.
#[utoipa::path(get, path = "/v1/tasks/{id}", tag = "tasks", params(("id" = String, Path, description = "32 hex digits, or the first of them")), responses(
    (status = 200, body = Task), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn show(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Task>, ApiError> {
    answer(async { api.node.tasks().await?.show(&id).await }).await
}

/// A task, when it has ended.
#[utoipa::path(post, path = "/v1/tasks/{id}/wait", tag = "tasks", request_body = TaskWait, params(("id" = String, Path, description = "32 hex digits, or the first of them")), responses(
    (status = 200, body = Task), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody), (status = 504, body = ErrorBody)))]
pub(super) async fn wait(
    State(api): State<Api>,
    Path(id): Path<String>,
    Body(wanted): Body<TaskWait>,
) -> Result<Json<Task>, ApiError> {
    let patience = timeout(wanted.timeout_s, WAIT_S)?;
    within(patience + MARGIN, async { api.node.tasks().await?.wait(&id, patience).await }).await.map(Json)
}

/// What a task writes to standard output and standard error, as it comes.
#[utoipa::path(post, path = "/v1/tasks/{id}/logs", tag = "tasks", request_body = TaskLogs, params(("id" = String, Path, description = "32 hex digits, or the first of them")), responses(
    (status = 200, body = LogLine, content_type = "application/x-ndjson"), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn logs(
    State(api): State<Api>,
    Path(id): Path<String>,
    Body(wanted): Body<TaskLogs>,
) -> Result<Response, ApiError> {
    let lines = api.node.tasks().await?.logs(&id, wanted.follow).await?;
    Ok(ndjson::response(stream::unfold(lines, |mut lines| async move {
        let line = lines.recv().await?;
        Some((ndjson::line(&line), lines))
    })))
}

/// Writes what a task gave into a folder of this host.
#[utoipa::path(post, path = "/v1/tasks/{id}/output", tag = "tasks", request_body = TaskOutput, params(("id" = String, Path, description = "32 hex digits, or the first of them")), responses(
    (status = 200, body = Written), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn output(
    State(api): State<Api>,
    Path(id): Path<String>,
    Body(wanted): Body<TaskOutput>,
) -> Result<Json<Written>, ApiError> {
    within(READING, async { api.node.tasks().await?.write_output(&id, wanted.dir.into()).await }).await.map(Json)
}

/// Ends a task.
#[utoipa::path(post, path = "/v1/tasks/{id}/cancel", tag = "tasks", params(("id" = String, Path, description = "32 hex digits, or the first of them")), responses(
    (status = 200, body = Task), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn cancel(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Task>, ApiError> {
    answer(async { api.node.tasks().await?.cancel(&id).await }).await
}

/// This node as a worker.
#[utoipa::path(get, path = "/v1/worker", tag = "tasks", responses((status = 200, body = Worker), (status = 422, body = ErrorBody)))]
pub(super) async fn worker(State(api): State<Api>) -> Result<Json<Worker>, ApiError> {
    answer(async { api.node.tasks().await?.worker().await }).await
}

/// Takes no tasks from now on; those that are here stand still.
#[utoipa::path(post, path = "/v1/worker/pause", tag = "tasks", responses((status = 200, body = Worker), (status = 422, body = ErrorBody)))]
pub(super) async fn pause(State(api): State<Api>) -> Result<Json<Worker>, ApiError> {
    answer(async { api.node.tasks().await?.pause(true).await }).await
}

/// Works again.
#[utoipa::path(post, path = "/v1/worker/resume", tag = "tasks", responses((status = 200, body = Worker), (status = 422, body = ErrorBody)))]
pub(super) async fn resume(State(api): State<Api>) -> Result<Json<Worker>, ApiError> {
    answer(async { api.node.tasks().await?.pause(false).await }).await
}

/// What this node knew of workers, at the last hundred times that it changed.
#[utoipa::path(get, path = "/v1/worker/topology", tag = "tasks", responses((status = 200, body = [Topology]), (status = 422, body = ErrorBody)))]
pub(super) async fn topology(State(api): State<Api>) -> Result<Json<Vec<Topology>>, ApiError> {
    answer(async { api.node.tasks().await?.topology().await }).await
}

/// What this node earned and spent by the hour, the newest first, and what the other side signed of it.
#[utoipa::path(get, path = "/v1/worker/receipts", tag = "tasks", responses((status = 200, body = [Receipt]), (status = 422, body = ErrorBody)))]
pub(super) async fn receipts(State(api): State<Api>) -> Result<Json<Vec<Receipt>>, ApiError> {
    answer(async { api.node.tasks().await?.receipts().await }).await
}
