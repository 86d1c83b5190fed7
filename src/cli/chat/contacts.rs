//! `fog chat contact`

use clap::Subcommand;

use super::{CliError, Client, Context, TIMEOUT, printable, table};
use crate::{
    api::{ContactChange, Introduction},
    node::chat::report::Contact,
};

/// What can be done with contacts.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Add somebody by the invite that their `fog id` prints
    Add {
        /// The invite
        invite: String,
        /// What to call them [default: what they call themselves]
        #[arg(long, value_name = "N")]
        name: Option<String>,
    },
    /// List the contacts
    List,
    /// Show the safety words: read them to each other, over another channel
    Verify {
        /// The contact
        name: String,
        /// The words were compared and agree
        #[arg(long)]
        yes: bool,
    },
    /// Which ways messages to a contact may take; `mix` is never widened
    Policy {
        /// The contact
        name: String,
        /// `auto`, or `mix`: through the mixnet alone
        #[arg(value_parser = ["auto", "mix"])]
        policy: String,
    },
    /// Refuse a contact's messages, and hide what they say in rooms and groups; `unblock` takes it back
    Block {
        /// The contact
        name: String,
    },
    /// Accept a contact's messages again
    Unblock {
        /// The contact
        name: String,
    },
}

pub(super) fn run(context: &Context, client: &Client, command: Command) -> Result<(), CliError> {
    let timeout = context.timeout(TIMEOUT);
    let unchanged = |name| ContactChange { name, policy: None, blocked: None, verified: None };
    let (path, change) = match command {
        Command::List => {
            let contacts: Vec<Contact> = client.get("/v1/chat/contacts", timeout)?;
            return context.out.value(&contacts, |contacts| list(contacts));
        }
        Command::Add { invite, name } => {
            let contact: Contact = client.post("/v1/chat/contacts", &Introduction { invite, name }, timeout)?;
            return context.out.value(&vec![contact], |contacts| list(contacts));
        }
        Command::Verify { name, yes } => ("verify", ContactChange { verified: yes.then_some(true), ..unchanged(name) }),
        Command::Policy { name, policy } => ("policy", ContactChange { policy: Some(policy), ..unchanged(name) }),
        Command::Block { name } => ("block", ContactChange { blocked: Some(true), ..unchanged(name) }),
        Command::Unblock { name } => ("block", ContactChange { blocked: Some(false), ..unchanged(name) }),
    };
    let contact: Contact = client.post(&format!("/v1/chat/contacts/{path}"), &change, timeout)?;
    context.out.value(&vec![contact], |contacts| {
        let words: Vec<_> = contacts.iter().flat_map(|contact| contact.words.chunks(6)).collect();
        let words: String = words.iter().map(|line| format!("  {}\n", line.join(" "))).collect();
        if words.is_empty() {
            list(contacts)
        } else {
            list(contacts) + "both see these words, if nobody is between:\n" + &words
        }
    })
}

fn list(contacts: &[Contact]) -> String {
    let yes = |is| if is { "yes" } else { "no" }.to_owned();
    let rows: Vec<_> = contacts
        .iter()
        .map(|one| [printable(&one.name), one.policy.clone(), yes(one.verified), yes(one.blocked), one.peer_id.clone()])
        .collect();
    table(["NAME", "POLICY", "VERIFIED", "BLOCKED", "PEER"], &rows)
}
