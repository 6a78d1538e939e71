//! Which file belongs to which module: finds files that nothing compiles, and modules that are only
//! compiled for tests. It follows `mod` lines as rustc does, but expands no macros.

use std::collections::BTreeSet;

use crate::source::{Line, Source};
use crate::{Finding, Tree};

/// Paths of the files that only tests compile, though their own text does not say so.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TestFiles {
    paths: BTreeSet<String>,
}

impl TestFiles {
    /// Follows the modules of a tree.
    pub fn of(tree: &Tree) -> Self {
        let walk = Walk::run(tree);
        let paths = walk.for_tests.difference(&walk.compiled).cloned().collect();
        Self { paths }
    }

    /// Whether only tests compile the file.
    pub fn contains(&self, path: &str) -> bool {
        self.paths.contains(path)
    }
}

/// Every Rust file is compiled: it is a root that cargo knows, or a `mod` line leads to it.
pub fn orphans(tree: &Tree) -> Vec<Finding> {
    let walk = Walk::run(tree);
    let lost = tree.sources.iter().filter(|source| {
        !walk.compiled.contains(&source.path) && !walk.for_tests.contains(&source.path)
    });
    lost.map(|source| {
        let name = source
            .path
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .trim_end_matches(".rs");
        let message =
            format!("nothing compiles this file: add `mod {name};` above it, or delete it");
        Finding::new(&source.path, 1, message)
    })
    .collect()
}

struct Walk<'a> {
    tree: &'a Tree,
    compiled: BTreeSet<String>,
    for_tests: BTreeSet<String>,
}

impl<'a> Walk<'a> {
    fn run(tree: &'a Tree) -> Self {
        let mut walk = Self {
            tree,
            compiled: BTreeSet::new(),
            for_tests: BTreeSet::new(),
        };
        for source in &tree.sources {
            if is_root(tree, &source.path) {
                walk.follow(source, parent(&source.path), false);
            }
        }
        walk
    }

    /// Marks a file, and follows its `mod` lines; `folder` is where its child modules lie.
    fn follow(&mut self, source: &'a Source, folder: &str, is_test: bool) {
        let marked = if is_test {
            &mut self.for_tests
        } else {
            &mut self.compiled
        };
        if !marked.insert(source.path.clone()) {
            return;
        }
        for module in modules(source) {
            let is_test = is_test || module.is_test;
            let inside = join(folder, &module.within.join("/"));
            let candidates = match &module.path {
                Some(path) if module.within.is_empty() => vec![join(parent(&source.path), path)],
                Some(path) => vec![join(&inside, path)],
                None => vec![
                    join(&inside, &format!("{}.rs", module.name)),
                    join(&inside, &format!("{}/mod.rs", module.name)),
                ],
            };
            let found = candidates
                .iter()
                .find_map(|path| self.tree.sources.iter().find(|other| &other.path == path));
            let Some(child) = found else { continue };
            let is_folder = module.path.is_some() || child.path.ends_with("/mod.rs");
            let below = if is_folder {
                parent(&child.path).to_owned()
            } else {
                join(&inside, &module.name)
            };
            self.follow(child, &below, is_test);
        }
    }
}

/// A `mod name;` line.
struct Module {
    name: String,
    /// Inline modules around it, outermost first.
    within: Vec<String>,
    /// What a `#[path = "…"]` above it says.
    path: Option<String>,
    is_test: bool,
}

fn modules(source: &Source) -> Vec<Module> {
    let mut found = vec![];
    let (mut depth, mut around): (usize, Vec<(usize, String)>) = (0, vec![]);
    let mut path = None;
    for Line {
        text,
        code,
        is_test,
        ..
    } in &source.lines
    {
        if code.trim_start().starts_with("#[path") {
            path = text.split('"').nth(1).map(str::to_owned);
        }
        let mut rest = code.as_str();
        while let Some(end) = rest.find(['{', '}', ';']) {
            let (statement, mark) = (&rest[..end], rest.as_bytes()[end]);
            let name = module_name(statement);
            match mark {
                b'{' => {
                    around.extend(name.map(|name| (depth, name)));
                    depth += 1;
                }
                b'}' => {
                    depth = depth.saturating_sub(1);
                    around.retain(|(opened, _)| *opened < depth);
                }
                _ => {
                    let within = || around.iter().map(|(_, name)| name.clone()).collect();
                    let path = path.take();
                    let module = |name| Module {
                        name,
                        within: within(),
                        path,
                        is_test: *is_test,
                    };
                    found.extend(name.map(module));
                }
            }
            rest = &rest[end + 1..];
        }
    }
    found
}

/// The name in `pub(crate) mod name`, at the end of a statement.
fn module_name(statement: &str) -> Option<String> {
    let mut words = statement.split_whitespace().rev();
    let (name, keyword) = (words.next()?, words.next()?);
    let is_name = name.chars().all(crate::source::is_word);
    (keyword == "mod" && is_name).then(|| name.to_owned())
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// Joins two paths, taking `..` apart.
fn join(folder: &str, path: &str) -> String {
    let mut parts: Vec<&str> = vec![];
    for part in folder.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Whether cargo compiles the file by itself, or a manifest or build script names it.
fn is_root(tree: &Tree, path: &str) -> bool {
    let packages = tree
        .manifests
        .iter()
        .filter(|manifest| manifest.package().is_some());
    // The innermost package whose folder holds the file.
    let inside = packages.filter_map(|manifest| {
        let folder = manifest.folder();
        let rest = if folder.is_empty() {
            Some(path)
        } else {
            path.strip_prefix(folder)?.strip_prefix('/')
        };
        rest.map(|rest| (manifest, rest))
    });
    let Some((manifest, rest)) = inside.min_by_key(|(_, rest)| rest.len()) else {
        return false;
    };
    let parts: Vec<&str> = rest.split('/').collect();
    let by_place = matches!(
        parts[..],
        ["build.rs"]
            | ["src", "lib.rs" | "main.rs"]
            | ["src", "bin", _]
            | ["src", "bin", _, "main.rs"]
            | ["tests" | "benches" | "examples", _]
            | ["tests" | "benches" | "examples", _, "main.rs"]
    );
    let quoted = format!("\"{rest}\"");
    let script = tree
        .text(&join(manifest.folder(), "build.rs"))
        .unwrap_or_default();
    by_place || manifest.text.contains(&quoted) || script.contains(&quoted)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: (&str, &str) = ("a/Cargo.toml", "[package]\nname = \"a\"\n");

    fn lost(files: &[(&str, &str)]) -> Vec<String> {
        let mut files = files.to_vec();
        files.push(MANIFEST);
        let tree = Tree::planted(&files);
        orphans(&tree)
            .into_iter()
            .map(|finding| finding.path)
            .collect()
    }

    #[test]
    fn a_file_without_a_mod_line_is_found() {
        let lib = ("a/src/lib.rs", "mod b;\n// mod c;\n");
        let found = lost(&[
            lib,
            ("a/src/b.rs", ""),
            ("a/src/c.rs", ""),
            ("a/src/b/d.rs", ""),
        ]);
        assert_eq!(found, ["a/src/c.rs", "a/src/b/d.rs"]);
    }

    #[test]
    fn modules_are_followed_as_rustc_does() {
        let found = lost(&[
            (
                "a/src/lib.rs",
                "pub(crate) mod b; mod c {\n    mod d;\n}\n#[path = \"odd.rs\"]\nmod e;\n",
            ),
            ("a/src/b.rs", "mod f;"),
            ("a/src/b/f/mod.rs", "mod g;"),
            ("a/src/b/f/g.rs", ""),
            ("a/src/c/d.rs", ""),
            ("a/src/odd.rs", "mod h;"),
            ("a/src/h.rs", ""),
            ("a/src/bin/i.rs", ""),
            ("a/tests/j.rs", "mod common;"),
            ("a/tests/common/mod.rs", ""),
            ("a/build.rs", "compile(\"guest/main.rs\")"),
            ("a/guest/main.rs", "#[path = \"../src/k.rs\"]\nmod k;"),
            ("a/src/k.rs", ""),
        ]);
        assert_eq!(found, [""; 0]);
    }

    #[test]
    fn a_file_of_no_package_is_found() {
        assert_eq!(lost(&[("b/src/lib.rs", "")]), ["b/src/lib.rs"]);
        assert_eq!(lost(&[("a/guest/main.rs", "")]), ["a/guest/main.rs"]);
    }

    #[test]
    fn files_of_tests_are_known() {
        let tree = Tree::planted(&[
            MANIFEST,
            ("a/src/lib.rs", "mod b;\n#[cfg(test)]\nmod oracle;\n"),
            ("a/src/b.rs", ""),
            ("a/src/oracle.rs", "mod c;"),
            ("a/src/oracle/c.rs", ""),
        ]);
        let files = TestFiles::of(&tree);
        assert!(files.contains("a/src/oracle.rs") && files.contains("a/src/oracle/c.rs"));
        assert!(!files.contains("a/src/b.rs") && !files.contains("a/src/lib.rs"));
    }
}
