//! How you are called, and how far somebody is.

use super::{CliError, Client, Context, TIMEOUT, printable};
use crate::{
    api::Named,
    cli::output::fields,
    node::chat::report::{ChatStatus, Trace},
};

/// `fog chat nick [NAME]`
pub(super) fn nick(context: &Context, client: &Client, name: Option<String>) -> Result<(), CliError> {
    let timeout = context.timeout(TIMEOUT);
    let status: ChatStatus = match name {
        Some(name) => client.post("/v1/chat/nick", &Named { name }, timeout)?,
        None => client.get("/v1/chat/status", timeout)?,
    };
    context.out.value(&status, |status| format!("you are called {}\n", printable(&status.name)))
}

/// `fog chat trace NAME`
pub(super) fn trace(context: &Context, client: &Client, name: &str) -> Result<(), CliError> {
    let trace: Trace = client.get_with("/v1/chat/trace", &[("name", name)], context.timeout(TIMEOUT))?;
    context.out.value(&trace, told)
}

/// A trace, for a person.
pub(super) fn told(trace: &Trace) -> String {
    let ways = if trace.blocked {
        "none: blocked".to_owned()
    } else if trace.ways.is_empty() {
        "none at the moment: what you write waits, and goes when there is one".to_owned()
    } else {
        trace.ways.join(", then ")
    };
    let connected = match trace.connected.as_deref() {
        Some("lan") => "in this network",
        Some(_) => "over the internet",
        None => "no",
    };
    let mailboxes = match trace.mailboxes {
        0 => "none known: nothing can be left for it".to_owned(),
        count => format!("{count}, told by its card"),
    };
    let heard =
        trace.last_via.as_ref().map_or_else(|| "not since the node was started".into(), |via| format!("by {via}"));
    let yes = |is| if is { "yes" } else { "not yet" };
    fields(&[
        ("peer", trace.peer_id.clone()),
        ("calls itself", printable(&trace.calls_itself)),
        ("policy", trace.policy.clone()),
        ("connected", connected.to_owned()),
        ("ways now", ways),
        ("mailboxes", mailboxes),
        ("last heard", heard),
        ("has written", yes(trace.has_written).to_owned()),
        ("waiting", format!("{} frames", trace.waiting)),
        ("under way", format!("{} frames, {} of them in mailboxes", trace.under_way, trace.in_mailboxes)),
    ])
}
