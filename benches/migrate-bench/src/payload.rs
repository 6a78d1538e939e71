//! The command `payload`: the guest's program as a file that other VMMs boot.

use std::process::ExitCode;

use anyhow::{Context, Result};
use limosa_payload::{Serial, pvh_elf};

use crate::args::PayloadArgs;
use crate::orders::guest_order;
use crate::worker::spec_of;

/// Writes the very guest that `run` boots, with its workload patched in. It prints a dot now and
/// then on its serial port, checks all its memory when it reads `V` there and answers with what it
/// found.
pub(crate) fn write(args: &PayloadArgs) -> Result<ExitCode> {
    let mut spec = spec_of(&guest_order(&args.guest, "kvm"))?;
    spec.workload.serial = Serial::On;
    // Another VMM gives no time stamp frequency: the guest measures it.
    let elf = pvh_elf(&spec.params(0)?)?;
    std::fs::write(&args.output, elf)
        .with_context(|| format!("can't write {}", args.output.display()))?;
    Ok(ExitCode::SUCCESS)
}
