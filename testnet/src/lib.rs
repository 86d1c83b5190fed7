#![doc = include_str!("../README.md")]
#![allow(clippy::disallowed_methods, reason = "this crate starts processes and waits for them: it reads the clock")]

mod batch;
mod chat;
mod client;
pub mod demo;
mod error;
mod network;
mod plan;
mod ports;
mod process;
mod report;
pub mod scenario;
pub mod services;
mod signals;
pub mod sim;
mod state;
pub mod tasks;
mod wait;

pub use batch::{Batch, Counted, Outcome, Recipient};
pub use chat::{ChatFile, ChatLine, ChatSent};
pub use client::{Client, Message, PingLine, Received, Reputation, Seat, Sent, Snapshot, Status};
pub use error::Error;
pub use network::{Node, Testnet};
pub use plan::{Exits, Faults, NodePlan, Plan, SHARED_HOST};
pub use ports::free_port;
pub use process::{Process, Usage};
pub use report::{Check, Report};
pub use signals::{Interruption, wait_for_interrupt};
pub use state::{NodeState, State, down};
pub use wait::{Deadline, until};
