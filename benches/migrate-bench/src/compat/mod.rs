//! The command `compat`: processors as files; which guest fits which host, what hosts have in
//! common, and the fixed baselines. It starts no guest.

mod args;
mod baseline;
pub(crate) mod clock;
mod compare;
pub(crate) mod content;
mod json;
mod list;
mod show;
mod wish;

use std::process::ExitCode;

use anyhow::Result;

pub(crate) use self::args::CompatCommand;
pub(crate) use self::json::{HostJson, ProcessorJson};
pub(crate) use self::wish::{CpuArgs, explain, mode_of, read_host};

/// The exit status of files that can't be read.
const UNREADABLE: u8 = 2;

/// Does what was asked, and says by the exit status how it went.
pub(crate) fn run(command: &CompatCommand) -> Result<ExitCode> {
    match command {
        CompatCommand::Show(args) => show::run(args),
        CompatCommand::Compare(args) => compare::run(args),
        CompatCommand::Baseline(args) => baseline::run(args),
        CompatCommand::List(args) => list::run(args),
    }
}

/// Says why a file is of no use.
fn unreadable(reason: &str) -> ExitCode {
    eprintln!("migrate-bench: {reason}");
    ExitCode::from(UNREADABLE)
}

/// Reads a file and says what had to be assumed; the error is the exit status.
fn load(path: &std::path::Path) -> Result<content::Loaded, ExitCode> {
    let loaded = content::load(path).map_err(|reason| unreadable(&reason))?;
    for note in &loaded.notes {
        eprintln!("note: {note}");
    }
    Ok(loaded)
}
