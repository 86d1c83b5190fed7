//! The bounds of answers by reply blocks.

use std::time::Duration;

use fog_base::DropReason;
use fog_mix::{
    core::{
        cover::Cover,
        endpoint::{Kind, SendError, SentState},
    },
    wire::{ANSWER_LEN, Application, MAX_MESSAGE},
};

use crate::net::{Net, bytes, id};

const KIND: Kind = Kind::Asking(Application::Tasks, 34);

#[test]
fn what_is_too_long_is_refused_and_blocks_end_with_their_epoch() {
    let mut net = Net::new(7, 0, Cover::None);
    let large = net.send_as(KIND, 1, 2, bytes(MAX_MESSAGE - 100));
    assert!(matches!(large, Err(SendError::TooLarge(_))), "{large:?}");
    let message = net.send_as(KIND, 1, 2, bytes(10)).unwrap();
    assert!(net.run(Duration::from_secs(60), |n| n.state(&message) == Some(SentState::Delivered)));
    let blocks = std::mem::take(&mut net.node(2).blocks);
    let now = net.now;
    net.node(2).endpoint.answer(&blocks[0], vec![0; ANSWER_LEN + 1], now);
    assert_eq!(net.drops(DropReason::Malformed), 1);
    net.node(2).endpoint.answer(&blocks[0], b"in time".to_vec(), now);
    assert!(
        net.run(Duration::from_secs(20), |n| n.nodes[&id(1)].answers.len() == 1),
        "what was refused spent no block"
    );
    net.run(Duration::from_secs(400), |_| false);
    let now = net.now;
    net.node(2).endpoint.answer(&blocks[1], b"late".to_vec(), now);
    net.run(Duration::from_secs(20), |_| false);
    assert_eq!(net.node(1).answers.len(), 1);
}
