//! Where results go: what was asked for is checked before anything is measured, and written after.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::args::{OutputArgs, TraceArgs};
use crate::plot::{self, Picture};
use crate::timeline::{Timeline, csv};

/// What a person reads.
pub(crate) struct Words {
    /// All that is to be said.
    pub(crate) table: String,
    /// What is said of it even where nothing is to be.
    pub(crate) errors: String,
}

impl OutputArgs {
    /// Why a file that was asked for, here or in `others`, could not be written later.
    pub(crate) fn check(&self, others: &[Option<&Path>]) -> Result<(), String> {
        check_files(self.json.as_deref(), others)
    }

    /// Shows what a person reads, which standard error gets where JSON goes to standard output, and
    /// writes the JSON where it was asked for.
    pub(crate) fn write(&self, report: &impl Serialize, words: &Words) -> Result<()> {
        let json_on_stdout = self.json.as_deref().is_some_and(is_stdout);
        match (self.quiet, json_on_stdout) {
            (true, _) => eprint!("{}", words.errors),
            (false, true) => eprintln!("{}", words.table),
            (false, false) if words.table.is_empty() => {}
            (false, false) => print(&format!("{}\n", words.table))?,
        }
        self.write_json(report)
    }

    /// Writes JSON where it was asked for.
    pub(crate) fn write_json(&self, report: &impl Serialize) -> Result<()> {
        let Some(path) = &self.json else {
            return Ok(());
        };
        let text = serde_json::to_string_pretty(report)? + "\n";
        if is_stdout(path) {
            print(&text)
        } else {
            write_file(path, &text)
        }
    }
}

impl TraceArgs {
    /// The files that were asked for.
    pub(crate) fn files(&self) -> [Option<&Path>; 2] {
        [self.plot.as_deref(), self.timeline.as_deref()]
    }

    /// Writes what was asked for of these moves, one of which the picture shows.
    pub(crate) fn write<'a>(
        &self,
        picture: impl FnOnce() -> Option<Picture<'a>>,
        moves: impl IntoIterator<Item = &'a Timeline>,
    ) -> Result<()> {
        if let Some(path) = &self.timeline {
            write_file(path, csv::of(moves))?;
        }
        if let Some(path) = &self.plot {
            plot::write(path, picture().as_ref())?;
        }
        Ok(())
    }
}

/// Why a file could not be written later; of these only `json` may be standard output.
pub(crate) fn check_files(json: Option<&Path>, others: &[Option<&Path>]) -> Result<(), String> {
    if others.iter().flatten().any(|path| is_stdout(path)) {
        return Err("`-` is standard output, which only --json writes to: name a file".into());
    }
    let json = json.filter(|path| !is_stdout(path));
    let mut seen: Vec<&Path> = Vec::new();
    for path in json.into_iter().chain(others.iter().copied().flatten()) {
        if seen.contains(&path) {
            let path = path.display();
            return Err(format!("{path} is to hold two things: name two files"));
        }
        check(path).map_err(|error| format!("can't write {}: {error}", path.display()))?;
        seen.push(path);
    }
    Ok(())
}

/// Writes to standard output; whoever stops reading has read enough.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("standard output")
        }
        _ => Ok(()),
    }
}

/// Writes a file, in place of what it held.
pub(crate) fn write_file(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    fs::write(path, content).with_context(|| format!("can't write {}", path.display()))
}

fn is_stdout(path: &Path) -> bool {
    path == Path::new("-")
}

/// Whether a file could be written; it is left as it was.
fn check(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        // What has a reader may be opened once only.
        Ok(found) if !found.is_file() && !found.is_dir() => Ok(()),
        Ok(_) => OpenOptions::new().write(true).open(path).map(drop),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            OpenOptions::new().write(true).create_new(true).open(path)?;
            fs::remove_file(path)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn output(json: Option<PathBuf>) -> OutputArgs {
        OutputArgs { json, quiet: false }
    }

    #[test]
    fn what_can_be_written_is_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let [old, new] = ["old", "new"].map(|name| folder.path().join(name));
        fs::write(&old, "kept").unwrap();
        let checked = output(Some(old.clone())).check(&[Some(&new), None]);
        assert_eq!(checked, Ok(()));
        assert_eq!(fs::read_to_string(&old).unwrap(), "kept");
        assert!(!new.exists());
        let nowhere = output(Some("-".into())).check(&[Some(Path::new("/dev/null"))]);
        assert_eq!(nowhere, Ok(()));
    }

    #[test]
    fn what_cannot_be_written_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("no/a.json");
        for path in [folder.path(), &missing] {
            for error in [
                output(Some(path.into())).check(&[]),
                output(None).check(&[None, Some(path)]),
            ] {
                let expected = format!("can't write {}: ", path.display());
                assert!(
                    error.clone().unwrap_err().starts_with(&expected),
                    "{error:?}"
                );
            }
        }
    }

    #[test]
    fn one_file_holds_one_thing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let error = output(Some(path.clone())).check(&[Some(&path)]);
        assert!(error.unwrap_err().contains("two things"));
        let error = output(None).check(&[Some(Path::new("-"))]);
        assert!(error.unwrap_err().contains("only --json"));
    }
}
