//! `fog circuits`

use super::{CliError, Context, TIMEOUT, client::Client, output::table};
use crate::node::circuits::report::Circuit;

/// Lists the circuits that the running node built.
pub(super) fn run(context: &Context) -> Result<(), CliError> {
    let client = Client::open(&context.config)?;
    let circuits: Vec<Circuit> = client.get("/v1/circuits", context.timeout(TIMEOUT))?;
    context.out.value(&circuits, |circuits| list(circuits))
}

fn list(circuits: &[Circuit]) -> String {
    let rows: Vec<_> = circuits
        .iter()
        .map(|circuit| {
            [
                circuit.id.to_string(),
                circuit.state.clone(),
                circuit.purpose.clone(),
                circuit.streams.to_string(),
                format!("{:.0} s", circuit.age_s),
                circuit.bytes_up.to_string(),
                circuit.bytes_down.to_string(),
                circuit.hops.join(" "),
            ]
        })
        .collect();
    table(["CIRCUIT", "STATE", "PURPOSE", "STREAMS", "AGE", "UP", "DOWN", "HOPS"], &rows)
}
