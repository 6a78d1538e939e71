//! The command `compare`: two reports of `run`, figure by figure, and which differences are more
//! than chance. It starts no guest.

mod figures;
mod load;
mod mann_whitney;
mod show;
mod verdict;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use self::verdict::Comparison;
use crate::output::{check_files, print, write_file};

/// The exit status of files that can't be read or compared.
const UNUSABLE: u8 = 2;

/// Options of `compare`.
#[derive(Debug, Clone, Args)]
pub(crate) struct CompareArgs {
    /// What to compare with: a report of `run --json`, with at least two completed runs.
    #[arg(value_name = "A.json")]
    pub(crate) before: PathBuf,
    /// What to compare; changes are from A to B.
    #[arg(value_name = "B.json")]
    pub(crate) after: PathBuf,
    /// Largest probability of a difference by mere chance at which it counts (above 0, below 1).
    #[arg(long, value_name = "P", value_parser = level, default_value = "0.05")]
    pub(crate) level: f64,
    /// Write the comparison as JSON to a file, or to standard output with `-`.
    #[arg(long, value_name = "FILE|-")]
    pub(crate) json: Option<PathBuf>,
}

fn level(text: &str) -> Result<f64, String> {
    let level = text.parse::<f64>().ok();
    level
        .filter(|level| *level > 0.0 && *level < 1.0)
        .ok_or_else(|| format!("`{text}` is not a level; write for instance 0.05 or 0.01"))
}

/// Compares and shows; status 0 whatever was found, 2 for a file that is of no use.
pub(crate) fn run(args: &CompareArgs) -> Result<ExitCode> {
    if let Err(error) = check_files(args.json.as_deref(), &[]) {
        eprintln!("migrate-bench: {error}");
        return Ok(ExitCode::from(UNUSABLE));
    }
    let read = load::load(&args.before).and_then(|a| Ok((a, load::load(&args.after)?)));
    let (before, after) = match read {
        Ok(both) => both,
        Err(unusable) => {
            eprintln!("migrate-bench: {unusable}");
            return Ok(ExitCode::from(UNUSABLE));
        }
    };
    let comparison = Comparison::of(&before, &after, args.level);
    let table = show::show(&comparison);
    match &args.json {
        Some(path) if path == Path::new("-") => {
            eprint!("{table}");
            print(&(serde_json::to_string_pretty(&comparison)? + "\n"))?;
        }
        Some(path) => {
            print(&table)?;
            write_file(path, serde_json::to_string_pretty(&comparison)? + "\n")?;
        }
        None => print(&table)?,
    }
    Ok(ExitCode::SUCCESS)
}
