//! What of a run is compared: each figure with its unit, where it stands in a report, and which
//! way is better.

use serde::Serialize;
use serde_json::Value;

use super::load::Loaded;

/// Which of two values is the better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Better {
    Lower,
    Higher,
}

/// How a figure is written; by these names in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) enum Unit {
    #[serde(rename = "ms")]
    Milliseconds,
    #[serde(rename = "GiB/s")]
    GibPerSecond,
    #[serde(rename = "B")]
    Bytes,
    #[serde(rename = "s")]
    Seconds,
    #[serde(rename = "s/GiB")]
    SecondsPerGib,
    #[serde(rename = "1")]
    Count,
    #[serde(rename = "ratio")]
    Ratio,
}

/// One figure of a run.
pub(super) struct Figure {
    /// As in the report, where it stands there.
    pub(super) key: &'static str,
    /// As in the tables.
    pub(super) name: &'static str,
    pub(super) unit: Unit,
    pub(super) better: Better,
    /// Of the run at this place among all of the report.
    value: fn(&Value, usize, &Value) -> Option<f64>,
}

impl Figure {
    /// Its values over the completed runs that have it.
    pub(super) fn values(&self, of: &Loaded) -> Vec<f64> {
        of.completed()
            .filter_map(|(place, run)| (self.value)(&of.report, place, run))
            .collect()
    }
}

/// A figure that stands in the run as it is.
macro_rules! stands_at {
    ($path:literal) => {
        |_, _, run| run.pointer($path)?.as_f64()
    };
}

/// All of them, in the order in which they are shown.
pub(super) const FIGURES: [Figure; 14] = {
    use Better::{Higher, Lower};
    use Unit::{Bytes, Count, GibPerSecond, Milliseconds, Ratio, Seconds, SecondsPerGib};
    [
        Figure {
            key: "total_ms",
            name: "total",
            unit: Milliseconds,
            better: Lower,
            value: stands_at!("/total_ms"),
        },
        Figure {
            key: "handshake_ms",
            name: "handshake",
            unit: Milliseconds,
            better: Lower,
            value: stands_at!("/compat/handshake_ms"),
        },
        Figure {
            key: "downtime_ms.engine",
            name: "downtime, engine",
            unit: Milliseconds,
            better: Lower,
            value: stands_at!("/downtime_ms/engine"),
        },
        Figure {
            key: "downtime_ms.guest",
            name: "downtime, guest-seen",
            unit: Milliseconds,
            better: Lower,
            value: stands_at!("/downtime_ms/guest"),
        },
        Figure {
            key: "stall_max_ms",
            name: "longest stall before it",
            unit: Milliseconds,
            better: Lower,
            value: stands_at!("/stall_max_ms"),
        },
        Figure {
            key: "throughput_gib_s",
            name: "throughput",
            unit: GibPerSecond,
            better: Higher,
            value: stands_at!("/throughput_gib_s"),
        },
        Figure {
            key: "ratio_to_sockets",
            name: "ratio to bare sockets",
            unit: Ratio,
            better: Higher,
            value: ratio_to_sockets,
        },
        Figure {
            key: "wire_bytes",
            name: "on the wire",
            unit: Bytes,
            better: Lower,
            value: stands_at!("/wire_bytes"),
        },
        Figure {
            key: "rounds",
            name: "rounds",
            unit: Count,
            better: Lower,
            value: rounds,
        },
        Figure {
            key: "cpu_s.source",
            name: "CPU, source",
            unit: Seconds,
            better: Lower,
            value: stands_at!("/cpu_s/source"),
        },
        Figure {
            key: "cpu_s.target",
            name: "CPU, target",
            unit: Seconds,
            better: Lower,
            value: stands_at!("/cpu_s/target"),
        },
        Figure {
            key: "cpu_s_per_gib",
            name: "CPU of both per GiB",
            unit: SecondsPerGib,
            better: Lower,
            value: cpu_per_gib,
        },
        Figure {
            key: "overhead_bytes.source",
            name: "overhead, source",
            unit: Bytes,
            better: Lower,
            value: stands_at!("/overhead_bytes/source"),
        },
        Figure {
            key: "overhead_bytes.target",
            name: "overhead, target",
            unit: Bytes,
            better: Lower,
            value: stands_at!("/overhead_bytes/target"),
        },
    ]
};

/// The time of the bare sockets beside the run ÷ the run's own, each for as many bytes.
fn ratio_to_sockets(report: &Value, place: usize, run: &Value) -> Option<f64> {
    if let Some(ratio) = run["ratio_to_sockets"].as_f64() {
        return Some(ratio);
    }
    // As reports had it that said the bytes of the guest only.
    let reference = &report["reference"];
    let sockets_ms = reference["total_ms"].get(place)?.as_f64()?;
    let share = run["guest_bytes"].as_f64()? / reference["bytes"].as_f64()?;
    let ratio = sockets_ms * share / run["total_ms"].as_f64()?;
    ratio.is_finite().then_some(ratio)
}

fn rounds(_: &Value, _: usize, run: &Value) -> Option<f64> {
    Some(run["rounds"].as_array()?.len() as f64)
}

fn cpu_per_gib(_: &Value, _: usize, run: &Value) -> Option<f64> {
    let cpu_s = run["cpu_s"]["source"].as_f64()? + run["cpu_s"]["target"].as_f64()?;
    let gib = run["guest_bytes"].as_f64()? / f64::from(1 << 30);
    let cost = cpu_s / gib;
    cost.is_finite().then_some(cost)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn values(report: Value, key: &str) -> Vec<f64> {
        let loaded = Loaded {
            file: "a.json".into(),
            report,
        };
        let figure = FIGURES.iter().find(|figure| figure.key == key).unwrap();
        figure.values(&loaded)
    }

    #[test]
    fn the_reference_beside_each_run_is_its_own() {
        let gib = 1_u64 << 30;
        let run = |outcome: &str, total_ms: f64| {
            json!({
                "outcome": outcome, "total_ms": total_ms, "guest_bytes": 2 * gib,
            })
        };
        let report = json!({
            "reference": {"bytes": gib, "total_ms": [100.0, 1.0, 300.0]},
            "runs": [run("completed", 400.0), run("failed", 1.0), run("completed", 600.0)],
        });
        assert_eq!(values(report, "ratio_to_sockets"), [0.5, 1.0]);
    }

    #[test]
    fn a_figure_that_nobody_measured_is_left_out() {
        let report = json!({"runs": [
            {"outcome": "completed", "total_ms": null, "guest_bytes": 0,
             "cpu_s": {"source": 1.0, "target": 1.0}},
            {"outcome": "completed", "total_ms": 3.5},
        ]});
        assert_eq!(values(report.clone(), "total_ms"), [3.5]);
        for key in ["ratio_to_sockets", "cpu_s_per_gib", "rounds"] {
            assert_eq!(values(report.clone(), key), [0.0; 0], "{key}");
        }
    }

    #[test]
    fn cpu_time_is_that_of_both_sides() {
        let report = json!({"runs": [{"outcome": "completed", "guest_bytes": 1_u64 << 31,
            "cpu_s": {"source": 0.5, "target": 1.5}}]});
        assert_eq!(values(report, "cpu_s_per_gib"), [1.0]);
    }
}
