//! The device at a node is another one than before: after a restore, or after `panic`. A node has one.

use super::{Chat, Event};
use crate::core::id::DeviceId;

impl Chat {
    /// A node stands for a device that is new here. What was chosen for those that it stood for before holds for it as well: blocks, and the mixnet
    /// alone. Not that words were compared, and not their names.
    pub(super) fn inherit(&mut self, device: DeviceId) {
        let Some(node) = self.people.get(&device).map(|person| person.card.node) else { return };
        let of_node: Vec<_> = self.people.values().filter(|it| it.is_proved && it.card.node == node).collect();
        let before = || of_node.iter().filter(|person| person.card.device != device && person.is_known());
        if before().next().is_none() {
            return;
        }
        let is_blocked = before().any(|person| person.is_blocked);
        let is_mixed = before().any(|person| person.is_mixed);
        let contact = before().find(|person| person.is_contact).map(|person| person.card.device);
        // Of many new ones a person hears once.
        let is_first = of_node.iter().filter(|person| !person.is_known()).count() <= 1;
        if let Some(person) = self.people.get_mut(&device) {
            person.is_blocked |= is_blocked;
            person.is_mixed |= is_mixed;
        }
        if is_blocked {
            self.secrets.block_list().block(device);
        }
        self.save_person(device);
        if let Some(of) = contact.filter(|_| is_first && !is_blocked) {
            self.tell(Event::NewDevice { device, of });
        }
    }
}
