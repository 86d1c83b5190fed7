use super::*;
use crate::core::{
    receipt::{Deal, Receipt, Service, Terms, Verdict},
    testing::{NETWORK, PROVABLE, identity, node, pair, record, schedule, start},
};

fn check(bytes: &[u8], now: UnixMillis) -> Result<Proof, Reject> {
    Claim::parse(bytes, &[PROVABLE], now).and_then(|claim| claim.verify(&NETWORK))
}

fn records(one: &SignedRecord, other: &SignedRecord) -> Vec<u8> {
    pair(one.as_bytes(), other.as_bytes())
}

#[test]
fn two_records_with_one_sequence_number_prove_equivocation_even_when_they_are_over() {
    let now = start().unix;
    let bytes = records(&record(2, now.0, "a", now), &record(2, now.0, "b", now));
    let proof = Proof { offender: node(2), kind: Kind::Correctness, seq: now.0 };
    assert_eq!(check(&bytes, now), Ok(proof));
    assert_eq!(check(&bytes, now.plus(MAX_AGE)), Ok(proof));
    assert_eq!(check(&bytes, now.plus(MAX_AGE + Duration::from_secs(1))), Err(Reject::Expired));
    assert_eq!(check(&bytes, now.minus(Duration::from_secs(61))), Err(Reject::TooEarly));
}

#[test]
fn what_one_honest_node_signs_proves_nothing() {
    let now = start().unix;
    let a = record(2, now.0, "a", now);
    let refused =
        [records(&a, &a), records(&a, &record(2, now.0 - 1, "b", now)), records(&a, &record(3, now.0, "b", now))];
    for bytes in refused {
        assert_eq!(check(&bytes, now), Err(Reject::NoProof));
    }
    let unknown = Claim::parse(&records(&a, &record(2, now.0, "b", now)), &[], now).err();
    assert_eq!(unknown, Some(Reject::NoProof), "a kind whose sequence numbers may repeat");
    // The same content with another signature: an equally valid one that only the signer could make.
    let mut resigned = a.as_bytes().to_vec();
    *resigned.last_mut().unwrap() ^= 1;
    assert_eq!(check(&pair(a.as_bytes(), &resigned), now), Err(Reject::NoProof));
}

#[test]
fn a_forged_record_accuses_nobody() {
    let now = start().unix;
    let mut forged = record(2, now.0, "b", now).as_bytes().to_vec();
    let body = forged.len() - 65;
    forged[body] ^= 1;
    assert_eq!(check(&pair(record(2, now.0, "a", now).as_bytes(), &forged), now), Err(Reject::BadSignature));
}

#[test]
fn a_client_that_judges_one_deal_twice_is_proved_dishonest() {
    let now = start().unix;
    let schedule = schedule();
    let on = (&NETWORK, &schedule);
    let terms = Terms { service: Service::Circuit, client: node(1), value: 1, nonce: [0; 16] };
    let deal = Deal::sign(&identity(2), on, terms, now).unwrap();
    let judged = |verdict, after| {
        let at = now.plus(Duration::from_millis(after));
        Receipt::sign(&identity(1), on, &deal, verdict, at).unwrap().as_bytes().to_vec()
    };
    let twice = pair(&judged(Verdict::Good, 5), &judged(Verdict::Failed, 9));
    assert_eq!(check(&twice, now), Ok(Proof { offender: node(1), kind: Kind::Rating, seq: now.0 + 9 }));
    let same = pair(&judged(Verdict::Good, 5), &judged(Verdict::Good, 9));
    assert_eq!(check(&same, now), Err(Reject::NoProof));
}
