//! The source's side of the world: the real machine and the real corridors, and a driver that does
//! what the machine asks for. It decides nothing.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use limosa_dirty::HarvestError;
use limosa_pages::{ChunkIndex, ChunkPages, MemoryMap, PageSet};
use limosa_pipeline::{
    BufferPool, ChunkOwners, ChunkWork, Corridor, FrameBuf, GuestMemory, PackConfig, PackError,
    Shares, StreamReport, share_out, work_of,
};
use limosa_session::source::{Action, Input};
use limosa_session::{
    Event as Told, FaultKind as LocalKind, LocalFault, Outcome, RoundPlan, RoundReport, Slowdown,
    Source, Timestamp,
};
use limosa_wire::{
    Bind, EncodingSet, FRAME_HEADER_BYTES, FrameHeader, FrameKind, MigrationId, RoundKind,
    SectionKind, StateSection, StreamIndex, StreamSecret,
};

use super::checkers::Wants;
use super::control::flip_bit;
use super::faults::FaultKind;
use super::foretold::Foretold;
use super::harvest::Harvests;
use super::link::Lane;
use super::sabotage::Sabotage;
use super::world::{Event, Side, World};

/// The source host of one attempt.
pub(crate) struct SourceSide {
    pub(crate) machine: Source,
    pub(crate) is_alive: bool,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) is_recording: bool,
    pub(crate) migration_id: MigrationId,
    pub(crate) pack: PackConfig,
    streams: Vec<SourceStream>,
    /// Of the streams that are open; none before.
    owners: Option<Arc<ChunkOwners>>,
    foretold: Foretold,
    pub(super) pages: PageSet,
    pub(super) harvests: Harvests,
    round: Option<Sending>,
}

struct SourceStream {
    /// None while its round runs.
    corridor: Option<Corridor>,
    is_lost: bool,
    /// A frame that the next one overtakes.
    held: Option<Vec<u8>>,
}

struct Sending {
    plan: RoundPlan,
    begun: Duration,
    work: Vec<Vec<ChunkWork>>,
    reports: Vec<Option<StreamReport>>,
}

/// Work that takes time.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum SourceWork {
    OpenStreams(u16, EncodingSet, StreamSecret),
    StartTracking,
    Rehearse,
    Harvest,
    Describe,
    Pause,
    Export,
}

/// Why a stream's round ends early.
#[derive(Debug, thiserror::Error)]
enum StreamStop {
    #[error(transparent)]
    Pack(#[from] PackError),
    #[error(transparent)]
    Harvest(#[from] HarvestError),
    #[error("the stream is lost")]
    Lost,
    #[error("the migration has ended")]
    Halted,
}

/// The one kind of state that a simulated guest has.
pub(crate) fn books_kind() -> SectionKind {
    SectionKind {
        name: "books".into(),
        version: 1,
    }
}

pub(super) fn local(kind: LocalKind, text: &dyn ToString) -> Input {
    let text = text.to_string();
    Input::LocalFailure(LocalFault { kind, text })
}

impl SourceSide {
    pub(crate) fn new(
        machine: Source,
        migration_id: MigrationId,
        pack: PackConfig,
        map: &MemoryMap,
    ) -> Self {
        let pages = PageSet::new(map.end());
        Self {
            machine,
            is_alive: true,
            outcome: None,
            is_recording: false,
            migration_id,
            pack,
            streams: Vec::new(),
            owners: None,
            foretold: Foretold::default(),
            harvests: Harvests::new(map),
            pages,
            round: None,
        }
    }

    pub(crate) const fn is_active(&self) -> bool {
        self.is_alive && self.outcome.is_none()
    }

    pub(crate) fn timer(&self) -> Option<Timestamp> {
        self.machine.poll_timeout().filter(|_| self.is_active())
    }
}

impl World {
    /// Gives the machine an input, and does all that it wants.
    pub(crate) fn tell_source(&mut self, input: Input) {
        if !self.source.is_active() {
            return;
        }
        self.note(|| match &input {
            Input::Message(message) => format!("Source hears {:?}", message.kind()),
            Input::StateExported(_) => "Source: state exported".into(),
            input => format!("Source: {input:?}"),
        });
        let now = self.timestamp();
        if let Err(misuse) = self.source.machine.handle(input, now) {
            let text = misuse.to_string();
            self.checks
                .progress
                .misuse(&text, &mut self.estate.findings);
        }
        self.drain_source();
        self.look();
    }

    pub(crate) fn drain_source(&mut self) {
        while self.source.is_active() {
            let Some(action) = self.source.machine.poll_action() else {
                return;
            };
            self.act_source(action);
        }
        if self.source.outcome.is_some() && self.source.is_alive {
            let machine = &mut self.source.machine;
            let wants_more = machine.poll_action().is_some() || machine.poll_timeout().is_some();
            let wants = if wants_more {
                Wants::More
            } else {
                Wants::Nothing
            };
            self.checks
                .progress
                .finishes(wants, &mut self.estate.findings);
        }
    }

    fn act_source(&mut self, action: Action) {
        let now = self.now();
        let work = match action {
            Action::Send(message) => return self.send_control(Side::Source, &message),
            Action::StartRound(plan) => return self.start_round(plan),
            Action::ResumeGuest => {
                self.runs_here = self.estate.sabotage != Sabotage::ForgetsToResume;
                return self.note(|| "Source lets the guest run on".into());
            }
            Action::ReleaseGuest => {
                if self.faults.struck().is_empty() {
                    let calibration = &mut self.estate.calibration;
                    self.source.foretold.comes_true(now, calibration);
                }
                return self.checks.custody.releases(&mut self.estate.findings);
            }
            Action::StopTracking => {
                self.source.is_recording = false;
                let stopped = self.here.as_mut().map(|here| here.dirty.stop());
                // A source that can't stop counts as stopped all the same.
                return drop(stopped);
            }
            Action::CloseLink => return self.close_links(Side::Source),
            Action::Observe(event) => {
                if let Told::Estimate { forecast, .. } = &event {
                    self.source.foretold.tells(now, *forecast);
                }
                return self.note(|| format!("Source: {event:?}"));
            }
            Action::Finished(outcome) => {
                self.note(|| format!("Source ends: {outcome:?}"));
                let in_transit = matches!(outcome, Outcome::InTransit(_));
                self.runs_here |= in_transit && self.estate.sabotage == Sabotage::ResumesInTransit;
                self.source.outcome = Some(outcome);
                return;
            }
            Action::OpenStreams {
                stream_count,
                encodings,
                secret,
            } => SourceWork::OpenStreams(stream_count, encodings, secret),
            Action::StartTracking => SourceWork::StartTracking,
            Action::Rehearse => SourceWork::Rehearse,
            Action::Slow(slowdown) => {
                self.estate.guest.slow(slowdown);
                return self.note(|| format!("Source: {slowdown}"));
            }
            Action::Harvest => SourceWork::Harvest,
            Action::DescribeGuest => SourceWork::Describe,
            Action::PauseGuest => {
                self.source.foretold.pauses(now);
                SourceWork::Pause
            }
            Action::ExportState => SourceWork::Export,
        };
        let wait = self.some_time(800);
        self.after(wait, Event::Source(work));
    }

    pub(crate) fn do_source(&mut self, work: SourceWork) {
        if !self.source.is_active() {
            return;
        }
        let answer = match work {
            SourceWork::OpenStreams(stream_count, encodings, secret) => {
                self.open_streams(stream_count, encodings, secret);
                Input::StreamsOpened
            }
            SourceWork::StartTracking => match self.here.as_mut().map(|here| here.dirty.start()) {
                Some(Ok(())) => {
                    self.source.is_recording = true;
                    Input::TrackingStarted
                }
                other => local(LocalKind::Kernel, &format!("{other:?}")),
            },
            SourceWork::Rehearse => self.rehearse(),
            SourceWork::Harvest => self.harvest(),
            SourceWork::Describe if self.faults.takes(FaultKind::ChangeGuest) => {
                Input::GuestDescribed(self.processors.other_guest.clone())
            }
            SourceWork::Describe => Input::GuestDescribed(self.processors.guest.clone()),
            SourceWork::Pause if self.faults.takes(FaultKind::FailPause) => {
                local(LocalKind::Guest, &"a processor does not stop")
            }
            SourceWork::Pause => {
                self.runs_here = false;
                self.estate.guest.slow(Slowdown::None);
                self.checks.memory.pauses(self.estate.guest.books());
                Input::GuestPaused
            }
            SourceWork::Export if self.faults.takes(FaultKind::FailExport) => {
                local(LocalKind::Guest, &"a register can't be read")
            }
            SourceWork::Export => Input::StateExported(vec![StateSection {
                kind: books_kind(),
                bytes: self.estate.guest.books().digest().to_vec(),
            }]),
        };
        self.tell_source(answer);
    }

    fn open_streams(&mut self, stream_count: u16, encodings: EncodingSet, secret: StreamSecret) {
        self.checks.agreement.opens(&mut self.estate.findings);
        let Some(here) = &self.here else { return };
        self.source.pack = PackConfig::new(self.source.pack.codec(), encodings)
            .with_frame_payload_bytes(PackConfig::FRAME_PAYLOAD_BYTES_MIN);
        let (pack, migration_id) = (self.source.pack, self.source.migration_id);
        let owners = Arc::new(ChunkOwners::new(here.memory.map(), stream_count));
        for stream in (0..stream_count).map(StreamIndex::new) {
            let corridor = BufferPool::new(1, &pack).take().map(|buffer| {
                let memory = here.memory.clone();
                let owners = Arc::clone(&owners);
                Corridor::new(memory, migration_id, stream, owners, &pack, buffer)
            });
            self.source.streams.push(SourceStream {
                corridor,
                is_lost: false,
                held: None,
            });
            let shape = self.estate.plan.link.shape(&mut self.estate.rng);
            self.lanes
                .pages
                .push(Lane::new(shape, self.estate.rng.fork()));
        }
        self.source.owners = Some(owners);
        let bind = Bind {
            secret,
            stream_count,
        };
        for stream in 0..stream_count {
            let frame = bind.frame(migration_id, StreamIndex::new(stream));
            self.put_frame(stream.into(), frame.to_vec());
        }
    }

    fn start_round(&mut self, plan: RoundPlan) {
        let Some(here) = &self.here else { return };
        let map = here.memory.map();
        if plan.kind == RoundKind::Full {
            self.source.pages.union_with(&map.full_set());
        }
        if plan.kind == RoundKind::Live {
            self.source
                .harvests
                .hold_back(&mut self.source.pages, plan.hold);
        }
        let Some(owners) = &self.source.owners else {
            return;
        };
        let stream_count = self.source.streams.len();
        let Shares { mut owned, free } = share_out(&self.source.pages, map, owners);
        // Which stream is free first is chance.
        while let Some(chunk) = free.take() {
            let stream = self.estate.rng.below(stream_count as u64);
            if let Some(list) = owned.get_mut(stream as usize) {
                list.push(chunk);
            }
        }
        let pages = &self.source.pages;
        let work_of_each = |list: Vec<ChunkIndex>| {
            let work = list.into_iter().filter_map(|it| work_of(it, pages, map));
            work.collect()
        };
        let work = owned.into_iter().map(work_of_each).collect();
        self.source.pages.clear();
        self.source.round = Some(Sending {
            plan,
            begun: self.now(),
            work,
            reports: vec![None; stream_count],
        });
        for stream in 0..stream_count {
            let wait = self.some_time(300);
            self.after(wait, Event::SendPart(stream));
        }
    }

    /// Runs a stream's part of the round: one call of the real corridor, within which time passes
    /// whenever it asks for leave to read a chunk and whenever it hands frames over. Another
    /// stream's part that becomes due meanwhile runs inside, and this one waits for it.
    pub(crate) fn send_part(&mut self, stream: usize) {
        let Some(sending) = self.source.round.as_mut() else {
            return;
        };
        let plan = sending.plan;
        let work = sending
            .work
            .get_mut(stream)
            .map(std::mem::take)
            .unwrap_or_default();
        let corridor = self
            .source
            .streams
            .get_mut(stream)
            .and_then(|part| part.corridor.take());
        let Some(mut corridor) = corridor else { return };
        let world = RefCell::new(&mut *self);
        let sent = corridor.run_round(
            plan.round,
            &work,
            &mut |chunk, pages| {
                world
                    .borrow_mut()
                    .before_copy(stream, plan.kind, chunk, pages)
            },
            &mut |full| world.borrow_mut().take_frames(stream, full),
        );
        if let Some(part) = self.source.streams.get_mut(stream) {
            part.corridor = Some(corridor);
        }
        match sent {
            Ok(report) => self.part_sent(stream, report),
            Err(StreamStop::Halted) => {}
            Err(StreamStop::Lost) => self.lose_stream(Side::Source, stream),
            Err(StreamStop::Harvest(error)) => self.tell_source(local(LocalKind::Kernel, &error)),
            Err(StreamStop::Pack(error)) => self.tell_source(local(LocalKind::Memory, &error)),
        }
    }

    fn may_go_on(&self, stream: usize) -> Result<(), StreamStop> {
        if !self.source.is_active() || !self.estate.findings.is_empty() {
            return Err(StreamStop::Halted);
        }
        let is_lost = self
            .source
            .streams
            .get(stream)
            .is_none_or(|stream| stream.is_lost);
        if is_lost {
            Err(StreamStop::Lost)
        } else {
            Ok(())
        }
    }

    fn before_copy(
        &mut self,
        stream: usize,
        kind: RoundKind,
        chunk: ChunkIndex,
        pages: &mut ChunkPages,
    ) -> Result<(), StreamStop> {
        let wait = self.some_time(100);
        self.pass(wait);
        self.may_go_on(stream)?;
        // In the last round the guest stands still: nothing is written that had to be recorded.
        if kind != RoundKind::Final
            && let Some(here) = &self.here
        {
            here.dirty.rearm(chunk, pages)?;
        }
        let wait = self.some_time(100);
        self.pass(wait);
        self.may_go_on(stream)
    }

    fn take_frames(&mut self, stream: usize, mut full: FrameBuf) -> Result<FrameBuf, StreamStop> {
        let frames = frames_of(full.bytes());
        let wait = Duration::from_nanos(full.bytes().len() as u64) + self.some_time(50);
        full.clear();
        self.pass(wait);
        self.may_go_on(stream)?;
        for frame in frames {
            self.checks.ledger.seals(stream, &frame);
            self.send_frame(stream, frame);
        }
        while self
            .lanes
            .pages
            .get(stream)
            .is_some_and(|lane| !lane.has_room())
        {
            if !self.pass_one() {
                return Err(StreamStop::Halted);
            }
            self.may_go_on(stream)?;
        }
        Ok(full)
    }

    /// Sends a frame, unless something befalls it.
    fn send_frame(&mut self, stream: usize, mut frame: Vec<u8>) {
        let header = frame.first_chunk::<FRAME_HEADER_BYTES>();
        let header = header.and_then(|bytes| FrameHeader::decode(bytes).ok());
        let has_pages = header
            .is_some_and(|header| matches!(header.kind, FrameKind::Pages | FrameKind::Absent));
        if self.faults.takes(FaultKind::CorruptFrame) {
            flip_bit(&mut frame, self.estate.rng.number());
            self.checks.ledger.tampers();
        }
        if self.faults.takes(FaultKind::StaleFrame) {
            let stale = header.map(|header| resealed(header, self.estate.before.0, &frame));
            self.checks.ledger.tampers();
            self.put_frame(stream, stale.unwrap_or_default());
            // Only the name tells a stale frame that comes in the place of the right one.
            if self.estate.rng.chance(50) {
                return;
            }
        }
        if has_pages && self.faults.takes(FaultKind::DropFrame) {
            return self.checks.ledger.tampers();
        }
        if has_pages && self.faults.takes(FaultKind::RepeatFrame) {
            self.checks.ledger.tampers();
            self.put_frame(stream, frame.clone());
        }
        let Some(part) = self.source.streams.get_mut(stream) else {
            return;
        };
        let held = part.held.take();
        if held.is_none() && has_pages && self.faults.takes(FaultKind::SwapFrames) {
            part.held = Some(frame);
            return self.checks.ledger.tampers();
        }
        self.put_frame(stream, frame);
        if let Some(held) = held {
            self.put_frame(stream, held);
        }
    }

    /// Puts a frame, or the end of the stream, on its lane.
    pub(crate) fn put_frame(&mut self, stream: usize, frame: Vec<u8>) {
        let now = self.now();
        let lane = self.lanes.pages.get_mut(stream);
        if let Some(at) = lane.and_then(|lane| lane.send(now, frame.len())) {
            self.estate
                .agenda
                .at(at, Event::FrameArrives(stream, frame));
        }
    }

    fn part_sent(&mut self, stream: usize, report: StreamReport) {
        let now = self.now();
        let Some(sending) = self.source.round.as_mut() else {
            return;
        };
        if let Some(slot) = sending.reports.get_mut(stream) {
            *slot = Some(report);
        }
        let Some(reports) = sending.reports.iter().copied().collect::<Option<Vec<_>>>() else {
            return;
        };
        let report = RoundReport {
            round: sending.plan.round,
            pages: reports.iter().map(|report| report.pages).sum(),
            wire_bytes: reports.iter().map(|report| report.wire_bytes).sum(),
            frames: reports.iter().map(|report| report.frame_count).collect(),
            elapsed: now.saturating_sub(sending.begun),
            idle: Duration::ZERO,
        };
        self.source.round = None;
        self.tell_source(Input::RoundDone(report));
    }

    pub(crate) fn lose_stream(&mut self, side: Side, stream: usize) {
        let text = "the stream ended".to_owned();
        let index = StreamIndex::new(stream as u16);
        match side {
            Side::Source => {
                if let Some(part) = self.source.streams.get_mut(stream) {
                    part.is_lost = true;
                }
                self.tell_source(Input::StreamLost(index, text));
            }
            Side::Target => {
                self.tell_target(limosa_session::target::Input::StreamLost(index, text));
            }
        }
    }
}

/// The frames that lie in a buffer one behind the other.
fn frames_of(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while let Some(header) = bytes.first_chunk() {
        let length = FrameHeader::decode(header).map_or(bytes.len(), |header| header.frame_bytes());
        let (frame, behind) = bytes.split_at(length.min(bytes.len()));
        frames.push(frame.to_vec());
        bytes = behind;
    }
    frames
}

/// The same frame, as another migration would have sealed it.
fn resealed(header: FrameHeader, migration_id: MigrationId, frame: &[u8]) -> Vec<u8> {
    let header = FrameHeader {
        migration_id,
        ..header
    };
    let mut frame = frame.to_vec();
    if let Some(front) = frame.first_chunk_mut() {
        header.encode(front);
    }
    frame
}
