//! Circuits and services: `/v1/circuits`, `/v1/proxy/requests` and `/v1/services…`.

use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Api, ErrorBody,
    error::{ApiError, answer},
    extract::Body,
    mix::timeout,
};
use crate::node::{
    circuits::report::{Circuit, ProxyRequest},
    services::{
        NewService,
        report::{Added, ClientKey, Clients, Lookup, Removed, Service},
    },
};

const LOOKUP_TIMEOUT_S: u64 = 30;

/// A service to add.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceAdd {
    /// Where its streams go, `HOST:PORT`.
    pub target: String,
    /// The port under which it is reached; 80 if not given.
    pub port: Option<u16>,
    /// What it is called here.
    pub name: Option<String>,
    /// Keys of the clients that may use it; everybody may if there is none.
    #[serde(default)]
    pub clients: Vec<String>,
}

/// A service by its name here.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceName {
    /// The name, or the address.
    pub name: String,
}

/// A service to look up.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceLookup {
    /// `….fog`
    pub address: String,
    /// When to give up; 30 if not given.
    pub timeout_s: Option<u64>,
}

/// A client of a service.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceClient {
    /// The service's name here.
    pub name: String,
    /// What the client's `fog service client-key` prints.
    pub client_key: String,
}

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/circuits", get(circuits))
        .route("/v1/proxy/requests", get(requests))
        .route("/v1/services", get(list).post(add))
        .route("/v1/services/remove", post(remove))
        .route("/v1/services/lookup", post(lookup))
        .route("/v1/services/authorize", post(authorize))
        .route("/v1/services/client-key", get(client_key))
}

/// The circuits that this node built.
#[utoipa::path(get, path = "/v1/circuits", tag = "services", responses((status = 200, body = [Circuit]), (status = 422, body = ErrorBody)))]
pub(super) async fn circuits(State(api): State<Api>) -> Result<Json<Vec<Circuit>>, ApiError> {
    answer(api.node.circuits()).await
}

/// What the proxy is asked for at present, and in which stage each request is.
#[utoipa::path(get, path = "/v1/proxy/requests", tag = "services", responses((status = 200, body = [ProxyRequest]), (status = 422, body = ErrorBody)))]
pub(super) async fn requests(State(api): State<Api>) -> Result<Json<Vec<ProxyRequest>>, ApiError> {
    answer(api.node.proxy_requests()).await
}

/// The services of this node.
#[utoipa::path(get, path = "/v1/services", tag = "services", responses((status = 200, body = [Service]), (status = 422, body = ErrorBody)))]
pub(super) async fn list(State(api): State<Api>) -> Result<Json<Vec<Service>>, ApiError> {
    answer(async { Ok(api.node.services().await?.list().await) }).await
}

/// Adds a service.
#[utoipa::path(post, path = "/v1/services", tag = "services", request_body = ServiceAdd, responses(
    (status = 200, body = Added), (status = 400, body = ErrorBody), (status = 409, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn add(State(api): State<Api>, Body(service): Body<ServiceAdd>) -> Result<Json<Added>, ApiError> {
    let ServiceAdd { target, port, name, clients } = service;
    answer(async { api.node.services().await?.add(NewService { target, port, name, clients }).await }).await
}

/// Removes a service and destroys its key.
#[utoipa::path(post, path = "/v1/services/remove", tag = "services", request_body = ServiceName, responses(
    (status = 200, body = Removed), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn remove(
    State(api): State<Api>,
    Body(service): Body<ServiceName>,
) -> Result<Json<Removed>, ApiError> {
    answer(async { api.node.services().await?.remove(&service.name).await }).await
}

/// Fetches and checks a service's descriptor, through a circuit.
#[utoipa::path(post, path = "/v1/services/lookup", tag = "services", request_body = ServiceLookup, responses(
    (status = 200, body = Lookup), (status = 400, body = ErrorBody), (status = 422, body = ErrorBody), (status = 504, body = ErrorBody)))]
pub(super) async fn lookup(
    State(api): State<Api>,
    Body(wanted): Body<ServiceLookup>,
) -> Result<Json<Lookup>, ApiError> {
    let patience = timeout(wanted.timeout_s, LOOKUP_TIMEOUT_S)?;
    answer(async { api.node.services().await?.lookup(&wanted.address, patience).await }).await
}

/// Lets a client use a service. From the first one on nobody else can.
#[utoipa::path(post, path = "/v1/services/authorize", tag = "services", request_body = ServiceClient, responses(
    (status = 200, body = Clients), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn authorize(
    State(api): State<Api>,
    Body(client): Body<ServiceClient>,
) -> Result<Json<Clients>, ApiError> {
    answer(async { api.node.services().await?.authorize(&client.name, &client.client_key).await }).await
}

/// This node's key as a client of services that ask for one.
#[utoipa::path(get, path = "/v1/services/client-key", tag = "services", responses((status = 200, body = ClientKey), (status = 422, body = ErrorBody)))]
pub(super) async fn client_key(State(api): State<Api>) -> Result<Json<ClientKey>, ApiError> {
    answer(async { Ok(api.node.services().await?.client_key()) }).await
}
