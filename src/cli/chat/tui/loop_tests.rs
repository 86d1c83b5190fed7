//! The loop around the state, with a node that is not there.

use std::{
    cell::RefCell,
    future::{pending, ready},
    io,
    time::Duration,
};

use crossterm::event::{Event as TerminalEvent, KeyCode, KeyEvent, KeyModifiers};
use futures::{StreamExt, stream};
use tokio::sync::mpsc;

use super::{
    app::App,
    drive,
    model::{Event, Node, Refusal, Reply, Sent, What},
};

/// Answers sends after a while, the earlier ones more slowly, and nothing else.
#[derive(Default)]
struct Fake {
    begun: RefCell<Vec<String>>,
    ended: RefCell<Vec<String>>,
}

impl Node for Fake {
    async fn ask(&self, what: What, _progress: mpsc::Sender<Event>) -> Result<Reply, Refusal> {
        let What::Send { text, number, .. } = what else { return pending().await };
        self.begun.borrow_mut().push(text.clone());
        tokio::time::sleep(Duration::from_millis(30 / number)).await;
        self.ended.borrow_mut().push(text.clone());
        Ok(Reply::Sent(Sent { id: text, ..Sent::default() }))
    }

    fn follow(&self, _events: mpsc::Sender<Event>) {}
}

fn keys(text: &str) -> Vec<io::Result<TerminalEvent>> {
    let code = |c| if c == '\n' { KeyCode::Enter } else { KeyCode::Char(c) };
    text.chars().map(|c| Ok(TerminalEvent::Key(KeyEvent::new(code(c), KeyModifiers::NONE)))).collect()
}

#[tokio::test]
async fn messages_reach_the_node_in_the_order_of_the_person() {
    let node = Fake::default();
    let is_sent = async {
        while node.ended.borrow().len() < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let keys = stream::iter(keys("a\nb\nc\n")).chain(stream::pending());
    let app = App::new(false, (80, 24));
    drive(app, &node, keys, is_sent, |_, _| Ok(())).await.unwrap();
    assert_eq!(*node.begun.borrow(), ["a", "b", "c"]);
    assert_eq!(*node.ended.borrow(), ["a", "b", "c"]);
}

#[tokio::test]
async fn it_ends_with_the_person_the_terminal_or_a_signal() {
    let node = Fake::default();
    let app = || App::new(false, (80, 24));
    let by_person = stream::iter(keys("/quit\n")).chain(stream::pending());
    assert_eq!(drive(app(), &node, by_person, pending(), |_, _| Ok(())).await.unwrap(), None);
    assert_eq!(drive(app(), &node, stream::iter([]), pending(), |_, _| Ok(())).await.unwrap(), None);
    assert_eq!(drive(app(), &node, stream::pending(), ready(()), |_, _| Ok(())).await.unwrap(), None);
    let broken = stream::iter([Err(io::Error::other("gone"))]);
    assert!(drive(app(), &node, broken, pending(), |_, _| Ok(())).await.is_err());
}
