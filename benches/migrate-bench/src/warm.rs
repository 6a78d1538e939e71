//! Free host memory that is warm: touched a moment ago, so that an outer host need not provide it
//! anew.
//!
//! A virtual machine hands free memory back to the host it runs on; the next touch of such memory
//! costs an outer page fault, several times the price of the migration that is to be measured.
//! It does so in sweeps, about two seconds after memory became free (Linux, `mm/page_reporting.c`):
//! what was freed by whoever ran before must be gone before the warm memory is freed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use limosa_pages::PAGE_BYTES;
use limosa_shim::{Backing, GuestRam};

use crate::reference::{fresh_memory, touch};

/// Memory is held and freed in pieces of this size.
const PIECE_BYTES: u64 = 32 << 20;
/// How far ahead of the other process's growth memory is freed.
///
/// Pages that one processor freed may wait in a list of its own while another one takes cold pages,
/// and some kernels report at once when a gibibyte waits: with 192 MiB a gibibyte of noise took
/// 0.44 s to move, with 768 MiB 0.30 s, with 2 GiB 0.46 s (medians of 7).
const AHEAD_BYTES: u64 = 768 << 20;
/// From here on a sweep is worth waiting for.
const SETTLED_BYTES_MIN: u64 = 512 << 20;
/// Longer than the delay between memory being freed and its sweep.
const SETTLE: Duration = Duration::from_millis(2500);

/// Warm memory that is still held, or is being freed. Dropping it frees the rest.
pub(crate) struct WarmMemory {
    pieces: Vec<GuestRam>,
    release: Option<(Arc<AtomicBool>, JoinHandle<()>)>,
}

impl WarmMemory {
    /// Touches `bytes` of memory, or what there is room for, and holds it.
    pub(crate) fn new(bytes: u64) -> Self {
        let mut pieces = Vec::new();
        for _ in 0..bytes.div_ceil(PIECE_BYTES) {
            let Ok(piece) = fresh_memory(PIECE_BYTES, Backing::Anonymous) else {
                break;
            };
            if touch(&piece).is_err() {
                break;
            }
            pieces.push(piece);
        }
        Self {
            pieces,
            release: None,
        }
    }

    /// Waits for the sweep of what others have freed, in a virtual machine and where enough is held
    /// to be worth it.
    pub(crate) fn settle(&self) {
        if self.bytes() >= SETTLED_BYTES_MIN && is_virtual() {
            std::thread::sleep(SETTLE);
        }
    }

    /// How much is held.
    pub(crate) fn bytes(&self) -> u64 {
        self.pieces.len() as u64 * PIECE_BYTES
    }

    /// Frees it from now on, always a little ahead of what process `id` takes.
    pub(crate) fn release_ahead_of(&mut self, id: u32) {
        let mut pieces = std::mem::take(&mut self.pieces);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let base = resident_bytes(id);
        let thread = std::thread::spawn(move || {
            let mut freed = 0;
            while !stopped.load(Ordering::Acquire) && !pieces.is_empty() {
                let grown = resident_bytes(id).saturating_sub(base);
                while freed < grown + AHEAD_BYTES && pieces.pop().is_some() {
                    freed += PIECE_BYTES;
                }
                std::thread::sleep(Duration::from_millis(4));
            }
        });
        self.release = Some((stop, thread));
    }
}

impl Drop for WarmMemory {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.release.take() {
            stop.store(true, Ordering::Release);
            let _ = thread.join();
        }
    }
}

/// Resident memory of a process; 0 where it can't be read, so that everything is freed early.
fn resident_bytes(id: u32) -> u64 {
    let pages = std::fs::read_to_string(format!("/proc/{id}/statm"))
        .ok()
        .and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * PAGE_BYTES as u64
}

/// Does this host run on another one?
fn is_virtual() -> bool {
    std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| {
        text.split_ascii_whitespace()
            .any(|word| word == "hypervisor")
    })
}
