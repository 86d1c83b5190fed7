//! How somebody is reached from here, and what is on its way.

use std::collections::VecDeque;

use fog_base::MessageId as FrameId;

use super::{Chat, Refusal, Trace, Transport};
use crate::core::delivery::Via;

impl Chat {
    /// How far somebody is whose card is known.
    pub fn trace(&self, who: &str) -> Result<Trace, Refusal> {
        let device = self.find_person(who)?;
        let unknown = || Refusal::Unknown(who.to_owned());
        let (person, contact) = self.people.get(&device).zip(self.contact(device)).ok_or_else(unknown)?;
        let link = self.links.get(&person.card.node);
        let of = (device, FrameId([0; 16]))..=(device, FrameId([0xff; 16]));
        Ok(Trace {
            contact,
            connected: link.map(|link| if link.is_lan { Transport::Lan } else { Transport::Direct }),
            ways: self.plan_for(device, Via::Auto).into_iter().map(|(transport, _)| transport).collect(),
            mailboxes: person.card.mailboxes.len(),
            has_written: person.is_met,
            last_via: self.sources.get(&device).map(|(_, via)| *via),
            waiting: [&self.waiting, &self.short]
                .map(|queues| queues.get(&device).map_or(0, VecDeque::len))
                .iter()
                .sum(),
            under_way: self.flights.range(of.clone()).count(),
            in_mailboxes: self.flights.range(of).filter(|(_, flight)| flight.is_stored).count(),
        })
    }
}
