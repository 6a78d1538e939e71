//! A report of `run` as a file: read field by field, so that reports of other versions, with more
//! or fewer of them, can be compared too.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::figures::{FIGURES, Unit};
use crate::report::SCHEMA;

/// Fewest completed runs of which a spread can be told.
const RUNS_MIN: usize = 2;

/// A report that can be compared.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) file: PathBuf,
    pub(super) report: Value,
}

/// Why a file is of no use; each says what to do.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error("can't read {0}: {1}")]
    Unreadable(PathBuf, std::io::Error),
    #[error("{0} is no JSON ({1}): give a file that `migrate-bench run --json` wrote")]
    NoJson(PathBuf, serde_json::Error),
    #[error(
        "{file} is no report: its schema is {found}, not {SCHEMA}; give a file that \
         `migrate-bench run --json` wrote"
    )]
    NoReport { file: PathBuf, found: String },
    #[error(
        "{file} has {completed} completed run{}: at least {RUNS_MIN} are needed, better 7 \
         (`migrate-bench run --repeat 7`)",
        if *completed == 1 { "" } else { "s" }
    )]
    TooFewRuns { file: PathBuf, completed: usize },
    #[error(
        "{file} is no report that `migrate-bench run --json` wrote: `{key}` of run {run} is {found}"
    )]
    NoFigure {
        file: PathBuf,
        /// Of the run, counted from 1.
        run: usize,
        key: &'static str,
        found: Value,
    },
}

/// Reads and checks a file.
pub(super) fn load(file: &Path) -> Result<Loaded, Unusable> {
    let file = file.to_owned();
    let text = match std::fs::read(&file) {
        Ok(text) => text,
        Err(error) => return Err(Unusable::Unreadable(file, error)),
    };
    let report: Value = match serde_json::from_slice(&text) {
        Ok(report) => report,
        Err(error) => return Err(Unusable::NoJson(file, error)),
    };
    let schema = &report["schema"];
    if schema != SCHEMA {
        let found = match schema {
            Value::Null => "missing".into(),
            other => other.to_string(),
        };
        return Err(Unusable::NoReport { file, found });
    }
    let loaded = Loaded { file, report };
    loaded.check()?;
    match loaded.completed().count() {
        completed if completed < RUNS_MIN => Err(Unusable::TooFewRuns {
            file: loaded.file,
            completed,
        }),
        _ => Ok(loaded),
    }
}

impl Loaded {
    /// The completed runs, with their places among all.
    pub(super) fn completed(&self) -> impl Iterator<Item = (usize, &Value)> {
        let runs = self.report["runs"].as_array().into_iter().flatten();
        runs.enumerate()
            .filter(|(_, run)| run["outcome"] == "completed")
    }

    /// What a run has of the figures must be one: a number that is not below 0. What was not
    /// measured is missing or null.
    fn check(&self) -> Result<(), Unusable> {
        for (place, run) in self.completed() {
            for key in FIGURES
                .iter()
                .filter(|it| it.unit != Unit::Count)
                .map(|it| it.key)
            {
                let pointer = format!("/{}", key.replace('.', "/"));
                let found = run.pointer(&pointer).unwrap_or(&Value::Null);
                let is_figure = found.as_f64().is_some_and(|figure| figure >= 0.0);
                if !is_figure && !found.is_null() {
                    return Err(Unusable::NoFigure {
                        file: self.file.clone(),
                        run: place + 1,
                        key,
                        found: found.clone(),
                    });
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        load(file.path()).unwrap_err().to_string()
    }

    #[test]
    fn what_is_no_report_is_told_apart() {
        let missing = load(Path::new("/nowhere/a.json")).unwrap_err().to_string();
        assert!(
            missing.starts_with("can't read /nowhere/a.json"),
            "{missing}"
        );
        assert!(refusal("{").contains("is no JSON"));
        assert!(refusal("\u{1}").contains("is no JSON"));
        assert!(refusal("{}").contains("its schema is missing"));
        assert!(refusal("[1]").contains("its schema is missing"));
        let other = refusal(r#"{"schema": "limosa.run/2"}"#);
        assert!(
            other.contains(r#""limosa.run/2", not limosa.run/1"#),
            "{other}"
        );
    }

    #[test]
    fn a_figure_is_a_number_that_can_be() {
        for bad in ["-1", "\"fast\"", "[1]"] {
            let runs = format!(
                r#"{{"outcome": "completed", "total_ms": 1.5}},
                   {{"outcome": "completed", "total_ms": 2, "downtime_ms": {{"engine": {bad}}}}}"#
            );
            let refused = refusal(&format!(
                r#"{{"schema": "limosa.run/1", "runs": [{runs}]}}"#
            ));
            let words = format!("`downtime_ms.engine` of run 2 is {bad}");
            assert!(refused.contains(&words), "{refused}");
        }
    }

    #[test]
    fn one_run_has_no_spread() {
        let none = refusal(r#"{"schema": "limosa.run/1"}"#);
        assert!(none.contains("has 0 completed runs"), "{none}");
        let one = refusal(
            r#"{"schema": "limosa.run/1", "runs": [{"outcome": "completed"},
                {"outcome": "failed"}]}"#,
        );
        assert!(one.contains("has 1 completed run:"), "{one}");
        assert!(one.contains("--repeat 7"), "{one}");
    }
}
