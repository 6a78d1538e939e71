//! What memory itself can do: copying and reading, on one thread and on all.

use std::hint::black_box;
use std::ops::Range;
use std::time::Instant;

use anyhow::{Result, ensure};
use limosa_pages::PAGE_BYTES;
use limosa_pipeline::kernels::{Content, Kernels};
use limosa_shim::{Backing, GuestRam};
use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};
use serde::{Deserialize, Serialize};
use vm_memory::VolatileSlice;

use crate::reference::memory::{fresh_memory, whole_slice};
use crate::run::gib_s;

/// Far more than caches hold.
const BYTES: u64 = 256 << 20;
/// What one task works on.
const TASK_BYTES: usize = 2 << 20;
/// The best pass counts: in the others something else had the processor.
const PASSES: usize = 3;

/// Bytes a second, in GiB: of a copy those that were copied, once.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Speeds {
    pub(crate) memcpy_one: f64,
    pub(crate) memcpy_all: f64,
    pub(crate) read_one: f64,
    pub(crate) read_all: f64,
}

/// Measures all four over populated memory of zeros in huge pages where there are some: the loop
/// that reads ends a page at its first byte that is no zero.
pub(crate) fn speeds() -> Result<Speeds> {
    let [from, to] = [(); 2].map(|()| fresh_memory(BYTES, Backing::Anonymous));
    let (from, to) = (from?, to?);
    from.populate_all()?;
    to.populate_all()?;
    let kernels = Kernels::detect();
    let all = BYTES as usize;
    Ok(Speeds {
        memcpy_one: best(|| copy(&from, &to, 0..all))?,
        memcpy_all: best(|| each_task(|task| copy(&from, &to, task)))?,
        read_one: best(|| read(kernels, &from, 0..all))?,
        read_all: best(|| each_task(|task| read(kernels, &from, task)))?,
    })
}

fn best(mut pass: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut fastest = 0.0_f64;
    for _ in 0..PASSES {
        let begun = Instant::now();
        pass()?;
        fastest = fastest.max(gib_s(BYTES, begun.elapsed().as_secs_f64() * 1e3));
    }
    Ok(fastest)
}

fn each_task(work: impl Fn(Range<usize>) -> Result<()> + Sync) -> Result<()> {
    let starts = (0..BYTES as usize).into_par_iter().step_by(TASK_BYTES);
    starts.try_for_each(|start| work(start..start + TASK_BYTES))
}

fn copy(from: &GuestRam, to: &GuestRam, range: Range<usize>) -> Result<()> {
    let [from, to] = [from, to].map(|ram| part(ram, range.clone()));
    from?.copy_to_volatile_slice(to?);
    Ok(())
}

/// Reads every byte as the engine does when it looks for zeros.
fn read(kernels: Kernels, from: &GuestRam, range: Range<usize>) -> Result<()> {
    let memory = part(from, range)?;
    let mut page = [0; PAGE_BYTES];
    for at in (0..memory.len()).step_by(PAGE_BYTES) {
        let source = memory.subslice(at, PAGE_BYTES)?;
        let content = kernels.copy_and_test_zero(&source, &mut page);
        ensure!(content == Content::Zero, "fresh memory is not zero");
        black_box(&page);
    }
    Ok(())
}

fn part(ram: &GuestRam, range: Range<usize>) -> Result<VolatileSlice<'_>> {
    Ok(whole_slice(ram)?.subslice(range.start, range.len())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_speed_is_one() {
        let speeds = speeds().unwrap();
        let all = [
            speeds.memcpy_one,
            speeds.memcpy_all,
            speeds.read_one,
            speeds.read_all,
        ];
        assert!(all.iter().all(|speed| *speed > 0.0), "{speeds:?}");
    }
}
