//! The command `payload`: the guest's program as a file that other VMMs boot.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use limosa_payload::plan::Plan;
use limosa_payload::protocol::TOUCHED_ALL;
use limosa_payload::{Serial, pvh_elf};

use crate::args::{GuestArgs, GuestChoice, PayloadArgs};
use crate::command_run::USAGE;
use crate::orders::{check_touched, guest_order};
use crate::output::write_file;
use crate::units::show_bytes;
use crate::worker::spec_of;

/// Where firmware leaves something behind, from the end of the memory below the hole: QEMU's has
/// tables in the last 128 KiB, and scratch memory up to 16.2 MiB before the end. A guest that
/// touches all of its memory writes over it; one that does not would find it where it wants zeros.
const FIRMWARE_BYTES: u64 = 18 << 20;
/// Distance of the guest's signs of life on its serial port.
const HEARTBEAT: Duration = Duration::from_millis(5);

/// Writes the very guest that `run` boots, with its workload patched in. It prints a dot now and
/// then on its serial port, checks all its memory when it reads `V` there and answers with what it
/// found.
pub(crate) fn write(args: &PayloadArgs) -> Result<ExitCode> {
    let elf = match usable(&args.guest).and_then(|()| elf(&args.guest, HEARTBEAT)) {
        Ok(elf) => elf,
        Err(error) => {
            eprintln!("migrate-bench: {}", crate::in_one_line(&error));
            return Ok(ExitCode::from(USAGE));
        }
    };
    write_file(&args.output, elf)?;
    Ok(ExitCode::SUCCESS)
}

/// Whether another VMM can run such a guest.
fn usable(guest: &GuestArgs) -> Result<()> {
    ensure!(
        guest.guest != GuestChoice::Process,
        "a process guest is no program for another VMM: leave out `--guest process`"
    );
    ensure!(
        guest.vcpus == 1,
        "--vcpus {}: the program has one vCPU under another VMM; leave it out",
        guest.vcpus
    );
    Ok(())
}

/// The program of that guest, with its serial port on.
pub(crate) fn elf(guest: &GuestArgs, heartbeat: Duration) -> Result<Vec<u8>> {
    check_touched(guest)?;
    let mut spec = spec_of(&guest_order(guest, "kvm"))?;
    spec.workload.serial = Serial::On;
    // Another VMM gives no time stamp frequency: the guest measures it.
    let mut params = spec.params(0)?;
    params.heartbeat_ns = u64::try_from(heartbeat.as_nanos()).unwrap_or(u64::MAX);
    if params.touched_parts < TOUCHED_ALL {
        params.regions[0].end -= FIRMWARE_BYTES;
        Plan::new(&params).map_err(|_| {
            let room = show_bytes(FIRMWARE_BYTES);
            anyhow!(
                "another VMM's firmware takes {room} of a guest that touches less than 100%: give \
                 it more --memory, or a smaller --working-set"
            )
        })?;
    }
    Ok(pvh_elf(&params)?)
}
