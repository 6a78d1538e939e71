//! The source's page streams: one thread each, from the guest's memory to the socket.

use std::iter;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use limosa_dirty::{DirtySource, HarvestError};
use limosa_pages::{CHUNK_PAGES, ChunkIndex, ChunkPages, PageIndex, PageRange, PageSet};
use limosa_pipeline::{
    BufferPool, ChunkOwners, Corridor, FrameBuf, FreeChunks, GuestMemory, PackConfig, PackError,
    StreamReport, work_of,
};
use limosa_transport::{FrameBytes, PageLink, PageSender, Piece, StopHandle, TransportError};
use limosa_wire::{MigrationId, Round, StreamIndex};

use crate::error::Cause;
use crate::last_word::LastWord;
use crate::steering::{Leave, Steering};
use crate::urgency::Urgency;

/// A dirty source that rounds share for reading and harvests take for writing.
pub(crate) type SharedDirty = Arc<RwLock<Box<dyn DirtySource>>>;

/// What a stream's thread tells the driver.
pub(crate) enum StreamNews {
    /// The stream has sent its part of a round, barrier included.
    RoundSent {
        report: StreamReport,
        stream: StreamIndex,
    },
    /// The stream is of no more use.
    Failed { stream: StreamIndex, cause: Cause },
}

/// What a stream is to send.
struct RoundOrder {
    round: Round,
    work: StreamWork,
    /// None while the guest stands still: nothing is written, so nothing needs to be recorded, and
    /// nothing may hold the stream up.
    rearm: Option<SharedDirty>,
}

/// One stream's part of a round.
pub(crate) struct StreamWork {
    /// What the round sends, shared by all streams.
    pub(crate) pages: Arc<PageSet>,
    /// The stream's own chunks.
    pub(crate) chunks: Vec<ChunkIndex>,
    /// Chunks that become the stream's when it is done with those.
    pub(crate) free: Arc<FreeChunks>,
    /// Where the stream tells which pages are not among `pages`: the guest never touched them.
    pub(crate) absent: Vec<PageRange>,
}

/// How far one stream is; a line of its own, so that streams share no cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Meter {
    pages: AtomicU64,
    wire_bytes: AtomicU64,
    /// The longest that rearming a chunk took, of all rounds.
    rearm_ns: AtomicU64,
}

/// All page streams of a source. Dropping it stops them and waits for their threads.
pub(crate) struct Sending {
    orders: Vec<Sender<RoundOrder>>,
    threads: Vec<JoinHandle<()>>,
    stops: Vec<StopHandle>,
    halt: Arc<AtomicBool>,
    urgencies: Vec<Arc<Urgency>>,
    meters: Arc<[Meter]>,
    owners: Arc<ChunkOwners>,
    overhead_bytes: u64,
}

/// What every stream shares.
#[derive(Clone)]
pub(crate) struct SendingPlan {
    pub(crate) memory: Arc<dyn GuestMemory>,
    pub(crate) migration_id: MigrationId,
    pub(crate) pack: PackConfig,
    /// Most frames that a stream has on their way at once.
    pub(crate) frames_in_flight_max: usize,
    /// What an operator may change meanwhile.
    pub(crate) steering: Steering,
}

impl Sending {
    /// Starts a thread for each of `links`, which are in the order of their streams.
    pub(crate) fn start(
        links: Vec<PageLink>,
        plan: &SendingPlan,
        news: &Sender<StreamNews>,
    ) -> Result<Self, Cause> {
        let owners = ChunkOwners::new(plan.memory.map(), links.len() as u16);
        let mut sending = Self {
            orders: Vec::new(),
            threads: Vec::new(),
            stops: links.iter().map(PageLink::stop_handle).collect(),
            halt: Arc::default(),
            urgencies: Vec::new(),
            meters: links.iter().map(|_| Meter::default()).collect(),
            overhead_bytes: owners.overhead_bytes() as u64,
            owners: Arc::new(owners),
        };
        for link in links {
            let (orders, todo) = unbounded();
            let mut pool = BufferPool::new(plan.frames_in_flight_max + 1, &plan.pack);
            let Some(first) = pool.take() else {
                return Err(Cause::Host("a buffer pool without buffers".into()));
            };
            let corridor = Corridor::new(
                Arc::clone(&plan.memory),
                plan.migration_id,
                link.stream(),
                Arc::clone(&sending.owners),
                &plan.pack,
                first,
            );
            sending.overhead_bytes += (pool.overhead_bytes() + corridor.overhead_bytes()) as u64;
            let worker = StreamWorker {
                stream: link.stream(),
                memory: Arc::clone(&plan.memory),
                corridor,
                pool,
                todo,
                news: news.clone(),
                halt: Arc::clone(&sending.halt),
                steering: plan.steering.clone(),
                meters: Arc::clone(&sending.meters),
            };
            let urgency = Arc::new(Urgency::new());
            sending.urgencies.push(Arc::clone(&urgency));
            let thread = std::thread::Builder::new()
                .name(format!("page-out-{}", link.stream()))
                .spawn(move || {
                    urgency.adopt();
                    worker.run(link);
                })
                .map_err(|error| Cause::Host(format!("no thread for a page stream: {error}")))?;
            sending.orders.push(orders);
            sending.threads.push(thread);
        }
        Ok(sending)
    }

    /// Gives every stream its part of a round; they report by [`StreamNews::RoundSent`].
    pub(crate) fn start_round(
        &self,
        round: Round,
        work: Vec<StreamWork>,
        rearm: Option<&SharedDirty>,
    ) {
        for meter in &*self.meters {
            meter.pages.store(0, Ordering::Relaxed);
        }
        let of = |work: &StreamWork| work.chunks.len() + work.free.all().len();
        if rearm.is_none() && work.iter().all(|work| of(work) <= SHORT_CHUNKS) {
            // The guest stands still, and not for long.
            self.urgencies.iter().for_each(|urgency| urgency.raise());
        }
        for (orders, work) in self.orders.iter().zip(work) {
            // A stream that has ended has said why; its part of the round matters no more.
            let _ = orders.send(RoundOrder {
                round,
                work,
                rearm: rearm.map(Arc::clone),
            });
        }
    }

    /// Pages of the running round that were dealt with, and bytes on the wire of all rounds.
    pub(crate) fn progress(&self) -> (u64, u64) {
        self.meters.iter().fold((0, 0), |(pages, bytes), meter| {
            (
                pages + meter.pages.load(Ordering::Relaxed),
                bytes + meter.wire_bytes.load(Ordering::Relaxed),
            )
        })
    }

    /// Lets the streams' threads take their turns again.
    pub(crate) fn calm(&self) {
        self.urgencies.iter().for_each(|urgency| urgency.lower());
    }

    /// The longest that rearming a chunk took so far.
    pub(crate) fn rearm_longest(&self) -> Duration {
        let each = self.meters.iter();
        let longest = each.map(|meter| meter.rearm_ns.load(Ordering::Relaxed));
        Duration::from_nanos(longest.max().unwrap_or(0))
    }

    /// Which stream sends which chunk.
    pub(crate) fn owners(&self) -> &ChunkOwners {
        &self.owners
    }

    pub(crate) fn overhead_bytes(&self) -> u64 {
        self.overhead_bytes
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.halt.store(true, Ordering::Release);
        self.orders.clear();
        for stop in &self.stops {
            stop.stop();
        }
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing left to say here.
            let _ = thread.join();
        }
    }
}

/// A sealed buffer on its way through the kernel.
struct Sealed(FrameBuf);

impl FrameBytes for Sealed {
    fn pieces<'a>(&'a self, pieces: &mut Vec<Piece<'a>>) {
        pieces.extend(self.0.pieces().map(|piece| match piece {
            limosa_pipeline::Piece::Buffer(bytes) => Piece::Bytes(bytes),
            limosa_pipeline::Piece::Guest(slice) => Piece::Memory(slice),
        }));
    }
}

/// What ends a stream's work early.
#[derive(Debug, thiserror::Error)]
enum StreamEnd {
    #[error(transparent)]
    Pack(#[from] PackError),
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error(transparent)]
    Harvest(#[from] HarvestError),
    #[error("stopped")]
    Halted,
}

/// One stream's thread.
struct StreamWorker {
    stream: StreamIndex,
    memory: Arc<dyn GuestMemory>,
    corridor: Corridor,
    pool: BufferPool,
    todo: Receiver<RoundOrder>,
    news: Sender<StreamNews>,
    halt: Arc<AtomicBool>,
    steering: Steering,
    meters: Arc<[Meter]>,
}

impl StreamWorker {
    fn run(mut self, link: PageLink) {
        let (stream, news) = (self.stream, self.news.clone());
        let _last_word = LastWord::new(news, move |cause| StreamNews::Failed { stream, cause });
        let ended = link
            .into_sender()
            .map_err(StreamEnd::from)
            .and_then(|mut sender| {
                while let Ok(order) = self.todo.recv() {
                    let report = self.round(order, &mut *sender)?;
                    // The driver may have gone; then nobody needs the report.
                    let _ = self.news.send(StreamNews::RoundSent {
                        report,
                        stream: self.stream,
                    });
                }
                Ok(())
            });
        let cause = match ended {
            Ok(()) | Err(StreamEnd::Halted) => return,
            Err(StreamEnd::Transport(error)) => error.into(),
            Err(StreamEnd::Harvest(error)) => error.into(),
            Err(StreamEnd::Pack(PackError::Memory(error))) => error.into(),
            Err(StreamEnd::Pack(error)) => Cause::Host(error.to_string()),
        };
        let _ = self.news.send(StreamNews::Failed {
            stream: self.stream,
            cause,
        });
    }

    fn round(
        &mut self,
        order: RoundOrder,
        sender: &mut dyn PageSender<Sealed>,
    ) -> Result<StreamReport, StreamEnd> {
        let Self {
            memory,
            corridor,
            pool,
            halt,
            steering,
            meters,
            ..
        } = self;
        let stream = self.stream;
        let meter = &meters[usize::from(stream.get())];
        let dirty = order
            .rearm
            .as_ref()
            .map(|dirty| dirty.read().unwrap_or_else(PoisonError::into_inner));
        let mut rearm = |chunk: ChunkIndex, pages: &mut ChunkPages| {
            if halt.load(Ordering::Acquire) {
                return Err(StreamEnd::Halted);
            }
            if let Some(dirty) = &dirty {
                let begun = Instant::now();
                dirty.rearm(chunk, pages)?;
                let took = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
                meter.rearm_ns.fetch_max(took, Ordering::Relaxed);
            }
            meter
                .pages
                .fetch_add(u64::from(pages.count()), Ordering::Relaxed);
            Ok(())
        };
        let mut sink = |full: FrameBuf| {
            if dirty.is_some() && steering.ask(full.wire_bytes(), halt) == Leave::Halted {
                return Err(StreamEnd::Halted);
            }
            meter
                .wire_bytes
                .fetch_add(full.wire_bytes() as u64, Ordering::Relaxed);
            if let Some(Sealed(free)) = sender.send(Sealed(full))? {
                pool.give(free);
            }
            loop {
                if let Some(empty) = pool.take() {
                    return Ok(empty);
                }
                match sender.reclaim()? {
                    Some(Sealed(free)) => pool.give(free),
                    None => return Err(PackError::NoBuffer { stream }.into()),
                }
            }
        };
        let StreamWork {
            pages,
            chunks,
            free,
            absent,
        } = order.work;
        let untold = Arc::clone(&pages);
        corridor.tell_absent(blocks(absent).flat_map(move |block| {
            let gaps: Vec<_> = untold.gaps(block).collect();
            gaps
        }));
        let map = memory.map();
        let work = chunks
            .into_iter()
            .chain(iter::from_fn(|| free.take()))
            .filter_map(|chunk| work_of(chunk, &pages, map));
        let report = corridor.run_round(order.round, work, &mut rearm, &mut sink)?;
        sender.flush()?;
        Ok(report)
    }
}

/// The pages of `ranges` in blocks so small that the gaps of one take little memory.
fn blocks(ranges: Vec<PageRange>) -> impl Iterator<Item = PageRange> {
    ranges.into_iter().flat_map(|range| {
        let (start, end) = (range.start().get(), range.end().get());
        let bounds = (start..end).step_by(ABSENT_BLOCK_PAGES as usize);
        bounds.filter_map(move |first| {
            let beyond = PageIndex::new(end.min(first + ABSENT_BLOCK_PAGES));
            PageRange::new(PageIndex::new(first), beyond)
        })
    })
}

/// What one stream sends so soon that it may keep others from its processor: 64 MiB at most.
const SHORT_CHUNKS: usize = 32;

/// 32 MiB of the guest's memory, in which there are at most 64 KiB of gaps.
const ABSENT_BLOCK_PAGES: u64 = 16 * CHUNK_PAGES;

/// Frames and how many of them each of `stream_count` streams may have on their way, so that the
/// buffers of all streams together stay under [`BUFFERS_BYTES_MAX`]: with many streams frames are
/// as large as two for each allow.
pub(crate) fn within_budget(stream_count: u16, pack: PackConfig) -> (PackConfig, usize) {
    let stream_count = usize::from(stream_count.max(1));
    let besides_bytes = pack.buffer_bytes() - pack.frame_payload_bytes();
    let largest = BUFFERS_BYTES_MAX / (2 * stream_count) - besides_bytes;
    let payload_bytes = pack.frame_payload_bytes().min(largest);
    let pack = pack.with_frame_payload_bytes(payload_bytes);
    let each = BUFFERS_BYTES_MAX / (pack.buffer_bytes() * stream_count);
    (pack, each.saturating_sub(1).clamp(1, FRAMES_IN_FLIGHT_MAX))
}

/// Most bytes of all streams' buffers. What else a source holds, work lists and sets of pages
/// apart, fits in 28 MiB.
const BUFFERS_BYTES_MAX: usize = 36 << 20;
/// Most frames that a stream has on their way: more is no faster.
const FRAMES_IN_FLIGHT_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use limosa_wire::limits::FRAME_PAYLOAD_BYTES_MAX;

    use super::*;

    #[test]
    fn buffers_stay_within_their_budget_whatever_is_asked_for() {
        for stream_count in [0, 1, 2, 8, 16, 33, 64] {
            for payload_bytes in [0, 256 << 10, FRAME_PAYLOAD_BYTES_MAX as usize] {
                let asked = PackConfig::default().with_frame_payload_bytes(payload_bytes);
                let (pack, in_flight) = within_budget(stream_count, asked);
                let count = usize::from(stream_count.max(1)) * (in_flight + 1);
                let pool = BufferPool::new(in_flight + 1, &pack);
                let all = pool.overhead_bytes() / (in_flight + 1) * count;
                assert!(
                    all <= BUFFERS_BYTES_MAX,
                    "{stream_count} streams: {all} bytes"
                );
                assert!(pack.frame_payload_bytes() <= asked.frame_payload_bytes());
                assert!(stream_count > 16 || pack == asked, "{stream_count} streams");
            }
        }
        let (pack, _) = within_budget(64, PackConfig::default());
        assert_eq!(pack, PackConfig::default(), "64 streams fit as they are");
    }
}
