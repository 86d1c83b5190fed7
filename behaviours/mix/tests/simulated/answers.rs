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

#[test]
fn whoever_reads_a_message_is_not_the_mailbox_to_which_its_answers_go() {
    let mut net = Net::new(7, 1, Cover::None);
    let holding = |net: &Net| net.nodes[&id(100)].endpoint.mailboxes_holding();
    assert!(net.run(Duration::from_secs(60), |n| holding(n).len() == 2));
    let mailboxes = holding(&net);
    let numbers: Vec<u8> = (1..=7).filter(|n| mailboxes.contains(&id(*n))).collect();
    let held = |net: &mut Net| -> Vec<usize> { numbers.iter().map(|n| net.node(*n).mailbox.usage().1).collect() };
    for (at, reader) in numbers.iter().enumerate() {
        let message = net.send_as(KIND, 100, *reader, bytes(10)).unwrap();
        assert!(net.run(Duration::from_secs(120), |n| n.state(&message) == Some(SentState::Delivered)));
        net.run(Duration::from_secs(5), |_| false);
        let before = held(&mut net);
        // What comes stays where it comes in.
        net.node(100).online = false;
        let (blocks, now) = (std::mem::take(&mut net.node(*reader).blocks), net.now);
        blocks.iter().for_each(|block| net.node(*reader).endpoint.answer(block, Vec::new(), now));
        net.run(Duration::from_secs(5), |_| false);
        let came: Vec<_> = held(&mut net).iter().zip(&before).map(|(after, before)| after - before).collect();
        assert!(came[at] == 0 && came.iter().sum::<usize>() >= blocks.len() * ANSWER_LEN, "{came:?}");
        net.node(100).online = true;
        for relay in 1..=7 {
            let now = net.now;
            net.node(100).endpoint.disconnected(id(relay), now);
        }
        assert!(net.run(Duration::from_secs(90), |n| n.nodes[&id(100)].answers.len() == (at + 1) * blocks.len()));
    }
}
