//! The command `matrix`: many scenarios of `run` from one file, and one table of them.

mod file;
mod plan;
mod report;
mod table;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, anyhow};
use clap::Args;

use self::plan::{Plan, Scenario};
use self::report::{MatrixReport, Row, SCHEMA};
use crate::args::OutputArgs;
use crate::command_run::{USAGE, config_of, heed_signals, settle_guest};
use crate::facts::host_facts;
use crate::output::{Words, print};
use crate::report::{Run, RunOutcome};
use crate::run::{Bench, RunCpu};
use crate::units::show_ms;

/// Options of `matrix`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = FORMAT)]
pub(crate) struct MatrixArgs {
    /// The scenarios, as TOML.
    #[arg(value_name = "FILE.toml")]
    file: PathBuf,
    /// Only say which scenarios there are, as command lines of `run`.
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// What `--help` says of the file.
const FORMAT: &str = "\
The file:
  repeat = 3               # migrations of each scenario, 1 to 1000
  order = \"interleaved\"    # each scenario once, then each again; or \"consecutive\"
  expect = \"any\"           # or \"completes\": a migration that doesn't makes the status 1

  [base]                   # options of `run` without their dashes, for all scenarios
  memory = \"1GiB\"
  verify = true

  [axes]                   # options with lists: each combination is a scenario, 1000 at most
  fill = [\"random\", \"text\"]
  vcpus = [1, 2]
  downtime = [\"50ms\", \"300ms\"]

  [[skip]]                 # combinations to leave out, by values of some axes
  fill = \"text\"
  vcpus = [2]

  [[exception]]            # combinations of which something else is expected
  downtime = \"300ms\"
  expect = \"completes\"

Exit status: 0 if all went as expected, 1 if not or if interrupted, 2 for a file or usage that is
wrong. Memory that came over wrong, and a migration that can't be measured, are never expected.";

/// Runs every scenario, reports, and says by the exit status whether all was as expected.
pub(crate) fn run(args: &MatrixArgs) -> Result<ExitCode> {
    let interrupted = heed_signals()?;
    let writable = args.output.check(&[]);
    let plan = match writable.and_then(|()| Plan::read(&args.file)) {
        Ok(plan) => plan,
        Err(error) => {
            eprintln!("migrate-bench: {error}");
            return Ok(ExitCode::from(USAGE));
        }
    };
    let rows = plan
        .scenarios
        .iter()
        .map(|scenario| Row::new(&plan, scenario));
    let mut rows: Vec<Row> = rows.collect();
    if args.list {
        let lines = rows.iter().map(|row| format!("{}\n", row.command));
        print(&lines.collect::<String>())?;
        return Ok(ExitCode::SUCCESS);
    }
    let finished = play(&plan, args, &mut rows, &interrupted);
    for row in &mut rows {
        row.conclude(plan.repeat);
    }
    let as_expected = rows.iter().all(|row| row.as_expected);
    let report = MatrixReport {
        schema: SCHEMA,
        file: args.file.display().to_string(),
        host: host_facts(),
        axes: plan.axes,
        repeat: plan.repeat,
        order: plan.order,
        interrupted: finished == Finished::Interrupted,
        scenarios: rows,
    };
    let words = Words {
        table: table::show(&report),
        errors: table::errors(&report),
    };
    args.output.write(&report, &words)?;
    Ok(match (finished, as_expected) {
        (Finished::All, true) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// How far it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finished {
    All,
    Interrupted,
}

/// Runs what is planned, in its order; what came of it joins the rows.
fn play(
    plan: &Plan,
    args: &MatrixArgs,
    rows: &mut [Row],
    interrupted: &Arc<AtomicBool>,
) -> Finished {
    for (index, round) in plan.turns() {
        if interrupted.load(Ordering::Acquire) {
            return Finished::Interrupted;
        }
        let scenario = &plan.scenarios[index];
        let migrated = migrate(scenario, args, &mut rows[index], interrupted);
        if interrupted.load(Ordering::Acquire) && !migrated.as_ref().is_ok_and(completed) {
            // The signal ended it: it says nothing about the scenario.
            return Finished::Interrupted;
        }
        if !args.output.quiet {
            eprintln!(
                "scenario {} of {}, migration {} of {}: {}: {}",
                index + 1,
                plan.scenarios.len(),
                round + 1,
                plan.repeat,
                plan.name(scenario),
                in_short(&migrated),
            );
        }
        match migrated {
            Ok(run) => rows[index].runs.push(run),
            Err(error) => rows[index].broken.push(crate::in_one_line(&error)),
        }
    }
    Finished::All
}

/// One migration as `run` does it, with processes of its own.
fn migrate(
    scenario: &Scenario,
    args: &MatrixArgs,
    row: &mut Row,
    interrupted: &Arc<AtomicBool>,
) -> Result<Run> {
    let mut options = scenario.args.clone();
    options.output.quiet = args.output.quiet;
    let (kind, reason) = settle_guest(options.guest.guest)?;
    let cpu = RunCpu::read(&options).map_err(|error| anyhow!(error))?;
    let mut bench = Bench::new(&options, (kind, cpu), Arc::clone(interrupted))?;
    let run = bench.run();
    row.config = Some(config_of(&options, &bench, kind, &reason));
    run
}

fn completed(run: &Run) -> bool {
    run.outcome == RunOutcome::Completed
}

/// What is said of a migration while others are still to come.
fn in_short(migrated: &Result<Run>) -> String {
    match migrated {
        Ok(run) if completed(run) => {
            let total = run.total_ms.map_or_else(|| "–".into(), show_ms);
            let gap = run.downtime_ms.guest.or(run.downtime_ms.engine);
            let gap = gap.map_or_else(|| "–".into(), show_ms);
            format!("{total}, gap {gap}")
        }
        Ok(run) => {
            let error = run.error.as_deref().unwrap_or("no reason given");
            format!("did not complete: {error}")
        }
        Err(error) => format!("not measured: {}", crate::in_one_line(error)),
    }
}
