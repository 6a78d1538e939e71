//! A file of scenarios as it is written; what its values mean is for the plan to find out.

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

/// Migrations of each scenario where the file says nothing.
const REPEAT_DEFAULT: u32 = 3;

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct MatrixFile {
    /// Migrations of each scenario (1 to 1000).
    #[serde(default = "repeat_default")]
    pub(super) repeat: u32,
    #[serde(default)]
    pub(super) order: Sequence,
    /// Of all scenarios that no exception names.
    #[serde(default)]
    pub(super) expect: Expect,
    /// Options of `run` that hold for all.
    #[serde(default)]
    pub(super) base: Table,
    /// Options of `run` with a list of values each.
    #[serde(default)]
    pub(super) axes: Table,
    /// Combinations to leave out.
    #[serde(default)]
    pub(super) skip: Vec<Table>,
    /// Combinations of which something else is expected.
    #[serde(default)]
    pub(super) exception: Vec<Table>,
}

/// In which order migrations follow each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Sequence {
    /// Each scenario once, then each a second time: a host that changes does so for all of them.
    #[default]
    Interleaved,
    /// All migrations of a scenario, then those of the next.
    Consecutive,
}

/// How a scenario may end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Expect {
    /// Each migration completes.
    Completes,
    /// A migration may also fail, or be refused.
    #[default]
    Any,
}

fn repeat_default() -> u32 {
    REPEAT_DEFAULT
}

/// A value as a command line would have it; none of what no option takes.
pub(super) fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Boolean(truth) => Some(truth.to_string()),
        _ => None,
    }
}

/// The values of a list, or the one that stands alone.
pub(super) fn texts_of(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Array(values) => values.iter().map(text_of).collect(),
        value => Some(vec![text_of(value)?]),
    }
}
