//! `fog reputation [PEER]`

use clap::Args;

use super::{CliError, Context, TIMEOUT, client::Client, output::table};
use crate::node::report::Reputation;

/// What `fog reputation` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A peer's id or invite, or a contact's name; without it all that are known: the 1,000 lines with the most evidence
    #[arg(value_name = "PEER")]
    peer: Option<String>,
}

/// Prints what the node thinks of its peers.
pub(super) fn run(context: &Context, arguments: &Arguments) -> Result<(), CliError> {
    let query: Vec<_> = arguments.peer.iter().map(|peer| ("peer", peer.as_str())).collect();
    let client = Client::open(&context.config)?;
    let lines: Vec<Reputation> = client.get_with("/v1/reputation", &query, context.timeout(TIMEOUT))?;
    context.out.value(&lines, |lines| human(lines))
}

fn human(lines: &[Reputation]) -> String {
    let rows: Vec<_> = lines
        .iter()
        .map(|line| {
            [
                line.peer_id.clone(),
                line.kind.clone(),
                format!("{:.3}", line.mean),
                format!("{:.3}", line.lower),
                format!("{:.3}", line.upper),
                format!("{:.1}", line.evidence),
                line.reports.to_string(),
            ]
        })
        .collect();
    let told = table(["PEER", "KIND", "MEAN", "LOWER", "UPPER", "EVIDENCE", "REPORTS"], &rows);
    match lines.first() {
        Some(first) if lines.iter().all(|line| line.evidence == 0.0 && line.reports == 0) => {
            told + &format!("nothing is known of {}: everybody begins with these figures\n", first.peer_id)
        }
        Some(_) => told,
        None => told + "nothing is known of anybody yet\n",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(evidence: f64) -> Reputation {
        let (mean, lower, upper) = (1.0 / 3.0, 0.025, 0.776);
        Reputation { peer_id: "p".into(), kind: "rating".into(), mean, lower, upper, evidence, reports: 0 }
    }

    #[test]
    fn that_nothing_is_known_is_said() {
        assert!(
            human(&[line(0.0), line(0.0)]).ends_with("nothing is known of p: everybody begins with these figures\n")
        );
        assert_eq!(
            human(&[line(2.0)]),
            "PEER  KIND    MEAN   LOWER  UPPER  EVIDENCE  REPORTS\np     rating  0.333  0.025  0.776  2.0       0\n"
        );
        assert!(human(&[]).ends_with("nothing is known of anybody yet\n"));
    }
}
