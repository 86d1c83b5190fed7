#![doc = include_str!("../README.md")]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod backend;
#[cfg(test)]
mod big;
mod bytes;
mod dalek;
mod field;
mod group;
mod lanes;

pub use backend::{Backend, NoBackend};
pub use group::{GroupPoint, GroupScalar, PointError, agree};

/// The base point of RFC 7748.
pub const BASE_POINT: [u8; 32] = {
    let mut u = [0; 32];
    u[0] = 9;
    u
};

/// RFC 7748's X25519, once per pair: replaces each point by its product with the scalar in the same place.
///
/// # Panics
/// If there are not as many scalars as points.
pub fn x25519(scalars: &[[u8; 32]], points: &mut [[u8; 32]]) {
    Backend::current().x25519(scalars, points);
}

/// RFC 7748's X25519 of one scalar with many points: replaces each point by the product.
pub fn x25519_one_scalar(scalar: &[u8; 32], points: &mut [[u8; 32]]) {
    Backend::current().x25519_one_scalar(scalar, points);
}
