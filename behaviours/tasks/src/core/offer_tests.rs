use super::*;

const NETWORK: NetworkId = NetworkId([1; 32]);
const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

fn key() -> SigningKey {
    SigningKey::from_bytes(&[9; 32])
}

fn offer() -> Offer {
    Offer {
        slots: 4,
        free: 2,
        queued: 1,
        speed: 1_000_000_000,
        memory_bytes: 1 << 30,
        staging_bytes: 1 << 30,
        features: vec!["gpu:cuda".into()],
        price: Price::default(),
        accepts: Accepts::default(),
        family: Some("example".into()),
        milliwatts: 8_000,
        eligible: true,
    }
}

#[test]
fn an_offer_survives_the_wire_and_says_its_rate() {
    let record = offer().sign(&key(), &NETWORK, 7, NOW).unwrap();
    let verified = Offer::verify(record.as_bytes(), &NETWORK, NOW).unwrap();
    assert_eq!((verified.body(), verified.record().seq()), (&offer(), 7));
    // Three tasks on four slots: 1000 × (1 + 0.5 × 0.75²).
    assert_eq!((offer().load_ppm(), offer().rate()), (750_000, 1_282));
    let over = NOW.plus(LIFETIME);
    assert_eq!(Offer::verify(record.as_bytes(), &NETWORK, over), Err(OfferError::Record(RecordError::Expired)));
}

#[test]
fn the_largest_offer_fits() {
    let features = (0..16).map(|n| format!("{n:x}{}", "x".repeat(63))).collect();
    let family = Some("f".repeat(MAX_FAMILY));
    let most = u64::MAX;
    let price = Price { rate: most, scarcity_ppm: 10_000_000, uptime_ppm: 2_000_000 };
    let big = Offer {
        slots: u16::MAX,
        free: u16::MAX,
        queued: u32::MAX,
        speed: most,
        memory_bytes: most,
        staging_bytes: most,
        features,
        price,
        family,
        milliwatts: u32::MAX,
        ..offer()
    };
    assert!(big.sign(&key(), &NETWORK, u64::MAX, NOW).is_ok());
}

#[test]
fn an_offer_that_contradicts_itself_is_neither_made_nor_taken() {
    let bad: [fn(&mut Offer); 7] = [
        |offer| offer.free = 5,
        |offer| offer.features = vec!["b".into(), "a".into()],
        |offer| offer.family = Some(String::new()),
        |offer| offer.family = Some("x".repeat(65)),
        |offer| offer.accepts.classes = vec![Class::Urgent, Class::Standard],
        |offer| offer.accepts.privacy = vec![Privacy::Open, Privacy::Open],
        |offer| offer.price.uptime_ppm = 0,
    ];
    for change in bad {
        let mut changed = offer();
        change(&mut changed);
        assert_eq!(changed.sign(&key(), &NETWORK, 1, NOW), Err(OfferError::Malformed));
        let validity = Validity { seq: 1, not_before: NOW, lifetime: LIFETIME };
        let forged = SignedRecord::sign(&OFFER, &NETWORK, &key(), validity, &changed).unwrap();
        assert_eq!(Offer::verify(forged.as_bytes(), &NETWORK, NOW), Err(OfferError::Malformed));
    }
}
