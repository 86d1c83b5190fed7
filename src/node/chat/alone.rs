//! Why nobody is in reach, for a person who looks at an empty room.

use crate::node::event_loop::EventLoop;

/// What is known of others and how they are looked for.
#[derive(Debug, Clone, Copy, Default)]
struct Looked {
    mdns: bool,
    beacon: bool,
    /// Neighbours that were found, bootstrap addresses, relays.
    found: usize,
    bootstrap: usize,
    relays: usize,
}

impl Looked {
    fn why(self) -> String {
        let Self { found, bootstrap, relays, .. } = self;
        let many = |n: usize, what: &str| if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") };
        if found > 0 {
            return format!("{} on this network, and no connection with any.", many(found, "device"));
        }
        let near = match (self.mdns, self.beacon) {
            (false, false) => "this network is not searched (`no_mdns` is set and `lan_beacon` is off)",
            _ => "no device answers on this network",
        };
        let far = match bootstrap + relays {
            0 => "no address elsewhere is known.".to_owned(),
            n => format!("of {} elsewhere none answers.", many(n, "peer")),
        };
        format!("{near}, and {far}")
    }
}

impl EventLoop {
    /// Why no peer of the network is connected.
    pub(super) fn why_alone(&self) -> String {
        let (bootstrap, relays, found) = self.wiring.contacts.counts();
        let (mdns, beacon) = (self.config.mdns, self.config.lan_beacon);
        Looked { mdns, beacon, found, bootstrap, relays }.why()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_told() {
        let looked = Looked { mdns: true, beacon: true, ..Looked::default() };
        assert_eq!(looked.why(), "no device answers on this network, and no address elsewhere is known.");
        assert_eq!(Looked { found: 2, ..looked }.why(), "2 devices on this network, and no connection with any.");
        let elsewhere = Looked { bootstrap: 1, ..looked };
        assert!(elsewhere.why().ends_with("of 1 peer elsewhere none answers."), "{}", elsewhere.why());
        let deaf = Looked { mdns: false, beacon: false, relays: 3, ..looked };
        assert!(deaf.why().starts_with("this network is not searched"), "{}", deaf.why());
    }
}
