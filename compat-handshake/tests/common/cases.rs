//! Reads the small text files of cases under `data/`: sets of features, groups, and blocks of rows
//! that begin with `case`. What the rows mean is the tests' matter.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use limosa_compat::Vendor;

/// Names of features, and of other fields of one bit.
pub(crate) type Names = BTreeSet<String>;

/// A file of cases.
pub(crate) struct Cases {
    sets: BTreeMap<String, Names>,
    cases: Vec<Case>,
}

/// One case: its rows by their first word, in order.
pub(crate) struct Case {
    pub(crate) group: String,
    pub(crate) name: String,
    rows: Vec<(String, String)>,
}

impl Case {
    /// What stands in the only row of this kind; `None` where there is no such row.
    pub(crate) fn find(&self, key: &str) -> Option<&str> {
        let mut found = self.all(key);
        let first = found.next();
        assert!(found.next().is_none(), "{}: more than one {key}", self.name);
        first
    }

    /// The same of a row that must be there.
    pub(crate) fn row(&self, key: &str) -> &str {
        self.find(key)
            .unwrap_or_else(|| panic!("{}: no {key}", self.name))
    }

    /// Every row of this kind.
    pub(crate) fn all(&self, key: &str) -> impl Iterator<Item = &str> {
        let rows = self.rows.iter().filter(move |(first, _)| first == key);
        rows.map(|(_, rest)| rest.as_str())
    }
}

impl Cases {
    /// Reads `data/NAME`.
    pub(crate) fn read(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
        let text = std::fs::read_to_string(path.join(name)).unwrap();
        let mut read = Self {
            sets: BTreeMap::new(),
            cases: Vec::new(),
        };
        let mut group = String::new();
        for line in whole_lines(&text) {
            let (first, rest) = line.split_once(' ').unwrap_or((&line, ""));
            let rest = rest.trim();
            match first {
                "set" => {
                    let (name, features) = rest.split_once(' ').unwrap();
                    let features = read.names(features).unwrap();
                    assert!(read.sets.insert(name.into(), features).is_none(), "{name}");
                }
                "group" => group = rest.into(),
                "case" => read.cases.push(Case {
                    group: group.clone(),
                    name: rest.into(),
                    rows: Vec::new(),
                }),
                _ => {
                    let case = read.cases.last_mut().expect("a row of a case");
                    case.rows.push((first.into(), rest.into()));
                }
            }
        }
        read
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.cases.len()
    }

    /// The cases of one group: at least one.
    pub(crate) fn group(&self, group: &str) -> Vec<&Case> {
        let cases = self.cases.iter().filter(|case| case.group == group);
        let cases: Vec<_> = cases.collect();
        assert!(!cases.is_empty(), "{group}");
        cases
    }

    /// What a list of names, of sets (`@NAME`) and of names that are taken away (`-NAME`) comes to;
    /// the name of a set that there is not.
    pub(crate) fn names(&self, list: &str) -> Result<Names, String> {
        let mut names = Names::new();
        for word in list.split_whitespace() {
            if let Some(set) = word.strip_prefix('@') {
                names.extend(self.sets.get(set).ok_or(set)?.iter().cloned());
            } else if let Some(name) = word.strip_prefix('-') {
                assert!(names.remove(name), "{name} is not there");
            } else {
                names.insert(word.into());
            }
        }
        Ok(names)
    }

    /// A row that begins with a vendor; `None` where it is `-`.
    pub(crate) fn with_vendor(&self, row: &str) -> (Option<Vendor>, Result<Names, String>) {
        let (vendor, list) = row.split_once(' ').unwrap();
        let vendor = match vendor {
            "Intel" => Some(Vendor::Intel),
            "AMD" => Some(Vendor::Amd),
            "-" => None,
            other => panic!("vendor {other}"),
        };
        (vendor, self.names(list))
    }
}

/// Lines without comments, each with the deeper ones that go on with it.
fn whole_lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        let said = line.trim_start();
        let depth = line.len() - said.len();
        if said.is_empty() || said.starts_with('#') {
            continue;
        }
        // Rows of a case are indented by two, so whatever is deeper goes on.
        match lines.last_mut() {
            Some(last) if depth > 2 => *last = format!("{last} {said}"),
            _ => lines.push(said.into()),
        }
    }
    lines
}
