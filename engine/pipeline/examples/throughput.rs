//! Measures the pipeline's rooms on this machine, one core each, against memcpy. It moves no byte
//! over any link.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use limosa_pages::{
    ChunkIndex, ChunkPages, MemoryMap, PAGE_BYTES, PageCount, PageIndex, PageRange,
};
use limosa_pipeline::{
    BufferPool, ChunkOwners, Codec, Corridor, FrameBuf, FrameSource, GuestMemory, LandError,
    Lander, Ledger, MemoryError, PackConfig, PackError, ZstdLevel, scan,
};
use limosa_wire::{EncodingSet, MigrationId, Round, StreamIndex};
use vm_memory::mmap::MmapRegion;
use vm_memory::{VolatileMemory, VolatileSlice};

const GUEST_PAGES: u64 = 64 << 10;
const REPEATS: u32 = 5;
const MIGRATION: MigrationId = MigrationId::new([1; 16]);

struct Memory {
    map: MemoryMap,
    region: MmapRegion,
}

impl Memory {
    fn new() -> Arc<Self> {
        let pages = PageRange::from_start_count(PageIndex::ZERO, PageCount::new(GUEST_PAGES));
        let map = MemoryMap::new(pages.into_iter().collect()).expect("one region is a map");
        let region = MmapRegion::new(map.page_count().bytes() as usize).expect("memory is there");
        Arc::new(Self { map, region })
    }

    fn fill(&self, page_of: impl Fn(u64, &mut [u8])) {
        let mut bytes = [0; PAGE_BYTES];
        for page in 0..GUEST_PAGES {
            page_of(page, &mut bytes);
            let slice = self
                .region
                .get_slice(page as usize * PAGE_BYTES, PAGE_BYTES);
            slice.expect("inside").copy_from(&bytes);
        }
    }
}

impl GuestMemory for Memory {
    fn map(&self) -> &MemoryMap {
        &self.map
    }

    fn slice(&self, pages: PageRange) -> Result<VolatileSlice<'_>, MemoryError> {
        let offset = pages.start().get() as usize * PAGE_BYTES;
        let slice = self
            .region
            .get_slice(offset, pages.count().bytes() as usize);
        slice.map_err(|_| MemoryError::OutsideMap { pages })
    }

    fn present(&self, _: ChunkIndex) -> Result<ChunkPages, MemoryError> {
        Ok(ChunkPages::FULL)
    }

    fn populate(&self, _: ChunkIndex) -> Result<(), MemoryError> {
        Ok(())
    }
}

#[derive(Debug)]
struct Failed;

impl From<PackError> for Failed {
    fn from(_: PackError) -> Self {
        Self
    }
}

impl From<LandError> for Failed {
    fn from(_: LandError) -> Self {
        Self
    }
}

/// One recorded stream, read as a socket would be: with one copy.
struct Tape<'a>(&'a [u8]);

impl FrameSource for Tape<'_> {
    type Error = Failed;

    fn recv_exact(&mut self, into: &mut [u8]) -> Result<(), Failed> {
        let (bytes, rest) = self.0.split_at_checked(into.len()).ok_or(Failed)?;
        into.copy_from_slice(bytes);
        self.0 = rest;
        Ok(())
    }

    fn recv_into(&mut self, landing: &[VolatileSlice<'_>]) -> Result<(), Failed> {
        for slice in landing {
            let (bytes, rest) = self.0.split_at_checked(slice.len()).ok_or(Failed)?;
            slice.copy_from(bytes);
            self.0 = rest;
        }
        Ok(())
    }
}

fn noise(page: u64, bytes: &mut [u8]) {
    let mut state = (page + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for word in bytes.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes());
    }
}

fn text(page: u64, bytes: &mut [u8]) {
    // Half noise, half text: about 2:1.
    noise(page, &mut bytes[..PAGE_BYTES / 2 - 256]);
    let line = format!("{page} godwits fly without a stop; ");
    let behind = bytes[PAGE_BYTES / 2 - 256..].iter_mut();
    behind
        .zip(line.bytes().cycle())
        .for_each(|(into, byte)| *into = byte);
}

fn report(what: &str, best: Duration, bytes: u64) {
    let rate = bytes as f64 / best.as_secs_f64() / f64::from(1 << 30);
    println!("{what:<44} {rate:>7.2} GiB/s");
}

fn best_of(mut run: impl FnMut()) -> Duration {
    let once = |_| {
        let began = Instant::now();
        run();
        began.elapsed()
    };
    (0..REPEATS).map(once).min().unwrap_or_default()
}

fn pack(memory: &Arc<Memory>, config: &PackConfig, sink: impl FnMut(&[u8])) {
    let mut pool = BufferPool::new(2, config);
    let first = pool.take().expect("the pool is full");
    let guest = Arc::clone(memory) as Arc<dyn GuestMemory>;
    let owners = Arc::new(ChunkOwners::new(&memory.map, 1));
    let mut corridor = Corridor::new(guest, MIGRATION, StreamIndex::new(0), owners, config, first);
    let mut sink = sink;
    let mut give = |buffer: FrameBuf| {
        sink(buffer.bytes());
        let empty = pool.take().ok_or(Failed)?;
        pool.give(buffer);
        Ok(empty)
    };
    let work = scan(&memory.map.full_set(), &memory.map, 1);
    let mut rearm = |_: ChunkIndex, _: &mut ChunkPages| Ok::<(), Failed>(());
    corridor
        .run_round(Round::FIRST, &work[0], &mut rearm, &mut give)
        .expect("packs");
}

fn measure(what: &str, memory: &Arc<Memory>, config: &PackConfig) {
    let bytes = memory.map.page_count().bytes();
    let best = best_of(|| {
        pack(memory, config, |frames| {
            black_box(frames);
        });
    });
    report(&format!("{what}: lift, pack, seal"), best, bytes);
    let mut tape = Vec::with_capacity(bytes as usize + (8 << 20));
    pack(memory, config, |frames| tape.extend_from_slice(frames));
    let target = Memory::new();
    target.fill(|_, page| page.fill(0));
    let best = best_of(|| {
        let ledger = Arc::new(Ledger::new(&memory.map, 1));
        let guest = Arc::clone(&target) as Arc<dyn GuestMemory>;
        let stream = StreamIndex::new(0);
        let mut lander = Lander::new(guest, ledger, MIGRATION, stream, EncodingSet::ALL);
        let mut tape = Tape(&tape);
        while lander.land(&mut tape).is_ok() {}
        assert!(tape.0.is_empty());
    });
    report(
        &format!("{what}: receive (1 copy), check, place"),
        best,
        bytes,
    );
    println!(
        "{:<44} {:>7.3}",
        format!("{what}: wire bytes per byte"),
        tape.len() as f64 / bytes as f64
    );
}

fn main() {
    let memory = Memory::new();
    memory.fill(noise);
    let bytes = memory.map.page_count().bytes();
    println!(
        "kernels: {}",
        limosa_pipeline::kernels::Kernels::detect().name()
    );

    let mut copy = vec![1; 256 << 10];
    let whole = memory.region.get_slice(0, bytes as usize).expect("inside");
    let best = best_of(|| {
        for at in (0..bytes as usize).step_by(copy.len()) {
            let part = whole.subslice(at, copy.len()).expect("inside");
            black_box(part.copy_to(&mut copy[..]));
        }
    });
    report("memcpy to a buffer of 256 KiB", best, bytes);
    let mut far = vec![1; bytes as usize];
    let best = best_of(|| {
        black_box(whole.copy_to(&mut far[..]));
    });
    report("memcpy to as much memory", best, bytes);
    let best = best_of(|| {
        for _ in 0..bytes as usize / copy.len() {
            black_box(limosa_wire::checksum(black_box(&copy)));
        }
    });
    report("checksum of a buffer of 256 KiB", best, bytes);
    let best = best_of(|| {
        black_box(limosa_wire::checksum(&far));
    });
    report("checksum of as much memory", best, bytes);

    for payload_kib in [64, 128, 256, 512, 1024] {
        let config = PackConfig::default().with_frame_payload_bytes(payload_kib << 10);
        measure(&format!("noise, {payload_kib} KiB"), &memory, &config);
    }
    let config = |codec| PackConfig::new(codec, EncodingSet::ALL);
    measure("noise, LZ4", &memory, &config(Codec::Lz4));
    memory.fill(text);
    measure("half noise, half text", &memory, &config(Codec::None));
    measure("half noise, half text, LZ4", &memory, &config(Codec::Lz4));
    let zstd = Codec::Zstd(ZstdLevel::MIN);
    measure("half noise, half text, zstd", &memory, &config(zstd));
    measure("half noise, half text, auto", &memory, &config(Codec::Auto));
    memory.fill(|_, bytes| bytes.fill(0));
    measure("zeros", &memory, &config(Codec::None));
}
