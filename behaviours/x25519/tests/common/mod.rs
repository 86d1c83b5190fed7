//! Shared by the tests of this folder and by the fuzz target: the reference, and a comparison of everything with it.

#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)]

use fog_x25519::{BASE_POINT, Backend, GroupPoint, GroupScalar};

pub type Bytes = [u8; 32];

pub fn hex32(text: &str) -> Bytes {
    assert_eq!(text.len(), 64);
    std::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
}

/// What every backend must return.
pub fn reference(scalars: &[Bytes], points: &[Bytes]) -> Vec<Bytes> {
    assert_eq!(scalars.len(), points.len());
    scalars.iter().zip(points).map(|(scalar, point)| x25519_dalek::x25519(*scalar, *point)).collect()
}

/// Compares each backend with the results that are expected.
pub fn check(scalars: &[Bytes], points: &[Bytes], expected: &[Bytes]) {
    assert_eq!(points.len(), expected.len());
    for backend in Backend::available() {
        let mut products = points.to_vec();
        backend.x25519(scalars, &mut products);
        for (i, (product, expected)) in products.iter().zip(expected).enumerate() {
            let (scalar, point) = (&scalars[i], &points[i]);
            assert_eq!(product, expected, "{} at {i}: {scalar:02x?} {point:02x?}", backend.name());
        }
    }
}

/// As [`check`], with x25519-dalek's results.
pub fn compare(scalars: &[Bytes], points: &[Bytes]) {
    check(scalars, points, &reference(scalars, points));
}

/// As [`compare`], one scalar for all points.
pub fn compare_one_scalar(scalar: &Bytes, points: &[Bytes]) {
    let expected = reference(&vec![*scalar; points.len()], points);
    for backend in Backend::available() {
        let mut products = points.to_vec();
        backend.x25519_one_scalar(scalar, &mut products);
        assert_eq!(products, expected, "{}: {scalar:02x?} {points:02x?}", backend.name());
    }
}

/// What `agree` returns for the scalars that X25519 makes of `secrets` must be what X25519 returns.
pub fn compare_agree(secrets: &[Bytes], keys: &[GroupPoint]) {
    let scalars: Vec<_> = secrets.iter().map(GroupScalar::clamped).collect();
    let public = reference(secrets, &vec![BASE_POINT; secrets.len()]);
    let shared = reference(secrets, &keys.iter().map(GroupPoint::to_bytes).collect::<Vec<_>>());
    for backend in Backend::available() {
        let mut results = [vec![[0; 32]; secrets.len()], vec![[0; 32]; secrets.len()]];
        let [to_public, to_shared] = &mut results;
        backend.agree(&scalars, &keys.iter().collect::<Vec<_>>(), to_public, to_shared);
        assert_eq!(results, [public.clone(), shared.clone()], "{}: {secrets:02x?} {keys:?}", backend.name());
    }
}

/// Pairs of a scalar and a point, 64 bytes each; more than nine, a group of eight and one more, show nothing new.
pub fn fuzz_backends(data: &[u8]) {
    let pairs = data.as_chunks::<64>().0.iter().take(9);
    let halves = pairs.map(|pair| pair.as_chunks::<32>().0);
    let (scalars, points): (Vec<Bytes>, Vec<Bytes>) = halves.map(|halves| (halves[0], halves[1])).unzip();
    compare(&scalars, &points);
    if let Some(scalar) = scalars.first() {
        compare_one_scalar(scalar, &points);
    }
    let keys =
        scalars.iter().zip(&points).filter_map(|(scalar, point)| Some((*scalar, GroupPoint::decode(point).ok()?)));
    let (secrets, keys): (Vec<_>, Vec<_>) = keys.unzip();
    compare_agree(&secrets, &keys);
}
