//! The command `run`: all runs, the references beside them, and the report.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::args::{GuestChoice, RunArgs, Transport};
use crate::facts::host_facts;
use crate::output::Words;
use crate::report::{Config, Report, Run, RunOutcome, SCHEMA, Summary};
use crate::run::{Bench, RunCpu};
use crate::yardstick::Yardstick;
use crate::{plot, table};

/// The exit status of a refusal.
pub(crate) const REFUSED: u8 = 3;
/// The exit status of wrong usage.
pub(crate) const USAGE: u8 = 2;
/// The exit status after a second signal, as shells have it.
const INTERRUPTED: i32 = 130;

/// Runs, reports, and says by the exit status how it went.
pub(crate) fn run(args: &RunArgs) -> Result<ExitCode> {
    let interrupted = heed_signals()?;
    let (kind, reason) = settle_guest(args.guest.guest)?;
    let checked = check_usage(args, kind);
    let checked = checked.and_then(|()| args.output.check(&args.trace.files()));
    let cpu = match checked.and_then(|()| RunCpu::read(args)) {
        Ok(cpu) => cpu,
        Err(error) => {
            eprintln!("migrate-bench: {error}");
            return Ok(ExitCode::from(USAGE));
        }
    };
    if !args.output.quiet && kind == "process" {
        eprintln!("guest: a process that writes its memory ({reason})");
    }
    let mut bench = Bench::new(args, (kind, cpu), Arc::clone(&interrupted))?;
    let mut yardstick = Yardstick::new(args.transport);
    let mut runs: Vec<Run> = Vec::new();
    let mut broken_off = false;
    for _ in 0..args.repeat {
        let measured = measure(args, &mut bench, &mut yardstick, &mut runs);
        let go_on = match measured {
            Ok(outcome) => outcome == RunOutcome::Completed,
            // What was measured before is not lost by it.
            Err(error) if !runs.is_empty() => {
                eprintln!("migrate-bench: {}", crate::in_one_line(&error));
                broken_off = true;
                break;
            }
            Err(error) => return Err(error),
        };
        if !go_on || interrupted.load(Ordering::Acquire) {
            break;
        }
    }
    let report = Report {
        schema: SCHEMA.into(),
        config: config_of(args, &bench, kind, &reason),
        host: host_facts(),
        reference: yardstick.report(bench.link().streams, &runs),
        summary: Summary::of(&runs),
        runs,
    };
    let words = Words {
        table: table::show(&report),
        errors: table::errors(&report),
    };
    args.output.write(&report, &words)?;
    let moves = report.runs.iter().map(|run| &run.timeline);
    args.trace.write(|| plot::of_report(&report), moves)?;
    Ok(if broken_off {
        ExitCode::FAILURE
    } else {
        status_of(&report)
    })
}

/// Whether such a guest can be, and its link; the error is one of usage.
pub(crate) fn check_usage(args: &RunArgs, kind: &str) -> Result<(), String> {
    crate::worker::check_guest(&args.guest, &args.link, kind)
        .map_err(|error| crate::in_one_line(&error))?;
    if args.link_rate.is_some() && args.transport == Transport::Unix {
        return Err("--link shapes TCP: leave out --transport unix, or --link".into());
    }
    Ok(())
}

/// One run, which joins `runs`, with the reference beside it.
fn measure(
    args: &RunArgs,
    bench: &mut Bench,
    yardstick: &mut Yardstick,
    runs: &mut Vec<Run>,
) -> Result<RunOutcome> {
    let mut run = bench.run()?;
    let outcome = run.outcome;
    let measured = if args.no_reference {
        Ok(())
    } else {
        yardstick.measure_beside(&mut run, bench)
    };
    runs.push(run);
    measured.context("the bare-socket reference")?;
    Ok(outcome)
}

/// A flag that the first SIGINT or SIGTERM raises; the second one ends this process at once.
pub(crate) fn heed_signals() -> Result<Arc<AtomicBool>> {
    let raised = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, INTERRUPTED, Arc::clone(&raised))
            .and_then(|_| flag::register(signal, Arc::clone(&raised)))
            .context("a signal handler")?;
    }
    Ok(raised)
}

/// KVM where it works, unless another kind is asked for; and why.
pub(crate) fn settle_guest(choice: GuestChoice) -> Result<(&'static str, String)> {
    Ok(match (choice, limosa_shim::open_kvm()) {
        (GuestChoice::Process, _) => ("process", "asked for".into()),
        (GuestChoice::Kvm, Ok(_)) => ("kvm", "asked for".into()),
        (GuestChoice::Auto, Ok(_)) => ("kvm", "/dev/kvm works".into()),
        (GuestChoice::Auto, Err(error)) => ("process", error.to_string()),
        (GuestChoice::Kvm, Err(error)) => return Err(error.into()),
    })
}

/// What share of `whole` `part` is, in percent.
fn percent_of(part: u64, whole: u64) -> f64 {
    part as f64 * 100.0 / whole.max(1) as f64
}

/// What was asked for, after defaults, for the report.
pub(crate) fn config_of(args: &RunArgs, bench: &Bench, kind: &str, reason: &str) -> Config {
    let (guest, link) = (bench.guest(), bench.link());
    Config {
        guest: kind.into(),
        guest_reason: reason.into(),
        memory_bytes: guest.memory_bytes,
        vcpus: guest.vcpus,
        fill: guest.fill.clone(),
        touched_percent: percent_of(guest.touched_bytes, guest.memory_bytes),
        touched_bytes: guest.touched_bytes,
        working_set_bytes: guest.working_set_bytes,
        dirty_rate_bytes: guest.dirty_rate_bytes,
        pattern: guest.pattern.clone(),
        probe: guest.probe.clone(),
        backing: guest.backing.clone(),
        tracking: guest.tracking.clone(),
        transport: args.transport.to_string(),
        link: bench.link_facts(),
        io: bench.io().map(String::from),
        streams: link.streams,
        threads: args.link.threads.map_or(host_facts().lps, usize::from),
        codec: link.codec.clone(),
        staging: link.staging.clone(),
        splice: link.splice.clone(),
        downtime_ms: link.downtime.as_secs_f64() * 1e3,
        on_stall: link.on_stall.clone(),
        bandwidth: link.bandwidth,
        seed: guest.seed,
        repeat: args.repeat,
        hops: args.hops,
        warmed_bytes: bench.warmed_bytes(),
        populated: args.populated,
        compat: bench.compat().into(),
        as_host: shown(args.cpu.as_host.as_deref()),
        as_target: shown(args.as_target.as_deref()),
    }
}

fn shown(path: Option<&Path>) -> Option<String> {
    path.map(|path| path.display().to_string())
}

fn status_of(report: &Report) -> ExitCode {
    let (runs, asked) = (&report.runs, report.config.repeat as usize);
    if runs.iter().any(|run| run.outcome == RunOutcome::Refused) {
        return ExitCode::from(REFUSED);
    }
    let good = |run: &Run| run.outcome == RunOutcome::Completed && run.verified.holds();
    if runs.len() == asked && runs.iter().all(good) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
