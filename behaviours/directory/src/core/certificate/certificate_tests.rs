//! Certificates and chains: what verifies, and each way to be refused.

use ed25519_dalek::SigningKey;
use fog_base::{Epoch, Network, NetworkId, NodeId};
use proptest::prelude::*;

use super::{
    ballot::{Ballot, DoubleSign, Phase, Round, VerifiedBallot},
    chain::{Link, MAX_LINK_LEN, Standing, Tip, verify_certificate, verify_chain, verify_link},
    electorate::{Elector, Electorate, ElectorateError, MAX_SEATS},
    message::{self, Message},
    quorum::{self, Quorum},
    record::Record,
    *,
};

const NETWORK: NetworkId = NetworkId([3; 32]);

fn key(n: u16) -> SigningKey {
    let mut bytes = [5; 32];
    bytes[..2].copy_from_slice(&n.to_be_bytes());
    SigningKey::from_bytes(&bytes)
}

fn electorate(members: impl IntoIterator<Item = (u16, u64)>) -> Electorate {
    let seat = |(n, weight)| Elector { node: NodeId(key(n).verifying_key().to_bytes()), weight };
    Electorate::new(members.into_iter().map(seat).collect()).unwrap()
}

/// Seats 0..4, in this order, with weights 3, 3, 2 and 1.
fn nine() -> Electorate {
    electorate([(0, 3), (1, 3), (2, 2), (3, 1)])
}

fn tip() -> Tip {
    let electorate = nine();
    let statement = Statement { epoch: Epoch(100), ..Statement::genesis(electorate.commitment()) };
    Tip::from_store(&NETWORK, statement, electorate).unwrap()
}

/// What follows `tip` in the next epoch, with `next` as its seats.
fn following(tip: &Tip, next: &Electorate) -> Statement {
    let epoch = tip.statement().epoch.next();
    Statement { epoch, previous: tip.hash(), root: [9; 32], relays: 4, electorate: next.commitment(), state: [6; 32] }
}

fn round_of(statement: &Statement) -> Round {
    Round { epoch: statement.epoch, attempt: 1 }
}

fn ballot(n: u16, phase: Phase, round: Round, statement: &Statement) -> VerifiedBallot {
    Ballot::sign(phase, round, statement.hash(&NETWORK), &NETWORK, &key(n))
}

/// A certificate that these seats of `tip` sign, whether they suffice or not.
fn signed_by(statement: Statement, seats: usize, signers: &[u16]) -> Quorum {
    let round = round_of(&statement);
    let sign = |n: usize| ballot(n as u16, Phase::Commit, round, &statement).ballot().signature;
    let signatures = (0..seats).map(|n| signers.contains(&(n as u16)).then(|| sign(n))).collect();
    Quorum { phase: Phase::Commit, round, statement, signatures }
}

fn verify(certificate: Quorum) -> Result<(), Reject> {
    verify_certificate(&NETWORK, &tip(), certificate).map(|_| ())
}

#[test]
fn more_than_two_thirds_of_the_weight_certify_and_two_thirds_do_not() {
    let statement = following(&tip(), &nine());
    for (signers, outcome) in [
        (&[0, 1, 2, 3][..], Ok(())),
        (&[0, 1, 3], Ok(())),
        (&[0, 1], Err(Reject::TooLittleWeight)),
        (&[1, 2, 3], Err(Reject::TooLittleWeight)),
        (&[], Err(Reject::TooLittleWeight)),
    ] {
        let certificate = signed_by(statement, 4, signers);
        let read = Quorum::from_bytes(&certificate.to_bytes()).unwrap();
        assert_eq!(read, certificate);
        assert_eq!(verify(read), outcome, "{signers:?}");
    }
}

#[test]
fn a_certificate_has_the_heaviest_seats_that_suffice_and_no_more() {
    let statement = following(&tip(), &nine());
    let round = round_of(&statement);
    let ballots: Vec<_> = (0..4).rev().map(|n| (n, ballot(n, Phase::Commit, round, &statement))).collect();
    let all = || ballots.iter().map(|(rank, ballot)| (*rank, ballot));
    let quorum = Quorum::assemble((Phase::Commit, round, statement), &nine(), all()).unwrap();
    assert_eq!(*quorum.quorum(), signed_by(statement, 4, &[0, 1, 2]));
    let light = all().filter(|(rank, _)| *rank != 0);
    assert_eq!(Quorum::assemble((Phase::Commit, round, statement), &nine(), light), None);
}

#[test]
fn each_false_certificate_is_refused() {
    let statement = following(&tip(), &nine());
    let good = || signed_by(statement, 4, &[0, 1, 2]);
    let changed = |change: &dyn Fn(&mut Quorum)| {
        let mut certificate = good();
        change(&mut certificate);
        verify(certificate)
    };
    assert_eq!(changed(&|_| {}), Ok(()));
    assert_eq!(changed(&|c| c.signatures[1] = c.signatures[0]), Err(Reject::BadSignature), "one signer twice");
    assert_eq!(changed(&|c| c.signatures.swap(0, 1)), Err(Reject::BadSignature));
    assert_eq!(changed(&|c| c.signatures.truncate(3)), Err(Reject::Malformed), "fewer seats than the electorate has");
    assert_eq!(changed(&|c| c.signatures.push(None)), Err(Reject::Malformed));
    assert_eq!(changed(&|c| c.round.attempt = 2), Err(Reject::BadSignature), "signed in another round");
    assert_eq!(changed(&|c| c.round.epoch = Epoch(102)), Err(Reject::BadSignature));
    assert_eq!(changed(&|c| c.round.epoch = Epoch(100)), Err(Reject::WrongEpoch), "before its epoch was sought");
    assert_eq!(changed(&|c| c.statement.epoch = Epoch(100)), Err(Reject::WrongEpoch), "an epoch that was certified");
    assert_eq!(changed(&|c| c.statement.root[0] ^= 1), Err(Reject::BadSignature), "signed for another set");
    assert_eq!(changed(&|c| c.statement.relays += 1), Err(Reject::BadSignature));
    assert_eq!(changed(&|c| c.statement.electorate[0] ^= 1), Err(Reject::BadSignature));
    assert_eq!(changed(&|c| c.statement.previous[0] ^= 1), Err(Reject::OtherHeight), "a gap in the chain");
    assert_eq!(changed(&|c| c.phase = Phase::Vote), Err(Reject::Malformed), "votes are no certificate");
    let votes = (0..4).map(|n| Some(ballot(n, Phase::Vote, good().round, &statement).ballot().signature)).collect();
    assert_eq!(verify(Quorum { signatures: votes, ..good() }), Err(Reject::BadSignature), "votes as commits");
    let elsewhere = NetworkId([4; 32]);
    let there = Tip::from_store(&elsewhere, *tip().statement(), nine()).unwrap();
    assert_eq!(verify_certificate(&elsewhere, &there, good()), Err(Reject::OtherHeight), "another network");
    let moved = Statement { previous: there.hash(), ..statement };
    let moved = signed_by(moved, 4, &[0, 1, 2]);
    assert_eq!(verify_certificate(&elsewhere, &there, moved), Err(Reject::BadSignature));
}

#[test]
fn encodings_with_a_false_length_or_stray_bits_are_refused() {
    let bytes = signed_by(following(&tip(), &nine()), 4, &[0, 1, 2]).to_bytes();
    for length in 0..bytes.len() {
        assert_eq!(Quorum::from_bytes(&bytes[..length]), Err(Reject::Malformed), "{length} bytes");
    }
    assert_eq!(Quorum::from_bytes(&[bytes.clone(), vec![0]].concat()), Err(Reject::Malformed));
    let bitmap = 1 + Round::LEN + Statement::LEN + 2;
    assert_eq!(bytes[bitmap], 0b0111);
    for (at, value) in [(bitmap, 0b1_0111), (bitmap, 0b1111), (bitmap, 0b11), (bitmap - 1, 0), (0, 3), (5, 4)] {
        let mut changed = bytes.clone();
        changed[at] = value;
        assert_eq!(Quorum::from_bytes(&changed), Err(Reject::Malformed), "byte {at} = {value}");
    }
}

#[test]
fn the_largest_messages_fit_their_caps() {
    let many = electorate((0..MAX_SEATS as u16).map(|n| (n, 1)));
    let base = Statement { epoch: Epoch(100), ..Statement::genesis(many.commitment()) };
    let tip = Tip::from_store(&NETWORK, base, many.clone()).unwrap();
    let statement = following(&tip, &many);
    let round = round_of(&statement);
    let ballots: Vec<_> = (0..MAX_SEATS as u16).map(|n| (n, ballot(n, Phase::Commit, round, &statement))).collect();
    let all = ballots.iter().map(|(rank, ballot)| (*rank, ballot));
    let certificate = Quorum::assemble((Phase::Commit, round, statement), &many, all).unwrap().quorum().clone();
    assert_eq!(certificate.to_bytes().len(), quorum::MAX_LEN);
    const { assert!(message::MAX_LEN <= 16 * 1024, "the cap of a gossip message") };
    let message = Message::Quorum(certificate.clone());
    assert_eq!(Message::from_bytes(&message.to_bytes()), Ok(message));
    let link = Link { certificate, electorate: many };
    assert_eq!(link.to_bytes().len(), MAX_LINK_LEN);
    assert_eq!(Link::from_bytes(&link.to_bytes()), Ok(link.clone()));
    assert!(verify_link(&NETWORK, &tip, link).is_ok());
}

/// `length` links after [`tip`], each with other seats.
fn links(length: u32) -> Vec<Link> {
    let (mut tip, mut signers, mut links) = (tip(), vec![0, 1, 2, 3], vec![]);
    for n in 0..length as u16 {
        let next = electorate((0..4).map(|m| (100 + n + m, 1)));
        let statement = following(&tip, &next);
        let round = round_of(&statement);
        let ballots: Vec<_> = signers.iter().map(|n| ballot(*n, Phase::Commit, round, &statement)).collect();
        let certificate = Quorum::assemble((Phase::Commit, round, statement), tip.electorate(), (0..).zip(&ballots));
        links.push(Link { certificate: certificate.unwrap().quorum().clone(), electorate: next.clone() });
        tip = Tip::from_store(&NETWORK, statement, next).unwrap();
        signers = (100 + n..104 + n).collect();
    }
    links
}

#[test]
fn a_chain_is_followed_without_the_sets() {
    let links = links(50);
    let (end, outcome) = verify_chain(&NETWORK, tip(), links.clone());
    assert_eq!(outcome, Ok(()));
    assert_eq!((end.statement(), end.electorate()), (&links[49].certificate.statement, &links[49].electorate));
}

#[test]
fn a_gap_another_order_or_other_seats_end_the_chain_where_it_is_good() {
    let good = links(6);
    let end = |links: Vec<Link>| {
        let (tip, outcome) = verify_chain(&NETWORK, tip(), links);
        (tip.statement().epoch.0, outcome)
    };
    let mut gap = good.clone();
    gap.remove(3);
    assert_eq!(end(gap), (103, Err(Reject::OtherHeight)));
    let mut swapped = good.clone();
    swapped.swap(2, 3);
    assert_eq!(end(swapped), (102, Err(Reject::OtherHeight)));
    let mut heavier = good.clone();
    heavier[2].electorate = electorate((0..4).map(|m| (102 + m, 2)));
    assert_eq!(end(heavier), (102, Err(Reject::WrongElectorate)));
    let mut unsigned = good.clone();
    unsigned[4].certificate.signatures[0] = None;
    assert_eq!(end(unsigned), (104, Err(Reject::TooLittleWeight)));
    assert_eq!(end(good), (106, Ok(())));
}

#[test]
fn the_chain_begins_with_the_relays_of_the_network_file() {
    assert_eq!(Tip::genesis(&Network::lan()), Err(ElectorateError::Empty), "LAN mode certifies nothing");
    let stake = |n| (NodeId(key(n).verifying_key().to_bytes()), u64::from(n) + 1);
    let network =
        |relays: &[u16]| Network { id: NETWORK, genesis: relays.iter().map(|n| stake(*n)).collect(), ..Network::lan() };
    let genesis = Tip::genesis(&network(&[2, 0, 1])).unwrap();
    assert_eq!(genesis, Tip::genesis(&network(&[0, 1, 2])).unwrap(), "the order of the file does not count");
    assert_ne!(genesis.hash(), Tip::genesis(&network(&[0, 1])).unwrap().hash());
    assert!(genesis.electorate().seats().is_sorted_by_key(|seat| seat.node));
    assert_eq!(genesis.standing(Epoch(1)), Standing::Stopped { last: Epoch(0) }, "the file names no set");
}

#[test]
fn an_old_set_serves_two_more_epochs_and_then_sending_stops() {
    let standings = [99, 100, 101, 102, 103].map(|epoch| tip().standing(Epoch(epoch)));
    let stopped = Standing::Stopped { last: Epoch(100) };
    let [before, same] = [Standing::Certified; 2];
    assert_eq!(standings, [before, same, Standing::Overtime(1), Standing::Overtime(2), stopped]);
}

#[test]
fn anybody_can_check_that_a_seat_signed_twice() {
    let (a, b) = (following(&tip(), &nine()), following(&tip(), &electorate([(7, 1)])));
    let round = round_of(&a);
    let sign = |n, phase, round, s: &Statement| ballot(n, phase, round, s);
    let first = sign(1, Phase::Commit, round, &a);
    let proof = DoubleSign::new(&first, &sign(1, Phase::Commit, round, &b)).unwrap();
    let proof = DoubleSign::from_bytes(&proof.to_bytes()).unwrap();
    assert_eq!(proof.verify(&NETWORK), Ok(NodeId(key(1).verifying_key().to_bytes())));
    assert_eq!(proof.verify(&NetworkId([4; 32])), Err(Reject::BadSignature));
    let later = Round { attempt: 2, ..round };
    for other in [
        sign(1, Phase::Commit, round, &a),
        sign(2, Phase::Commit, round, &b),
        sign(1, Phase::Vote, round, &b),
        sign(1, Phase::Commit, later, &b),
    ] {
        assert_eq!(DoubleSign::new(&first, &other), None);
        let made_up = [first.ballot().to_bytes(), other.ballot().to_bytes()].concat();
        assert_eq!(DoubleSign::from_bytes(&made_up).unwrap().verify(&NETWORK), Err(Reject::Malformed));
    }
}

proptest! {
    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..600), kind in 0u8..6) {
        let _outcomes = (Quorum::from_bytes(&bytes), Link::from_bytes(&bytes), DoubleSign::from_bytes(&bytes));
        let _outcomes = (Electorate::from_bytes(&bytes), Record::from_bytes(&bytes));
        let _outcome = Message::from_bytes(&[vec![kind], bytes].concat());
    }

    #[test]
    fn what_is_read_is_written_alike(bytes in prop::collection::vec(any::<u8>(), 103..400), kind in 1u8..5) {
        let mut bytes = [vec![kind], bytes].concat();
        // A phase, so that more than garbage is read.
        bytes[1] = bytes[1] % 2 + 1;
        if let Ok(message) = Message::from_bytes(&bytes) {
            prop_assert_eq!(message.to_bytes(), bytes);
        }
    }

    #[test]
    fn a_changed_byte_ends_a_certificate(at in 0usize..112 + 1 + 3 * 64, bit in 0u8..8) {
        let mut bytes = signed_by(following(&tip(), &nine()), 4, &[0, 1, 2]).to_bytes();
        bytes[at] ^= 1 << bit;
        prop_assert!(Quorum::from_bytes(&bytes).and_then(verify).is_err());
    }
}
