//! One kernel and nothing else, for whoever counts what it does: used by `gate` itself.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use limosa_kernels::{Amount, KernelError, Load, Prepared, loops};
use serde::{Deserialize, Serialize};

use super::counted::Counted;

/// Options of `kernel`.
#[derive(Debug, Clone, Args)]
pub(crate) struct KernelArgs {
    /// NAME, or NAME@N for N threads.
    pub(crate) kernel: Counted,
    /// How many times to do all the work.
    #[arg(long, default_value_t = 1)]
    pub(crate) passes: u32,
    /// Chunks of 2 MiB for each thread.
    #[arg(long, default_value_t = 2)]
    pub(crate) chunks: u64,
    /// One page in ten twice.
    #[arg(long)]
    pub(crate) planted: bool,
}

/// What it says of itself, as a line of JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Done {
    /// Which loops the pipeline chose on the processor that it saw.
    pub(super) loops: String,
    /// What the processor that it saw can do, of what code chooses by.
    pub(super) processor: String,
    /// Units of work in one pass of all threads.
    pub(super) units: u64,
}

/// Prepares, and does the work on threads that start and end with it.
pub(crate) fn run(args: &KernelArgs) -> Result<ExitCode> {
    let amount = Amount {
        chunk_count: args.chunks,
        load: if args.planted {
            Load::Planted
        } else {
            Load::Plain
        },
    };
    let Counted { kernel, threads } = args.kernel;
    let mut each = kernel.prepare_streams(amount, threads)?;
    let units = each.iter().map(Prepared::units).sum();
    let work = |prepared: &mut Prepared| -> Result<(), KernelError> {
        (0..args.passes).try_for_each(|_| prepared.pass())
    };
    std::thread::scope(|scope| -> Result<()> {
        let running: Vec<_> = each
            .iter_mut()
            .map(|prepared| scope.spawn(move || work(prepared)))
            .collect();
        for thread in running {
            match thread.join() {
                Ok(done) => done?,
                Err(_) => bail!("a thread of {} ended by itself", args.kernel),
            }
        }
        Ok(())
    })?;
    let done = Done {
        loops: loops().into(),
        processor: processor(),
        units,
    };
    println!("{}", serde_json::to_string(&done)?);
    Ok(ExitCode::SUCCESS)
}

/// Under valgrind this is what it emulates, whatever the host has.
#[cfg(target_arch = "x86_64")]
fn processor() -> String {
    let each = [
        ("sse4.2", std::arch::is_x86_feature_detected!("sse4.2")),
        (
            "pclmulqdq",
            std::arch::is_x86_feature_detected!("pclmulqdq"),
        ),
        ("avx2", std::arch::is_x86_feature_detected!("avx2")),
        ("bmi2", std::arch::is_x86_feature_detected!("bmi2")),
        ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
        (
            "vpclmulqdq",
            std::arch::is_x86_feature_detected!("vpclmulqdq"),
        ),
    ];
    let has = each.iter().filter(|(_, is_there)| *is_there);
    let names: Vec<_> = has.map(|(name, _)| *name).collect();
    format!("x86_64 with {}", names.join(" "))
}

#[cfg(not(target_arch = "x86_64"))]
fn processor() -> String {
    std::env::consts::ARCH.into()
}
