//! A queue between two threads. Its bound is that of what the engine has under way: the cores bound groups that are loaded or
//! not written, and the engine bounds its tasks.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, PoisonError},
};

use super::lock;

#[derive(Debug)]
struct Items<T> {
    waiting: VecDeque<T>,
    is_closed: bool,
}

/// First in, first out; the reader blocks.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    items: Mutex<Items<T>>,
    wake: Condvar,
}

impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        Self { items: Mutex::new(Items { waiting: VecDeque::new(), is_closed: false }), wake: Condvar::new() }
    }

    pub(crate) fn push(&self, item: T) {
        lock(&self.items).waiting.push_back(item);
        self.wake.notify_one();
    }

    /// The next item, when there is one; `None` when the queue is closed and empty.
    pub(crate) fn pop(&self) -> Option<T> {
        let mut items = lock(&self.items);
        loop {
            if let Some(item) = items.waiting.pop_front() {
                return Some(item);
            }
            if items.is_closed {
                return None;
            }
            items = self.wake.wait(items).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// What waits is still taken, and nothing after it.
    pub(crate) fn close(&self) {
        lock(&self.items).is_closed = true;
        self.wake.notify_all();
    }
}
