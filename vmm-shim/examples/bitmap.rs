//! What lies between a kernel's log of one bit per page and the streams' lists of chunks: each step
//! of a round, for guests of 1 GiB to 12 TiB of which little or all was written. It reads and sends
//! no page.
//!
//!     cargo run --release -p limosa-shim --example bitmap [GIB[@PERCENT]...]
//!
//! Medians of nine rounds, and of harvest, count and lists together (`h+c+l`) also the least: that
//! is from harvest to chunks. The column `log` is a plain copy of the log's bits, which stands for
//! the kernel's own time. Sizes for which the host has no memory are skipped.

use std::error::Error;
use std::time::{Duration, Instant};

use limosa_dirty::{DirtySource, PlayedLog};
use limosa_pages::{MemoryMap, PageCount, PageIndex, PageRange, PageSet};
use limosa_pipeline::{ChunkOwners, clear_set, share_out, work_of};
use limosa_wire::StreamIndex;

/// Guest sizes, in GiB.
const SIZES: [u64; 6] = [1, 16, 128, 1024, 4096, 12 * 1024];
/// Pages written, in hundredths of a percent.
const SHARES: [u64; 5] = [1, 10, 100, 1000, 10_000];
const GIB_PAGES: u64 = 1 << 18;
/// Memory that a guest's GiB takes here: three sets of its pages, and its chunks.
const GIB_MEMORY: u64 = 3 * GIB_PAGES / 8 + (16 << 10);
const STREAMS: u16 = 2;
/// Rounds; one more ahead of them touches the memory.
const ROUNDS: usize = 9;
const STEPS: [&str; 7] = [
    "log", "harvest", "count", "lists", "h+c+l", "rearm", "clear",
];
/// The step of which the least is told too.
const SUM: usize = 4;

/// How written pages lie.
#[derive(Clone, Copy, Debug)]
enum Pattern {
    /// Each anywhere.
    Random,
    /// In runs of 16 MiB, each anywhere.
    Runs,
}

fn main() -> Result<(), Box<dyn Error>> {
    let asked: Vec<(u64, Vec<u64>)> = std::env::args()
        .skip(1)
        .map(|line| asked(&line))
        .collect::<Result<_, _>>()?;
    let all = SIZES.map(|gib| (gib, SHARES.to_vec()));
    let lines = if asked.is_empty() { &all[..] } else { &asked };
    let steps: String = STEPS.iter().map(|step| format!("{step:>9}")).collect();
    println!(
        "{:>9} {:>7} {:>7} {:>9}{steps}   least   (ms)",
        "guest", "written", "as", "chunks"
    );
    for (gib, shares) in lines {
        let (needed, available) = (gib * GIB_MEMORY, available_bytes()?);
        if needed > available {
            println!("SKIPPED: {gib} GiB take {needed} bytes of memory; {available} are available");
            continue;
        }
        for share in shares {
            for pattern in [Pattern::Random, Pattern::Runs] {
                line(*gib, *share, pattern)?;
            }
        }
    }
    Ok(())
}

fn available_bytes() -> Result<u64, Box<dyn Error>> {
    let memory = std::fs::read_to_string("/proc/meminfo")?;
    let line = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(kib
        .ok_or("no MemAvailable in /proc/meminfo")?
        .parse::<u64>()?
        << 10)
}

/// A guest's size and the shares of it that are written.
fn asked(line: &str) -> Result<(u64, Vec<u64>), Box<dyn Error>> {
    let Some((gib, percent)) = line.split_once('@') else {
        return Ok((line.parse()?, SHARES.to_vec()));
    };
    let share = percent.parse::<f64>()? * 100.0;
    if !(1.0..=10_000.0).contains(&share) {
        return Err(format!("{percent} % is not from 0.01 to 100").into());
    }
    Ok((gib.parse()?, vec![share.round() as u64]))
}

fn line(gib: u64, share: u64, pattern: Pattern) -> Result<(), Box<dyn Error>> {
    let pages = PageCount::new(gib * GIB_PAGES);
    let all = PageRange::from_start_count(PageIndex::ZERO, pages).ok_or("too large")?;
    let map = MemoryMap::new(vec![all])?;
    let written = written(all, share, pattern);
    let owners = ChunkOwners::new(&map, STREAMS);
    for (nth, (chunk, _)) in written.chunks().enumerate() {
        owners.take(chunk, StreamIndex::new(nth as u16 % STREAMS), 0);
    }
    let mut log = PlayedLog::new(map.end()).ok_or("no memory for the log")?;
    log.start()?;
    let mut dirty = PageSet::new(map.end());
    // The first harvest tells all, as in every migration.
    log.harvest(&mut dirty)?;
    for (chunk, mut pages) in dirty.chunks() {
        log.rearm(chunk, &mut pages)?;
    }
    clear_set(&mut dirty);
    let mut rounds = Vec::new();
    let mut chunk_count = 0;
    for _ in 0..=ROUNDS {
        let mut times = Vec::new();
        let mut since = Instant::now();
        let mut lap = || {
            let now = Instant::now();
            times.push(now - since);
            since = now;
        };
        log.play(&written);
        lap();
        log.harvest(&mut dirty)?;
        lap();
        let count = dirty.count();
        lap();
        let shares = share_out(&dirty, &map, &owners);
        lap();
        chunk_count = shares.owned.iter().map(Vec::len).sum();
        for chunk in shares.owned.iter().flatten() {
            if let Some(mut work) = work_of(*chunk, &dirty, &map) {
                log.rearm(*chunk, &mut work.pages)?;
            }
        }
        lap();
        clear_set(&mut dirty);
        lap();
        if count != written.count() || !dirty.is_empty() {
            return Err(format!("{count} pages instead of {}", written.count()).into());
        }
        times.insert(SUM, times[1] + times[2] + times[3]);
        rounds.push(times);
    }
    let rounds = &rounds[1..];
    let medians = (0..STEPS.len()).map(|step| median(rounds.iter().map(|it| it[step])));
    let least = rounds.iter().map(|it| it[SUM]).min();
    let steps: String = medians
        .chain(least)
        .map(|time| format!("{:9.3}", time.as_secs_f64() * 1e3))
        .collect();
    let (share, pattern) = (share as f64 / 100.0, format!("{pattern:?}"));
    println!("{gib:5} GiB {share:5.2} % {pattern:>7} {chunk_count:9}{steps}");
    Ok(())
}

fn written(all: PageRange, share: u64, pattern: Pattern) -> PageSet {
    let mut pages = PageSet::new(all.end());
    if share == 10_000 {
        pages.insert_range(all);
        return pages;
    }
    let wanted = all.count().get() * share / 10_000;
    let run = match pattern {
        Pattern::Random => 1,
        Pattern::Runs => 4096.min(wanted),
    };
    let mut state = 7;
    for _ in 0..wanted / run {
        let start = PageIndex::new(random(&mut state) % (all.count().get() / run) * run);
        let range = PageRange::from_start_count(start, PageCount::new(run));
        pages.insert_range(range.unwrap_or(PageRange::empty()));
    }
    pages
}

/// The next number of a sequence: splitmix64.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn median(times: impl Iterator<Item = Duration>) -> Duration {
    let mut times: Vec<Duration> = times.collect();
    times.sort_unstable();
    times[times.len() / 2]
}
