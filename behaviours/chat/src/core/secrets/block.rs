//! Block lists: whom a person does not want to hear. Local, told to nobody.
//!
//! A blocked device's direct messages are refused before any key is used, its invites and keys are not taken, and its messages in rooms
//! and groups are not shown. They stay in the order of the room and are passed on: otherwise a block would tear history for others, and
//! tell the blocked person of itself.

use std::collections::BTreeSet;

use super::bundle::DeviceId;

/// Devices that one list can hold.
pub const MAX_BLOCKED: usize = 4096;

/// The list.
#[derive(Debug, Clone, Default)]
pub struct BlockList(BTreeSet<DeviceId>);

impl BlockList {
    /// Blocks a device; false if the list is full.
    pub fn block(&mut self, device: DeviceId) -> bool {
        let room = self.0.len() < MAX_BLOCKED || self.0.contains(&device);
        if room {
            self.0.insert(device);
        }
        room
    }

    /// Lifts a block.
    pub fn unblock(&mut self, device: &DeviceId) {
        self.0.remove(device);
    }

    /// Whether a device is blocked.
    pub fn contains(&self, device: &DeviceId) -> bool {
        self.0.contains(device)
    }

    /// All of them, in order: what is stored.
    pub fn iter(&self) -> impl Iterator<Item = &DeviceId> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_list_says_so_and_forgets_nobody() {
        let mut list = BlockList::default();
        let device = |n: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&n.to_be_bytes());
            DeviceId(bytes)
        };
        assert!((0..MAX_BLOCKED).all(|n| list.block(device(n))));
        assert!(!list.block(device(MAX_BLOCKED)));
        assert!(list.block(device(0)), "already blocked");
        list.unblock(&device(0));
        assert!(!list.contains(&device(0)) && list.block(device(MAX_BLOCKED)));
        assert_eq!(list.iter().count(), MAX_BLOCKED);
    }
}
