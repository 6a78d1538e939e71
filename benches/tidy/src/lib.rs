//! The house style as a test: `cargo test -p tidy`. Each rule is a function from sources to
//! findings; it knows nothing of types, and leaves to rustfmt and clippy what they can see
//! themselves.

mod crates;
mod limits;
mod modules;
mod panics;
mod purity;
mod shape;
mod source;
mod tree;
mod unsafety;
mod words;

use std::fmt;

pub use crates::{direction, pure_dependencies, reasons};
pub use limits::documented;
pub use modules::{TestFiles, orphans};
pub use panics::panics;
pub use purity::purity;
pub use shape::{columns, header, leftovers, length};
pub use source::{Line, Source};
pub use tree::{Manifest, Tree};
pub use unsafety::unsafety;
pub use words::{machine_places, vocabulary};

/// One place that breaks a rule.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Finding {
    /// File, from the workspace's root.
    pub path: String,
    /// Line, counted from 1.
    pub line: usize,
    /// What is wrong, and what to write instead.
    pub message: String,
}

impl Finding {
    pub(crate) fn new(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            line,
            message: message.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}: {}", self.path, self.line, self.message)
    }
}
