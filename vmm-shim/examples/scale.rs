//! What each step of a migration costs as the guest grows and what it touches does not: no sockets,
//! no guest at work, one line per size.
//!
//!     cargo run --release -p limosa-shim --example scale [MIB_TOUCHED]

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use limosa::GuestMemory;
use limosa_pages::{PageRange, PageSet};
use limosa_pipeline::{ChunkOwners, share_out, work_of};
use limosa_shim::{Backing, GuestSpec, ProcessGuest, Workload};

/// Guest sizes, in GiB.
const SIZES: [u64; 6] = [1, 4, 16, 64, 256, 1024];
const STREAMS: u16 = 2;
const READY_MAX: Duration = Duration::from_secs(300);

/// How long each step took.
struct Watch {
    steps: Vec<(&'static str, Duration)>,
    since: Instant,
}

impl Watch {
    fn start() -> Self {
        Self {
            steps: Vec::new(),
            since: Instant::now(),
        }
    }

    /// Books the time since the last step.
    fn lap(&mut self, name: &'static str) {
        self.steps.push((name, self.since.elapsed()));
        self.since = Instant::now();
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mib_touched = std::env::args().nth(1);
    let mib_touched = mib_touched.map_or(Ok(1024), |text| text.parse::<u64>())?;
    let mut headed = false;
    for backing in [Backing::Anonymous, Backing::Memfd] {
        for gib in SIZES {
            let steps = measure(gib << 30, mib_touched << 20, backing)?.steps;
            if !headed {
                let names: String = steps.iter().map(|(name, _)| format!("{name:>9}")).collect();
                println!("{:>19}{names}   (ms)", "");
                headed = true;
            }
            let ms = |time: &Duration| format!("{:9.2}", time.as_secs_f64() * 1e3);
            let times: String = steps.iter().map(|(_, time)| ms(time)).collect();
            let backing = format!("{backing:?}");
            println!("{gib:5} GiB {backing:9}{times}");
        }
    }
    Ok(())
}

fn measure(bytes: u64, touched: u64, backing: Backing) -> Result<Watch, Box<dyn Error>> {
    let mut spec = GuestSpec::new(bytes);
    spec.backing = backing;
    spec.workload.touched_bytes = Some(touched.min(bytes));
    let mut guest = ProcessGuest::boot(&spec)?;
    guest.wait_ready(READY_MAX)?;
    guest.pause()?;
    let memory = Arc::clone(guest.pages());
    let map = memory.map().clone();

    let mut watch = Watch::start();
    let mut pages = PageSet::new(map.end());
    watch.lap("set");
    let mut dirty = guest.dirty_source()?;
    dirty.start()?;
    watch.lap("start");
    dirty.harvest(&mut pages)?;
    watch.lap("harvest");
    for region in map.regions() {
        let add = &mut |run: PageRange| pages.insert_range(run);
        memory.each_present(*region, add)?;
    }
    watch.lap("present");
    let owners = ChunkOwners::new(&map, STREAMS);
    let chunks = share_out(&pages, &map, &owners).free;
    watch.lap("lists");
    let regions = map.regions().iter();
    let gap_count: usize = regions.map(|region| pages.gaps(*region).count()).sum();
    watch.lap("gaps");
    for chunk in chunks.all() {
        if let Some(mut work) = work_of(*chunk, &pages, &map) {
            dirty.rearm(*chunk, &mut work.pages)?;
            memory.present(*chunk)?;
        }
    }
    watch.lap("rearm");
    pages.clear();
    watch.lap("clear");
    dirty.harvest(&mut pages)?;
    watch.lap("again");
    let chunks = share_out(&pages, &map, &owners).free;
    watch.lap("lists");
    let digest = memory.digest();
    watch.lap("digest");
    dirty.stop()?;
    watch.lap("stop");
    let left_count = pages.count();
    if digest == 0 || gap_count == 0 || chunks.all().len() != 0 {
        return Err(format!("digest {digest}, {gap_count} gaps, {left_count} pages left").into());
    }
    drop((memory, dirty, guest));
    watch.lap("unmap");
    Ok(watch)
}
