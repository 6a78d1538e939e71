//! All that a gate measures, and how often it looks again before it calls something slow.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Result;
use limosa_kernels::Load;

use super::GateArgs;
use super::counted::Counted;
use super::file::{Baseline, Tools};
use super::ratios::{Gated, Sampled};
use super::valgrind::{self, Count};
use super::verdict::is_slower;
use crate::facts::host_facts;
use crate::report::HostFacts;

/// Batches of a ratio that must all be slow: another program that takes the machine for a while
/// does not last through all of them.
const BATCHES_MAX: u32 = 3;

/// How this was built.
pub(super) const BUILD: &str = if cfg!(debug_assertions) {
    "debug"
} else {
    "release"
};

/// What was measured; none of what was left out.
#[derive(Debug, Clone)]
pub(super) struct Measured {
    pub(super) machine: HostFacts,
    pub(super) tools: Tools,
    pub(super) counts: Option<Vec<Count>>,
    pub(super) ratios: Option<Vec<Sampled>>,
}

impl Measured {
    /// Measures what `args` ask for, and again what is slower than in `baseline`.
    pub(super) fn take(
        args: &GateArgs,
        baseline: Option<&Baseline>,
        interrupted: &Arc<AtomicBool>,
    ) -> Result<Self> {
        let (load, more): (_, &[&str]) = if args.planted_slowdown {
            (Load::Planted, &["--planted"])
        } else {
            (Load::Plain, &[])
        };
        let kernels = if args.only.is_empty() {
            Counted::all()
        } else {
            args.only.clone()
        };
        let machine = host_facts();
        let (mut counts, mut ratios) = (None, None);
        if !args.no_instructions {
            eprintln!("counting the instructions of {} kernels", kernels.len());
            counts = Some(valgrind::count(&kernels, more)?);
        }
        if !args.no_ratios {
            let each = args.ratios_or_all().iter().map(|gated| {
                eprintln!("timing {} beside its reference", gated.name);
                settled(gated, (baseline, &machine), load, interrupted)
            });
            ratios = Some(each.collect::<Result<_>>()?);
        }
        Ok(Self {
            machine,
            tools: tools(counts.as_deref()),
            counts,
            ratios,
        })
    }
}

/// Samples until a batch is not slow, or there were enough of them.
fn settled(
    gated: &Gated,
    (baseline, machine): (Option<&Baseline>, &HostFacts),
    load: Load,
    interrupted: &Arc<AtomicBool>,
) -> Result<Sampled> {
    let mut sampled = gated.sample(load, interrupted)?;
    for _ in 1..BATCHES_MAX {
        if !baseline.is_some_and(|baseline| is_slower(baseline, machine, &sampled)) {
            break;
        }
        eprintln!("{} is slow: timing it again", gated.name);
        sampled = gated.sample(load, interrupted)?;
    }
    Ok(sampled)
}

fn tools(counts: Option<&[Count]>) -> Tools {
    let libc = Command::new("getconf").arg("GNU_LIBC_VERSION").output();
    let libc = libc.ok().filter(|output| output.status.success());
    let libc = libc.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    Tools {
        compiler: env!("MIGRATE_BENCH_RUSTC").into(),
        c_compiler: env!("MIGRATE_BENCH_CC").into(),
        build: BUILD.into(),
        libc: libc.unwrap_or_else(|| "unknown".into()),
        valgrind: valgrind::find().unwrap_or_else(|_| "none".into()),
        processor: counts.and_then(|counts| Some(counts.first()?.processor.clone())),
    }
}
