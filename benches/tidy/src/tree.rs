//! The workspace's own files: Rust sources, manifests and texts. Build output is not among them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::source::Source;

/// A `Cargo.toml`, line by line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Manifest {
    /// Its path, from the workspace's root.
    pub path: String,
    /// Its text.
    pub text: String,
}

impl Manifest {
    /// The lines of it, each with its number (from 1) and the section in which it stands.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str, &str)> {
        let mut section = "";
        self.text.lines().enumerate().map(move |(index, line)| {
            if let Some(name) = line.trim().strip_prefix('[') {
                section = name.trim_end_matches(']').trim_start_matches('[');
            }
            (index + 1, section, line)
        })
    }

    /// The package's name; none for a manifest that is only a workspace.
    pub fn package(&self) -> Option<&str> {
        self.lines()
            .filter(|&(_, section, _)| section == "package")
            .find_map(|(_, _, line)| line.trim().strip_prefix("name")?.split('"').nth(1))
    }

    /// The package's folder, from the workspace's root; empty for the root itself.
    pub fn folder(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(folder, _)| folder)
    }
}

/// Every file that a rule may look at.
#[derive(Clone, Debug)]
pub struct Tree {
    /// Rust files.
    pub sources: Vec<Source>,
    /// Manifests.
    pub manifests: Vec<Manifest>,
    /// All texts, manifests and Rust files among them: (path, text).
    pub texts: Vec<(String, String)>,
}

impl Tree {
    /// Reads this workspace.
    ///
    /// # Errors
    /// When a folder or file can't be read.
    pub fn read() -> io::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../..")
            .canonicalize()?;
        let mut paths = vec![];
        collect(&root, &mut paths)?;
        paths.sort();
        let mut texts = vec![];
        for path in paths {
            let text = fs::read_to_string(&path)?;
            let path = path.strip_prefix(&root).map_err(io::Error::other)?;
            texts.push((path.to_string_lossy().into_owned(), text));
        }
        Ok(Self::of(texts))
    }

    /// A tree of these files: (path from the root, text).
    pub fn of(texts: Vec<(String, String)>) -> Self {
        let rust = texts.iter().filter(|(path, _)| path.ends_with(".rs"));
        let sources = rust.map(|(path, text)| Source::new(path, text)).collect();
        let manifests = texts
            .iter()
            .filter(|(path, _)| path.rsplit('/').next() == Some("Cargo.toml"));
        let manifests = manifests
            .map(|(path, text)| Manifest {
                path: path.clone(),
                text: text.clone(),
            })
            .collect();
        Self {
            sources,
            manifests,
            texts,
        }
    }

    /// A tree of a few planted files.
    #[cfg(test)]
    pub(crate) fn planted(files: &[(&str, &str)]) -> Self {
        Self::of(
            files
                .iter()
                .map(|&(path, text)| (path.to_owned(), text.to_owned()))
                .collect(),
        )
    }

    /// The text of one file, if it is there.
    pub fn text(&self, path: &str) -> Option<&str> {
        self.texts
            .iter()
            .find(|(own, _)| own == path)
            .map(|(_, text)| text.as_str())
    }
}

const TEXTS: [&str; 6] = ["rs", "toml", "md", "sh", "yml", "yaml"];

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if entry.file_type()?.is_dir() {
            let is_hidden = name.starts_with('.') && name != ".ci" && name != ".github";
            if name != "target" && !is_hidden {
                collect(&path, paths)?;
            }
        } else if path
            .extension()
            .is_some_and(|end| TEXTS.iter().any(|text| end == *text))
        {
            paths.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_workspace_is_found() {
        let tree = Tree::read().unwrap();
        assert!(
            tree.sources
                .iter()
                .any(|source| source.path == "benches/tidy/src/tree.rs")
        );
        assert!(
            tree.manifests
                .iter()
                .any(|manifest| manifest.package() == Some("tidy"))
        );
        assert!(tree.text("Cargo.toml").is_some());
        assert!(!tree.texts.iter().any(|(path, _)| path.contains("target/")));
    }

    #[test]
    fn manifest_lines_know_their_section() {
        let text = "[package]\nname = \"a\"\n[[bin]]\nname = \"b\"\n[dependencies]\nc = \"1\"\n";
        let manifest = Manifest {
            path: "x/Cargo.toml".to_owned(),
            text: text.to_owned(),
        };
        assert_eq!(manifest.package(), Some("a"));
        assert_eq!(manifest.folder(), "x");
        let last = manifest.lines().last();
        assert_eq!(last, Some((6, "dependencies", "c = \"1\"")));
    }
}
