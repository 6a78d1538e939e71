//! What came of a matrix, as the JSON schema `limosa.matrix/1`; `docs/report.md` describes each
//! field.

use std::collections::BTreeMap;

use serde::Serialize;

use super::file::{Expect, Sequence};
use super::plan::{Axis, Plan, Scenario};
use crate::report::{Config, HostFacts, Run, RunOutcome, Summary};

/// The schema's name and version.
pub(super) const SCHEMA: &str = "limosa.matrix/1";

/// A whole matrix.
#[derive(Debug, Serialize)]
pub(super) struct MatrixReport {
    pub(super) schema: &'static str,
    pub(super) file: String,
    pub(super) host: HostFacts,
    pub(super) axes: Vec<Axis>,
    pub(super) repeat: u32,
    pub(super) order: Sequence,
    /// By a signal, before all was run.
    pub(super) interrupted: bool,
    pub(super) scenarios: Vec<Row>,
}

/// What came of one scenario.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    /// By the names of the axes.
    pub(super) values: BTreeMap<String, String>,
    /// The words that run it alone.
    pub(super) command: String,
    pub(super) expect: Expect,
    pub(super) as_expected: bool,
    /// In words.
    pub(super) outcome: String,
    /// Completed migrations whose gap was within the budget.
    pub(super) within_budget: u32,
    pub(super) foretold: Foretold,
    /// None where nothing was run.
    pub(super) config: Option<Config>,
    pub(super) summary: Summary,
    pub(super) runs: Vec<Run>,
    /// Why there is no figure of a migration that was tried.
    pub(super) broken: Vec<String>,
}

/// Forecasts of the time left and of the pause, over all completed migrations.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Foretold {
    pub(super) count: usize,
    /// How many of them had the truth in their band.
    pub(super) came_true: usize,
}

impl Foretold {
    fn of(runs: &[Run]) -> Self {
        let figures = runs.iter().filter_map(|run| run.convergence.as_ref());
        let told = figures.flat_map(|figures| &figures.foretold);
        let told = told.flat_map(|foretold| [foretold.left, foretold.downtime]);
        told.flatten().fold(Self::default(), |all, told| Self {
            count: all.count + 1,
            came_true: all.came_true + usize::from(told.came_true),
        })
    }
}

/// How many migrations ended in which way.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    completed: usize,
    wrong: usize,
    refused: usize,
    failed: usize,
    broken: usize,
}

impl Row {
    /// Of a scenario that was not run yet.
    pub(super) fn new(plan: &Plan, scenario: &Scenario) -> Self {
        let names = plan.axes.iter().map(|axis| axis.name.clone());
        Self {
            values: names.zip(scenario.values.iter().cloned()).collect(),
            command: format!("migrate-bench run {}", scenario.words.join(" ")),
            expect: scenario.expect,
            as_expected: true,
            outcome: String::new(),
            within_budget: 0,
            foretold: Foretold::default(),
            config: None,
            summary: Summary::default(),
            runs: Vec::new(),
            broken: Vec::new(),
        }
    }

    /// Works out what follows from the migrations, of which `asked` were to be.
    pub(super) fn conclude(&mut self, asked: u32) {
        let tally = Tally::of(&self.runs, self.broken.len());
        self.summary = Summary::of(&self.runs);
        self.outcome = tally.words(asked as usize);
        self.as_expected = tally.meets(self.expect);
        let budget = self.config.as_ref().map(|config| config.downtime_ms);
        let within = |run: &&Run| {
            let gap = run.downtime_ms.guest.or(run.downtime_ms.engine);
            run.outcome == RunOutcome::Completed
                && gap.zip(budget).is_some_and(|(gap, budget)| gap <= budget)
        };
        self.within_budget = self.runs.iter().filter(within).count() as u32;
        self.foretold = Foretold::of(&self.runs);
    }

    /// What went wrong first, and how often something did.
    pub(super) fn error(&self) -> Option<(&str, usize)> {
        let errors = self.runs.iter().filter_map(|run| run.error.as_deref());
        let mut errors = errors.chain(self.broken.iter().map(String::as_str));
        let first = errors.next()?;
        Some((first, 1 + errors.count()))
    }
}

impl Tally {
    fn of(runs: &[Run], broken: usize) -> Self {
        let mut tally = Self {
            broken,
            ..Self::default()
        };
        for run in runs {
            *match run.outcome {
                RunOutcome::Completed if run.verified.holds() => &mut tally.completed,
                RunOutcome::Completed => &mut tally.wrong,
                RunOutcome::Refused => &mut tally.refused,
                RunOutcome::Failed | RunOutcome::Cancelled => &mut tally.failed,
            } += 1;
        }
        tally
    }

    fn counts(&self) -> [(usize, &'static str); 5] {
        [
            (self.completed, "completed"),
            (self.wrong, "WRONG MEMORY"),
            (self.refused, "refused"),
            (self.failed, "failed"),
            (self.broken, "not measured"),
        ]
    }

    /// One word where all ended alike.
    fn words(&self, asked: usize) -> String {
        let there: Vec<_> = self.counts().into_iter().filter(|(n, _)| *n > 0).collect();
        match there[..] {
            [] => "not run".into(),
            [(count, word)] if count == asked => word.into(),
            _ => {
                let run: usize = there.iter().map(|(count, _)| count).sum();
                let mut words: Vec<_> = there
                    .iter()
                    .map(|(n, word)| format!("{n} {word}"))
                    .collect();
                if run < asked {
                    words.push(format!("{} not run", asked - run));
                }
                words.join(", ")
            }
        }
    }

    /// Whether that is what was expected. Wrong memory, and what could not be measured, never is.
    fn meets(&self, expect: Expect) -> bool {
        let sound = self.wrong == 0 && self.broken == 0;
        match expect {
            Expect::Any => sound,
            Expect::Completes => sound && self.refused == 0 && self.failed == 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_is_told_in_words() {
        let tally = |completed, failed, broken| Tally {
            completed,
            failed,
            broken,
            ..Tally::default()
        };
        assert_eq!(tally(0, 0, 0).words(3), "not run");
        assert_eq!(tally(3, 0, 0).words(3), "completed");
        assert_eq!(tally(2, 1, 0).words(3), "2 completed, 1 failed");
        assert_eq!(tally(1, 0, 0).words(3), "1 completed, 2 not run");
        assert_eq!(tally(0, 0, 3).words(3), "not measured");
    }

    #[test]
    fn only_an_end_of_a_migration_can_be_expected() {
        let all = Tally {
            completed: 3,
            ..Tally::default()
        };
        assert!(all.meets(Expect::Completes) && all.meets(Expect::Any));
        for failed in [
            Tally {
                failed: 1,
                ..Tally::default()
            },
            Tally {
                refused: 1,
                ..Tally::default()
            },
        ] {
            assert!(!failed.meets(Expect::Completes) && failed.meets(Expect::Any));
        }
        for bad in [
            Tally {
                wrong: 1,
                ..Tally::default()
            },
            Tally {
                broken: 1,
                ..Tally::default()
            },
        ] {
            assert!(!bad.meets(Expect::Completes) && !bad.meets(Expect::Any));
        }
    }
}
