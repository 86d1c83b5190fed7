//! How this crate speaks of circuits: numbers. The circuits themselves are another crate's.

/// A circuit. At a relay the number is the circuits' own; at a service and a client it is given by this crate when it asks for the circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Circuit(pub u64);

/// What a circuit is wanted for; its names are those of the circuits' own purposes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// To a directory: store or fetch.
    Directory,
    /// To an introduction point, as a client.
    Introduce,
    /// To a rendezvous point, as a client.
    Rendezvous,
    /// To an introduction point, as the service.
    ServiceIntroduction,
    /// To a rendezvous point, as the service.
    ServiceRendezvous,
    /// To a directory, to see what it keeps.
    Probe,
}
