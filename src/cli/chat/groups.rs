//! `fog chat group create`, and who is in a group

use clap::Subcommand;

use super::{CliError, Client, Context, TIMEOUT, done, printable, table};
use crate::{api::Membership, node::chat::report::Member};

/// What can be done with groups.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create a group; you are its owner
    Create {
        /// Its name
        name: String,
    },
    /// Take up an invitation by somebody who is no contact
    Accept {
        /// `&group`
        group: String,
    },
    #[command(flatten)]
    Members(Members),
}

/// What can be done with members.
#[derive(Debug, Subcommand)]
pub(super) enum Members {
    /// Invite somebody into a group
    Invite {
        /// `&group`
        group: String,
        /// A contact's name, a node or a device
        peer: String,
    },
    /// Remove somebody from a group
    Remove {
        /// `&group`
        group: String,
        /// A contact's name, a node or a device
        peer: String,
    },
    /// Make somebody an admin, or a plain member
    Role {
        /// `&group`
        group: String,
        /// A contact's name, a node or a device
        peer: String,
        /// What they are from now on
        #[arg(value_parser = ["admin", "member"])]
        role: String,
    },
    /// Who is in a group, or was seen in a room
    #[command(name = "members")]
    List {
        /// `&group` or `#room`
        group: String,
    },
}

pub(super) fn run(context: &Context, client: &Client, command: Members) -> Result<(), CliError> {
    let timeout = context.timeout(TIMEOUT);
    let (what, path, change) = match command {
        Members::Invite { group, peer } => ("invited into", "invite", Membership { group, peer, role: None }),
        Members::Remove { group, peer } => ("removed from", "remove", Membership { group, peer, role: None }),
        Members::Role { group, peer, role } => ("changed in", "role", Membership { group, peer, role: Some(role) }),
        Members::List { group } => {
            let members: Vec<Member> = client.get_with("/v1/chat/members", &[("to", &group)], timeout)?;
            return context.out.value(&members, |members| list(members));
        }
    };
    done(context, &client.post(&format!("/v1/chat/groups/{path}"), &change, timeout)?, what)
}

fn list(members: &[Member]) -> String {
    let rows: Vec<_> =
        members.iter().map(|member| [printable(&member.name), member.role.clone(), member.peer_id.clone()]).collect();
    table(["NAME", "ROLE", "PEER"], &rows)
}
