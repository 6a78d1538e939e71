//! The file of a gate, as the JSON schema `limosa.gate/1`; `docs/report.md` describes each field.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Extent;
use super::measure::{BUILD, Measured};
use super::ratios::Sampled;
use crate::report::{HostFacts, Spread};

/// The schema's name and version.
pub(super) const SCHEMA: &str = "limosa.gate/1";

/// What was measured, where and with what, and how far off it may be.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Baseline {
    schema: String,
    /// Day of the measurement, in UTC.
    pub(super) date: String,
    pub(super) machine: HostFacts,
    pub(super) tools: Tools,
    pub(super) tolerance: Tolerance,
    pub(super) instructions: Vec<Instructions>,
    pub(super) ratios: Vec<Ratio>,
}

/// What instructions depend on besides the code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tools {
    pub(super) compiler: String,
    /// Of the libraries that are C.
    pub(super) c_compiler: String,
    /// Whether the build is optimised.
    pub(super) build: String,
    pub(super) libc: String,
    pub(super) valgrind: String,
    /// What valgrind shows to programs, of what code chooses by; none where nothing was counted.
    pub(super) processor: Option<String>,
}

/// By how much figures may exceed those of the file.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tolerance {
    pub(super) instructions_percent: f64,
    /// Instructions for a unit that are always allowed: of kernels that need few for one, the
    /// allocator's work is more than a percentage.
    pub(super) instructions_least: f64,
    /// Where compiler, libc or valgrind are not those of the file.
    pub(super) instructions_other_tools_percent: f64,
    /// Of ratios, where the machine is not that of the file and this is more than their own.
    pub(super) ratios_other_machine_percent: f64,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self {
            instructions_percent: 2.0,
            instructions_least: 1.0,
            instructions_other_tools_percent: 8.0,
            ratios_other_machine_percent: 200.0,
        }
    }
}

/// One kernel's count.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Instructions {
    /// NAME, or NAME@N for N threads.
    pub(super) kernel: String,
    /// What it is counted for.
    pub(super) unit: String,
    /// Instructions for a unit.
    pub(super) count: f64,
    /// The loops that the pipeline chose.
    pub(super) loops: String,
}

/// Our time ÷ a reference's, measured in turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ratio {
    pub(super) name: String,
    pub(super) what: String,
    /// Of what circumstance the ratio is, where there are several.
    pub(super) of: Option<String>,
    pub(super) expected: Spread,
    pub(super) pairs: usize,
    pub(super) tolerance_percent: f64,
}

/// Why a file is of no use; each says what to do.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error(
        "there is no {}: `migrate-bench gate --baseline FILE --update` writes it", .0.display()
    )]
    Missing(PathBuf),
    #[error("can't read {}: {}", .0.display(), .1)]
    Unreadable(PathBuf, std::io::Error),
    #[error(
        "{} is no baseline ({}): give a file that `migrate-bench gate --update` wrote",
        .0.display(), .1
    )]
    NoBaseline(PathBuf, serde_json::Error),
    #[error(
        "{} is no baseline: its schema is {found}, not {SCHEMA}; give a file that `migrate-bench \
         gate --update` wrote", .file.display()
    )]
    OtherSchema { file: PathBuf, found: Value },
    #[error(
        "{} was measured with a {found} build and this is a {BUILD} build, which can't be \
         compared: use a {found} build", .file.display()
    )]
    OtherBuild { file: PathBuf, found: String },
}

impl Baseline {
    /// Reads and checks a file.
    pub(super) fn read(file: &Path) -> Result<Self, Unusable> {
        let text = std::fs::read(file).map_err(|error| match error.kind() {
            ErrorKind::NotFound => Unusable::Missing(file.into()),
            _ => Unusable::Unreadable(file.into(), error),
        })?;
        let no_baseline = |error| Unusable::NoBaseline(file.into(), error);
        let value: Value = serde_json::from_slice(&text).map_err(no_baseline)?;
        if value["schema"] != SCHEMA {
            return Err(Unusable::OtherSchema {
                file: file.into(),
                found: value["schema"].clone(),
            });
        }
        serde_json::from_value(value).map_err(no_baseline)
    }

    /// The same, for comparing with what this build does.
    pub(super) fn comparable(self, file: &Path) -> Result<Self, Unusable> {
        if self.tools.build == BUILD {
            return Ok(self);
        }
        Err(Unusable::OtherBuild {
            file: file.into(),
            found: self.tools.build,
        })
    }

    /// What was measured now, with the tolerances of before. What was not measured stays, unless
    /// all was to be and it is no more.
    pub(super) fn updated(before: Option<Self>, measured: &Measured, extent: Extent) -> Self {
        let tolerance = before
            .as_ref()
            .map_or_else(Tolerance::default, |it| it.tolerance);
        let mut tools = measured.tools.clone();
        if measured.counts.is_none() {
            tools.processor = before.as_ref().and_then(|it| it.tools.processor.clone());
        }
        let (old_counts, old_ratios) =
            before.map_or_else(Default::default, |it| (it.instructions, it.ratios));
        let fresh = measured.counts.iter().flatten().map(Instructions::of);
        let instructions = match (&measured.counts, extent) {
            (None, _) => old_counts,
            (Some(_), Extent::Whole) => fresh.collect(),
            (Some(_), Extent::Part) => merged(old_counts, fresh, |a, b| a.kernel == b.kernel),
        };
        let known = old_ratios.clone();
        let fresh = measured.ratios.iter().flatten();
        let fresh = fresh.filter_map(|it| Ratio::of(it, &known));
        let ratios = match (&measured.ratios, extent) {
            (None, _) => old_ratios,
            (Some(_), Extent::Whole) => fresh.collect(),
            (Some(_), Extent::Part) => merged(old_ratios, fresh, |a, b| a.name == b.name),
        };
        Self {
            schema: SCHEMA.into(),
            date: today(),
            machine: measured.machine.clone(),
            tools,
            tolerance,
            instructions,
            ratios,
        }
    }

    /// The file's text.
    pub(super) fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }
}

/// The old figures with the fresh ones in their places, and behind them what is new.
fn merged<T>(
    mut old: Vec<T>,
    fresh: impl Iterator<Item = T>,
    is_same: impl Fn(&T, &T) -> bool,
) -> Vec<T> {
    for figure in fresh {
        match old.iter_mut().find(|known| is_same(known, &figure)) {
            Some(known) => *known = figure,
            None => old.push(figure),
        }
    }
    old
}

impl Instructions {
    pub(super) fn of(count: &super::valgrind::Count) -> Self {
        Self {
            kernel: count.counted.to_string(),
            unit: count.counted.kernel.unit().to_string(),
            count: two_digits(count.per_unit),
            loops: count.loops.clone(),
        }
    }
}

impl Ratio {
    fn of(sampled: &Sampled, before: &[Self]) -> Option<Self> {
        let known = before.iter().find(|ratio| ratio.name == sampled.name);
        let spread = Spread::of(sampled.samples.iter().map(|ratio| two_digits(*ratio)))?;
        Some(Self {
            name: sampled.name.into(),
            what: sampled.what.into(),
            of: sampled.of.clone(),
            expected: spread,
            pairs: sampled.samples.len(),
            tolerance_percent: known.map_or(sampled.tolerance_percent, |it| it.tolerance_percent),
        })
    }
}

/// As many digits as mean something.
fn two_digits(figure: f64) -> f64 {
    (figure * 1e3).round() / 1e3
}

/// The day, in UTC.
pub(super) fn today() -> String {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    now.split('T').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Baseline::read(file.path()).unwrap_err().to_string()
    }

    #[test]
    fn what_is_no_baseline_is_told_apart() {
        let missing = Baseline::read(Path::new("/nowhere/gate.json")).unwrap_err();
        assert!(missing.to_string().contains("--update"), "{missing}");
        let folder = Baseline::read(Path::new("/")).unwrap_err();
        assert!(folder.to_string().contains("can't read /"), "{folder}");
        assert!(refusal("pages").contains("is no baseline"));
        assert!(refusal("{}").contains("its schema is null"));
        assert!(refusal(r#"{"schema": "limosa.run/1"}"#).contains("limosa.run/1"));
        let partial = format!(r#"{{"schema": "{SCHEMA}"}}"#);
        assert!(refusal(&partial).contains("missing field"));
    }

    #[test]
    fn a_day_has_ten_letters() {
        assert_eq!(today().len(), 10);
    }

    #[test]
    fn fresh_counts_take_the_places_of_old_ones() {
        let count = |kernel: &str, count| Instructions {
            kernel: kernel.into(),
            unit: "page".into(),
            count,
            loops: "avx2".into(),
        };
        let old = vec![count("a", 1.0), count("b", 2.0)];
        let fresh = vec![count("c", 3.0), count("a", 4.0)].into_iter();
        let merged = merged(old, fresh, |a, b| a.kernel == b.kernel);
        assert_eq!(merged, [count("a", 4.0), count("b", 2.0), count("c", 3.0)]);
    }
}
