//! The target's side of the world: the real machine, landers and ledger, and a driver that does
//! what the machine asks for. It decides nothing; only its door, which lets streams in, is its own.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use limosa_pages::MemoryMap;
use limosa_pipeline::{FrameSource, GuestMemory, LandError, Landed, Lander, Ledger};
use limosa_session::target::{Action, Input};
use limosa_session::{FaultKind as LocalKind, LocalFault, Outcome, Target, Timestamp};
use limosa_wire::{
    Bind, EncodingSet, FRAME_HEADER_BYTES, FrameHeader, Message, MigrationId, Round, StateSection,
    StreamIndex, StreamSecret,
};
use vm_memory::VolatileSlice;

use super::checkers::{LedgerChecker, Wants};
use super::faults::FaultKind;
use super::guest::GuestCopy;
use super::link::Arrival;
use super::memory::{Landing, SimMemory};
use super::sabotage::Sabotage;
use super::world::{Event, Side, World};

/// The target host of one attempt.
pub(crate) struct TargetSide {
    pub(crate) machine: Target,
    pub(crate) secret: StreamSecret,
    pub(crate) is_alive: bool,
    pub(crate) outcome: Option<Outcome>,
    /// How many times longer than usual everything takes here.
    pub(crate) slowness: u64,
    /// Streams that were cut, whose next frame comes half.
    pub(crate) half_frames: Vec<usize>,
    door: Option<Door>,
    /// Streams that came before they were let in: each with its first frames.
    backlog: Vec<(usize, Vec<u8>)>,
    landing: Option<Arc<Landing>>,
    ledger: Option<Arc<Ledger>>,
    streams: Vec<TargetStream>,
}

/// Who is let in.
struct Door {
    migration_id: MigrationId,
    secret: StreamSecret,
    stream_count: u16,
    encodings: EncodingSet,
}

#[derive(Default)]
struct TargetStream {
    /// None until it is bound.
    lander: Option<Lander>,
    inbox: VecDeque<Vec<u8>>,
    is_landing: bool,
}

/// Longest that a slow host takes for one thing: beyond every time-out.
const WORK_US_MAX: u64 = 5_000_000;

/// Work that takes time.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum TargetWork {
    Prepare(MemoryMap),
    Restore(Vec<StateSection>),
    Survey,
    CheckLedger,
    Resume,
    /// A round's totals are wrong.
    Gap(String),
    /// A planted bug: the source's totals are taken for the own count.
    Believe(Round, Vec<u64>, u64),
}

impl TargetSide {
    pub(crate) const fn new(machine: Target, secret: StreamSecret) -> Self {
        Self {
            machine,
            secret,
            is_alive: true,
            outcome: None,
            slowness: 1,
            half_frames: Vec::new(),
            door: None,
            backlog: Vec::new(),
            landing: None,
            ledger: None,
            streams: Vec::new(),
        }
    }

    pub(crate) const fn is_active(&self) -> bool {
        self.is_alive && self.outcome.is_none()
    }

    pub(crate) fn timer(&self) -> Option<Timestamp> {
        self.machine.poll_timeout().filter(|_| self.is_active())
    }
}

fn local(kind: LocalKind, text: &dyn ToString) -> Input {
    let text = text.to_string();
    Input::LocalFailure(LocalFault { kind, text })
}

impl World {
    /// Gives the machine an input, and does all that it wants.
    pub(crate) fn tell_target(&mut self, input: Input) {
        if !self.target.is_active() {
            return;
        }
        self.note(|| match &input {
            Input::Message(message) => format!("Target hears {:?}", message.kind()),
            input => format!("Target: {input:?}"),
        });
        let now = self.timestamp();
        if let Err(misuse) = self.target.machine.handle(input, now) {
            let text = misuse.to_string();
            self.checks
                .progress
                .misuse(&text, &mut self.estate.findings);
        }
        self.drain_target();
        self.look();
    }

    fn drain_target(&mut self) {
        while self.target.is_active() {
            let Some(action) = self.target.machine.poll_action() else {
                return;
            };
            self.act_target(action);
        }
        if self.target.outcome.is_some() && self.target.is_alive {
            let machine = &mut self.target.machine;
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

    fn act_target(&mut self, action: Action) {
        let (plan, rng) = (&self.estate.plan.session, &mut self.estate.rng);
        let (usual_us, work) = match action {
            Action::Send(message) => return self.send_control(Side::Target, &message),
            Action::PrepareGuest(offer) => {
                let usual_us = plan.prepare_us.draw(rng);
                (usual_us, TargetWork::Prepare(offer.map))
            }
            Action::RestoreState(sections) => (800, TargetWork::Restore(sections)),
            Action::SurveyHost => (1500, TargetWork::Survey),
            Action::CheckLedger => (100, TargetWork::CheckLedger),
            Action::ResumeGuest => (plan.resume_us.draw(rng), TargetWork::Resume),
            Action::AcceptStreams {
                migration_id,
                secret,
                stream_count,
                encodings,
            } => {
                return self.open_door(Door {
                    migration_id,
                    secret,
                    stream_count,
                    encodings,
                });
            }
            Action::ConfirmRound {
                round,
                frames,
                pages,
            } => {
                let ledger = self.target.ledger.as_ref();
                let confirmed = ledger.map(|ledger| ledger.confirm(round, &frames, pages));
                match confirmed {
                    Some(Err(gap)) if self.estate.sabotage != Sabotage::BlindLedger => {
                        (1, TargetWork::Gap(gap.to_string()))
                    }
                    _ => return,
                }
            }
            Action::DropGuest => {
                self.there = None;
                self.runs_there = false;
                self.target.landing = None;
                self.target.ledger = None;
                self.target.streams.clear();
                return;
            }
            Action::CloseLink => return self.close_links(Side::Target),
            Action::Observe(event) => return self.note(|| format!("Target: {event:?}")),
            Action::Finished(outcome) => {
                self.note(|| format!("Target ends: {outcome:?}"));
                self.target.outcome = Some(outcome);
                return;
            }
        };
        let wait = self.some_time((usual_us * self.target.slowness).min(WORK_US_MAX));
        self.after(wait, Event::Target(work));
    }

    pub(crate) fn do_target(&mut self, work: TargetWork) {
        if !self.target.is_active() {
            return;
        }
        let answer = match work {
            TargetWork::Prepare(map) => self.prepare(&map),
            TargetWork::Restore(_) if self.faults.takes(FaultKind::FailRestore) => {
                local(LocalKind::Guest, &"a register can't be set")
            }
            TargetWork::Restore(sections) => {
                let bytes = sections.first().map(|section| &section.bytes[..]);
                self.checks.memory.restores(bytes.unwrap_or_default());
                self.runs_there |= self.estate.sabotage == Sabotage::StartsEarly;
                Input::StateRestored
            }
            TargetWork::Survey => self.survey(),
            TargetWork::CheckLedger => self.check_ledger(),
            TargetWork::Gap(text) => Input::BadPages(text),
            TargetWork::Believe(round, frames, pages) => Input::RoundLanded {
                round,
                frames,
                pages,
            },
            TargetWork::Resume => self.resume_there(),
        };
        self.tell_target(answer);
    }

    fn prepare(&mut self, map: &MemoryMap) -> Input {
        if self.faults.takes(FaultKind::RefusePrepare) {
            return local(LocalKind::Capacity, &"there is no memory left");
        }
        let made = SimMemory::new(map).and_then(|memory| {
            let landing = match self.estate.sabotage {
                Sabotage::LosesPages => Landing::losing_some(memory.clone())?,
                _ => Landing::new(memory.clone()),
            };
            Ok((memory, landing))
        });
        match made {
            Ok((memory, landing)) => {
                self.there = Some(GuestCopy::new(memory, map, self.estate.sabotage));
                self.target.landing = Some(Arc::new(landing));
                Input::GuestPrepared
            }
            Err(error) => local(LocalKind::Capacity, &error),
        }
    }

    fn survey(&mut self) -> Input {
        if self.faults.takes(FaultKind::FailSurvey) {
            return local(LocalKind::Kernel, &"the kernel can't be asked");
        }
        if self.faults.takes(FaultKind::ChangeHost) {
            self.checks.agreement.host_is_unfit();
            if self.estate.sabotage != Sabotage::TrustsHost {
                return Input::HostSurveyed(self.processors.other_host.clone());
            }
        }
        Input::HostSurveyed(self.processors.host.clone())
    }

    fn check_ledger(&self) -> Input {
        if self.estate.sabotage == Sabotage::BlindLedger {
            return Input::LedgerComplete;
        }
        match self.target.ledger.as_ref().map(|ledger| ledger.complete()) {
            Some(Ok(())) => Input::LedgerComplete,
            Some(Err(gap)) => Input::LedgerGap(gap.to_string()),
            None => Input::LedgerGap("there is no ledger".into()),
        }
    }

    fn resume_there(&mut self) -> Input {
        if self.faults.takes(FaultKind::FailResume) {
            self.checks.custody.fails_to_resume();
            return local(LocalKind::Guest, &"a processor does not start");
        }
        let Some(there) = &self.there else {
            return local(LocalKind::Guest, &"there is no guest");
        };
        let here = self.here.as_ref().map(|here| &*here.memory);
        let findings = &mut self.estate.findings;
        self.checks
            .memory
            .resumes_there(&there.memory, here, findings);
        self.checks.ledger.resumes_there(findings);
        self.checks.agreement.resumes_there(findings);
        self.runs_there = true;
        // Before anything can follow from it, such as the end of this host.
        self.look();
        Input::GuestResumed
    }

    fn open_door(&mut self, door: Door) {
        self.checks.agreement.lets_in(&mut self.estate.findings);
        let (Some(there), stream_count) = (&self.there, door.stream_count) else {
            return;
        };
        let map = there.memory.map();
        self.target.ledger = Some(Arc::new(Ledger::new(map, stream_count)));
        self.checks.ledger = LedgerChecker::new(stream_count.into());
        self.target
            .streams
            .resize_with(stream_count.into(), TargetStream::default);
        self.target.door = Some(door);
        for (stream, frame) in std::mem::take(&mut self.target.backlog) {
            self.after(Duration::ZERO, Event::FrameArrives(stream, frame));
        }
        if self.faults.takes(FaultKind::StrayStream) {
            let (migration_id, secret) = self.estate.before;
            let bind = Bind {
                secret,
                stream_count,
            };
            let frame = bind.frame(migration_id, StreamIndex::new(0));
            let wait = self.some_time(40_000);
            self.after(wait, Event::StrangerBinds(frame.to_vec()));
        }
    }

    /// Lets a stream in that shows the right frame, once; says which one it is.
    fn knock(&mut self, frame: &[u8]) -> Option<usize> {
        let door = self.target.door.as_ref()?;
        let (front, payload) = frame.split_first_chunk::<FRAME_HEADER_BYTES>()?;
        let header = FrameHeader::decode(front).ok()?;
        let bind = Bind::decode(&header, payload).ok()?;
        let is_right = header.migration_id == door.migration_id
            && bind.secret == door.secret
            && bind.stream_count == door.stream_count;
        let stream = usize::from(header.stream.get());
        let part = self.target.streams.get_mut(stream).filter(|_| is_right)?;
        let (landing, ledger) = (self.target.landing.as_ref()?, self.target.ledger.as_ref()?);
        if part.lander.is_some() {
            return None;
        }
        part.lander = Some(Lander::new(
            landing.clone(),
            ledger.clone(),
            door.migration_id,
            header.stream,
            door.encodings,
        ));
        Some(stream)
    }

    pub(crate) fn stranger_binds(&mut self, frame: &[u8]) {
        if self.target.is_active() && self.knock(frame).is_some() {
            self.checks
                .progress
                .misuse("a stranger was let in", &mut self.estate.findings);
        }
    }

    pub(crate) fn frame_arrives(&mut self, stream: usize, mut frame: Vec<u8>) {
        let now = self.now();
        let Some(lane) = self.lanes.pages.get(stream) else {
            return;
        };
        match lane.arrive(now) {
            Arrival::Now => {}
            Arrival::At(later) => {
                return self
                    .estate
                    .agenda
                    .at(later, Event::FrameArrives(stream, frame));
            }
            Arrival::Never => {
                let halves = &mut self.target.half_frames;
                let Some(found) = halves.iter().position(|half| *half == stream) else {
                    return;
                };
                halves.swap_remove(found);
                frame.truncate(self.estate.rng.below(frame.len() as u64) as usize);
            }
        }
        if !self.target.is_active() {
            return;
        }
        if self.target.door.is_none() {
            return self.target.backlog.push((stream, frame));
        }
        let Some(part) = self.target.streams.get_mut(stream) else {
            return;
        };
        if part.lander.is_none() {
            return self.bind(stream, &frame);
        }
        part.inbox.push_back(frame);
        self.land_soon(stream);
    }

    fn bind(&mut self, stream: usize, frame: &[u8]) {
        self.lanes.pages[stream].consumed(frame.len());
        if self.knock(frame).is_none() {
            return self.lose_stream(Side::Target, stream);
        }
        if self.faults.takes(FaultKind::TwinStream) {
            let wait = self.some_time(40_000);
            self.after(wait, Event::StrangerBinds(frame.to_vec()));
        }
        if self.target.streams.iter().all(|part| part.lander.is_some()) {
            self.tell_target(Input::StreamsAccepted);
        }
    }

    fn land_soon(&mut self, stream: usize) {
        let Some(part) = self.target.streams.get_mut(stream) else {
            return;
        };
        let Some(frame) = part.inbox.front().filter(|_| !part.is_landing) else {
            return;
        };
        part.is_landing = true;
        let us = 5 + frame.len() as u64 / 2000;
        let wait = self.some_time(us * self.target.slowness.min(100));
        self.after(wait, Event::LandNext(stream));
    }

    pub(crate) fn land_next(&mut self, stream: usize) {
        let Some(part) = self.target.streams.get_mut(stream) else {
            return;
        };
        part.is_landing = false;
        let Some(frame) = part.inbox.pop_front().filter(|_| self.target.is_alive) else {
            return;
        };
        let Some(lander) = part.lander.as_mut() else {
            return;
        };
        self.lanes.pages[stream].consumed(frame.len());
        let landed = lander.land(&mut OneFrame(&frame));
        if landed.is_ok() {
            self.checks.ledger.lands(stream, &frame);
        }
        match landed {
            Ok(Landed::Barrier {
                round,
                complete: true,
            }) => self.round_landed(round),
            Ok(_) => {}
            Err(_) if self.estate.sabotage == Sabotage::BlindLedger => {}
            Err(LandingEnd::Ended) => self.lose_stream(Side::Target, stream),
            Err(LandingEnd::Land(error)) => self.tell_target(Input::BadPages(error.to_string())),
        }
        self.land_soon(stream);
    }

    fn round_landed(&mut self, round: Round) {
        let totals = self
            .target
            .ledger
            .as_ref()
            .and_then(|ledger| ledger.landed(round));
        let Some(totals) = totals.filter(|_| self.estate.sabotage != Sabotage::BlindLedger) else {
            return;
        };
        self.tell_target(Input::RoundLanded {
            round,
            frames: totals.frame_counts,
            pages: totals.pages.total(),
        });
    }

    /// A planted bug: what the source says of a round is taken for what was counted here.
    pub(crate) fn overhear(&mut self, message: &Message) {
        if let (Message::RoundEnd(end), Sabotage::BlindLedger) = (message, self.estate.sabotage) {
            let believed = TargetWork::Believe(end.round, end.frames.clone(), end.pages);
            let wait = self.some_time(50_000);
            self.after(wait, Event::Target(believed));
        }
    }
}

/// Why a frame does not land.
#[derive(Debug, thiserror::Error)]
enum LandingEnd {
    #[error(transparent)]
    Land(#[from] LandError),
    #[error("the stream ended")]
    Ended,
}

/// The bytes of a frame, or of the first part of one.
struct OneFrame<'a>(&'a [u8]);

impl FrameSource for OneFrame<'_> {
    type Error = LandingEnd;

    fn recv_exact(&mut self, into: &mut [u8]) -> Result<(), LandingEnd> {
        let (bytes, behind) = self
            .0
            .split_at_checked(into.len())
            .ok_or(LandingEnd::Ended)?;
        into.copy_from_slice(bytes);
        self.0 = behind;
        Ok(())
    }

    fn recv_into(&mut self, landing: &[VolatileSlice<'_>]) -> Result<(), LandingEnd> {
        for slice in landing {
            let count = slice.len().min(self.0.len());
            let (bytes, behind) = self.0.split_at(count);
            // A receiver writes what it has before it learns that no more comes.
            slice.copy_from(bytes);
            self.0 = behind;
            if count < slice.len() {
                return Err(LandingEnd::Ended);
            }
        }
        Ok(())
    }
}
