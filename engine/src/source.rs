//! The rooms of the source in order, wired: the session's actions become work, and results inputs.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use limosa_pages::{CHUNK_PAGES, ChunkIndex, MemoryMap, PAGE_BYTES, PageRange, PageSet};
use limosa_pipeline::{
    GuestMemory, Heat, Held, PackConfig, Shares, StreamReport, clear_set, share_out,
};
use limosa_session::{Harvest, Rehearsal, RoundPlan, RoundReport, Slowdown};
use limosa_transport::{Endpoint, PageLink, Splice, Wait, connect_stream};
use limosa_wire::{
    Bind, EncodingCounts, EncodingSet, MigrationId, RoundKind, StateSection, StreamIndex,
    StreamSecret,
};

use crate::cancel::CancelToken;
use crate::config::MigrationConfig;
use crate::control::Control;
use crate::error::Cause;
use crate::guest::SourceGuest;
use crate::observe::{Moment, Observer, Progress};
use crate::report::{RoundFigures, SourceReport};
use crate::sending::{Sending, SendingPlan, SharedDirty, StreamNews, StreamWork, within_budget};
use crate::switchover::{Marks, SourceMark as Mark};
use crate::urgency::ComesFirst;

/// Everything that a migration holds on the source. The driver owns the session; this does its
/// work.
pub(crate) struct SourceRooms<'a, G: SourceGuest> {
    pub(crate) guest: &'a mut G,
    pub(crate) target: &'a Endpoint,
    pub(crate) config: &'a MigrationConfig,
    pub(crate) cancel: &'a CancelToken,
    pub(crate) migration_id: MigrationId,
    pub(crate) control: Option<Control>,
    pub(crate) memory: Arc<dyn GuestMemory>,
    pub(crate) news: Sender<StreamNews>,
    pub(crate) clock: Marks<Mark>,
    pub(crate) report: SourceReport,
    sending: Option<Sending>,
    /// While the guest stands still.
    first: Option<ComesFirst>,
    dirty: Option<SharedDirty>,
    /// Pages of the next round; while it runs, its streams read them here.
    pages: Arc<PageSet>,
    heat: Heat,
    /// What the running round, or the last one, holds back.
    held: Held,
    /// Whether the target reads absent records.
    tells_absent: bool,
    round: Option<RunningRound>,
    last_harvest: Option<Instant>,
    last_told: Option<Instant>,
    dirty_bytes_per_second: Option<f64>,
    slowdown: Slowdown,
}

/// A round whose streams have not all reported.
struct RunningRound {
    plan: RoundPlan,
    begun: Instant,
    page_count: u64,
    /// How long the migration had rested before it.
    rested: Duration,
    reports: Vec<Option<StreamReport>>,
}

impl<'a, G: SourceGuest> SourceRooms<'a, G> {
    /// Empty rooms for one migration.
    pub(crate) fn new(
        guest: &'a mut G,
        target: &'a Endpoint,
        config: &'a MigrationConfig,
        cancel: &'a CancelToken,
        migration_id: MigrationId,
        news: Sender<StreamNews>,
    ) -> Self {
        let memory = guest.memory();
        let pages = Arc::new(PageSet::new(memory.map().end()));
        let heat = Heat::new(memory.map());
        Self {
            guest,
            target,
            config,
            cancel,
            migration_id,
            control: None,
            memory,
            news,
            clock: Marks::default(),
            report: SourceReport::default(),
            sending: None,
            first: None,
            dirty: None,
            pages,
            heat,
            held: Held::default(),
            tells_absent: false,
            round: None,
            last_harvest: None,
            last_told: None,
            dirty_bytes_per_second: None,
            slowdown: Slowdown::None,
        }
    }

    /// Opens and binds the page streams, and gives each a thread.
    pub(crate) fn open_streams(
        &mut self,
        stream_count: u16,
        encodings: EncodingSet,
        secret: StreamSecret,
    ) -> Result<(), Cause> {
        let bind = Bind {
            secret,
            stream_count,
        };
        let wait = Wait::at_most(self.config.link.connect_max).unless(self.cancel.flag());
        let mut pack =
            PackConfig::new(self.config.codec, encodings).with_staging(self.config.staging);
        if let Some(bytes) = self.config.frame_payload_bytes {
            pack = pack.with_frame_payload_bytes(bytes);
        }
        let mut link = self.config.link.clone();
        let (pack, frames_in_flight_max) = within_budget(stream_count, pack);
        link.frames_in_flight_max = frames_in_flight_max.min(link.frames_in_flight_max);
        let links: Vec<PageLink> = (0..stream_count)
            .map(StreamIndex::new)
            .map(|stream| {
                connect_stream(self.target, &link, self.migration_id, stream, &bind, &wait)
            })
            .collect::<Result<_, _>>()?;
        let plan = SendingPlan {
            memory: Arc::clone(&self.memory),
            migration_id: self.migration_id,
            pack,
            frames_in_flight_max: link.frames_in_flight_max,
            steering: self.config.steering.clone(),
        };
        let sending = Sending::start(links, &plan, &self.news)?;
        self.report.stream_count = stream_count;
        self.tells_absent = pack.sends_absent();
        if pack.sends_live() && self.config.link.splice == Splice::Auto {
            self.report.io += ", memory spliced";
        }
        self.sending = Some(sending);
        Ok(())
    }

    /// Begins to follow the guest's writes.
    pub(crate) fn start_tracking(&mut self) -> Result<(), Cause> {
        let mut dirty = self.guest.dirty_source()?;
        let begun = Instant::now();
        dirty.start()?;
        self.report.tracking_start = begun.elapsed();
        self.report.tracking = dirty.describe().into();
        self.dirty = Some(Arc::new(RwLock::new(dirty)));
        self.last_harvest = Some(Instant::now());
        Ok(())
    }

    /// Stops to follow them. Nothing depends on it any more, so a kernel that refuses is let be.
    pub(crate) fn stop_tracking(&mut self) {
        // A stream that is blocked holds the source for reading: it has to end first.
        self.sending = None;
        if let Some(dirty) = self.dirty.take() {
            let _ = dirty.write().unwrap_or_else(PoisonError::into_inner).stop();
        }
    }

    /// Adds what was written since the last harvest to the next round.
    pub(crate) fn harvest(&mut self) -> Result<Harvest, Cause> {
        let Some(dirty) = &self.dirty else {
            return Err(Cause::Host("writes are not being followed".into()));
        };
        let mut dirty = dirty.write().unwrap_or_else(PoisonError::into_inner);
        let pages = own(&mut self.pages);
        dirty.harvest(pages)?;
        self.clock.mark_after(Mark::Paused, Mark::Harvested);
        let held = std::mem::take(&mut self.held);
        // What is found in the pause was written in next to no time, and partly in none; before the
        // first round all of memory is found.
        let is_running = self.clock.at(Mark::PauseAsked).is_none();
        if let Some(last) = self.last_harvest.replace(Instant::now())
            && is_running
            && !self.report.rounds.is_empty()
        {
            self.heat.learn(pages, &held, last.elapsed());
        }
        drop(dirty);
        Ok(self.with_held(held))
    }

    /// What was held back waits for the next round with the others.
    fn with_held(&mut self, mut held: Held) -> Harvest {
        let (held_count, held_pages_per_second) = (held.page_count(), held.pages_per_second());
        let pages = own(&mut self.pages);
        held.give_back(pages);
        Harvest {
            left: pages.count(),
            held: held_count,
            held_pages_per_second,
        }
    }

    /// The guest's rate of writes, as the session reckons it: for progress.
    pub(crate) fn note_dirty_rate(&mut self, bytes_per_second: u64) {
        self.dirty_bytes_per_second = Some(bytes_per_second as f64);
    }

    /// The guest is held back, or no more: for progress.
    pub(crate) const fn note_slowdown(&mut self, slowdown: Slowdown) {
        self.slowdown = slowdown;
    }

    /// Tries a pause out.
    pub(crate) fn rehearse(&mut self) -> Result<Option<Rehearsal>, Cause> {
        let rehearsal = self.guest.rehearse()?;
        self.report.rehearsal = rehearsal;
        Ok(rehearsal)
    }

    /// Holds the guest back, or lets it go again.
    pub(crate) fn slow(&mut self, slowdown: Slowdown) -> Result<(), Cause> {
        Ok(self.guest.slow(slowdown)?)
    }

    /// Stops the guest.
    pub(crate) fn pause(&mut self) -> Result<(), Cause> {
        self.first = Some(ComesFirst::here());
        self.clock.mark(Mark::PauseAsked);
        self.guest.pause()?;
        self.clock.mark(Mark::Paused);
        Ok(())
    }

    /// Takes what must travel besides memory.
    pub(crate) fn export_state(&mut self) -> Result<Vec<StateSection>, Cause> {
        let state = self.guest.export_state()?;
        self.clock.mark(Mark::Exported);
        Ok(state)
    }

    /// The target runs the guest.
    pub(crate) fn release(&mut self) -> Result<(), Cause> {
        self.clock.mark(Mark::Running);
        Ok(self.guest.release()?)
    }

    /// Sends the harvested pages; the streams report one by one to
    /// [`stream_sent`](Self::stream_sent).
    pub(crate) fn start_round(&mut self, plan: RoundPlan) -> Result<(), Cause> {
        if plan.kind == RoundKind::Full {
            self.find_all_pages()?;
        }
        if plan.kind == RoundKind::Live {
            let pages = own(&mut self.pages);
            self.held = self
                .heat
                .hold_back(pages, plan.hold.pages_max, plan.hold.horizon);
        }
        let Some(sending) = &self.sending else {
            return Err(Cause::Host("no page streams are open".into()));
        };
        let map = self.memory.map();
        let stream_count = self.report.stream_count;
        let Shares { mut owned, free } = share_out(&self.pages, map, sending.owners());
        let chunk_count = owned.iter().map(Vec::len).sum::<usize>() + free.all().len();
        if plan.kind == RoundKind::Live {
            let chunks = owned.iter_mut();
            chunks.for_each(|chunks| self.heat.coldest_first(chunks));
        }
        let free = Arc::new(free);
        let work = owned
            .into_iter()
            .zip(0..)
            .map(|(chunks, stream)| StreamWork {
                pages: Arc::clone(&self.pages),
                chunks,
                free: Arc::clone(&free),
                absent: match plan.kind {
                    RoundKind::Full => share_of(map, stream, stream_count),
                    RoundKind::Live | RoundKind::Final => Vec::new(),
                },
            });
        let rearm = match plan.kind {
            // The guest stands still: nothing is written that would have to be recorded.
            RoundKind::Final => None,
            RoundKind::Full | RoundKind::Live => self.dirty.as_ref(),
        };
        let tracking = self.dirty.as_ref().map_or(0, |dirty| {
            let dirty = dirty.read().unwrap_or_else(PoisonError::into_inner);
            dirty.overhead_bytes()
        });
        let list_bytes = chunk_count * size_of::<ChunkIndex>();
        let held_bytes = self.pages.overhead_bytes()
            + self.heat.overhead_bytes()
            + self.held.overhead_bytes()
            + list_bytes
            + tracking;
        let overhead_bytes = sending.overhead_bytes() + held_bytes as u64;
        self.report.overhead_bytes = self.report.overhead_bytes.max(overhead_bytes);
        self.round = Some(RunningRound {
            plan,
            begun: Instant::now(),
            page_count: self.pages.count().get(),
            rested: self.config.steering.rested(),
            reports: vec![None; usize::from(stream_count)],
        });
        sending.start_round(plan.round, work.collect(), rearm);
        self.clock
            .mark_after(Mark::Harvested, Mark::LastRoundOrdered);
        Ok(())
    }

    /// Makes the harvested pages all that may hold anything; the others are told to be absent, as
    /// long as the target understands that.
    fn find_all_pages(&mut self) -> Result<(), Cause> {
        let pages = own(&mut self.pages);
        if !self.tells_absent {
            let regions = self.memory.map().regions().iter();
            regions.for_each(|region| pages.insert_range(*region));
            return Ok(());
        }
        // A source of writes may leave out what holds nothing. Whether it does isn't for it alone
        // to say: what it does not watch may still hold something.
        for region in self.memory.map().regions() {
            let add = &mut |run| pages.insert_range(run);
            self.memory.each_present(*region, add)?;
        }
        Ok(())
    }

    /// A stream has sent its part; the last one ends the round.
    pub(crate) fn stream_sent(
        &mut self,
        stream: StreamIndex,
        report: StreamReport,
    ) -> Option<RoundReport> {
        let running = self.round.as_mut()?;
        *running.reports.get_mut(usize::from(stream.get()))? = Some(report);
        let reports: Vec<StreamReport> = running.reports.iter().copied().collect::<Option<_>>()?;
        let pages: EncodingCounts = reports.iter().map(|report| report.pages).sum();
        let idle = self.config.steering.rested().saturating_sub(running.rested);
        let figures = RoundFigures {
            round: running.plan.round,
            kind: running.plan.kind,
            pages,
            wire_bytes: reports.iter().map(|report| report.wire_bytes).sum(),
            stream_bytes: reports.iter().map(|report| report.wire_bytes).collect(),
            held_pages: self.held.page_count().get(),
            elapsed: running.begun.elapsed().saturating_sub(idle),
        };
        if figures.kind == RoundKind::Final {
            self.clock.mark(Mark::LastRoundSent);
        }
        self.round = None;
        clear_set(own(&mut self.pages));
        self.report.rounds.push(figures.clone());
        if let Some(sending) = &self.sending {
            self.report.rearm_longest = sending.rearm_longest();
        }
        Some(RoundReport {
            round: figures.round,
            pages,
            wire_bytes: figures.wire_bytes,
            frames: reports.iter().map(|report| report.frame_count).collect(),
            elapsed: figures.elapsed,
            idle,
        })
    }

    /// Tells the observer how far the running round is, unless it was told less than `every` ago.
    pub(crate) fn tell_progress(
        &mut self,
        begun: Instant,
        every: Duration,
        observer: &mut dyn Observer,
    ) {
        if self.last_told.is_some_and(|last| last.elapsed() < every) {
            return;
        }
        let (Some(sending), Some(running)) = (&self.sending, &self.round) else {
            return;
        };
        self.last_told = Some(Instant::now());
        let (pages, wire_bytes) = sending.progress();
        let seconds = running.begun.elapsed().as_secs_f64().max(1e-6);
        let bytes = |pages: u64| pages * PAGE_BYTES as u64;
        observer.on_moment(&Moment::Progress(Progress {
            round: running.plan.round,
            remaining_bytes: bytes(running.page_count.saturating_sub(pages)),
            wire_bytes,
            bytes_per_second: bytes(pages) as f64 / seconds,
            dirty_bytes_per_second: self.dirty_bytes_per_second,
            slowdown: self.slowdown,
            elapsed: begun.elapsed(),
        }));
    }

    /// Tells the observer of the round that has just begun, as it was then: its streams may have
    /// done much of it already.
    pub(crate) fn tell_round_start(&mut self, begun: Instant, observer: &mut dyn Observer) {
        let Some(running) = &self.round else {
            return;
        };
        self.last_told = Some(Instant::now());
        observer.on_moment(&Moment::Progress(Progress {
            round: running.plan.round,
            remaining_bytes: running.page_count * PAGE_BYTES as u64,
            wire_bytes: self.report.wire_bytes(),
            bytes_per_second: 0.0,
            dirty_bytes_per_second: self.dirty_bytes_per_second,
            slowdown: self.slowdown,
            elapsed: running.begun.saturating_duration_since(begun),
        }));
    }

    /// Tells the observer of the round that has just ended; from its figures, as meters may run
    /// behind.
    pub(crate) fn tell_round_end(&mut self, begun: Instant, observer: &mut dyn Observer) {
        let Some(last) = self.report.rounds.last() else {
            return;
        };
        self.last_told = Some(Instant::now());
        let bytes = last.pages.total() * PAGE_BYTES as u64;
        observer.on_moment(&Moment::Progress(Progress {
            round: last.round,
            remaining_bytes: 0,
            wire_bytes: self.report.wire_bytes(),
            bytes_per_second: bytes as f64 / last.elapsed.as_secs_f64().max(1e-6),
            dirty_bytes_per_second: self.dirty_bytes_per_second,
            slowdown: self.slowdown,
            elapsed: begun.elapsed(),
        }));
    }

    /// Nothing waits for this side any more: what it has left to do gives way to the guest, which
    /// may be on this host.
    pub(crate) fn calm(&mut self) {
        self.first = None;
        if let Some(sending) = &self.sending {
            sending.calm();
        }
    }

    /// Ends streams and control link, and waits for their threads.
    pub(crate) fn close(&mut self) {
        self.sending = None;
        self.control = None;
    }
}

/// The pages for this side alone: between rounds no stream reads them any more.
fn own(pages: &mut Arc<PageSet>) -> &mut PageSet {
    Arc::make_mut(pages)
}

/// The parts of `map` of whose absent pages one of `stream_count` streams tells: about as much as
/// each other one.
fn share_of(map: &MemoryMap, stream: u16, stream_count: u16) -> Vec<PageRange> {
    let chunk_count = map.end().get().div_ceil(CHUNK_PAGES);
    let cut = |stream: u16| {
        let chunk = chunk_count * u64::from(stream) / u64::from(stream_count.max(1));
        ChunkIndex::new(chunk).pages().start()
    };
    let share = PageRange::new(cut(stream), cut(stream + 1)).unwrap_or(PageRange::empty());
    let parts = map.regions().iter().map(|region| region.intersect(share));
    parts.filter(|part| !part.is_empty()).collect()
}
