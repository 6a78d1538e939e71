//! What must hold in every run, each rule in a file of its own that says what it does not check.
//! Checkers only look on: the world tells them what happens, and they change nothing.

pub mod agreement;
pub mod custody;
pub mod ledger;
pub mod memory;
pub mod progress;

use std::fmt;

pub(crate) use agreement::AgreementChecker;
pub(crate) use custody::{CustodyChecker, Ends, Holds};
pub(crate) use ledger::LedgerChecker;
pub(crate) use memory::MemoryChecker;
pub(crate) use progress::{ProgressChecker, Wants};

/// A rule was broken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Whose rule: the checker's name.
    pub checker: &'static str,
    /// What happened.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.checker, self.text)
    }
}

/// The broken rules of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Findings(Vec<Violation>);

impl Findings {
    /// Most violations that are kept: what follows on the first ones says little.
    const MAX: usize = 8;

    /// Takes a violation down.
    pub(crate) fn add(&mut self, checker: &'static str, text: String) {
        if self.0.len() < Self::MAX {
            self.0.push(Violation { checker, text });
        }
    }

    /// All of them.
    pub(crate) fn violations(&self) -> &[Violation] {
        &self.0
    }

    /// Was any rule broken?
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
