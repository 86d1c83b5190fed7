//! `/metrics`: what the parts of the node count, read at each scrape and written in Prometheus' text form. Nothing is counted
//! twice: each figure lives in the part that it is about.

use std::fmt;

use fog_base::DropCounters;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, text},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

/// A value with its labels.
type Sample = (Vec<(&'static str, String)>, f64);

#[derive(Debug, Clone)]
struct Family {
    name: &'static str,
    help: &'static str,
    is_counter: bool,
    samples: Vec<Sample>,
}

/// The figures of one scrape.
#[derive(Debug, Clone, Default)]
pub(super) struct Metrics {
    families: Vec<Family>,
}

impl Metrics {
    /// A number that goes up and down.
    pub(super) fn gauge(&mut self, name: &'static str, help: &'static str, value: impl Into<f64>) {
        self.family(name, help, false, vec![(Vec::new(), value.into())]);
    }

    /// One for each value of a label.
    pub(super) fn gauges(
        &mut self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        values: Vec<(String, f64)>,
    ) {
        let samples = values.into_iter().map(|(text, value)| (vec![(label, text)], value)).collect();
        self.family(name, help, false, samples);
    }

    /// A number that only grows; `_total` is added to its name.
    pub(super) fn counter(&mut self, name: &'static str, help: &'static str, value: u64) {
        self.family(name, help, true, vec![(Vec::new(), value as f64)]);
    }

    /// One for each value of a label.
    pub(super) fn counters(
        &mut self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        values: Vec<(String, u64)>,
    ) {
        let samples = values.into_iter().map(|(text, value)| (vec![(label, text)], value as f64)).collect();
        self.family(name, help, true, samples);
    }

    /// What each part dropped, by reason: `fog_dropped_total{part, reason}`.
    pub(super) fn drops(&mut self, parts: &[(&str, &DropCounters)]) {
        let of = |(part, counters): &(&str, &DropCounters)| {
            let samples: Vec<Sample> = counters
                .snapshot()
                .map(|(reason, n)| (vec![("part", (*part).to_owned()), ("reason", reason.name().to_owned())], n as f64))
                .collect();
            samples
        };
        self.family("dropped", "What was dropped, by part and reason", true, parts.iter().flat_map(of).collect());
    }

    fn family(&mut self, name: &'static str, help: &'static str, is_counter: bool, samples: Vec<Sample>) {
        self.families.push(Family { name, help, is_counter, samples });
    }

    /// The text that Prometheus reads.
    pub(super) fn encode(self) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix("fog");
        registry.register_collector(Box::new(self));
        let mut out = String::new();
        text::encode(&mut out, &registry)?;
        Ok(out)
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for family in &self.families {
            let kind = if family.is_counter {
                ConstCounter::new(0.0f64).metric_type()
            } else {
                ConstGauge::new(0.0f64).metric_type()
            };
            let mut metric = encoder.encode_descriptor(family.name, family.help, None, kind)?;
            match family.samples.as_slice() {
                // An empty set of labels would leave a pair of braces.
                [(labels, value)] if labels.is_empty() => write(metric, family.is_counter, *value)?,
                samples => {
                    for (labels, value) in samples {
                        write(metric.encode_family(labels)?, family.is_counter, *value)?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn write(metric: MetricEncoder<'_>, is_counter: bool, value: f64) -> fmt::Result {
    if is_counter { ConstCounter::new(value).encode(metric) } else { ConstGauge::new(value).encode(metric) }
}

#[cfg(test)]
mod tests {
    use fog_base::DropReason;

    use super::*;

    #[test]
    fn every_drop_reason_has_a_line_and_the_text_ends_as_it_must() {
        let counters = DropCounters::default();
        counters.add(DropReason::Replayed, 3);
        let mut metrics = Metrics::default();
        metrics.drops(&[("mix", &counters), ("directory", &DropCounters::default())]);
        metrics.gauge("peers", "Connected peers", 2u32);
        metrics.counters("connections", "Connections made", "direction", vec![("in".into(), 4)]);
        let text = metrics.encode().unwrap();
        for reason in DropReason::ALL {
            for part in ["mix", "directory"] {
                let value = if (part, reason) == ("mix", DropReason::Replayed) { "3.0" } else { "0.0" };
                let line = format!("fog_dropped_total{{part=\"{part}\",reason=\"{}\"}} {value}", reason.name());
                assert!(text.contains(&line), "{line}\n{text}");
            }
        }
        assert!(
            text.contains("fog_peers 2.0") && text.contains("fog_connections_total{direction=\"in\"} 4.0"),
            "{text}"
        );
        assert!(text.ends_with("# EOF\n"));
    }
}
