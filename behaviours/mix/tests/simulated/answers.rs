//! Answers by reply blocks that a message carries.

use std::time::Duration;

use fog_base::DropReason;
use fog_mix::{
    core::{
        cover::Cover,
        endpoint::{Kind, SendError, SentState},
    },
    wire::{MAX_ANSWER, MAX_MESSAGE},
};

use crate::net::{Net, bytes, id};

const KIND: Kind = Kind::Tasks { blocks: 34, tag: 7 };

#[test]
fn a_client_gets_answers_from_somebody_who_does_not_know_it_one_for_each_block() {
    let mut net = Net::new(7, 1, Cover::None);
    net.run(Duration::from_secs(2), |_| false);
    let message = net.send_kind(100, 1, bytes(3000), KIND).unwrap();
    assert!(net.run(Duration::from_secs(60), |n| n.state(&message) == Some(SentState::Delivered)));
    let (_, from, body) = net.node(1).inbox.pop().unwrap();
    assert_eq!((from, body), (None, bytes(3000)));
    let blocks = std::mem::take(&mut net.node(1).blocks);
    assert_eq!(blocks.len(), 34);
    let now = net.now;
    for (at, block) in blocks.iter().enumerate() {
        let answer = vec![at as u8; MAX_ANSWER];
        // The second time it is not used.
        net.node(1).endpoint.answer(block, answer.clone(), now);
        net.node(1).endpoint.answer(block, answer, now);
    }
    assert!(net.run(Duration::from_secs(30), |n| n.nodes[&id(100)].answers.len() == 34));
    net.run(Duration::from_secs(5), |_| false);
    let mut answers = std::mem::take(&mut net.node(100).answers);
    answers.sort();
    let right: Vec<_> = (0..34).map(|at| (7, vec![at; MAX_ANSWER])).collect();
    assert_eq!(answers, right);
    assert_eq!(net.drops(DropReason::Replayed), 34);
}

#[test]
fn what_is_too_long_is_refused_and_blocks_end_with_their_epoch() {
    let mut net = Net::new(7, 0, Cover::None);
    let large = net.send_kind(1, 2, bytes(MAX_MESSAGE - 100), KIND);
    assert!(matches!(large, Err(SendError::TooLarge(_))), "{large:?}");
    let message = net.send_kind(1, 2, bytes(10), KIND).unwrap();
    assert!(net.run(Duration::from_secs(60), |n| n.state(&message) == Some(SentState::Delivered)));
    let blocks = std::mem::take(&mut net.node(2).blocks);
    net.run(Duration::from_secs(400), |_| false);
    let now = net.now;
    net.node(2).endpoint.answer(&blocks[0], b"late".to_vec(), now);
    net.node(2).endpoint.answer(&blocks[1], vec![0; MAX_ANSWER + 1], now);
    net.run(Duration::from_secs(20), |_| false);
    assert!(net.node(1).answers.is_empty());
}
