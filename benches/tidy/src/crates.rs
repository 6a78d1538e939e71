//! Which crate may use which: the direction of the house, read from the manifests. What a crate
//! does with its dependencies is not seen here.

use crate::purity::PURE;
use crate::tree::Manifest;
use crate::{Finding, Tree};

/// Each crate with the crates of this workspace that it may use.
///
/// session, pipeline and transport do not know each other; dirty-track does not know the wire; the
/// engine is the one place where they meet.
const MAY_USE: [(&str, &[&str]); 15] = [
    ("limosa-pages", &[]),
    ("limosa-wire", &["limosa-pages"]),
    ("limosa-dirty", &["limosa-pages"]),
    ("limosa-compat", &["limosa-wire"]),
    ("limosa-pipeline", &["limosa-pages", "limosa-wire"]),
    ("limosa-transport", &["limosa-wire"]),
    (
        "limosa-session",
        &["limosa-pages", "limosa-wire", "limosa-compat"],
    ),
    ("limosa", ENGINE),
    ("limosa-payload", &[]),
    ("limosa-shim", SHIM),
    ("limosa-testbeds", ANY),
    ("limosa-foreign-kvm", &[]),
    ("limosa-kernels", KERNELS),
    ("migrate-bench", BENCH),
    ("tidy", &[]),
];

const ENGINE: &[&str] = &[
    "limosa-pages",
    "limosa-wire",
    "limosa-compat",
    "limosa-dirty",
    "limosa-session",
    "limosa-pipeline",
    "limosa-transport",
];

/// One embedder of the engine: it builds what the engine asks for, and decides nothing itself.
const SHIM: &[&str] = &[
    "limosa",
    "limosa-pages",
    "limosa-wire",
    "limosa-compat",
    "limosa-dirty",
    "limosa-pipeline",
    "limosa-payload",
];

const ANY: &[&str] = &[
    "limosa",
    "limosa-pages",
    "limosa-wire",
    "limosa-compat",
    "limosa-dirty",
    "limosa-session",
    "limosa-pipeline",
    "limosa-transport",
    "limosa-payload",
    "limosa-shim",
    "limosa-testbeds",
];

/// Page work without a guest that runs or a link.
const KERNELS: &[&str] = &["limosa-pages", "limosa-wire", "limosa-pipeline"];

const BENCH: &[&str] = &[
    "limosa",
    "limosa-pages",
    "limosa-wire",
    "limosa-compat",
    "limosa-dirty",
    "limosa-session",
    "limosa-pipeline",
    "limosa-transport",
    "limosa-payload",
    "limosa-shim",
    "limosa-testbeds",
    "limosa-kernels",
];

/// Crates that name the hypervisor, and who may use them outside of tests.
const HYPERVISOR: [&str; 3] = ["kvm-bindings", "kvm-ioctls", "vmm-sys-util"];
const KNOW_HYPERVISOR: [&str; 3] = ["limosa-shim", "limosa-testbeds", "migrate-bench"];

/// External crates that a pure crate may link.
const PURE_DEPENDENCIES: [&str; 2] = ["crc32fast", "thiserror"];

/// One line of a manifest that asks for a crate.
struct Dependency<'a> {
    line: usize,
    name: &'a str,
    is_for_tests: bool,
}

fn dependencies(manifest: &Manifest) -> impl Iterator<Item = Dependency<'_>> {
    manifest.lines().filter_map(|(line, section, text)| {
        if section.starts_with("workspace") {
            return None;
        }
        let is_for_tests = section.contains("dev-dependencies");
        let name = match section.rsplit_once("dependencies") {
            Some((_, "")) => text.split(['=', '.']).next()?.trim(),
            // `[dependencies.name]`
            Some((_, rest)) if text.trim_start().starts_with('[') => rest.strip_prefix('.')?,
            _ => return None,
        };
        let is_name = !name.is_empty() && !name.starts_with(['#', '[', '"', '}', ']']);
        is_name.then_some(Dependency {
            line,
            name,
            is_for_tests,
        })
    })
}

/// Crates use only what lies below them, tests included; the engine and all below it know no
/// hypervisor.
pub fn direction(tree: &Tree) -> Vec<Finding> {
    let mut found = vec![];
    for manifest in &tree.manifests {
        let Some(package) = manifest.package() else {
            continue;
        };
        let known = MAY_USE.iter().find(|(name, _)| *name == package);
        let Some((_, may_use)) = known else {
            // A crate that belongs to another one, such as its fuzz targets, may use what it likes.
            if !manifest.text.contains("[workspace]") {
                let message =
                    format!("`{package}` has no row in tidy's table of directions: add one");
                found.push(Finding::new(&manifest.path, 1, message));
            }
            continue;
        };
        for Dependency {
            line,
            name,
            is_for_tests,
        } in dependencies(manifest)
        {
            let is_own = MAY_USE.iter().any(|(own, _)| *own == name);
            if is_own && !may_use.contains(&name) {
                let message = format!(
                    "{package} may not use {name}: it may use {}",
                    if may_use.is_empty() {
                        "none of the house".to_owned()
                    } else {
                        may_use.join(", ")
                    }
                );
                found.push(Finding::new(&manifest.path, line, message));
            }
            let knows = is_for_tests || KNOW_HYPERVISOR.contains(&package);
            if HYPERVISOR.contains(&name) && !knows {
                let message = format!(
                    "{package} knows no hypervisor: leave {name} to {}",
                    KNOW_HYPERVISOR.join(", ")
                );
                found.push(Finding::new(&manifest.path, line, message));
            }
        }
    }
    found
}

/// Pure crates link nothing that is not on a short list.
pub fn pure_dependencies(tree: &Tree) -> Vec<Finding> {
    let mut found = vec![];
    for manifest in &tree.manifests {
        if !PURE
            .iter()
            .any(|(name, _)| manifest.package() == Some(name))
        {
            continue;
        }
        let linked = dependencies(manifest).filter(|dependency| !dependency.is_for_tests);
        for Dependency { line, name, .. } in linked {
            if !name.starts_with("limosa-") && !PURE_DEPENDENCIES.contains(&name) {
                let message = format!(
                    "a pure crate links only {}: do without {name}, or move it to \
                     [dev-dependencies]",
                    PURE_DEPENDENCIES.join(" and ")
                );
                found.push(Finding::new(&manifest.path, line, message));
            }
        }
    }
    found
}

/// Each external crate in the workspace's manifest has its reason beside it.
pub fn reasons(tree: &Tree) -> Vec<Finding> {
    let root = tree
        .manifests
        .iter()
        .filter(|manifest| manifest.folder().is_empty());
    let lines = root.flat_map(|manifest| manifest.lines().map(move |line| (manifest, line)));
    let mut found = vec![];
    for (manifest, (number, section, line)) in lines {
        let is_external = section == "workspace.dependencies"
            && line.contains('=')
            && !line.trim_start().starts_with('#')
            && !line.contains("path =");
        if is_external && !line.contains(" # ") {
            let name = line.split('=').next().unwrap_or_default().trim();
            let message = format!("say at the end of the line why {name} is here: `# reason`");
            found.push(Finding::new(&manifest.path, number, message));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(package: &str, rest: &str) -> Tree {
        let text = format!("[package]\nname = \"{package}\"\n{rest}");
        Tree::planted(&[("a/Cargo.toml", &text)])
    }

    fn lines_of(found: &[Finding]) -> Vec<usize> {
        found.iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_dependency_against_the_direction_is_found() {
        for (package, other) in [
            ("limosa-session", "limosa-transport"),
            ("limosa-pipeline", "limosa-session"),
            ("limosa-transport", "limosa-pipeline"),
            ("limosa-dirty", "limosa-wire"),
            ("limosa-wire", "limosa-compat"),
            ("limosa", "limosa-shim"),
            ("limosa-pages", "limosa-wire"),
            ("tidy", "limosa"),
        ] {
            for rest in [
                format!("[dependencies]\n{other} = {{ workspace = true }}\n"),
                format!("[dev-dependencies]\n{other}.workspace = true\n"),
                format!("[dependencies]\n[dependencies.{other}]\n"),
                format!("[target.'cfg(unix)'.dependencies]\n{other} = \"1\"\n"),
            ] {
                let found = direction(&manifest(package, &rest));
                assert_eq!(lines_of(&found), [4], "{package}: {rest}");
            }
        }
    }

    #[test]
    fn the_direction_itself_is_free() {
        for (package, may_use) in MAY_USE {
            let lines = may_use.iter().map(|name| format!("{name} = \"1\"\n"));
            let rest = format!(
                "[dependencies]\nlibc = \"1\"\n{}",
                lines.collect::<String>()
            );
            assert_eq!(direction(&manifest(package, &rest)), [], "{package}");
        }
    }

    #[test]
    fn no_row_lies_below_what_it_uses() {
        for (index, (name, may_use)) in MAY_USE.iter().enumerate() {
            let below = |other: &&str| MAY_USE[..=index].iter().any(|(lower, _)| lower == other);
            assert!(may_use.iter().all(below), "{name}");
        }
    }

    #[test]
    fn an_unknown_crate_needs_a_row() {
        assert_eq!(lines_of(&direction(&manifest("limosa-new", ""))), [1]);
        assert_eq!(direction(&manifest("wire-fuzz", "[workspace]\n")), []);
    }

    #[test]
    fn a_hypervisor_below_the_shim_is_found() {
        let rest = "[dependencies]\nkvm-ioctls = \"1\"\n";
        assert_eq!(lines_of(&direction(&manifest("limosa", rest))), [4]);
        assert_eq!(direction(&manifest("limosa-shim", rest)), []);
        let rest = "[dev-dependencies]\nkvm-ioctls = \"1\"\n";
        assert_eq!(direction(&manifest("limosa-dirty", rest)), []);
    }

    #[test]
    fn an_impure_dependency_is_found() {
        let rest = "[dependencies]\nthiserror = \"2\"\nlibc = \"1\"\n";
        assert_eq!(
            lines_of(&pure_dependencies(&manifest("limosa-session", rest))),
            [5]
        );
        assert_eq!(pure_dependencies(&manifest("limosa-transport", rest)), []);
        let rest = "[dev-dependencies]\nproptest = \"1\"\n";
        assert_eq!(pure_dependencies(&manifest("limosa-session", rest)), []);
    }

    #[test]
    fn a_dependency_without_a_reason_is_found() {
        let text = "[workspace.dependencies]\na = { path = \"a\" }\nb = \"1\" # for c\nd = \"1\"\n";
        assert_eq!(
            lines_of(&reasons(&Tree::planted(&[("Cargo.toml", text)]))),
            [4]
        );
    }
}
