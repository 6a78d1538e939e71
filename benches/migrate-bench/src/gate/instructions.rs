//! The command `instructions`: what a page costs on one thread and on many.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use limosa_kernels::{Kernel, STREAMS_MAX};
use serde::Serialize;

use super::GateArgs;
use super::counted::Counted;
use super::file::{Instructions, Tools, today};
use super::measure::Measured;
use super::show;
use super::valgrind;
use crate::args::OutputArgs;
use crate::command_run::{USAGE, heed_signals};
use crate::output::Words;
use crate::report::HostFacts;

/// The schema's name and version.
const SCHEMA: &str = "limosa.instructions/1";

/// Options of `instructions`.
#[derive(Debug, Clone, Args)]
pub(crate) struct InstructionsArgs {
    /// Kernels, with commas.
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "pack-raw,pack-live,land-raw",
        value_parser = kernel
    )]
    pub(crate) kernels: Vec<Kernel>,
    /// Numbers of threads, with commas, each 1 to 64.
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "1,2,4,8,16,32,64",
        value_parser = clap::value_parser!(u16).range(1..=i64::from(STREAMS_MAX))
    )]
    pub(crate) threads: Vec<u16>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

fn kernel(name: &str) -> Result<Kernel, String> {
    Ok(name.parse::<Counted>()?.kernel)
}

/// What was counted, and where.
#[derive(Debug, Clone, Serialize)]
struct Report {
    schema: &'static str,
    date: String,
    machine: HostFacts,
    tools: Tools,
    instructions: Vec<Instructions>,
}

/// Counts each kernel on each number of threads.
pub(crate) fn run(args: &InstructionsArgs) -> Result<ExitCode> {
    if let Err(error) = args.output.check(&[]) {
        eprintln!("migrate-bench: {error}");
        return Ok(ExitCode::from(USAGE));
    }
    valgrind::find()?;
    let each = args.kernels.iter().flat_map(|kernel| {
        let threads = args.threads.iter();
        threads.map(|threads| Counted {
            kernel: *kernel,
            threads: *threads,
        })
    });
    let gate = GateArgs {
        baseline: PathBuf::new(),
        update: false,
        only: each.collect(),
        no_instructions: false,
        ratios: Vec::new(),
        no_ratios: true,
        json: None,
        planted_slowdown: false,
    };
    let measured = Measured::take(&gate, None, &heed_signals()?)?;
    let counts = measured.counts.unwrap_or_default();
    let counts: Vec<_> = counts.iter().map(Instructions::of).collect();
    let rows = counts.chunks(args.threads.len());
    let report = Report {
        schema: SCHEMA,
        date: today(),
        machine: measured.machine,
        tools: measured.tools,
        instructions: counts.clone(),
    };
    let words = Words {
        table: show::threads(&report.machine, &args.threads, rows),
        errors: String::new(),
    };
    args.output.write(&report, &words)?;
    Ok(ExitCode::SUCCESS)
}
