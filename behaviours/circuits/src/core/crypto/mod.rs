//! The cryptography of circuits: the wide-block cipher of a hop, its layers, and the handshake that gives their keys.

pub mod handshake;
pub mod layer;
mod uiv;
