//! A process that becomes another program, and dies with the one that started it.
//!
//! QEMU lives on when whoever started it is killed; the kernel can be asked to end it then, but
//! only from within the process that is to become QEMU.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use clap::Args;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use crate::link::Place;

/// Options of the hidden command `guard`.
#[derive(Debug, Clone, Args)]
pub(crate) struct GuardArgs {
    /// The process to die with.
    #[arg(long)]
    parent: i32,
    /// The program to become.
    program: PathBuf,
    /// Its arguments.
    #[arg(last = true)]
    words: Vec<String>,
}

/// Becomes the program; returns only where that fails.
pub(crate) fn become_it(args: &GuardArgs) -> Result<ExitCode> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("a signal at our parent's end")?;
    // It may have ended before it could be told of.
    if getppid() != Pid::from_raw(args.parent) {
        bail!("the process that wanted {} is gone", args.program.display());
    }
    let error = Command::new(&args.program).args(&args.words).exec();
    Err(error).with_context(|| format!("can't start {}", args.program.display()))
}

/// A command that starts `program` at a place such that it dies with us, and away from our
/// terminal's signals.
pub(crate) fn guarded(place: Place, program: &Path, words: &[String]) -> Result<Command> {
    let own = std::env::current_exe().context("where this program is")?;
    let mut command = place.command(&own);
    command
        .args(["guard", "--parent", &std::process::id().to_string()])
        .arg(program)
        .arg("--")
        .args(words)
        .process_group(0);
    Ok(command)
}
