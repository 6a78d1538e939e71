//! Our times ÷ those of references, measured in turn: what the machine does meanwhile happens to
//! both.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use clap::Parser;
use limosa_kernels::{Amount, Kernel, Load, Prepared, cpu_time_of};

use crate::args::{Cli, GuestChoice, RunArgs};
use crate::command_run::settle_guest;
use crate::report::RunOutcome;
use crate::run::{Bench, RunCpu};
use crate::yardstick::Yardstick;

/// Chunks of a kernel: far more than caches hold.
const CHUNKS: u64 = 64;
/// Pairs of a kernel and its reference.
const KERNEL_PAIRS: usize = 15;
/// Pairs of a migration and bare sockets: with so many, all must be slow for their median to be
/// surely so.
const SOCKET_PAIRS: usize = 7;
/// The guest of a migration: large enough that starting it is little of its time.
const GUEST: &str = "512MiB";

/// A ratio that is gated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gated {
    pub(super) name: &'static str,
    what: &'static str,
    tolerance_percent: f64,
    subject: Subject,
}

#[derive(Debug, Clone, Copy)]
enum Subject {
    /// A kernel and its reference, by their names.
    Kernels([&'static str; 2]),
    /// A whole migration and bare sockets.
    Sockets,
}

/// All of them. A kernel's code also has its count of instructions, so that these tolerances can be
/// so loose that the machine's moods never reach them: they stand for what no count shows, such as
/// caches and waiting.
pub(super) const RATIOS: [Gated; 5] = [
    Gated {
        name: "lift-seal",
        what: "lift, pack and seal ÷ memcpy to a buffer in the cache",
        tolerance_percent: 60.0,
        subject: Subject::Kernels(["pack-raw", "memcpy-near"]),
    },
    Gated {
        name: "land",
        what: "receive with one copy, check and place ÷ memcpy",
        tolerance_percent: 60.0,
        subject: Subject::Kernels(["land-raw-copied", "memcpy-far"]),
    },
    Gated {
        name: "zeros",
        what: "lift, pack and seal of zero pages ÷ reading memory",
        tolerance_percent: 60.0,
        subject: Subject::Kernels(["pack-zeros", "read-memory"]),
    },
    Gated {
        name: "scan",
        what: "bitmap to work lists ÷ reading the bitmap",
        tolerance_percent: 100.0,
        subject: Subject::Kernels(["scan-full", "read-bitmap"]),
    },
    Gated {
        name: "sockets",
        what: "a whole migration ÷ bare sockets into the same kind of memory",
        tolerance_percent: 100.0,
        subject: Subject::Sockets,
    },
];

/// The ratio of that name, or which there are.
pub(super) fn named(name: &str) -> Result<Gated, String> {
    let found = RATIOS.iter().find(|gated| gated.name == name).copied();
    found.ok_or_else(|| {
        let names = RATIOS.map(|gated| gated.name).join(", ");
        format!("`{name}` is no ratio; there are {names}")
    })
}

/// What came of one batch.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sampled {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    /// Of what circumstance the ratio is, where there are several.
    pub(super) of: Option<String>,
    pub(super) tolerance_percent: f64,
    pub(super) samples: Vec<f64>,
}

impl Gated {
    /// One batch of pairs.
    pub(super) fn sample(&self, load: Load, interrupted: &Arc<AtomicBool>) -> Result<Sampled> {
        let (samples, of) = match self.subject {
            Subject::Kernels(names) => (kernel_pairs(names, load)?, None),
            Subject::Sockets => socket_pairs(interrupted)?,
        };
        Ok(Sampled {
            name: self.name,
            what: self.what,
            of,
            tolerance_percent: self.tolerance_percent,
            samples,
        })
    }
}

fn kernel_pairs(names: [&str; 2], load: Load) -> Result<Vec<f64>> {
    let amount = Amount {
        chunk_count: CHUNKS,
        load,
    };
    let prepare = |name: &str| -> Result<Prepared> {
        let kernel = Kernel::named(name).with_context(|| format!("there is no kernel {name}"))?;
        Ok(kernel.prepare(amount)?)
    };
    let [mut ours, mut theirs] = [prepare(names[0])?, prepare(names[1])?];
    let time = |prepared: &mut Prepared| -> Result<f64> {
        let (done, time) = cpu_time_of(|| prepared.pass());
        done?;
        Ok(time.as_secs_f64() / prepared.units() as f64)
    };
    // The first of each still finds cold memory.
    time(&mut ours)?;
    time(&mut theirs)?;
    (0..KERNEL_PAIRS)
        .map(|_| Ok(time(&mut ours)? / time(&mut theirs)?))
        .collect()
}

/// The ratios, and which kind of guest moved.
fn socket_pairs(interrupted: &Arc<AtomicBool>) -> Result<(Vec<f64>, Option<String>)> {
    let args = run_args()?;
    let (kind, _) = settle_guest(GuestChoice::Auto)?;
    let cpu = RunCpu::read(&args).map_err(|error| anyhow::anyhow!("{error}"))?;
    let mut bench = Bench::new(&args, (kind, cpu), Arc::clone(interrupted))?;
    let mut samples = Vec::new();
    let mut yardstick = Yardstick::new(args.transport);
    for _ in 0..SOCKET_PAIRS {
        let mut run = bench.run()?;
        if interrupted.load(Ordering::Acquire) {
            bail!("interrupted");
        }
        if run.outcome != RunOutcome::Completed {
            let why = run.error.unwrap_or_default();
            bail!("a migration did not complete: {why}");
        }
        let beside = yardstick.measure_beside(&mut run, &mut bench);
        beside.context("the bare-socket reference")?;
        let ratio = run.ratio_to_sockets.context("a run without its time")?;
        samples.push(1.0 / ratio);
    }
    Ok((samples, Some(format!("{kind} guest"))))
}

/// An idle guest of noise: every page is moved once.
fn run_args() -> Result<RunArgs> {
    let line = [
        "migrate-bench",
        "--memory",
        GUEST,
        "--dirty-rate",
        "0",
        "--codec",
        "none",
        "--quiet",
    ];
    Ok(Cli::try_parse_from(line)?.run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ratio_has_its_kernels_and_its_guest() {
        for gated in RATIOS {
            if let Subject::Kernels(names) = gated.subject {
                let [ours, theirs] = names.map(|name| Kernel::named(name).unwrap());
                assert!(!ours.is_yardstick() && theirs.is_yardstick());
                assert_eq!(ours.unit(), theirs.unit());
            }
        }
        assert_eq!(run_args().unwrap().guest.memory, 512 << 20);
    }
}
