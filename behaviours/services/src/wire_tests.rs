use proptest::prelude::*;

use super::*;

fn array<const N: usize>() -> impl Strategy<Value = [u8; N]> {
    proptest::collection::vec(any::<u8>(), N).prop_map(|bytes| bytes.try_into().unwrap())
}

fn introduction() -> impl Strategy<Value = Box<Introduction>> {
    (array(), array(), array(), array())
        .prop_map(|(auth_key, x, ciphertext, sealed)| Box::new(Introduction { auth_key, x, ciphertext, sealed }))
}

fn reply() -> impl Strategy<Value = Reply> {
    (array(), array()).prop_map(|(y, proof)| Reply { y, proof })
}

fn descriptor() -> impl Strategy<Value = Vec<u8>> {
    proptest::sample::select(SIZES.to_vec()).prop_map(|size| vec![7; size])
}

fn message() -> impl Strategy<Value = Message> {
    let answer = prop_oneof![
        any::<u64>().prop_map(StoreAnswer::Stored),
        any::<u64>().prop_map(StoreAnswer::Stale),
        proptest::sample::select(REASONS.to_vec()).prop_map(StoreAnswer::Rejected),
    ];
    let establish = (array(), any::<u16>(), any::<u16>(), array()).prop_map(|(auth_key, rate, burst, signature)| {
        Message::EstablishIntro(EstablishIntro { auth_key, rate, burst, signature })
    });
    prop_oneof![
        establish,
        any::<bool>().prop_map(Message::IntroEstablished),
        introduction().prop_map(Message::Introduce1),
        introduction().prop_map(Message::Introduce2),
        proptest::sample::select(ACKS.to_vec()).prop_map(Message::IntroduceAck),
        array().prop_map(Message::EstablishRendezvous),
        any::<bool>().prop_map(Message::RendezvousEstablished),
        (array(), reply()).prop_map(|(cookie, reply)| Message::Rendezvous1(cookie, reply)),
        reply().prop_map(Message::Rendezvous2),
        descriptor().prop_map(Message::Store),
        answer.prop_map(Message::StoreAnswer),
        array().prop_map(Message::Fetch),
        proptest::option::of(descriptor()).prop_map(Message::FetchAnswer),
    ]
}

#[test]
fn bodies_have_the_sizes_of_the_specification() {
    let reply = Reply { y: [1; 32], proof: [2; 32] };
    let introduction =
        Box::new(Introduction { auth_key: [1; 32], x: [2; 32], ciphertext: [3; 1088], sealed: [4; 720] });
    let establish = EstablishIntro { auth_key: [1; 32], rate: 1, burst: 2, signature: [3; 64] };
    let cases = [
        (Message::EstablishIntro(establish), 64, 100),
        (Message::IntroEstablished(true), 65, 1),
        (Message::Introduce1(introduction.clone()), 66, 1872),
        (Message::Introduce2(introduction), 67, 1872),
        (Message::IntroduceAck(AckStatus::Limited), 68, 1),
        (Message::EstablishRendezvous([1; 20]), 69, 20),
        (Message::RendezvousEstablished(false), 70, 1),
        (Message::Rendezvous1([1; 20], reply), 71, 84),
        (Message::Rendezvous2(reply), 72, 64),
        (Message::Store(vec![0; 4096]), 80, 4096),
        (Message::StoreAnswer(StoreAnswer::Rejected(StoreReject::TooMany)), 81, 9),
        (Message::Fetch([1; 32]), 82, 32),
        (Message::FetchAnswer(None), 83, 1),
        (Message::FetchAnswer(Some(vec![0; 16384])), 83, 16385),
    ];
    for (message, command, size) in cases {
        let (got, body) = message.encode();
        assert_eq!((got, body.len()), (command, size), "{message:?}");
    }
    assert_eq!(Message::IntroduceAck(AckStatus::Limited).encode().1, [3]);
    assert_eq!(
        Message::StoreAnswer(StoreAnswer::Rejected(StoreReject::TooMany)).encode().1,
        [2, 0, 0, 0, 0, 0, 0, 0, 7]
    );
}

#[test]
fn numbers_out_of_range_are_no_messages() {
    for (command, body) in [
        (65, vec![2]),
        (68, vec![4]),
        (70, vec![255]),
        (81, vec![3, 0, 0, 0, 0, 0, 0, 0, 1]),
        (81, vec![2, 0, 0, 0, 0, 0, 0, 0, 0]),
        (81, vec![2, 0, 0, 0, 0, 0, 0, 0, 8]),
        (83, vec![2]),
        (83, vec![1]),
        (80, vec![0; 4097]),
        (63, vec![]),
        (73, vec![]),
        (84, vec![]),
    ] {
        assert_eq!(Message::decode(command, &body), None, "{command}");
    }
}

proptest! {
    #[test]
    fn messages_survive_the_round_trip_and_no_other_length(message in message()) {
        let (command, mut body) = message.encode();
        prop_assert_eq!(Message::decode(command, &body), Some(message));
        body.push(0);
        prop_assert_eq!(Message::decode(command, &body), None);
        body.truncate(body.len() - 2);
        prop_assert!(body.is_empty() && command == 83 || Message::decode(command, &body).is_none());
    }

    #[test]
    fn any_bytes_are_read_without_panic(command: u8, body in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let _ = Message::decode(command, &body);
    }
}
