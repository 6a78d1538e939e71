//! How many instructions a kernel takes, counted by valgrind's callgrind: the same on a busy
//! machine as on an idle one.
//!
//! A kernel runs with few passes and with more. The difference is the work itself:
//! starting, preparing and ending cost the same both times.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use rayon::prelude::*;

use super::counted::Counted;
use super::kernel::Done;

/// Passes of both runs: the first ones still warm up, as a codec's sampling does.
const PASSES: [u64; 2] = [2, 4];

/// Fewest instructions between them: starting is never quite the same (addresses are random, and
/// threads wait for each other), by some ten thousand.
const WORK_MIN: u64 = 10_000_000;
/// Most often that the passes between them are done for it.
const REPEAT_MAX: u64 = 200;

/// How libc allocates: whether large blocks come cleared from the system or are cleared by code may
/// depend neither on what was freed before nor on how many processors there are.
const ALLOCATION: &str = "glibc.malloc.mmap_threshold=65536:glibc.malloc.arena_max=1";

/// What to do where there is none.
const MISSING: &str = "valgrind counts instructions and is not here: install it (`apt-get install \
                       valgrind`), or leave the counts out with --no-instructions";

/// One kernel's count.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Count {
    pub(super) counted: Counted,
    pub(super) per_unit: f64,
    pub(super) loops: String,
    pub(super) processor: String,
}

/// The version of the valgrind that is installed.
pub(super) fn find() -> Result<String> {
    let output = Command::new("valgrind").arg("--version").output();
    let output = output.ok().filter(|output| output.status.success());
    let output = output.context(MISSING)?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Counts each kernel, some at once.
pub(super) fn count(kernels: &[Counted], more: &[&str]) -> Result<Vec<Count>> {
    let folder = tempfile::Builder::new()
        .prefix("migrate-bench-gate-")
        .tempdir()
        .context("a folder for counts")?;
    let each = kernels.par_iter().map(|counted| {
        let few = total(*counted, PASSES[0], more, folder.path())?;
        let mut some = total(*counted, PASSES[1], more, folder.path())?;
        let mut passes = PASSES[1] - PASSES[0];
        let rough = some.instructions.saturating_sub(few.instructions);
        let repeat = WORK_MIN.div_ceil(rough.max(1)).min(REPEAT_MAX);
        if repeat > 1 {
            passes *= repeat;
            some = total(*counted, PASSES[0] + passes, more, folder.path())?;
        }
        let work = some.instructions.checked_sub(few.instructions);
        let work = work.with_context(|| format!("{counted}: more work took less"))?;
        let units = passes * some.done.units;
        Ok(Count {
            counted: *counted,
            per_unit: work as f64 / units as f64,
            loops: some.done.loops,
            processor: some.done.processor,
        })
    });
    each.collect()
}

struct Total {
    instructions: u64,
    done: Done,
}

fn total(counted: Counted, passes: u64, more: &[&str], folder: &Path) -> Result<Total> {
    let file = folder.join(format!("{counted}-{passes}"));
    let mut out = OsString::from("--callgrind-out-file=");
    out.push(&file);
    let output = Command::new("valgrind")
        // Neither options in the user's files nor tuning of libc may change what is counted.
        .args([
            "--tool=callgrind",
            "--quiet",
            "--command-line-only=yes",
            "--vgdb=no",
        ])
        .env("GLIBC_TUNABLES", ALLOCATION)
        .arg(out)
        .arg(std::env::current_exe()?)
        .args(["kernel", &counted.to_string()])
        .args(["--passes", &passes.to_string()])
        .args(more)
        .output()
        .context(MISSING)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{counted} under valgrind ({}): {said}", output.status);
    }
    let text = std::fs::read_to_string(&file)
        .with_context(|| format!("valgrind wrote no counts of {counted}"))?;
    Ok(Total {
        instructions: totals(&text).with_context(|| format!("no total of {counted}"))?,
        done: serde_json::from_slice(&output.stdout)
            .with_context(|| format!("{counted} said nothing"))?,
    })
}

/// The line `totals: N` of what callgrind wrote, whose only event is the instruction.
fn totals(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("totals:"));
    line?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_found() {
        let text = "version: 1\nevents: Ir\nsummary: 12\n\nfn=(1) main\n1 7\n\ntotals: 81234\n";
        assert_eq!(totals(text), Some(81_234));
        assert_eq!(totals("summary: 12\n"), None);
        assert_eq!(totals("totals: many\n"), None);
    }
}
