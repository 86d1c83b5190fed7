//! Whole nodes: processes of the built program, and what a user meets. Edge cases of protocols are tested at their cores; here only that
//! everything is connected. Nothing waits for a time, only for a condition.

#![allow(clippy::disallowed_methods, reason = "tests of real processes read the clock")]

mod it {
    pub(crate) mod namespaces;
    pub(crate) mod support;

    mod api;
    mod certified;
    mod chat;
    mod chat_bridge;
    mod chat_killed;
    mod chat_lan;
    mod chat_load;
    mod chat_parted;
    mod chat_people;
    #[cfg(unix)]
    mod chat_terminal;
    mod chat_wire;
    mod cli;
    mod disk;
    #[cfg(target_os = "linux")]
    mod dns;
    mod exit;
    mod killed;
    mod lan;
    mod lookups;
    mod mix;
    mod mixed;
    mod node;
    mod recorder;
    mod reputation;
    mod services;
    mod services_endure;
    mod services_flood;
    mod tasks;
    mod tasks_hard;
    mod tasks_mixed;
}
