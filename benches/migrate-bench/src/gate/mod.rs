//! The command `gate`: is the page work still as good as it was? Instructions of each kernel by
//! count, and times beside references that are measured in the same minute.

mod counted;
mod file;
mod instructions;
mod kernel;
mod measure;
mod ratios;
mod show;
mod valgrind;
mod verdict;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Args;

use self::counted::Counted;
use self::file::{Baseline, Unusable};
pub(crate) use self::instructions::{InstructionsArgs, run as run_instructions};
pub(crate) use self::kernel::{KernelArgs, run as run_kernel};
use self::measure::Measured;
use self::ratios::Gated;
use self::verdict::Report;
use crate::command_run::{USAGE, heed_signals};
use crate::output::{check_files, write_file};

/// Options of `gate`.
#[derive(Debug, Clone, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
pub(crate) struct GateArgs {
    /// What was measured before, with the tolerances: a file that `--update` wrote.
    #[arg(long, value_name = "FILE")]
    pub(crate) baseline: PathBuf,
    /// Measure, and write FILE anew; its tolerances stay.
    #[arg(long)]
    pub(crate) update: bool,
    /// Only these kernels, with commas: NAME, or NAME@N for N threads (1 to 64).
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) only: Vec<Counted>,
    /// Leave out the counts of instructions, which need valgrind.
    #[arg(long, conflicts_with = "only")]
    pub(crate) no_instructions: bool,
    /// Only these times beside references, with commas.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = ratios::named)]
    pub(crate) ratios: Vec<Gated>,
    /// Leave out the times beside references.
    #[arg(long, conflicts_with = "ratios")]
    pub(crate) no_ratios: bool,
    /// Write the result as JSON to a file, or to standard output with `-`.
    #[arg(long, value_name = "FILE|-")]
    pub(crate) json: Option<PathBuf>,
    /// Has the corridor work on one page in ten twice, to show that the gate sees it.
    #[arg(long, hide = true, conflicts_with = "update")]
    pub(crate) planted_slowdown: bool,
}

/// Whether all figures were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    Whole,
    Part,
}

impl GateArgs {
    fn extent(&self) -> Extent {
        if self.only.is_empty() && self.ratios.is_empty() {
            Extent::Whole
        } else {
            Extent::Part
        }
    }

    fn ratios_or_all(&self) -> &[Gated] {
        if self.ratios.is_empty() {
            &ratios::RATIOS
        } else {
            &self.ratios
        }
    }
}

/// Measures, then compares or writes; status 1 for a regression, 2 for a FILE of no use.
pub(crate) fn run(args: &GateArgs) -> Result<ExitCode> {
    let written = args.update.then_some(args.baseline.as_path());
    if let Err(error) = check_files(args.json.as_deref(), &[written]) {
        eprintln!("migrate-bench: {error}");
        return Ok(ExitCode::from(USAGE));
    }
    if !args.no_instructions {
        valgrind::find()?;
    }
    let read = Baseline::read(&args.baseline);
    let read = match (read, args.update) {
        (Ok(baseline), false) => (baseline.comparable(&args.baseline), false),
        (read, update) => (read, update),
    };
    let read = match read {
        (Ok(baseline), _) => Some(baseline),
        (Err(Unusable::Missing(_)), true) => None,
        (Err(unusable), _) => {
            eprintln!("migrate-bench: {unusable}");
            return Ok(ExitCode::from(USAGE));
        }
    };
    let interrupted = heed_signals()?;
    let measured = Measured::take(args, read.as_ref(), &Arc::clone(&interrupted))?;
    if args.update {
        let baseline = Baseline::updated(read, &measured, args.extent());
        write_file(&args.baseline, baseline.to_json()? + "\n")
            .context("the new baseline is lost")?;
        println!("{}", show::baseline(&baseline));
        return Ok(ExitCode::SUCCESS);
    }
    let baseline = read.context("no baseline was read")?;
    let report = Report::of(&baseline, &measured, args.extent());
    write(&report, args.json.as_deref())?;
    Ok(if report.regressions().next().is_none() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn write(report: &Report, json: Option<&Path>) -> Result<()> {
    let table = show::report(report);
    match json {
        Some(path) if path == Path::new("-") => {
            eprintln!("{table}");
            println!("{}", serde_json::to_string_pretty(report)?);
        }
        Some(path) => {
            write_file(path, serde_json::to_string_pretty(report)? + "\n")?;
            println!("{table}");
        }
        None => println!("{table}"),
    }
    Ok(())
}
