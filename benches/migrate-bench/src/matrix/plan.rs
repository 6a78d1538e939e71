//! From a file of scenarios to the command line of each: what is run, not how.

use std::path::Path;

use serde::Serialize;
use toml::{Table, Value};

use super::file::{Expect, MatrixFile, Sequence, text_of, texts_of};
use crate::args::{RunArgs, RunOption, Takes, parse_run, run_options};
use crate::command_run::{check_usage, settle_guest};

/// Most scenarios of one file, before any is left out.
const SCENARIOS_MAX: usize = 1000;
/// Most migrations of a scenario, as `run` has it.
const REPEAT_MAX: u32 = 1000;
/// Options of `run` that are the matrix's own affair.
const RESERVED: [(&str, &str); 6] = [
    ("json", "use `migrate-bench matrix --json`"),
    ("quiet", "use `migrate-bench matrix --quiet`"),
    ("plot", "use `migrate-bench run --plot` for one scenario"),
    ("timeline", "the JSON has the timeline of each migration"),
    ("repeat", "write it at the top of the file, before [base]"),
    ("no-reference", "a matrix measures no bare sockets"),
];

/// What is to be run.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) axes: Vec<Axis>,
    pub(super) scenarios: Vec<Scenario>,
    /// Migrations of each scenario.
    pub(super) repeat: u32,
    pub(super) order: Sequence,
}

/// An option with the values that it takes in turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Axis {
    pub(super) name: String,
    pub(super) values: Vec<String>,
}

/// One combination.
#[derive(Debug)]
pub(super) struct Scenario {
    /// One for each axis.
    pub(super) values: Vec<String>,
    /// What follows `migrate-bench run`.
    pub(super) words: Vec<String>,
    pub(super) args: RunArgs,
    pub(super) expect: Expect,
}

/// Scenarios that are named by some of their values.
struct Rule {
    /// An axis by its place, and the values that it may have.
    conditions: Vec<(usize, Vec<String>)>,
}

impl Plan {
    /// Reads a file and checks each scenario as `run` would; the error is one of usage.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string());
        let plan = text.and_then(|text| Self::of(&text));
        plan.map_err(|error| format!("{}: {error}", path.display()))
    }

    /// The plan of a file's text.
    pub(super) fn of(text: &str) -> Result<Self, String> {
        let file: MatrixFile =
            toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
        let repeat = file.repeat;
        if !(1..=REPEAT_MAX).contains(&repeat) {
            return Err(format!(
                "repeat = {repeat}: out of range; write 1 to {REPEAT_MAX}"
            ));
        }
        let options = run_options();
        let mut base = base_words(&file.base, &options)?;
        base.extend([format!("--repeat={repeat}"), "--no-reference".into()]);
        let axes = axes_of(&file.axes, &options)?;
        if let Some(axis) = axes.iter().find(|axis| file.base.contains_key(&axis.name)) {
            let name = &axis.name;
            return Err(format!("{name} is in [base] and in [axes]: keep one"));
        }
        check_size(&axes)?;
        let skips = rules("skip", &file.skip, &axes)?;
        let exceptions = exceptions(&file.exception, &axes)?;
        let mut scenarios = Vec::new();
        for values in combinations(&axes) {
            if skips.iter().any(|rule| rule.names(&values)) {
                continue;
            }
            let last = exceptions
                .iter()
                .rev()
                .find(|(rule, _)| rule.names(&values));
            let expect = last.map_or(file.expect, |(_, expect)| *expect);
            scenarios.push(scenario(&axes, values, &base, &options, expect)?);
        }
        if scenarios.is_empty() {
            return Err("[[skip]] leaves no scenario: remove one of them".into());
        }
        Ok(Self {
            axes,
            scenarios,
            repeat,
            order: file.order,
        })
    }

    /// Which scenario follows which, each with how often it was run before.
    pub(super) fn turns(&self) -> Vec<(usize, u32)> {
        let count = self.scenarios.len();
        match self.order {
            Sequence::Interleaved => (0..self.repeat)
                .flat_map(|round| (0..count).map(move |scenario| (scenario, round)))
                .collect(),
            Sequence::Consecutive => (0..count)
                .flat_map(|scenario| (0..self.repeat).map(move |round| (scenario, round)))
                .collect(),
        }
    }

    /// A scenario's values with the names of their axes.
    pub(super) fn name(&self, scenario: &Scenario) -> String {
        named(&self.axes, &scenario.values)
    }
}

impl Rule {
    fn names(&self, scenario: &[String]) -> bool {
        self.conditions
            .iter()
            .all(|(axis, values)| values.contains(&scenario[*axis]))
    }
}

fn named(axes: &[Axis], values: &[String]) -> String {
    let pairs = axes.iter().zip(values);
    let pairs: Vec<_> = pairs
        .map(|(axis, value)| format!("{} {value}", axis.name))
        .collect();
    pairs.join(", ")
}

/// The word of an option with this value, checked by itself; none of a flag that is off.
fn word(
    (section, name, value): (&str, &str, &Value),
    options: &[RunOption],
) -> Result<Option<String>, String> {
    let wrong = |why: &str| format!("[{section}] {name} = {value}: {why}");
    if let Some((_, remedy)) = RESERVED.iter().find(|(reserved, _)| *reserved == name) {
        return Err(wrong(&format!("not an option of a scenario; {remedy}")));
    }
    let Some(option) = options.iter().find(|option| option.name == name) else {
        let why = "no such option of `run`; `migrate-bench run --help` lists them";
        return Err(wrong(why));
    };
    let word = match (option.takes, value) {
        (Takes::Nothing, Value::Boolean(true)) => format!("--{name}"),
        (Takes::Nothing, Value::Boolean(false)) => return Ok(None),
        (Takes::Nothing, _) => return Err(wrong("write true or false")),
        (Takes::Value, Value::String(_) | Value::Integer(_)) => {
            format!("--{name}={}", text_of(value).unwrap_or_default())
        }
        (Takes::Value, _) => return Err(wrong("write a text in quotes, or a whole number")),
    };
    // Options that only go with others are judged with those.
    match parse_run(std::slice::from_ref(&word)) {
        Err(error) if error.kind() != clap::error::ErrorKind::MissingRequiredArgument => {
            Err(wrong(&first_lines(&error)))
        }
        _ => Ok(Some(word)),
    }
}

fn base_words(base: &Table, options: &[RunOption]) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    for (name, value) in base {
        words.extend(word(("base", name, value), options)?);
    }
    Ok(words)
}

fn axes_of(axes: &Table, options: &[RunOption]) -> Result<Vec<Axis>, String> {
    let mut found = Vec::new();
    for (name, list) in axes {
        let Value::Array(list) = list else {
            return Err(format!("[axes] {name} = {list}: write a list, [{list}]"));
        };
        if list.is_empty() {
            return Err(format!(
                "[axes] {name} = []: an axis needs a value; add one, or remove it"
            ));
        }
        let mut values: Vec<String> = Vec::new();
        for value in list {
            word(("axes", name, value), options)?;
            let text = text_of(value).unwrap_or_default();
            if values.contains(&text) {
                return Err(format!("[axes] {name}: {value} is there twice"));
            }
            values.push(text);
        }
        let name = name.clone();
        found.push(Axis { name, values });
    }
    Ok(found)
}

fn check_size(axes: &[Axis]) -> Result<(), String> {
    let sizes = axes.iter().map(|axis| axis.values.len());
    let count = sizes.fold(1_usize, usize::saturating_mul);
    if count <= SCENARIOS_MAX {
        return Ok(());
    }
    let sizes: Vec<_> = axes
        .iter()
        .map(|axis| format!("{} {}", axis.values.len(), axis.name))
        .collect();
    Err(format!(
        "[axes] make {count} scenarios ({}), and {SCENARIOS_MAX} is the most: split the file",
        sizes.join(" × ")
    ))
}

/// All combinations; the last axis varies first.
fn combinations(axes: &[Axis]) -> Vec<Vec<String>> {
    axes.iter().fold(vec![Vec::new()], |before, axis| {
        let with = |values: &Vec<String>| {
            let values = values.clone();
            axis.values.iter().map(move |value| {
                let mut values = values.clone();
                values.push(value.clone());
                values
            })
        };
        before.iter().flat_map(with).collect()
    })
}

fn rules(section: &str, tables: &[Table], axes: &[Axis]) -> Result<Vec<Rule>, String> {
    let rule = |table: &Table| rule(section, table.iter(), axes);
    tables.iter().map(rule).collect()
}

fn exceptions(tables: &[Table], axes: &[Axis]) -> Result<Vec<(Rule, Expect)>, String> {
    let mut found = Vec::new();
    for table in tables {
        let expect = match table.get("expect").and_then(Value::as_str) {
            Some("completes") => Expect::Completes,
            Some("any") => Expect::Any,
            _ => return Err("[[exception]] needs expect = \"completes\" or \"any\"".into()),
        };
        let rest = table.iter().filter(|(name, _)| *name != "expect");
        found.push((rule("exception", rest, axes)?, expect));
    }
    Ok(found)
}

fn rule<'a>(
    section: &str,
    table: impl Iterator<Item = (&'a String, &'a Value)>,
    axes: &[Axis],
) -> Result<Rule, String> {
    let mut conditions = Vec::new();
    for (name, value) in table {
        let wrong = |why: String| format!("[[{section}]] {name} = {value}: {why}");
        let Some(place) = axes.iter().position(|axis| axis.name == *name) else {
            let names: Vec<_> = axes.iter().map(|axis| axis.name.as_str()).collect();
            let names = names.join(", ");
            return Err(wrong(format!("no such axis; the axes are {names}")));
        };
        let known = &axes[place].values;
        let values = texts_of(value)
            .filter(|values| values.iter().all(|value| known.contains(value)))
            .ok_or_else(|| wrong(format!("not on that axis, which has {}", known.join(", "))))?;
        conditions.push((place, values));
    }
    if conditions.is_empty() {
        return Err(format!("[[{section}]] names no axis: add a value of one"));
    }
    Ok(Rule { conditions })
}

fn scenario(
    axes: &[Axis],
    values: Vec<String>,
    base: &[String],
    options: &[RunOption],
    expect: Expect,
) -> Result<Scenario, String> {
    let mut words = Vec::new();
    for (axis, value) in axes.iter().zip(&values) {
        let takes = |option: &&RunOption| option.name == axis.name;
        match options.iter().find(takes).map(|option| option.takes) {
            Some(Takes::Nothing) if value == "true" => words.push(format!("--{}", axis.name)),
            Some(Takes::Nothing) => {}
            _ => words.push(format!("--{}={value}", axis.name)),
        }
    }
    words.extend_from_slice(base);
    let wrong = |why: String| match named(axes, &values) {
        name if name.is_empty() => format!("[base]: {why}"),
        name => format!("the scenario of {name}: {why}"),
    };
    let args = parse_run(&words).map_err(|error| wrong(first_lines(&error)))?;
    let kind = settle_guest(args.guest.guest);
    let (kind, _) = kind.map_err(|error| wrong(crate::in_one_line(&error)))?;
    check_usage(&args, kind).map_err(wrong)?;
    Ok(Scenario {
        values,
        words,
        args,
        expect,
    })
}

/// What the parser of command lines has to say, without how to use it.
fn first_lines(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines = text.lines().take_while(|line| !line.is_empty());
    let words: Vec<_> = lines.map(str::trim).collect();
    let words = words.join(" ");
    words.strip_prefix("error: ").unwrap_or(&words).to_owned()
}
