//! Direct messages with a short life: each goes in a frame of its own, so that it is given up when its own time is over. They wait apart, and take
//! a part of the window alone: nothing else waits for them, however many there are.

use std::collections::VecDeque;

use fog_base::{MessageId as FrameId, Now};

use super::{Chat, Timer};
use crate::core::{delivery::Reason, id::DeviceId, secrets::MAX_PENDING};

/// The most of them that are under way to a device.
const MAX_SHORT: usize = 8;
/// With so much of the window used none is sealed. A frame that was given up leaves its place in the chain used until all before it are acknowledged.
const MAX_USED: usize = MAX_PENDING / 2;

impl Chat {
    /// Gives up those whose time is over, and seals as many of the others as may be under way.
    pub(super) fn fill_short(&mut self, to: DeviceId, now: Now) {
        let Some(frames) = self.short.remove(&to) else { return };
        let (over, rest): (VecDeque<_>, VecDeque<_>) = frames.into_iter().partition(|frame| {
            // By either clock: the one may have been set back, and the other does not count while the host sleeps.
            frame.expires <= now.unix || frame.ends.is_some_and(|ends| ends <= now.mono)
        });
        for frame in over {
            self.drop_frame(to, &frame, Reason::Expired);
        }
        self.short.insert(to, rest);
        let of = (to, FrameId([0; 16]))..=(to, FrameId([0xff; 16]));
        let mut under_way = self.flights.range(of).filter(|(_, flight)| flight.is_short).count();
        while under_way < MAX_SHORT && self.secrets.used_window(&to) < MAX_USED && self.secrets.has_window(&to) {
            let Some(frame) = self.short.get_mut(&to).and_then(VecDeque::pop_front) else { break };
            if !self.seal_frame(to, frame, now) {
                break;
            }
            under_way += 1;
        }
        match self.short.get(&to).map(|rest| rest.iter().filter_map(|frame| frame.ends).min()) {
            Some(Some(next)) => self.at(next, Timer::Window(to)),
            _ => drop(self.short.remove(&to)),
        }
    }
}
