//! The OpenAPI document, made from the handlers.

use axum::Json;
use utoipa::{
    Modify, OpenApi,
    openapi::{
        OpenApi as Document,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

use super::{chat, error, files, health, metrics, mix, peers, relays, reputation, services, status, tasks};

#[derive(OpenApi)]
#[openapi(
    info(title = "fog", description = "The local API of a Fog node. The address and the token stand in node.json."),
    paths(
        health::alive, health::ready, metrics::guarded, serve, status::status, status::identity, peers::peers, peers::connect,
        relays::relays, relays::snapshot, relays::seat, reputation::reputation, mix::send, mix::ping, mix::receive,
        chat::status, chat::conversations, chat::send, chat::history, chat::events, chat::join, chat::leave, chat::read, chat::create, chat::invite, chat::accept,
        chat::remove, chat::role, chat::members, chat::contacts, chat::add_contact, chat::verify, chat::policy, chat::block, chat::why, chat::panic, chat::topic, chat::nick, chat::trace,
        files::list, files::send, files::fetch, files::pause,
        services::circuits, services::requests, services::list, services::add, services::remove, services::lookup, services::authorize, services::client_key,
        tasks::list, tasks::submit, tasks::batch, tasks::explain, tasks::show, tasks::wait, tasks::logs, tasks::output, tasks::cancel,
        tasks::worker, tasks::pause, tasks::resume, tasks::topology, tasks::receipts
    ),
    components(schemas(error::ErrorBody)),
    modifiers(&Bearer),
    security(("token" = []))
)]
struct Description;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut Document) {
        let scheme = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
        document.components.get_or_insert_default().add_security_scheme("token", scheme);
    }
}

/// The document.
pub fn document() -> Document {
    Description::openapi()
}

/// This document.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "health", responses((status = 200, description = "OpenAPI 3.1")))]
pub(super) async fn serve() -> Json<Document> {
    Json(document())
}
