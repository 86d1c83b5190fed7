//! BitChat: `/v1/chat/…`. Files have a file of their own.

use std::{pin::pin, time::Duration};

use axum::{
    Json, Router,
    extract::{Query, State, rejection::QueryRejection},
    response::Response,
    routing::{get, post},
};
use futures::stream;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::error::RecvError;
use utoipa::{IntoParams, ToSchema};

use super::{
    Api, ErrorBody,
    error::{ApiError, answer, within},
    extract::Body,
    mix::{DEFAULT_TIMEOUT_S, timeout},
    ndjson,
};
use crate::node::{
    chat::report::{ChatStatus, Contact, Conversation, Destroyed, Line, Member, News, Sent, Target, Trace, Why},
    command::Failure,
};

/// A message.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChatMessage {
    /// `@name`, `@PEER`, `#room` or `&group`.
    pub to: String,
    /// What it says: at most 8,192 bytes.
    pub text: String,
    /// `auto`, `lan`, `direct` or `mix`; a contact's policy is never widened by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
    /// Whether to wait until it was delivered or has failed; in a room or a group, until others took it to pass it on, or
    /// mailboxes of a member have it.
    #[serde(default)]
    pub wait: bool,
    /// How long to wait; 30 seconds if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u64>,
    /// To one person: when it is given up, and, a little later, not taken any more from whoever has it; 10 to 604,800 seconds, and these if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expire_s: Option<u64>,
}

/// A room to enter.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Room {
    /// `#room`
    pub name: String,
    /// Of a room that is closed by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

impl std::fmt::Debug for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Room").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A name: of a group to create, or of yourself.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Named {
    /// Which.
    pub name: String,
}

/// What a room or group is about.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Topic {
    /// `#room` or `&group`.
    pub to: String,
    /// One line of at most 256 bytes; nothing takes the topic away.
    pub topic: String,
}

/// Which conversation.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Whither {
    /// `@name`, `@PEER`, `#room` or `&group`.
    pub to: String,
}

/// Somebody, and what they are to be in a group.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Membership {
    /// `&group`
    pub group: String,
    /// A contact's name, a node or a device.
    pub peer: String,
    /// `admin` or `member`: only for a change of role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
}

/// Somebody's invite.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Introduction {
    /// As their `fog id` prints it.
    pub invite: String,
    /// What to call them; if absent what they call themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// What to change of a contact.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ContactChange {
    /// Which contact.
    pub name: String,
    /// For `policy`: `auto` or `mix`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// For `block`; true if absent, and false unblocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked: Option<bool>,
    /// For `verify`: whether the words were compared and agree; if absent nothing changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<bool>,
}

/// Which messages.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// `@name`, `@PEER`, `#room` or `&group`.
    to: String,
    /// The newest so many; all if absent.
    limit: Option<usize>,
}

/// Which message.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// Its id, in hex.
    id: String,
}

/// All of them.
pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/chat/status", get(status))
        .route("/v1/chat/conversations", get(conversations))
        .route("/v1/chat/messages", post(send))
        .route("/v1/chat/history", get(history))
        .route("/v1/chat/events", get(events))
        .route("/v1/chat/rooms", post(join))
        .route("/v1/chat/leave", post(leave))
        .route("/v1/chat/read", post(read))
        .route("/v1/chat/groups", post(create))
        .route("/v1/chat/groups/invite", post(invite))
        .route("/v1/chat/groups/accept", post(accept))
        .route("/v1/chat/groups/remove", post(remove))
        .route("/v1/chat/groups/role", post(role))
        .route("/v1/chat/members", get(members))
        .route("/v1/chat/contacts", get(contacts).post(add_contact))
        .route("/v1/chat/contacts/verify", post(verify))
        .route("/v1/chat/contacts/policy", post(policy))
        .route("/v1/chat/contacts/block", post(block))
        .route("/v1/chat/topic", post(topic))
        .route("/v1/chat/nick", post(nick))
        .route("/v1/chat/trace", get(trace))
        .route("/v1/chat/why", get(why))
        .route("/v1/chat/panic", post(panic))
}

fn query<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, ApiError> {
    query
        .map(|Query(value)| value)
        .map_err(|rejection| ApiError::usage(rejection.body_text(), "GET /v1/openapi.json shows the parameters"))
}

/// How chat fares.
#[utoipa::path(get, path = "/v1/chat/status", tag = "chat", responses((status = 200, body = ChatStatus), (status = 422, body = ErrorBody)))]
pub(super) async fn status(State(api): State<Api>) -> Result<Json<ChatStatus>, ApiError> {
    answer(api.node.chat(|desk| Ok(desk.status()))).await
}

/// All conversations.
#[utoipa::path(get, path = "/v1/chat/conversations", tag = "chat", responses((status = 200, body = [Conversation]), (status = 422, body = ErrorBody)))]
pub(super) async fn conversations(State(api): State<Api>) -> Result<Json<Vec<Conversation>>, ApiError> {
    answer(api.node.chat(|desk| Ok(desk.conversations()))).await
}

/// Sends a message, and with `wait` tells what became of it.
#[utoipa::path(post, path = "/v1/chat/messages", tag = "chat", request_body = ChatMessage, responses(
    (status = 200, body = Sent), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn send(State(api): State<Api>, Body(message): Body<ChatMessage>) -> Result<Json<Sent>, ApiError> {
    let patience = timeout(message.timeout_s, DEFAULT_TIMEOUT_S)?;
    let mut news = api.node.chat_news();
    let ChatMessage { to, text, via, wait, expire_s, .. } = message;
    // In a room or a group nobody acknowledges: others show by what they write that they have it.
    let is_direct = to.starts_with('@');
    let Json(mut sent) = answer(api.node.chat(move |desk| desk.send(&to, &text, via.as_deref(), expire_s))).await?;
    let mut patience = pin!(tokio::time::sleep(patience));
    let mut is_stored = false;
    // What is told of a message is told when it is on the disk: until then it could be lost with the node.
    while !is_stored || wait && !is_over(&sent.state, is_direct) {
        let id = sent.id.clone();
        let next = tokio::select! {
            () = patience.as_mut() => break,
            next = news.recv() => next,
        };
        match next {
            Ok(News::State(state)) if state.id == id => (sent, is_stored) = (state, true),
            Err(RecvError::Lagged(_)) => Json(sent) = answer(api.node.chat(move |desk| desk.state(&id))).await?,
            Err(RecvError::Closed) => break,
            Ok(News::Notice { .. }) if !is_stored => {
                let Json(()) = answer(api.node.chat(|desk| desk.check_running())).await?;
            }
            Ok(_) => {}
        }
        is_stored |= sent.reason.as_deref() != Some("not_stored") && sent.state != "queued";
    }
    if !is_stored {
        return Err(ApiError::from(Failure::timed_out(
            "the store has not taken the message yet",
            "is the disk full? `fog status`",
        )));
    }
    Ok(Json(sent))
}

fn is_over(state: &str, is_direct: bool) -> bool {
    matches!(state, "delivered" | "read" | "failed") || !is_direct && matches!(state, "sent" | "carried")
}

/// The newest messages of a conversation, oldest first.
#[utoipa::path(get, path = "/v1/chat/history", tag = "chat", params(Wanted), responses(
    (status = 200, body = [Line]), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn history(
    State(api): State<Api>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Json<Vec<Line>>, ApiError> {
    let Wanted { to, limit } = query(wanted)?;
    answer(api.node.chat(move |desk| desk.history(&to, limit))).await
}

/// What happens from now on, until the reader leaves.
#[utoipa::path(get, path = "/v1/chat/events", tag = "chat", responses(
    (status = 200, body = News, content_type = "application/x-ndjson", description = "a line for each")))]
pub(super) async fn events(State(api): State<Api>) -> Response {
    let state = (api.node.chat_news(), api.stopping);
    ndjson::response(stream::unfold(state, |(mut news, stopping)| async move {
        let line = tokio::select! {
            () = stopping.cancelled() => return None,
            next = news.recv() => match next {
                Ok(news) => ndjson::line(&news),
                Err(RecvError::Lagged(missed)) => {
                    ndjson::line(&News::Notice { to: None, text: format!("{missed} events were missed: read the history again") })
                }
                Err(RecvError::Closed) => return None,
            },
        };
        Some((line, (news, stopping)))
    }))
}

/// Enters a room.
#[utoipa::path(post, path = "/v1/chat/rooms", tag = "chat", request_body = Room, responses(
    (status = 200, body = Target), (status = 400, body = ErrorBody), (status = 409, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn join(State(api): State<Api>, Body(room): Body<Room>) -> Result<Json<Target>, ApiError> {
    answer(api.node.chat_join(room.name, room.password)).await
}

/// Leaves a room or a group.
#[utoipa::path(post, path = "/v1/chat/leave", tag = "chat", request_body = Whither, responses(
    (status = 200, body = Target), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn leave(
    State(api): State<Api>,
    Body(Whither { to }): Body<Whither>,
) -> Result<Json<Target>, ApiError> {
    answer(api.node.chat(move |desk| desk.leave(&to))).await
}

/// Marks a conversation read.
#[utoipa::path(post, path = "/v1/chat/read", tag = "chat", request_body = Whither, responses(
    (status = 200, body = Target), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn read(
    State(api): State<Api>,
    Body(Whither { to }): Body<Whither>,
) -> Result<Json<Target>, ApiError> {
    answer(api.node.chat(move |desk| desk.read(&to))).await
}

/// Creates a group.
#[utoipa::path(post, path = "/v1/chat/groups", tag = "chat", request_body = Named, responses(
    (status = 200, body = Target), (status = 400, body = ErrorBody), (status = 409, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn create(
    State(api): State<Api>,
    Body(Named { name }): Body<Named>,
) -> Result<Json<Target>, ApiError> {
    answer(api.node.chat(move |desk| desk.create_group(&name))).await
}

/// Invites somebody into a group.
#[utoipa::path(post, path = "/v1/chat/groups/invite", tag = "chat", request_body = Membership, responses(
    (status = 200, body = Target), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn invite(State(api): State<Api>, Body(change): Body<Membership>) -> Result<Json<Target>, ApiError> {
    answer(api.node.chat(move |desk| desk.invite(&change.group, &change.peer))).await
}

/// Takes up an invitation by somebody who is no contact.
#[utoipa::path(post, path = "/v1/chat/groups/accept", tag = "chat", request_body = Whither, responses(
    (status = 200, body = Target), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn accept(
    State(api): State<Api>,
    Body(Whither { to }): Body<Whither>,
) -> Result<Json<Target>, ApiError> {
    answer(api.node.chat(move |desk| desk.accept(&to))).await
}

/// Removes somebody from a group.
#[utoipa::path(post, path = "/v1/chat/groups/remove", tag = "chat", request_body = Membership, responses(
    (status = 200, body = Target), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn remove(State(api): State<Api>, Body(change): Body<Membership>) -> Result<Json<Target>, ApiError> {
    answer(api.node.chat(move |desk| desk.remove(&change.group, &change.peer))).await
}

/// Makes somebody an admin or a plain member.
#[utoipa::path(post, path = "/v1/chat/groups/role", tag = "chat", request_body = Membership, responses(
    (status = 200, body = Target), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn role(State(api): State<Api>, Body(change): Body<Membership>) -> Result<Json<Target>, ApiError> {
    let is_admin = match change.role.as_deref() {
        Some("admin") => true,
        Some("member") => false,
        _ => return Err(ApiError::usage("a role is `admin` or `member`", "name one of them")),
    };
    answer(api.node.chat(move |desk| desk.set_role(&change.group, &change.peer, is_admin))).await
}

/// Who is in a group, or was seen in a room.
#[utoipa::path(get, path = "/v1/chat/members", tag = "chat", params(Whither), responses(
    (status = 200, body = [Member]), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn members(
    State(api): State<Api>,
    whither: Result<Query<Whither>, QueryRejection>,
) -> Result<Json<Vec<Member>>, ApiError> {
    let Whither { to } = query(whither)?;
    answer(api.node.chat(move |desk| desk.members(&to))).await
}

/// All contacts.
#[utoipa::path(get, path = "/v1/chat/contacts", tag = "chat", responses((status = 200, body = [Contact]), (status = 422, body = ErrorBody)))]
pub(super) async fn contacts(State(api): State<Api>) -> Result<Json<Vec<Contact>>, ApiError> {
    answer(api.node.chat(|desk| Ok(desk.contacts()))).await
}

/// Adds somebody by their invite.
#[utoipa::path(post, path = "/v1/chat/contacts", tag = "chat", request_body = Introduction, responses(
    (status = 200, body = Contact), (status = 400, body = ErrorBody), (status = 409, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn add_contact(
    State(api): State<Api>,
    Body(Introduction { invite, name }): Body<Introduction>,
) -> Result<Json<Contact>, ApiError> {
    answer(api.node.chat(move |desk| desk.add_contact(&invite, name.as_deref()))).await
}

/// Shows the safety words of a contact, and notes whether they agree.
#[utoipa::path(post, path = "/v1/chat/contacts/verify", tag = "chat", request_body = ContactChange, responses(
    (status = 200, body = Contact), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn verify(
    State(api): State<Api>,
    Body(change): Body<ContactChange>,
) -> Result<Json<Contact>, ApiError> {
    answer(api.node.chat(move |desk| desk.verify(&change.name, change.verified))).await
}

/// Sets which ways messages to a contact may take.
#[utoipa::path(post, path = "/v1/chat/contacts/policy", tag = "chat", request_body = ContactChange, responses(
    (status = 200, body = Contact), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn policy(
    State(api): State<Api>,
    Body(change): Body<ContactChange>,
) -> Result<Json<Contact>, ApiError> {
    let policy = change.policy.ok_or_else(|| ApiError::usage("no policy is named", "it is `auto` or `mix`"))?;
    answer(api.node.chat(move |desk| desk.set_policy(&change.name, &policy))).await
}

/// Blocks a contact: nothing of theirs is taken or shown, in rooms neither; or takes that back.
#[utoipa::path(post, path = "/v1/chat/contacts/block", tag = "chat", request_body = ContactChange, responses(
    (status = 200, body = Contact), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn block(
    State(api): State<Api>,
    Body(change): Body<ContactChange>,
) -> Result<Json<Contact>, ApiError> {
    answer(api.node.chat(move |desk| desk.set_blocked(&change.name, change.blocked.unwrap_or(true)))).await
}

/// The causal proof of a message.
#[utoipa::path(get, path = "/v1/chat/why", tag = "chat", params(Which), responses(
    (status = 200, body = Why), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn why(
    State(api): State<Api>,
    which: Result<Query<Which>, QueryRejection>,
) -> Result<Json<Why>, ApiError> {
    let Which { id } = query(which)?;
    answer(api.node.chat(move |desk| desk.why(&id))).await
}

/// Says what a room or group is about.
#[utoipa::path(post, path = "/v1/chat/topic", tag = "chat", request_body = Topic, responses(
    (status = 200, body = Sent), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn topic(State(api): State<Api>, Body(topic): Body<Topic>) -> Result<Json<Sent>, ApiError> {
    answer(api.node.chat(move |desk| desk.set_topic(&topic.to, &topic.topic))).await
}

/// Chooses how this node's person is called.
#[utoipa::path(post, path = "/v1/chat/nick", tag = "chat", request_body = Named, responses(
    (status = 200, body = ChatStatus), (status = 400, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn nick(State(api): State<Api>, Body(own): Body<Named>) -> Result<Json<ChatStatus>, ApiError> {
    answer(api.node.chat(move |desk| desk.set_nick(&own.name))).await
}

/// Who is meant.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Whom {
    /// A contact's name, a node or a device.
    name: String,
}

/// How far somebody is, and what is on its way to them.
#[utoipa::path(get, path = "/v1/chat/trace", tag = "chat", params(Whom), responses(
    (status = 200, body = Trace), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn trace(
    State(api): State<Api>,
    whom: Result<Query<Whom>, QueryRejection>,
) -> Result<Json<Trace>, ApiError> {
    let Whom { name } = query(whom)?;
    answer(api.node.chat(move |desk| desk.trace(&name))).await
}

/// Destroys all of chat's keys and state.
#[utoipa::path(post, path = "/v1/chat/panic", tag = "chat", responses((status = 200, body = Destroyed), (status = 422, body = ErrorBody)))]
pub(super) async fn panic(State(api): State<Api>) -> Result<Json<Destroyed>, ApiError> {
    // Overwriting, deleting and compacting may take a while.
    within(Duration::from_secs(120), api.node.chat_panic()).await.map(Json)
}
